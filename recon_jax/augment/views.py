"""Families of random views of images, for contrastive learning, by name."""

from __future__ import annotations

import inspect

from recon_jax.augment.colour_views import colour_views
from recon_jax.augment.grey_views import grey_views
from recon_jax.augment.policies import StrengthPolicy

VIEW_FAMILIES = {"colour": colour_views, "grey": grey_views}


def view_policy(
    image_shape: tuple[int, int, int], family: str = "auto", **ranges: float | tuple[float, float]
) -> StrengthPolicy:
    """Random views of images with one knob of strength, an argument that may be traced.

    `view_policy((8, 8, 1))(keys, images, 0.3)` are views at 0.3 of the full ranges.

    Args:
      image_shape: (H, W, C).
      family: a key of `VIEW_FAMILIES`; "auto" is "colour" for three channels, "grey" otherwise.
      **ranges: of the family at strength 1, where it has other defaults than wanted.

    Returns:
      The `StrengthPolicy`: strength 0 leaves images as they are, exactly.

    Raises:
      ValueError: for an unknown family or range, listing the known ones, or a number out of range.

    Source: Cosentino et al. 2022 (arXiv 2205.06926) for augmentations of growing strength; see the
      families for what they do.
    """
    if family == "auto":
        family = "colour" if image_shape[-1] == 3 else "grey"
    if family not in VIEW_FAMILIES:
        raise ValueError(
            f"unknown family of views {family!r}; choose one of auto, {', '.join(VIEW_FAMILIES)}"
        )
    make = VIEW_FAMILIES[family]
    known = list(inspect.signature(make).parameters)[1:]
    unknown = sorted(set(ranges) - set(known))
    if unknown:
        raise ValueError(
            f"unknown range {', '.join(unknown)} of {family} views; choose from {', '.join(known)}"
        )
    return make(image_shape, **ranges)
