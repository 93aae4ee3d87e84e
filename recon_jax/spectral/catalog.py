"""Corruptions by name, for configs: ("patch_mask", 0.5, 4)."""

from __future__ import annotations

from collections.abc import Sequence

from recon_jax.spectral.block_masks import block_mask, grid_mask
from recon_jax.spectral.corruptions import Corruption, compose, gaussian, identity
from recon_jax.spectral.linear_maps import blur, downsample, grayscale
from recon_jax.spectral.masks import patch_mask, patch_subset, pixel_mask

# correlated_gaussian and linear take arrays and functions, which have no place in a config.
CORRUPTIONS = {
    "identity": identity,
    "gaussian": gaussian,
    "pixel_mask": pixel_mask,
    "patch_mask": patch_mask,
    "patch_subset": patch_subset,
    "block_mask": block_mask,
    "grid_mask": grid_mask,
    "blur": blur,
    "downsample": downsample,
    "grayscale": grayscale,
}


def make_corruption(spec: Sequence, image_shape: tuple[int, int, int]) -> Corruption:
    """Build a corruption from a name and its arguments, or a chain from several of them.

    Args:
      spec: (name, *arguments) as the factory takes them before `image_shape`, or a sequence of such
        to apply one after the other: (("blur", 1.0), ("gaussian", 0.1)).
      image_shape: (H, W, C).

    Raises:
      ValueError: for an unknown name, listing the known ones, or arguments that do not fit.
    """
    if not spec:
        raise ValueError("a corruption needs a name, such as ('gaussian', 0.5)")
    if not isinstance(spec[0], str):
        return compose([make_corruption(part, image_shape) for part in spec], image_shape)
    name, *arguments = spec
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}")
    try:
        return CORRUPTIONS[name](*arguments, image_shape)
    except TypeError as error:
        raise ValueError(f"corruption {tuple(spec)}: {error}") from error
