"""Policies with one knob: how strong they are, an argument beside the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from recon_jax.augment.checks import as_strengths, check_images, check_strength
from recon_jax.augment.policies import Policy, StrengthPolicy


def strength_policy(
    image_shape: tuple[int, int, int],
    draw: Callable[[Array], Any],
    apply: Callable[[Array, Array, Any], Array],
) -> StrengthPolicy:
    """A policy of what is drawn for an image and what is done to all images with it, compiled.

    Args:
      image_shape: (H, W, C).
      draw: key of an image -> pytree of random arrays, float32 whatever the images are, so that
        float64 images get the same.
      apply: (images, strengths (N,), draws with a leading axis N) -> images. All of the dtype of
        the images, or float32 if that is a shorter one.

    Returns:
      The `StrengthPolicy`. It raises ValueError for integer images or another shape, for another
      number of keys than images, and for a strength outside [0, 1] (checked outside jit).
    """

    @jax.jit
    def compiled(keys, images, strengths):
        draws = jax.tree.map(lambda x: x.astype(strengths.dtype), jax.vmap(draw)(keys))
        return apply(images.astype(strengths.dtype), strengths, draws).astype(images.dtype)

    def policy(keys, images, strength):
        check_images(keys, images, image_shape)
        dtype = jnp.promote_types(images.dtype, jnp.float32)
        return compiled(keys, images, as_strengths(strength, len(images), dtype))

    return policy


def at_strength(policy: StrengthPolicy, strength: ArrayLike) -> Policy:
    """The ordinary policy (keys, images) -> images at one strength.

    Args:
      policy: with a strength.
      strength: a number in [0, 1], or one an image (N,).

    Raises:
      ValueError: if a strength is outside [0, 1] (checked outside jit).
    """
    check_strength(strength)
    return lambda keys, images: policy(keys, images, strength)
