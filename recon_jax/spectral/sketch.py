"""The top of the spectrum without a D x D matrix: the randomised range finder, streamed.

Pass 1 accumulates Y = S Omega for a Gaussian Omega (D, L); Q is an orthonormal basis of its range.
Pass 2 accumulates Z = S Q, and Rayleigh-Ritz on T = Q^T Z = W diag(theta) W^T gives the values
theta and vectors Q W. Everything is centred on the true mean as it is accumulated, and memory is
D x (L + 20). What is exact however rough the sketch is: count, mean, cross, class counts, trace(S),
and theta_k = v_k^T S v_k. How far theta_k can be from the eigenvalue is bounded by what was
streamed (`eigenvalue_bounds`).

Source: Halko, Martinsson & Tropp 2011 (arXiv 0909.4061), Algorithms 4.3 and 5.3, Lemma 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from recon_jax import parallel
from recon_jax.checks import check_integer
from recon_jax.linalg import fix_signs
from recon_jax.spectral.moments import (
    Moments,
    add_labels,
    add_product,
    centre_batch,
    reduce_moments,
)
from recon_jax.spectral.sharded_moments import narrow_moments, scatter_product, scatter_trace
from recon_jax.spectral.streaming import checked_triples, require_images

PROBES = 20
"""Random directions that measure the rest in the last pass."""


class Sketch(NamedTuple):
    """The leading L = rank + oversampling components of images, as well as a subspace holds them.

    Attributes:
      count: number of images N, int32 scalar; exact, as are mean, cross, class_counts and total.
      mean: mean image (D,).
      values: Ritz values theta (L,), descending: the scatter along each vector, never above the
        eigenvalue of the same place.
      vectors: Ritz vectors (D, L), orthonormal, with a fixed sign.
      total: trace(S), the sum of all D eigenvalues.
      coupling: ||S Q - Q T||_2, how strongly S couples the subspace to the rest.
      rest: above the largest eigenvalue of the rest (I - Q Q^T) S (I - Q Q^T) but for one draw of
        the random directions in a million.
      cross: X Y^T (D, C).
      class_counts: images of each class (C,), int32.
    """

    count: Int[Array, ""]
    mean: Float[Array, " d"]
    values: Float[Array, " l"]
    vectors: Float[Array, "d l"]
    total: Float[Array, ""]
    coupling: Float[Array, ""]
    rest: Float[Array, ""]
    cross: Float[Array, "d c"]
    class_counts: Int[Array, " c"]

    @property
    def num_features(self) -> int:
        """Number of scalars in an image, D = H W C."""
        return self.mean.shape[-1]


class Projected(NamedTuple):
    """What one pass accumulates on one device.

    Attributes:
      moments: with S R (D, L) in the place of the scatter.
      right: R (D, L).
      total: trace(S).
    """

    moments: Moments
    right: Float[Array, "d l"]
    total: Float[Array, ""]


def init_projected(right: Float[Array, "d l"], num_classes: int) -> Projected:
    """Statistics of no images, for products with R."""
    moments = narrow_moments(*right.shape, num_classes, right.dtype)
    return Projected(moments, right, jnp.zeros((), right.dtype))


def add_projected(state: Projected, images: Array, labels: Array, mask: Array) -> Projected:
    """Add a batch: S R + Z^T (Z R) and trace(S) + ||Z||_F^2; see `centre_batch`."""
    batch = centre_batch(state.moments, images, labels, mask)
    narrow = jnp.matmul(batch.rows, state.right, precision="highest")
    product = add_product(state.moments.scatter, batch.rows, narrow)
    moments = add_labels(state.moments, batch)._replace(scatter=product)
    return state._replace(moments=moments, total=state.total + jnp.sum(batch.rows**2))


def reduce_projected(state: Projected, axis_name: str) -> Projected:
    """The union over a device axis: one psum for each statistic; see `reduce_moments`."""
    own = state.moments
    moments = reduce_moments(own, axis_name, state.right)
    weight = own.count.astype(own.mean.dtype)
    apart = weight * jnp.sum((own.mean - moments.mean) ** 2)
    return state._replace(moments=moments, total=jax.lax.psum(state.total + apart, axis_name))


def check_rank(rank: int, oversampling: int, power_iterations: int, num_features: int) -> int:
    """L = rank + oversampling, at most D; ValueError for a number out of range."""
    for name, value, low in (
        ("rank", rank, 1),
        ("oversampling", oversampling, 0),
        ("power_iterations", power_iterations, 0),
    ):
        check_integer(name, value, low)
    if rank > num_features:
        raise ValueError(f"rank={rank} must be in 1..{num_features}, the pixels of an image")
    return min(rank + oversampling, num_features)


def _shared(compute: Callable[..., Array], *args: Any) -> Any:
    # Machines may round differently, and processes that differ in Q would sum unlike things.
    numbers = parallel.from_main(lambda: jax.tree.map(np.asarray, compute(*args)))
    return jax.tree.map(jnp.asarray, numbers)


@jax.jit
def _orthonormal(product):
    # Of one size first, because the squares of large sums over large images overflow float32.
    largest = jnp.abs(product).max()
    return jnp.linalg.qr(product / jnp.where(largest > 0, largest, 1))[0]


def _norm_bound(columns: Float[Array, "d r"]) -> Float[Array, ""]:
    """Bound on ||B||_2 from B omega for r Gaussian omega, wrong with probability 2^-r."""
    return 2 * math.sqrt(2 / math.pi) * jnp.sqrt(jnp.sum(columns**2, axis=0).max())


@jax.jit
def _rayleigh_ritz(basis, product):
    """Values, vectors, coupling and rest from Q (D, L) and S [Q, probes] (D, L + r)."""
    outside, probed = product[:, : basis.shape[1]], product[:, basis.shape[1] :]
    inner = jnp.matmul(basis.T, outside, precision="highest")
    values, rotation = jnp.linalg.eigh(inner, symmetrize_input=True)
    vectors = fix_signs(jnp.matmul(basis, rotation[:, ::-1], precision="highest"))
    # Of one size first, because the squares of sums over many large images overflow float32.
    largest = jnp.abs(product).max()
    largest = jnp.where(largest > 0, largest, 1)
    outside = _project_out(basis, outside / largest)
    squared = jnp.matmul(outside.T, outside, precision="highest")
    coupling = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(squared)[-1], 0))
    rest = _norm_bound(_project_out(basis, probed / largest))
    return jnp.maximum(values[::-1], 0), vectors, coupling * largest, rest * largest


def _project_out(basis, columns):
    inside = jnp.matmul(basis.T, columns, precision="highest")
    return columns - jnp.matmul(basis, inside, precision="highest")


@jax.jit
def _with_probes(basis, probes):
    return jnp.concatenate([basis, _project_out(basis, probes)], axis=1)


def _find_range(
    multiply: Callable[[Array], Array],
    key: Array,
    shape: tuple[int, int],
    dtype: DTypeLike,
    power_iterations: int,
) -> tuple[Array, ...]:
    """Values, vectors, coupling and rest of a matrix known by its products R -> S R.

    `multiply` is called 2 + power_iterations times.
    """
    first, second = jax.random.split(key)
    basis = _shared(jax.random.normal, first, shape, dtype)
    for _ in range(1 + power_iterations):
        basis = _shared(_orthonormal, multiply(basis))
    probes = jax.random.normal(second, (shape[0], PROBES), dtype)
    return _shared(_rayleigh_ritz, basis, multiply(_shared(_with_probes, basis, probes)))


def stream_sketch(
    batches: Callable[[], Iterable[tuple]],
    num_classes: int,
    rank: int,
    *,
    key: Array,
    oversampling: int = 10,
    power_iterations: int = 0,
    dtype: DTypeLike | None = None,
) -> Sketch:
    """The leading components of a stream of images, in two passes and memory D x (L + 20).

    Every device accumulates its share of each batch, with one collective at the end of a pass.

    Args:
      batches: called for every pass; returns the same batches each time, as for `stream_moments`.
      num_classes: C.
      rank: K, the number of components wanted, in [1, D].
      key: of the random directions; the same in every process.
      oversampling: p >= 0 further directions, L = min(K + p, D). 10 does for spectra that fall
        fast; photos gain more from a power iteration.
      power_iterations: q >= 0 further passes, each of which multiplies the range by S once more,
        which makes the spectrum that the random directions see fall faster.
      dtype: of the accumulation and the result; JAX's default float if None. In float32 values,
        total and coupling are right to about 1e-6 of the total.

    Returns:
      The Sketch of L components. It holds the spectrum of the images exactly where L is not less
      than their rank, as with L >= N - 1.

    Raises:
      ValueError: a number is out of range, `batches` does not give the same images every time, or
        a batch is refused by `stream_moments`.

    Source: Halko, Martinsson & Tropp 2011, Algorithms 4.3 and 4.4 with 5.3.
    """
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    first = next(checked_triples(batches(), num_classes), None)
    if first is None:
        require_images(None)
    size = int(np.prod(first[0].shape[1:]))
    columns = check_rank(rank, oversampling, power_iterations, size)
    passes: list[Projected] = []

    def multiply(right):
        triples = checked_triples(batches(), num_classes)
        initial = init_projected(right, num_classes)
        passes.append(parallel.device_fold(add_projected, initial, triples, reduce_projected))
        require_images(passes[-1].moments)
        _require_same(passes[0], passes[-1])
        return passes[-1].moments.scatter

    found = _find_range(multiply, key, (size, columns), dtype, power_iterations)
    return _as_sketch(passes[-1].moments, passes[-1].total, found)


def _as_sketch(moments: Moments, total: Array, found: tuple[Array, ...]) -> Sketch:
    values, vectors, coupling, rest = found
    return Sketch(
        count=moments.count,
        mean=moments.mean,
        values=values,
        vectors=vectors,
        total=total,
        coupling=coupling,
        rest=rest,
        cross=moments.cross,
        class_counts=moments.class_counts,
    )


def _require_same(first: Projected, other: Projected) -> None:
    counts = [np.asarray(state.moments.class_counts) for state in (first, other)]
    totals = [float(state.total) for state in (first, other)]
    if (counts[0] != counts[1]).any() or abs(totals[0] - totals[1]) > 1e-3 * totals[0]:
        raise ValueError(
            f"batches() gave {counts[0].sum()} images with squared norm {totals[0]:.6g} in the "
            f"first pass and {counts[1].sum()} with {totals[1]:.6g} in a later one; each call must "
            "return the same batches from the start, so pass a function that makes an iterator"
        )


def sketch_scatter(
    moments: Moments,
    rank: int,
    *,
    key: Array,
    oversampling: int = 10,
    power_iterations: int = 2,
) -> Sketch:
    """The leading components of a scatter matrix that is at hand, whole or sharded by rows.

    For images too large for `eigendecompose`: block subspace iteration with one Rayleigh-Ritz step,
    by products S R alone.

    Args:
      moments: of `stream_moments` or `stream_sharded_moments`.
      rank: K, in [1, D].
      key: of the random directions; the same in every process.
      oversampling: p >= 0, L = min(K + p, D).
      power_iterations: q >= 0; 2 + q products are taken.

    Returns:
      The Sketch of L components; see `stream_sketch`.

    Raises:
      ValueError: a number is out of range.
    """
    size, scatter = moments.num_features, moments.scatter
    columns = check_rank(rank, oversampling, power_iterations, size)
    found = _find_range(
        lambda right: scatter_product(scatter, right),
        key,
        (size, columns),
        scatter.dtype,
        power_iterations,
    )
    return _as_sketch(moments, scatter_trace(scatter), found)
