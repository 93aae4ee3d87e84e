"""Policies of the papers' classifiers and autoencoders.

A policy is a pure function of keys (N,) and images (N, H, W, C), jit-compatible. Each image has a
key of its own (`training.example_keys`), so the same images come out of any number of devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax.augment.cropping import window

Policy = Callable[[Array, Float[Array, "n h w c"]], Float[Array, "n h w c"]]


@runtime_checkable
class StrengthPolicy(Protocol):
    """A policy with a knob: (keys (N,), images (N, H, W, C), strength) -> images.

    The strength is in [0, 1], a number or one an image (N,). Inside jit it may be traced, so that
    one compiled step serves all strengths; its range is checked outside jit only.
    """

    def __call__(
        self, keys: Array, images: Float[Array, "n h w c"], strength: ArrayLike
    ) -> Float[Array, "n h w c"]:
        """The augmented images."""
        ...


def no_augmentation() -> Policy:
    """Images as they are."""
    return lambda keys, images: images


def crop_flip(image_shape: tuple[int, int, int], padding: int | None = None) -> Policy:
    """Random crop of the reflect-padded image at its own size; every second one flipped.

    Args:
      image_shape: (H, W, C).
      padding: pixels on each side, in 0 .. min(H, W) - 1; an eighth of the shorter side if None, as
        the paper has it: 4 at 32 x 32, 8 at 64 x 64.

    Returns:
      The `Policy`.

    Raises:
      ValueError: if the padding is out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code, subspace classification.
    """
    shorter = min(image_shape[:2])
    padding = shorter // 8 if padding is None else padding
    if not 0 <= padding < shorter:
        raise ValueError(
            f"padding={padding} must be in 0..{shorter - 1} to reflect images of "
            f"{image_shape[0]} x {image_shape[1]}"
        )

    def one(key, padded):
        crop_key, flip_key = jax.random.split(key)
        cropped = dm_pix.random_crop(crop_key, padded, image_shape)
        return dm_pix.random_flip_left_right(flip_key, cropped)

    def policy(keys, images):
        border = (padding, padding)
        return jax.vmap(one)(keys, jnp.pad(images, ((0, 0), border, border, (0, 0)), "reflect"))

    return policy


def resized_crop_flip(
    image_shape: tuple[int, int, int],
    area: tuple[float, float] = (0.5, 1.0),
    grayscale: float = 0.2,
) -> Policy:
    """Random crop of part of the area, resized back, a flip of every second, grey now and then.

    Height and width of the crop are sqrt(a r) and sqrt(a / r) of the image's, a uniform in `area`
    and log r uniform in +- log(4/3), clipped to the image; the place is uniform. Sampled bilinearly
    by `jax.image.scale_and_translate` with antialiasing.

    Args:
      image_shape: (H, W, C).
      area: least and largest fraction of the area kept, 0 < least <= largest <= 1.
      grayscale: probability of losing colour, in [0, 1]; images without three channels keep theirs.

    Returns:
      The `Policy`.

    Raises:
      ValueError: if a number is out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code, guidance: area 0.5 to 1,
      flip, grey with probability 0.2.
    """
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area={area} must be two fractions 0 < least <= largest <= 1")
    if not 0 <= grayscale <= 1:
        raise ValueError(f"grayscale={grayscale} must be a probability in [0, 1]")
    sides = jnp.asarray(image_shape[:2], jnp.float32)
    colour = image_shape[2] == 3 and grayscale > 0

    def one(key, image):
        area_key, ratio_key, place_key, flip_key, grey_key = jax.random.split(key, 5)
        kept = jax.random.uniform(area_key, (), jnp.float32, *area)
        log_ratio = jax.random.uniform(ratio_key, (), jnp.float32, -1, 1) * jnp.log(4 / 3)
        place = jax.random.uniform(place_key, (2,), jnp.float32)
        first, shape = window(kept, log_ratio, place)
        # Pixel p of the crop is taken from (first + shape p / side) of the image.
        scale = (1 / shape).astype(image.dtype)
        shift = (-first * sides / shape).astype(image.dtype)
        image = jax.image.scale_and_translate(
            image, image_shape, (0, 1), scale, shift, "linear", antialias=True
        )
        image = dm_pix.random_flip_left_right(flip_key, image)
        if not colour:
            return image
        grey = dm_pix.rgb_to_grayscale(image, keep_dims=True)
        return jnp.where(jax.random.bernoulli(grey_key, grayscale), grey, image)

    return jax.vmap(one)
