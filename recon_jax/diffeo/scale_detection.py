"""Scale detection: is the distance of two active pixels below a scale, or above it?

A network can solve these tasks only by forgetting where exactly the pixels are, at the scale of the
task and not beyond. All pairs of sites are listed on the host, images drawn from them on demand.

The label is +1 for a near pair (or one of the same block) and -1 for a far one. The released
two-dimensional generator has it so; the released one-dimensional training script swaps the two,
which changes nothing but the sign of the network.

Source: Tomasini et al. 2022 (arXiv 2210.01506), scale-detection tasks, and released code.
"""

from __future__ import annotations

import math
from functools import partial
from numbers import Integral
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, Shaped

from recon_jax.checks import check_integer, is_concrete

NEAR, FAR = 1, -1
DISTANCES = ("euclidean", "chebyshev")
TASKS = (1, 2)
MIN_SIZE = 4


class Pairs(NamedTuple):
    """Pairs of active sites and what they are labelled.

    Attributes:
      sites: int32 (M, 2), positions on a line; or (M, 2, 2), (row, column) of each of two pixels.
      labels: int32 (M,), +1 near, -1 far.
    """

    sites: Int[np.ndarray, "m 2 ..."]
    labels: Int[np.ndarray, " m"]


def _check_size(size: object) -> None:
    check_integer("size", size, MIN_SIZE, "there must be near and far pairs of pixels")


def _check_gap(gap: float) -> None:
    if not (math.isfinite(gap) and gap >= 0):
        raise ValueError(f"gap={gap} must be finite and 0 or more; 0 keeps every pair")


def _labelled(sites: np.ndarray, near: np.ndarray, far: np.ndarray, what: str) -> Pairs:
    """The pairs of either class, in order; ValueError if a class has none."""
    counts = int(near.sum()), int(far.sum())
    if not all(counts):
        raise ValueError(
            f"{what} leaves {counts[0]:,} near and {counts[1]:,} far pairs, and both classes need "
            "some; choose a smaller gap, or a scale nearer to the middle of the distances"
        )
    kept = near | far
    labels = np.where(near[kept], NEAR, FAR).astype(np.int32)
    return Pairs(sites[kept].astype(np.int32), labels)


