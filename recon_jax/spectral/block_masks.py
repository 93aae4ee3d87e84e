"""Masks in which patches go together: one rectangle hidden, or one patch of every group visible.

Such a mask is one of a short list that are equally likely, so its moments are means over the list.

Source: the block-wise and grid-wise sampling that He et al. 2022 (arXiv 2111.06377, Fig. 6) compare
with random patches, in forms whose moments are exact, derived here.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from recon_jax.checks import is_concrete
from recon_jax.spectral.corruptions import (
    Corruption,
    ImageShape,
    PatchMask,
    check_range,
    check_shape,
    on_images,
)
from recon_jax.spectral.masks import patch_grid, patch_index, patch_name, show_visible


def _equally_likely(
    name: str, masks: np.ndarray, patch_size: int | tuple[int, int], shape: ImageShape
) -> Corruption:
    """Corruption that draws one of the masks (M, P), True where visible, all with equal counts.

    With q_p and W_pp' the fractions of masks that show patch p, and both p and p': G = diag(q) and
    the second moment is S o W, patches standing for the pixels in them.
    """
    sides, grid = patch_grid(patch_size, shape)
    index = patch_index(sides, shape)
    shown = masks.mean(axis=0)[index].reshape(shape)
    both = masks.T.astype(np.float64) @ masks / len(masks)
    table = np.nonzero(masks)[1].reshape(len(masks), -1).astype(np.int32)

    def visible(key):
        return jnp.asarray(table)[jax.random.randint(key, (), 0, len(table))]

    def gain(images):
        weights = jnp.asarray(shown, jnp.result_type(images, float))
        return images * jnp.broadcast_to(weights, images.shape)

    def second_moment(scatter, count):
        return scatter * jnp.asarray(both, scatter.dtype)[index[:, None], index[None, :]]

    mask = PatchMask(sides, grid, table.shape[1], visible)
    return Corruption(name, show_visible(mask, shape), on_images(gain, shape), second_moment, mask)


def _rectangle(ratio: float, rows: int, columns: int) -> tuple[int, int]:
    """The rectangle of patches whose area is closest to the ratio, short of all patches."""
    patches = rows * columns
    sides = [(r, c) for r in range(1, rows + 1) for c in range(1, columns + 1) if r * c < patches]

    def miss(area):
        # Rounded, so that ties are ties whatever the ratio's last bit.
        return round(abs(area - ratio * patches), 9)

    best = min(sides, key=lambda s: (miss(s[0] * s[1]), abs(s[0] - s[1]), s[0]), default=None)
    if best is None or miss(patches) < miss(best[0] * best[1]):
        largest = max((r * c for r, c in sides), default=0)
        raise ValueError(
            f"ratio={ratio:g} would hide all {patches} patches of the {rows} x {columns} grid; "
            f"choose at most {largest / patches:.3g}, or smaller patches"
        )
    return best


def _all_but_a_rectangle(sides: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """The masks (M, P) that hide a rectangle, one for every position inside the grid."""
    inside = []
    for side, length in zip(sides, grid, strict=True):
        first, at = np.arange(length - side + 1)[:, None], np.arange(length)[None, :]
        inside.append((at >= first) & (at < first + side))
    hidden = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    return ~hidden.reshape(-1, math.prod(grid))


def block_mask(
    ratio: ArrayLike, patch_size: int | tuple[int, int], image_shape: ImageShape
) -> Corruption:
    """One rectangle of patches is hidden, at a uniformly random position in every image.

    The rectangle has the r x c patches, r c < P, for which r c is closest to ratio P; of several
    the one with the smallest |r - c|, then the flattest. All its positions inside the grid are
    equally likely, none wraps around. With k_p = 1 where patch p is visible: G = diag(E k_p) and
    second moment S o E[k_p k_p'], patches standing for the pixels in them.

    Patches near the centre are hidden more often than those near the border: gains differ over the
    image. With r > rows / 2 and c > columns / 2 the patches in the very middle are always hidden,
    and alignment then can end below 1. On an even square grid the rectangle is a strip of half the
    rows at a ratio of 1/2; at 3/4, about half of all patches are never visible.

    Args:
      ratio: fraction of patches hidden, in [0, 1), to which the nearest rectangle is taken: see
        `mask.num_visible`. 0 hides nothing, more hides one patch or more, but not all.
      patch_size: side in pixels, or (height, width); must divide the image.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the ratio is out of range, would hide all patches or is not known outside jit,
        or the patch does not divide the image.

    Source: one block instead of the several that Bao et al. 2022 (arXiv 2106.08254, BEiT) place
    until enough patches are hidden, which He et al. 2022 (arXiv 2111.06377, Fig. 6) compare with
    random patches. The moments are derived here.
    """
    shape = check_shape(image_shape)
    if not is_concrete(ratio):
        raise ValueError("block_mask needs a concrete ratio: the rectangle is static")
    check_range("ratio", ratio, 0, 1)
    _, grid = patch_grid(patch_size, shape)
    masks = np.ones((1, math.prod(grid)), bool)
    if float(ratio) > 0:
        masks = _all_but_a_rectangle(_rectangle(float(ratio), *grid), grid)
    return _equally_likely(patch_name("block_mask", ratio, patch_size), masks, patch_size, shape)


def grid_mask(
    stride: int, patch_size: int | tuple[int, int], image_shape: ImageShape
) -> Corruption:
    """One patch of every stride x stride group is visible, at the same place in all groups.

    The place is uniformly random in every image, so each of the stride^2 regular grids is equally
    likely. The ratio of hidden patches is 1 - 1 / stride^2, G = I / stride^2, and the second moment
    is S / stride^2 between pixels whose patches have the same place, 0 between all others.

    Args:
      stride: side of a group in patches, dividing the rows and columns of patches; 1 hides nothing.
      patch_size: side in pixels, or (height, width); must divide the image.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the stride does not divide the grid or the patch does not divide the image.

    Source: grid-wise sampling of He et al. 2022 (arXiv 2111.06377, Fig. 6), who keep one of every
    four patches. A place fixed for all images, as opposed to a random one, would never show three
    quarters of the pixels. The moments are derived here.
    """
    shape = check_shape(image_shape)
    _, (rows, columns) = patch_grid(patch_size, shape)
    common = math.gcd(rows, columns)
    if stride < 1 or common % stride:
        divisors = ", ".join(str(d) for d in range(1, common + 1) if common % d == 0)
        raise ValueError(
            f"stride={stride} does not divide the {rows} x {columns} grid of patches; choose one "
            f"of {divisors}"
        )
    y, x = np.indices((rows, columns)).reshape(2, -1) % stride
    masks = (y * stride + x)[None, :] == np.arange(stride**2)[:, None]
    return _equally_likely(patch_name("grid_mask", stride, patch_size), masks, patch_size, shape)
