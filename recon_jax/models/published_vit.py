"""Vision transformers as timm and torchvision name their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from recon_jax.models.feature_encoders import ViTFeatureEncoder
from recon_jax.models.positions import resize_positions
from recon_jax.models.published import ENCODER_HEADS
from recon_jax.models.published_entries import (
    ReadEncoder,
    entry_faults,
    refuse,
    shape_of,
    transformer_params,
    transformer_shapes,
)
from recon_jax.models.published_layouts import TIMM, TORCHVISION, Layout

LAYOUTS = (TIMM, *TORCHVISION)
HEADS = {"timm": "head", "torchvision": "heads.head"}
HEAD_WIDTH = 64
_WAY_OUT = (
    "encoders with a class token, learned positions, pre-norm blocks and an MLP 4 times as wide as "
    "the tokens can be read; strip what the names have in front of that, and leave out other "
    "parts, in a dict of models.read_weights; masked autoencoders are for models.load_published"
)


class _Sizes(NamedTuple):
    """What the arrays tell."""

    patch_size: int
    channels: int
    side: int  # of the square grid of patches
    first: int  # 1 if the class token has a position, which is then the first
    width: int


def find_vit_layout(names: Iterable[str]) -> Layout | None:
    """The layout that knows most of these names; None if none knows that of the embedding."""
    names = set(names)
    best = max(LAYOUTS, key=lambda layout: len(layout.known(names, "encoder")))
    return best if set(best.names("encoder/embed/kernel")) & names else None


def _heads_of(width: int, heads: int | None) -> int:
    """The given number of heads, or that of published transformers of this width."""
    if heads is not None:
        return heads
    if width not in ENCODER_HEADS and width % HEAD_WIDTH:
        raise ValueError(
            f"the weights do not tell the number of heads, and width={width} is no multiple of "
            f"{HEAD_WIDTH}, as wide as heads are in published transformers; give heads=..., a "
            f"divisor of {width}"
        )
    return ENCODER_HEADS.get(width, width // HEAD_WIDTH)


def _sizes(weights: Mapping[str, np.ndarray], layout: Layout) -> _Sizes:
    """Sizes from the shapes of embeddings; ValueError if these are missing or make no sense."""
    faults = {"missing": [], "misshapen": []}
    kernel, positions = layout.names("encoder/embed/kernel")[0], layout.positions["encoder"]
    width, channels, patch_size, other = shape_of(weights, kernel, 4, faults)
    places = shape_of(weights, positions, 3, faults)[1]
    if other != patch_size:
        faults["misshapen"].append(f"{kernel} {weights[kernel].shape}, patches not square")
    side = math.isqrt(places)
    first = int(side**2 != places)
    if first:
        side = math.isqrt(places - 1)
    if side**2 + first != places:
        faults["misshapen"].append(f"{positions} {weights[positions].shape}, grid not square")
    refuse(f"a vision transformer ({layout.name} layout)", faults, _WAY_OUT)
    return _Sizes(patch_size, channels, side, first, width)


def _with_positions(
    encoder: dict, positions: np.ndarray, sizes: _Sizes, grid: tuple[int, int]
) -> dict:
    """The encoder's parameters with those of its positions; that of the token is added to it."""
    places = resize_positions(positions[sizes.first :], (sizes.side,) * 2, grid)
    encoder = {**encoder, "positions": jnp.asarray(places, jnp.float32)}
    if sizes.first:
        encoder["class_token"] = encoder["class_token"] + jnp.asarray(positions[None, :1])
    return encoder


def read_vit(
    weights: Mapping[str, np.ndarray],
    layout: Layout,
    *,
    heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    pooling: str = "class_token",
) -> ReadEncoder:
    """A vision transformer without its head from the entries of one, all of which it must need.

    Args:
      weights: float32 arrays by name, without the head.
      layout: that `find_vit_layout` finds.
      heads: see `load_encoder`, as for the next two.
      image_size: to use the model at.
      pooling: of tokens.

    Raises:
      ValueError: if entries are missing, unexpected, misshapen or not finite, all listed by name;
        if the number of heads is not known or does not divide the width; if patches do not divide
        `image_size`.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929).
    """
    sizes = _sizes(weights, layout)
    own = (sizes.side * sizes.patch_size,) * 2
    image_size = own if image_size is None else image_size
    shape = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
    module = ViTFeatureEncoder(
        (*shape, sizes.channels),
        patch_size=sizes.patch_size,
        width=sizes.width,
        depth=max(1, layout.depth(weights, "encoder")),
        heads=_heads_of(sizes.width, heads),
        pooling=pooling,
    )
    fixed = module.clone(learned_positions=False)
    name = layout.positions["encoder"]
    expected = {
        name: (1, sizes.side**2 + sizes.first, sizes.width),
        **transformer_shapes(fixed, layout, ("encoder",)),
    }
    faults = entry_faults(weights, expected)
    refuse(f"a vision transformer ({layout.name} layout)", faults, _WAY_OUT)
    grid = tuple(side // sizes.patch_size for side in shape)
    params = transformer_params(weights, fixed, layout, ("encoder",))
    encoder = _with_positions(params["encoder"], weights[name][0], sizes, grid)
    notes = ()
    if shape != own:
        old, new = (" x ".join(map(str, sides)) for sides in ((sizes.side,) * 2, grid))
        notes = (f"positions of a {old} grid are interpolated to {new}",)
    variables = {"params": {"encoder": encoder}}
    return ReadEncoder("vit", module, variables, sizes.width, sizes.channels, notes)