def task_1d(size: int = 128, scale: int = 32, task: int = 1, gap: float = 0) -> Pairs:
    """All pairs of distinct sites of a line, labelled by their distance or by their blocks.

    Task 1, on a circle, with r = min(|i - j|, L - |i - j|): near if r < scale - gap, far if
    r >= scale + gap, else left out. Task 2: near if floor(i / scale) = floor(j / scale), else far.

    Args:
      size: L, number of sites, >= 4.
      scale: xi in sites, in 2 .. L // 2; in task 2 it must divide L.
      task: 1 for the distance, 2 for blocks.
      gap: g in sites, >= 0, on each side of the scale; of task 1 alone.

    Returns:
      `Pairs` with sites (M, 2), i < j, in lexicographic order.

    Raises:
      ValueError: a number is out of range, the scale does not divide the size (task 2), or a class
        is empty.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), tasks 1 and 2; of task 2 the released code
    ignores the gap, which is refused here.
    """
    _check_size(size)
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown; choose 1 for the distance, 2 for blocks")
    check_integer("scale", scale, 2, f"there are {size} sites", high=size // 2)
    _check_gap(gap)
    if task == 2:
        _check_blocks(size, scale, gap)
    sites = np.stack(np.triu_indices(size, 1), axis=1)
    if task == 2:
        near = np.equal(*(sites // scale).T)
        return _labelled(sites, near, ~near, f"scale={scale} with size={size}")
    along = sites[:, 1] - sites[:, 0]
    distance = np.minimum(along, size - along)
    what = f"gap={gap} around scale={scale} with size={size}"
    return _labelled(sites, distance < scale - gap, distance >= scale + gap, what)


def _check_blocks(size: int, scale: int, gap: float) -> None:
    if size % scale:
        divisors = ", ".join(str(d) for d in range(2, size // 2 + 1) if size % d == 0)
        raise ValueError(
            f"scale={scale} does not divide size={size} into blocks; choose one of {divisors}"
        )
    if gap:
        raise ValueError(f"gap={gap} has no meaning for blocks; leave it at 0, or choose task=1")


def sites_2d(size: int, include_diagonal: bool = False) -> Int[np.ndarray, "s 2"]:
    """(row, column) of the pixels that can be active, in the order of rows.

    Args:
      size: d, side of the image, >= 4.
      include_diagonal: also those with row = column, which the released generator leaves out.

    Returns:
      int32 (d (d - 1), 2), or (d^2, 2) with the diagonal.
    """
    _check_size(size)
    sites = np.stack(np.divmod(np.arange(size * size), size), axis=1).astype(np.int32)
    return sites if include_diagonal else sites[sites[:, 0] != sites[:, 1]]


def task_2d(
    size: int = 28,
    scale: float = 14,
    gap: float = 2,
    distance: str = "euclidean",
    *,
    periodic: bool = False,
    include_diagonal: bool = False,
) -> Pairs:
    """All unordered pairs of distinct pixels of a square, labelled by their distance.

    Near if r < scale - gap / 2, far if r >= scale + gap / 2, else left out. The released generator
    never makes a pixel of the main diagonal active, so it has d (d - 1) sites. For d = 28, scale
    14, gap 2 these are 120,767 near and 135,397 far pairs.

    Args:
      size: d, side of the image in pixels, >= 4.
      scale: xi in pixels, above 0.
      gap: g in pixels, >= 0, half of it on each side of the scale (in one dimension: all of it).
      distance: "euclidean", or "chebyshev" for the larger of the two coordinates.
      periodic: measure it on the torus.
      include_diagonal: also pairs with a pixel of the main diagonal.

    Returns:
      `Pairs` with sites (M, 2, 2), the first pixel before the second, in lexicographic order.

    Raises:
      ValueError: a number is out of range, the distance is unknown, or a class is empty.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), two-dimensional scale detection, released code.
    """
    sites = sites_2d(size, include_diagonal)
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; choose one of {', '.join(DISTANCES)}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale={scale} must be a finite number of pixels above 0")
    _check_gap(gap)
    first, second = np.triu_indices(len(sites), 1)
    along = np.abs(sites[first] - sites[second]).T
    if periodic:
        along = np.minimum(along, size - along)
    # Squares of whole numbers: a distance that equals the bound is not moved by rounding.
    measure, power = (along.max(0), 1) if distance == "chebyshev" else ((along**2).sum(0), 2)
    low, high = max(scale - gap / 2, 0) ** power, (scale + gap / 2) ** power
    pairs = np.stack([sites[first], sites[second]], axis=1)
    what = f"gap={gap} around scale={scale} with size={size}"
    return _labelled(pairs, measure < low, measure >= high, what)


def split(pairs: Pairs, num_train: int, num_test: int, seed: int = 0) -> tuple[Pairs, Pairs]:
    """Training and test pairs, as many of one class as of the other and none in both.

    Each class is brought into a random order that the seed alone decides, and cut to the length of
    the smaller one: the first of each are for training, the last for the test. So a larger training
    set holds the smaller one, and the test set of one size never changes.

    Args:
      pairs: from `task_1d` or `task_2d`.
      num_train: even, >= 2.
      num_test: even, >= 2.
      seed: of the order, >= 0; the released code has one fixed order too, which is another.

    Returns:
      Two `Pairs`; far and near take turns.

    Raises:
      ValueError: a number is odd or too small, or there are not as many pairs.
    """
    for name, value in (("num_train", num_train), ("num_test", num_test)):
        if not isinstance(value, Integral) or value < 2 or value % 2:
            raise ValueError(f"{name}={value!r} must be an even number, 2 or more: half a class")
    check_integer("seed", seed, 0)
    classes = [np.flatnonzero(pairs.labels == label) for label in (FAR, NEAR)]
    available = min(map(len, classes))
    if (num_train + num_test) // 2 > available:
        raise ValueError(
            f"num_train={num_train} and num_test={num_test} need "
            f"{(num_train + num_test) // 2:,} pairs of each class, and the smaller one has "
            f"{available:,}; ask for at most {2 * available:,} in all"
        )
    orders = [
        np.random.Generator(np.random.Philox(key=[seed, place])).permutation(rows)[:available]
        for place, rows in enumerate(classes)
    ]
    # Far and near alternate.
    turns = np.stack(orders, axis=1)
    train, test = (
        rows.reshape(-1) for rows in (turns[: num_train // 2], turns[available - num_test // 2 :])
    )
    return _rows(pairs, train), _rows(pairs, test)


def _rows(pairs: Pairs, rows: np.ndarray) -> Pairs:
    return Pairs(pairs.sites[rows], pairs.labels[rows])


def active_value(size: int, dimensions: int) -> float:
    """Value of an active pixel: sqrt(L / 2) on a line, d^2 / 2 on a square.

    Args:
      size: L or d.
      dimensions: 1 or 2.
    """
    return math.sqrt(size / 2) if dimensions == 1 else size**2 / 2


def check_sites(sites: ArrayLike, size: int, shape: tuple[int, ...]) -> Array:
    """The sites as an array; ValueError unless they are whole, (N, *shape), and in 0 .. size - 1.

    Args:
      sites: of N images; values are checked outside jit only.
      size: L or d.
      shape: of the sites of one image.
    """
    _check_size(size)
    if np.shape(sites)[1:] != shape or np.ndim(sites) != len(shape) + 1:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"sites must have shape (N, {expected}), got {np.shape(sites)}")
    if not jnp.issubdtype(jnp.result_type(sites), jnp.integer):
        raise ValueError(f"sites must be integers, got {jnp.result_type(sites)}")
    if is_concrete(sites) and np.size(sites):
        low, high = int(np.min(np.asarray(sites))), int(np.max(np.asarray(sites)))
        if low < 0 or high >= size:
            raise ValueError(f"sites run from {low} to {high}, outside 0 .. {size - 1}")
    return jnp.asarray(sites)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(places, length, value, dtype):
    rows = jnp.arange(len(places))[:, None]
    return jnp.zeros((len(places), length), dtype).at[rows, places].add(value)


def render_1d(
    sites: Shaped[ArrayLike, "..."], size: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "n l 1"]:
    """Images of pairs on a line: sqrt(L / 2) at the two sites, 0 elsewhere.

    Two active pixels in one place add up.

    Args:
      sites: (N, 2) whole numbers in 0 .. L - 1.
      size: L.
      dtype: of the images.

    Returns:
      (N, L, 1).

    Raises:
      ValueError: for sites of another shape or dtype, or (outside jit) out of range.
    """
    sites = check_sites(sites, size, (2,))
    return _draw(sites, size, active_value(size, 1), jnp.dtype(dtype))[:, :, None]


def render_2d(
    sites: Shaped[ArrayLike, "..."], size: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "n d d 1"]:
    """Images of pairs on a square: d^2 / 2 at the two pixels, 0 elsewhere.

    Two active pixels in one place add up.

    Args:
      sites: (N, 2, 2), (row, column) of each pixel, whole numbers in 0 .. d - 1.
      size: d.
      dtype: of the images.

    Returns:
      (N, d, d, 1).

    Raises:
      ValueError: for sites of another shape or dtype, or (outside jit) out of range.
    """
    sites = check_sites(sites, size, (2, 2))
    places = size * sites[:, :, 0] + sites[:, :, 1]
    drawn = _draw(places, size * size, active_value(size, 2), jnp.dtype(dtype))
    return drawn.reshape(-1, size, size, 1)
