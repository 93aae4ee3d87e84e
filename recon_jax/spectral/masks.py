"""Masks of pixels and patches: what masked autoencoders are trained to undo.

Source: Balestriero & LeCun 2024 (arXiv 2402.11337) and its released code for Bernoulli masks; the
moments of exact-count masks are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import is_concrete
from recon_jax.spectral.corruptions import (
    Corruption,
    ImageShape,
    PatchMask,
    check_range,
    check_shape,
    number,
    on_images,
)


def patch_grid(
    patch_size: int | tuple[int, int], image_shape: ImageShape
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a patch in pixels, and the rows and columns of patches of an image.

    Args:
      patch_size: side of a square patch, or (height, width), dividing the image.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the patch does not divide the image.
    """
    height, width, _ = check_shape(image_shape)
    sides = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    for side, length, name in zip(sides, (height, width), ("height", "width"), strict=True):
        if side < 1 or length % side:
            divisors = ", ".join(str(d) for d in range(1, length + 1) if length % d == 0)
            raise ValueError(
                f"patch_size={side} does not divide image {name} {length}; choose one of {divisors}"
            )
    return sides, (height // sides[0], width // sides[1])


def patch_index(
    patch_size: int | tuple[int, int], image_shape: ImageShape, *, per_channel: bool = False
) -> np.ndarray:
    """Which patch every scalar of the flattened image belongs to: (D,) integers from 0.

    Args:
      patch_size: side of a square patch, or (height, width), dividing the image.
      image_shape: (H, W, C).
      per_channel: if True every channel is masked on its own; else a patch covers all channels.

    Raises:
      ValueError: if the patch does not divide the image.
    """
    sides, (rows, columns) = patch_grid(patch_size, image_shape)
    y, x, c = np.indices(check_shape(image_shape))
    index = (y // sides[0]) * columns + x // sides[1]
    return (index + per_channel * rows * columns * c).reshape(-1)


def within_patches(scatter: Float[Array, "d d"], index: np.ndarray) -> Float[Array, "d d"]:
    """S o B: the entries of the scatter between scalars of one patch, zero elsewhere."""
    return jnp.where(index[:, None] == index[None, :], scatter, 0)


def _masked(keep_patches, index):
    """Corruption sampler from a sampler of kept patches (key, (N,)) -> (N, P) booleans."""

    def corrupt(key, images):
        keep = keep_patches(key, images.shape[0])[:, index]
        return images * keep.reshape(images.shape).astype(images.dtype)

    return corrupt


def show_visible(mask: PatchMask, image_shape: ImageShape) -> Callable[[Array, Array], Array]:
    """Corruption sampler that sets all patches to 0 but those that `mask.visible` draws."""

    def keep_patch(key):
        return jnp.zeros(math.prod(mask.grid), bool).at[mask.visible(key)].set(True)

    def keep_patches(key, count):
        return jax.vmap(keep_patch)(jax.random.split(key, count))

    return _masked(keep_patches, patch_index(mask.patch_size, image_shape))


def patch_name(kind: str, amount: ArrayLike, patch_size: int | tuple[int, int]) -> str:
    """Name of a mask with its ratio or stride and the patch: "patch_mask(0.5, 4x4)"."""
    sides = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    return f"{kind}({number(amount)}, {sides[0]}x{sides[1]})"


def patch_mask(
    ratio: ArrayLike,
    patch_size: int | tuple[int, int],
    image_shape: ImageShape,
    *,
    per_channel: bool = False,
) -> Corruption:
    """Every patch is dropped independently with probability `ratio`; dropped pixels become 0.

    With q = 1 - ratio and B_ij = 1 where pixels i and j share a patch: G = q I and second moment
    S o (q^2 + q (1 - q) B).

    Args:
      ratio: probability that a patch is dropped, in [0, 1).
      patch_size: side in pixels, or (height, width); must divide the image.
      image_shape: (H, W, C).
      per_channel: mask every channel on its own; by default a patch covers all channels together.

    Raises:
      ValueError: if the ratio is out of range or the patch does not divide the image.

    >>> corruption = patch_mask(0.75, 4, (8, 8, 1))
    >>> [round(float(pixel), 3) for pixel in corruption.gain(jnp.ones((1, 64)))[0, :2]]
    [0.25, 0.25]
    """
    shape = check_shape(image_shape)
    check_range("ratio", ratio, 0, 1)
    index = patch_index(patch_size, shape, per_channel=per_channel)
    keep = 1 - ratio

    def second_moment(scatter, count):
        return keep**2 * scatter + keep * ratio * within_patches(scatter, index)

    def keep_patches(key, count):
        return jax.random.bernoulli(key, keep, (count, int(index.max()) + 1))

    return Corruption(
        name=patch_name("patch_mask", ratio, patch_size),
        corrupt=_masked(keep_patches, index),
        gain=on_images(lambda x: keep * x, shape),
        second_moment=second_moment,
    )


def pixel_mask(
    ratio: ArrayLike, image_shape: ImageShape, *, per_channel: bool = False
) -> Corruption:
    """Every pixel is dropped independently with probability `ratio`: patches of one pixel.

    See `patch_mask`; with `per_channel` every scalar is dropped on its own.

    Args:
      ratio: probability that a pixel is dropped, in [0, 1).
      image_shape: (H, W, C).
      per_channel: drop every channel of a pixel on its own.
    """
    masked = patch_mask(ratio, 1, image_shape, per_channel=per_channel)
    return masked._replace(name=f"pixel_mask({number(ratio)})")


def num_kept(ratio: float, num_patches: int) -> int:
    """How many of `num_patches` patches stay at a drop ratio, as in MAE: round((1 - ratio) P)."""
    return round((1 - ratio) * num_patches)


def patch_subset(
    ratio: ArrayLike, patch_size: int | tuple[int, int], image_shape: ImageShape
) -> Corruption:
    """Exactly m of the P patches are kept, a random subset for every image, as in MAE.

    m = round((1 - ratio) P), G = (m / P) I, second moment q2 S + (q - q2) S o B with q = m / P and
    q2 = m (m - 1) / (P (P - 1)).

    Args:
      ratio: fraction of patches dropped, in [0, 1); at least one patch must remain.
      patch_size: side in pixels, or (height, width); must divide the image into 2 patches or more.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the ratio is out of range, the patch does not divide the image, there is only
        one patch, or no patch would be kept.
    """
    shape = check_shape(image_shape)
    if not is_concrete(ratio):
        raise ValueError(
            "patch_subset needs a concrete ratio: the number of kept patches is static"
        )
    check_range("ratio", ratio, 0, 1)
    sides, grid = patch_grid(patch_size, shape)
    patches = math.prod(grid)
    kept = num_kept(float(ratio), patches)
    if patches < 2 or kept < 1:
        raise ValueError(
            f"ratio={ratio} keeps {kept} of {patches} patches; at least 1 of at least 2 must remain"
        )
    index = patch_index(sides, shape)
    q, q2 = kept / patches, kept * (kept - 1) / (patches * (patches - 1))

    def visible(key):
        # 32 random bits tie more rarely than a uniform float32, and are the same under x64.
        order = jnp.argsort(jax.random.bits(key, (patches,), jnp.uint32))
        return jnp.sort(order[:kept]).astype(jnp.int32)

    mask = PatchMask(sides, grid, kept, visible)
    return Corruption(
        name=patch_name("patch_subset", ratio, patch_size),
        corrupt=show_visible(mask, shape),
        gain=on_images(lambda x: q * x, shape),
        second_moment=lambda scatter, count: (
            q2 * scatter + (q - q2) * within_patches(scatter, index)
        ),
        mask=mask,
    )
