"""Bases of the directions that neighbours, augmentations and Jacobians span.

All of them are right singular vectors of rows that are not centred: the rows are differences or
derivatives, whose origin means something. Where there are fewer than `rank` directions, as among
duplicates, behind dead units or next to constant features, the columns that are left are zero, not
arbitrary vectors, and `subspace_alignment` counts them as overlap 0.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer

from recon_jax.checks import check_integer, is_concrete
from recon_jax.features import scaled_by_power_of_two
from recon_jax.geometry.checks import as_features, as_stack
from recon_jax.linalg import default_tolerance, fix_signs
from recon_jax.neighbors import nearest_neighbors

# Entries of the differences of one block, 2 MiB in float32: they are read several times.
_ENTRIES = 2**19


def neighbor_differences(
    features: Float[ArrayLike, "n d"],
    num_neighbors: int,
    *,
    queries: Integer[ArrayLike, " q"] | None = None,
) -> Float[Array, "q m d"]:
    """Rows h_j - h_i from points h_i to their M nearest neighbours h_j, nearest first.

    Neighbours are exact, by Euclidean distance; a point is not its own neighbour, its duplicates
    are.

    Args:
      features: h (N, D), one row a point.
      num_neighbors: M, in 1 .. N - 1.
      queries: indices (Q,) of the points h_i; all if None.

    Returns:
      (Q, M, D).

    Raises:
      ValueError: as `tangent_bases`.
    """
    features, queries = _checked(features, num_neighbors, queries)
    index = nearest_others(features, queries, num_neighbors)
    return features[index] - features[queries][:, None, :]


def tangent_bases(
    features: Float[ArrayLike, "n d"],
    num_neighbors: int,
    rank: int,
    *,
    queries: Integer[ArrayLike, " q"] | None = None,
    block_size: int | None = None,
) -> Float[Array, "q d k"]:
    """Estimates of the tangent plane of the data at its points: orthonormal bases.

    At h_i the top K right singular vectors of `neighbor_differences`, from the M x M Gram matrix of
    the differences. Squaring costs accuracy where singular values s are very unequal: the span is
    off by about eps (s_1 / s_K)^2 over the relative gap after s_K, and directions with
    s_k < 4 sqrt(eps) s_1, 0.14 % in float32, cannot be told from rounding: their columns are zero.

    Args:
      features: h (N, D), one row a point.
      num_neighbors: M, in 1 .. N - 1.
      rank: K, in 1 .. min(M, D).
      queries: indices (Q,) of the points at which; all if None.
      block_size: points at a time; the result does not depend on it. Memory beyond features and
        result is that of `nearest_neighbors` and some block_size * (M + K) * D numbers. If None, as
        many as keep the differences within 2 MiB of float32.

    Returns:
      (Q, D, K), strongest direction first, the entry of largest magnitude of each column positive
      (either of two that tie); columns are zero where a point has fewer directions.

    Raises:
      ValueError: if `features` is not such a matrix, not finite, or constant, queries are not in
        0 .. N - 1 (values: outside jit), or a number is out of range.

    Source: Cosentino et al. 2022 (arXiv 2205.06926), "a noisy estimate of the tangent plane".
    """
    features, queries = _checked(features, num_neighbors, queries)
    _check_rank(rank, num_neighbors, features.shape[1])
    if block_size is None:
        block_size = max(1, _ENTRIES // (num_neighbors * features.shape[1]))
    check_integer("block_size", block_size, 1, "how many points are decomposed at once")
    index = nearest_others(features, queries, num_neighbors)
    return _tangent_bases(features, queries, index, rank, min(block_size, len(queries)))


def displacement_basis(
    displacements: Float[ArrayLike, "*batch m d"], rank: int
) -> Float[Array, "*batch d k"]:
    """The K directions in which displacements are largest: top right singular vectors.

    Args:
      displacements: rows f(t(x)) - f(x) (..., M, D), one an augmentation t; not centred.
      rank: K, in 1 .. min(M, D).

    Returns:
      Orthonormal columns (..., D, K), strongest first, the entry of largest magnitude positive.
      Zero where fewer directions exist, by s_k <= max(M, D) eps s_1.

    Raises:
      ValueError: if the shape or rank does not fit, or entries are not finite or all zero (outside
        jit).

    Source: Cosentino et al. 2022 (arXiv 2205.06926), directions of the augmentation.
    """
    rows = as_stack("displacements", displacements, "M, D")
    _check_rank(rank, *rows.shape[-2:])
    if is_concrete(rows) and not np.asarray(rows).any():
        raise ValueError("displacements are all zero: augment with a strength above 0")
    return _top_right(rows, rank)


def row_space(jacobian: Float[ArrayLike, "*batch p d"], rank: int) -> Float[Array, "*batch d k"]:
    """The K directions that a map stretches most: top right singular vectors of its Jacobian.

    Args:
      jacobian: A (..., P, D), as from `local_jacobian`.
      rank: K, in 1 .. min(P, D).

    Returns:
      Orthonormal columns (..., D, K), as of `displacement_basis`: zero beyond the rank of A.

    Raises:
      ValueError: if the shape or rank does not fit, or entries are not finite (outside jit).

    Source: Cosentino et al. 2022 (arXiv 2205.06926), row space of the projector.
    """
    rows = as_stack("jacobian", jacobian, "P, D")
    _check_rank(rank, *rows.shape[-2:])
    return _top_right(rows, rank)


def _check_rank(rank: int, count: int, size: int) -> None:
    check_integer(
        "rank",
        rank,
        1,
        f"{count} vectors in {size} dimensions span no more",
        high=min(count, size),
    )


def _checked(features, num_neighbors, queries):
    features = as_features(features)
    count = len(features)
    check_integer(
        "num_neighbors",
        num_neighbors,
        1,
        f"each of the {count} points has {count - 1} others",
        high=count - 1,
    )
    if queries is None:
        return features, jnp.arange(count, dtype=jnp.int32)
    queries = jnp.asarray(queries)
    if queries.ndim != 1 or not queries.size or not jnp.issubdtype(queries.dtype, jnp.integer):
        raise ValueError(
            "queries must be a non-empty vector (Q,) of indices of rows, got "
            f"{queries.dtype}{list(queries.shape)}"
        )
    if is_concrete(queries):
        found = np.asarray(queries)
        if found.min() < 0 or found.max() >= count:
            raise ValueError(
                f"queries run from {found.min()} to {found.max()}, but must be indices of rows in "
                f"0 .. {count - 1}"
            )
    return features, queries


@partial(jax.jit, static_argnames="num_neighbors")
def nearest_others(features: Array, queries: Array, num_neighbors: int) -> Array:
    """Indices (Q, M) of the nearest other points."""
    features = scaled_by_power_of_two(features)
    # Few rows make thin products, and this many scores are what the search allows itself anyway.
    block_size = max(1, min(1024, 2**24 // len(features)))
    index = nearest_neighbors(
        features[queries], features, num_neighbors + 1, "euclidean", block_size=block_size
    )[1]
    # A point is not always its own first: duplicates of a lower index precede it, and if they fill
    # the list one of them goes, at the same distance.
    itself = index == queries[:, None].astype(index.dtype)
    others = jnp.argsort(itself, axis=1, stable=True)[:, :num_neighbors]
    return jnp.take_along_axis(index, others, 1)


@partial(jax.jit, static_argnames=("rank", "block_size"))
def _tangent_bases(features, queries, index, rank, block_size):
    count = len(queries)
    blocks = -(-count // block_size)
    features = scaled_by_power_of_two(features)

    def of_block(block):
        own, others = block
        return _top_right_by_gram(features[others] - features[own][:, None, :], rank)

    def cut(rows):
        padding = ((0, blocks * block_size - count),) + ((0, 0),) * (rows.ndim - 1)
        return jnp.pad(rows, padding).reshape(blocks, block_size, *rows.shape[1:])

    bases = jax.lax.map(of_block, (cut(queries), cut(index)))
    return bases.reshape(-1, *bases.shape[2:])[:count]


def _top_right_by_gram(rows, rank):
    """Top right singular vectors (B, D, K) of rows (B, M, D) by their M x M Gram matrices."""
    gram = jnp.einsum("bmd,bnd->bmn", rows, rows, precision="highest")
    values, vectors = jnp.linalg.eigh(gram, symmetrize_input=False)
    values, vectors = values[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    real = values > default_tolerance(rows.dtype) * values[:, :1]
    weights = vectors * jnp.where(real, jax.lax.rsqrt(jnp.where(real, values, 1)), 0)[:, None, :]
    bases = jnp.einsum("bmk,bmd->bkd", weights, rows, precision="highest")
    # As linalg.fix_signs but for ties, without its argmax, which costs a fifth of the time here.
    negative = -bases.min(2) > bases.max(2)
    return jnp.swapaxes(jnp.where(negative[:, :, None], -bases, bases), 1, 2)


@partial(jax.jit, static_argnames="rank")
def _top_right(rows, rank):
    """Top right singular vectors (..., D, K) of rows (..., M, D)."""
    _, values, right = jnp.linalg.svd(rows, full_matrices=False)
    values, right = values[..., :rank], right[..., :rank, :]
    tolerance = max(rows.shape[-2:]) * jnp.finfo(rows.dtype).eps
    real = values > tolerance * values[..., :1]
    bases = jnp.swapaxes(jnp.where(real[..., None], right, 0), -1, -2)
    return jnp.vectorize(fix_signs, signature="(d,k)->(d,k)")(bases)
