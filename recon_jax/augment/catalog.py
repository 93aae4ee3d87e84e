"""Policies by name, for configs."""

from __future__ import annotations

from collections.abc import Callable

from recon_jax.augment.deformation import deformation
from recon_jax.augment.policies import Policy, crop_flip, no_augmentation, resized_crop_flip
from recon_jax.augment.strength import at_strength
from recon_jax.augment.views import view_policy


def _crop_flip_of(least: float) -> Callable[..., Policy]:
    """`resized_crop_flip` of another least area, in colour."""
    return lambda image_shape: resized_crop_flip(image_shape, (least, 1.0), 0.0)


def _views(image_shape: tuple[int, int, int], strength: float = 1.0, **options) -> Policy:
    """`view_policy` at one strength."""
    return at_strength(view_policy(image_shape, **options), strength)


# mae_crop_flip: of pretraining, and imagenet_crop_flip: of the linear probe, both in the released
# code of He et al. 2022 (arXiv 2111.06377), which resizes bicubically.
POLICIES = {
    "none": lambda image_shape: no_augmentation(),
    "crop_flip": crop_flip,
    "resized_crop_flip": resized_crop_flip,
    "mae_crop_flip": _crop_flip_of(0.2),
    "imagenet_crop_flip": _crop_flip_of(0.08),
    "deformation": deformation,
    "views": _views,
}


def make_policy(name: str, image_shape: tuple[int, int, int], **options) -> Policy:
    """Build a policy from its name.

    Args:
      name: a key of `POLICIES`.
      image_shape: (H, W, C).
      **options: of the policy.

    Raises:
      ValueError: for an unknown name, listing the known ones, or an option out of range.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown augmentation {name!r}; choose one of {', '.join(POLICIES)}")
    return POLICIES[name](image_shape, **options)
