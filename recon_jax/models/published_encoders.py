"""Published image encoders, residual networks and vision transformers, as modules of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from recon_jax.checks import check_choice
from recon_jax.models import published_resnet, published_vit
from recon_jax.models.published_entries import ReadEncoder, entry_faults, refuse
from recon_jax.models.vit_classifier import POOLINGS
from recon_jax.models.weight_files import read_weights

# Of the channels of ImageNet's photographs in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class LinearHead(NamedTuple):
    """What a published classifier has behind its features: logits = features @ kernel + bias.

    Attributes:
      kernel: (D, classes).
      bias: (classes,).
    """

    kernel: Float[Array, "d k"]
    bias: Float[Array, " k"]


class PublishedEncoder(NamedTuple):
    """An image encoder with published weights.

    Attributes:
      family: "resnet" or "vit".
      module: `module.apply(variables, images)` are features (N, D) of normalised images.
      variables: float32.
      dimension: D.
      channels: of the images.
      notes: what whoever uses it should know, in sentences.
      mean: of each channel, subtracted from images in [0, 1] before the module sees them; None if
        they are taken as they are.
      std: of each channel, by which they are then divided; None likewise.
      head: of the classifier, if the weights have one.
    """

    family: str
    module: nn.Module
    variables: PyTree
    dimension: int
    channels: int
    notes: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    head: LinearHead | None


def _split_head(
    weights: Mapping[str, np.ndarray], name: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Entries without the head, and those of the head by "kernel" and "bias"."""
    names = (f"{name}.weight", f"{name}.bias")
    head = {entry: weights[entry] for entry in names if entry in weights}
    return {entry: w for entry, w in weights.items() if entry not in names}, head


def _head(entries: Mapping[str, np.ndarray], name: str, dimension: int) -> LinearHead | None:
    """The head of these entries, None without any; ValueError if they are not those of one."""
    if not entries:
        return None
    kernel, bias = f"{name}.weight", f"{name}.bias"
    classes = np.atleast_1d(entries.get(kernel, entries.get(bias))).shape[0]
    faults = entry_faults(entries, {kernel: (classes, dimension), bias: (classes,)})
    refuse("a linear head", faults, f"repair it, or leave {kernel} and {bias} out")
    return LinearHead(jnp.asarray(entries[kernel].T), jnp.asarray(entries[bias]))


def _normalization(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """What images are normalised by; ImageNet's if nothing is given and there are its channels."""
    if (mean is None) != (std is None):
        raise ValueError(f"mean={mean} and std={std} go together; give both, or neither")
    if mean is None:
        return (IMAGENET_MEAN, IMAGENET_STD) if channels == len(IMAGENET_MEAN) else (None, None)
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    if not len(mean) == len(std) == channels or not all(s > 0 for s in std):
        raise ValueError(
            f"mean={mean} and std={std} must have one number for each of the {channels} channels "
            "of the weights, those of std above 0"
        )
    return mean, std


def _arrays(weights: str | Path | Mapping[str, ArrayLike]) -> tuple[str, dict[str, np.ndarray]]:
    """What messages begin with, and the arrays, floating numbers as float32."""
    if not isinstance(weights, Mapping):
        return f"{weights}: ", read_weights(weights)
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    return "", {
        name: a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a
        for name, a in arrays.items()
    }


def _read(
    weights: Mapping[str, np.ndarray],
    heads: int | None,
    image_size: int | tuple[int, int] | None,
    pooling: str,
) -> tuple[ReadEncoder, LinearHead | None]:
    """The encoder, and the head if there is one."""
    if published_resnet.KERNEL in weights:
        name = published_resnet.HEAD
        rest, entries = _split_head(weights, name)
        found = published_resnet.read_resnet(rest)
    elif layout := published_vit.find_vit_layout(weights):
        name = published_vit.HEADS[layout.name]
        rest, entries = _split_head(weights, name)
        found = published_vit.read_vit(
            rest, layout, heads=heads, image_size=image_size, pooling=pooling
        )
    else:
        some = ", ".join(sorted(weights)[:6]) or "nothing"
        kernels = [each.names("encoder/embed/kernel")[0] for each in published_vit.LAYOUTS]
        known = ", ".join(dict.fromkeys((published_resnet.KERNEL, *kernels)))
        raise ValueError(
            f"no encoder is known by these names: {some}, ... ({len(weights)} in all); the first "
            f"kernel must be one of {known}; strip what its name has in front of that in a dict of "
            "models.read_weights; masked autoencoders are for models.load_published"
        )
    return found, _head(entries, name, found.dimension)


def load_encoder(
    weights: str | Path | Mapping[str, ArrayLike],
    *,
    heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    pooling: str = "class_token",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PublishedEncoder:
    """A residual network or vision transformer with published weights, as images -> features.

    Read are torchvision's ResNet-18, 34 and 50, whose names timm shares, and the plain vision
    transformers of timm and torchvision, of any width and depth. Each entry must find its place.
    Sizes are read off shapes. What has no parameters cannot be seen: other activations, poolings
    or strides are not refused.

        found = load_encoder("resnet50.safetensors")
        features = found.module.apply(found.variables, (images - mean) / std)
        encoder = audit.flax_encoder(found.module, found.variables, mean=found.mean, std=found.std)

    Args:
      weights: a file for `read_weights`, or arrays by name.
      heads: of a transformer's blocks; if None, 16 for the width of 1280, as ViT-Huge has it, and
        else width / 64. A wrong number is not noticed.
      image_size: side in pixels, or (H, W), to use a transformer at; if None, that of the weights.
        To another the positions are interpolated, as transformers does it; timm smooths them too
        where the grid shrinks, which moves features by about 1e-3. Residual networks take any
        images.
      pooling: of a transformer's tokens behind the last norm: "class_token", or "mean" over the
        patches without it.
      mean: of the channels of the images in [0, 1] that the weights were trained on; if None,
        those of ImageNet for 3 channels, as nearly all residual networks, DeiT and DINO expect.
        Transformers of the AugReg and original releases expect 0.5 in mean and std.
      std: likewise; both are handed on in the result, and change no weight.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for a file of PyTorch where that is not installed.
      ValueError: if a file is damaged; if names are those of another network; if entries are
        missing, unexpected, misshapen or not finite, all listed by name; if a number of heads is
        not known or does not divide; if patches do not divide `image_size`; if `mean` and `std` do
        not fit the channels.

    Source: He et al. 2016 (arXiv 1512.03385); Dosovitskiy et al. 2021 (arXiv 2010.11929).
    """
    check_choice("pooling", pooling, POOLINGS)
    where, arrays = _arrays(weights)
    try:
        found, head = _read(arrays, heads, image_size, pooling)
        mean, std = _normalization(found.channels, mean, std)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error
    return PublishedEncoder(**found._asdict(), mean=mean, std=std, head=head)
