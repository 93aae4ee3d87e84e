"""Published weights of masked autoencoders as ours: sizes read off shapes, no entry ignored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from recon_jax.models.masked_autoencoder import MaskedAutoencoder
from recon_jax.models.positions import sincos_positions
from recon_jax.models.published_entries import (
    entry_faults,
    refuse,
    shape_of,
    transformer_params,
    transformer_shapes,
)
from recon_jax.models.published_layouts import Layout, find_layout

# Heads cannot be read off the weights. These are the published pairs of width and heads:
# ViT-Tiny, Small, Base, Large and Huge, and the decoder that all of them have.
ENCODER_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}
POSITION_TOLERANCE = 1e-4
_CLASSIFIER = ("head.", "fc_norm.", "classifier.")


class Published(NamedTuple):
    """A masked autoencoder with published weights.

    Attributes:
      model: of the sizes of the weights; `model.clone(dtype=jnp.bfloat16)` computes in less.
      params: for `model.apply({"params": params}, ...)`; of an encoder alone it has no "decoder".
      notes: what whoever uses it should know, in sentences.
    """

    model: MaskedAutoencoder
    params: PyTree
    notes: tuple[str, ...]


class Sizes(NamedTuple):
    """Sizes of a published model, as far as its arrays tell."""

    patch_size: int
    channels: int
    side: int  # of the square grid of patches
    width: int
    decoder_width: int | None


def _refuse(layout: Layout, faults: Mapping[str, list[str]]) -> None:
    """Raise ValueError if there are faults."""
    way_out = "give the file as it was published, or rename its entries"
    if any(name.startswith(_CLASSIFIER) for name in faults["unexpected"]):
        way_out = (
            "these are weights of a fine-tuned classifier; use those from before the fine-tuning"
        )
    refuse(f"a masked autoencoder ({layout.name} layout)", faults, way_out)


def _sizes(weights: Mapping[str, np.ndarray], layout: Layout, halves: tuple[str, ...]) -> Sizes:
    """Sizes from the shapes of embeddings; ValueError if these are missing or make no sense."""
    faults = {"missing": [], "unexpected": [], "misshapen": []}

    kernel = layout.names("encoder/embed/kernel")[0]
    width, channels, patch_size, other = shape_of(weights, kernel, 4, faults)
    places = shape_of(weights, layout.positions["encoder"], 3, faults)[1] - 1
    decoder_width = None
    if "decoder" in halves:
        name = layout.names("decoder/embed/kernel")[0]
        decoder_width = shape_of(weights, name, 2, faults)[0]
    if other != patch_size:
        faults["misshapen"].append(f"{kernel} {weights[kernel].shape}, patches not square")
    _refuse(layout, faults)
    side = math.isqrt(places)
    if places < 1 or side**2 != places:
        raise ValueError(
            f"{layout.positions['encoder']} has {places} positions after that of the class token, "
            "not the square of an integer; only weights of square images can be read"
        )
    return Sizes(patch_size, channels, side, width, decoder_width)


def _heads(what: str, option: str, width: int, given: int | None, table: Mapping[int, int]) -> int:
    if given is None and width not in table:
        raise ValueError(
            f"{what} width={width} is none of the published {', '.join(map(str, table))}, so its "
            f"number of heads must be given: {option}=..., a divisor of {width}"
        )
    return table[width] if given is None else given


def _model(
    weights: Mapping[str, np.ndarray],
    layout: Layout,
    sizes: Sizes,
    heads: int | None,
    decoder_heads: int | None,
    image_size: int | tuple[int, int] | None,
) -> MaskedAutoencoder:
    """The model that the weights, at images of this size, belong to."""
    own = (sizes.side * sizes.patch_size,) * 2
    image_size = own if image_size is None else image_size
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    options = {}
    if sizes.decoder_width is not None:
        width_of_decoder = sizes.decoder_width
        options = {
            "decoder_width": width_of_decoder,
            "decoder_depth": max(1, layout.depth(weights, "decoder")),
            "decoder_heads": _heads(
                "decoder", "decoder_heads", width_of_decoder, decoder_heads, DECODER_HEADS
            ),
        }
    return MaskedAutoencoder(
        (height, width, sizes.channels),
        patch_size=sizes.patch_size,
        width=sizes.width,
        depth=max(1, layout.depth(weights, "encoder")),
        heads=_heads("encoder", "heads", sizes.width, heads, ENCODER_HEADS),
        position_grid=None if (height, width) == own else (sizes.side, sizes.side),
        **options,
    )


def _expected(
    model: MaskedAutoencoder, layout: Layout, halves: tuple[str, ...], places: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every entry that a file of this model has."""
    widths = {"encoder": model.width, "decoder": model.decoder_width}
    positions = {layout.positions[half]: (1, places + 1, widths[half]) for half in halves}
    return {**positions, **transformer_shapes(model, layout, halves)}


def _position_tolerance(found: np.ndarray) -> float:
    """`POSITION_TOLERANCE`, and half a step more of the narrow format the numbers are stored in."""
    for dtype in (jnp.bfloat16, np.float16):
        if np.array_equal(found, found.astype(dtype).astype(found.dtype)):
            return POSITION_TOLERANCE + float(jnp.finfo(dtype).eps) / 4
    return POSITION_TOLERANCE


def _check_positions(name: str, found: np.ndarray, side: int) -> None:
    """Raise ValueError unless the positions are the fixed ones, zero for the class token."""
    fixed = sincos_positions(side, side, found.shape[2])
    fixed = np.concatenate([np.zeros_like(fixed[:1]), fixed])
    difference = float(np.abs(found[0] - fixed).max())
    if not difference <= _position_tolerance(found):
        # transformers 5.24 leaves them so in a model that is made from a configuration.
        how = "learned or made otherwise" if found.any() else "never set: all are zero"
        raise ValueError(
            f"{name} differs by up to {difference:.3g} from the fixed sines and cosines of a "
            f"{side} x {side} grid, so these positions were {how}; the model here has fixed ones, "
            "as masked autoencoders are published before fine-tuning"
        )


def _notes(model: MaskedAutoencoder, halves: tuple[str, ...]) -> Iterator[str]:
    if model.position_grid is not None:
        old, new = (" x ".join(map(str, grid)) for grid in (model.position_grid, model.grid))
        yield f"positions of a {old} grid are interpolated to {new}"
    if "decoder" not in halves:
        yield "the weights are of an encoder alone: it encodes images, but cannot reconstruct them"


def published_autoencoder(
    weights: Mapping[str, np.ndarray],
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Published:
    """A masked autoencoder with published weights, of whose entries each must find its place.

    Names are those of Hugging Face's ViTMAE or of the original release, with a decoder or without;
    sizes are read off the shapes.

    Args:
      weights: arrays by name, as `read_weights` returns them.
      heads: of the encoder's blocks; if None, those of the published models of that width.
      decoder_heads: of the decoder's blocks, likewise; not used if there is no decoder.
      image_size: side in pixels, or (H, W), to use the model at; if None, that of the weights. To
        another the positions are interpolated as a grid, in both halves. (transformers interpolates
        its decoder's as one long row, so that its reconstructions, not its latents, differ then.)

    Returns:
      Model, float32 parameters, and notes. Images are (N, H, W, C), normalised as the weights were
      trained: for the published ones by the channel means and deviations of ImageNet.

    Raises:
      ValueError: if entries are missing, unexpected, misshapen or not finite, all listed by name;
        if positions are not the fixed ones to 1e-4 and the rounding of 16 bits; if a number of
        heads is not known or does not divide; if patches do not divide `image_size`.

    Source: He et al. 2022 (arXiv 2111.06377).
    """
    layout = find_layout(weights)
    halves = tuple(half for half in ("encoder", "decoder") if layout.known(weights, half))
    sizes = _sizes(weights, layout, halves)
    model = _model(weights, layout, sizes, heads, decoder_heads, image_size)
    expected = _expected(model, layout, halves, sizes.side**2)
    _refuse(layout, entry_faults(weights, expected))
    for half in halves:
        _check_positions(layout.positions[half], weights[layout.positions[half]], sizes.side)
    params = transformer_params(weights, model, layout, halves)
    return Published(model, params, tuple(_notes(model, halves)))
