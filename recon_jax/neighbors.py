"""Exact nearest neighbours, in blocks of queries so that memory stays bounded.

Most of the time is one matrix product. A top-k over every row of its result would cost more, so the
row is cut into groups of neighbouring references: the k groups with the largest maxima hold the k
largest scores (were one elsewhere, k groups would each hold something that comes before it), and
only their members are ranked.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from recon_jax.features import check_features, unit_rows

METRICS = ("cosine", "euclidean")

# The product ranks to within its rounding; this many more candidates are scored again, pair by
# pair, so that rounding does not decide between (nearly) equal references.
_SPARE = 8
_SCORES = 2**24  # scores of one block of queries, 64 MiB in float32
_MOST_QUERIES = 256


def _product_form(queries: Array, references: Array, metric: str) -> tuple[Array, Array]:
    """Rows whose inner products order the references of each query, nearest largest."""
    if metric == "cosine":
        return queries, references
    # -||q - r||^2 / 2 is q.r - ||r||^2 / 2 plus a constant; centring keeps what cancels small.
    centre = references.mean(0)
    queries, references = queries - centre[None, :], references - centre[None, :]
    half = jnp.square(references).sum(1, keepdims=True) / 2
    ones = jnp.ones((len(queries), 1), queries.dtype)
    return jnp.concatenate([queries, ones], 1), jnp.concatenate([references, -half], 1)


def _candidates(queries: Array, references: Array, count: int, k: int) -> Array:
    """Indices (B, k) of the k largest inner products with the first `count` references."""
    groups = references.shape[0]
    width = references.shape[1]
    scores = jax.lax.dot_general(
        queries,
        references.reshape(groups * width, -1),
        (((1,), (1,)), ((), ())),
        precision="highest",
    ).reshape(-1, groups, width)
    maxima = scores.max(2)
    # The last group may be padded; masking it alone spares a pass over all scores.
    real = width - (groups * width - count)
    maxima = maxima.at[:, -1].set(scores[:, -1, :real].max(1))
    group = jnp.sort(jax.lax.top_k(maxima, k)[1], axis=1)
    members = jnp.take_along_axis(scores, group[:, :, None], 1)
    index = group[:, :, None] * width + jnp.arange(width)[None, None, :]
    members = jnp.where(index < count, members, -jnp.inf).reshape(len(queries), -1)
    position = jax.lax.top_k(members, k)[1]
    return jnp.take_along_axis(index.reshape(len(queries), -1), position, 1)


def _rank(queries: Array, references: Array, index: Array, metric: str, k: int):
    """The k best candidates by their score computed pair by pair, the lowest index among equals."""
    pairs = references[index]
    if metric == "cosine":
        cost = -jnp.sum(queries[:, None, :] * pairs, 2)
    else:
        cost = jnp.sqrt(jnp.sum(jnp.square(queries[:, None, :] - pairs), 2))
    cost, index = jax.lax.sort((cost, index), num_keys=2)
    return (-cost if metric == "cosine" else cost)[:, :k], index[:, :k]


@partial(jax.jit, static_argnames=("k", "metric", "block_size"))
def _search(queries, references, k, metric, block_size):
    total, count = len(queries), len(references)
    blocks = -(-total // block_size)
    if metric == "cosine":
        queries, references = unit_rows(queries), unit_rows(references)
    left, right = _product_form(queries, references, metric)
    wanted = min(k + _SPARE, count)
    # Balances the number of groups with the number of their members ranked afterwards.
    width = max(1, round((count / wanted) ** 0.5))
    groups = -(-count // width)
    right = jnp.pad(right, ((0, groups * width - count), (0, 0))).reshape(groups, width, -1)

    def search_block(block):
        index = _candidates(block[1], right, count, wanted)
        return _rank(block[0], references, index, metric, k)

    padding = ((0, blocks * block_size - total), (0, 0))
    cut = lambda rows: jnp.pad(rows, padding).reshape(blocks, block_size, -1)  # noqa: E731
    scores, index = jax.lax.map(search_block, (cut(queries), cut(left)))
    join = lambda parts: parts.reshape(-1, k)[:total]  # noqa: E731
    return join(scores), join(index).astype(jnp.int32)


def nearest_neighbors(
    queries: Float[ArrayLike, "q d"],
    references: Float[ArrayLike, "n d"],
    num_neighbors: int,
    metric: str = "cosine",
    *,
    block_size: int | None = None,
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The k nearest references of each query, exactly, nearest first.

    cosine: similarity q.r / (||q|| ||r||), 0 if either is the zero vector; euclidean: distance
    ||q - r||. Among equal scores the lowest index comes first. Scores that differ by less than the
    rounding of a matrix product (about eps ||q|| ||r||, r about the mean) can only be told apart
    among k + 8 candidates. Usable under jit with all but the arrays static.

    Args:
      queries: (Q, D), float32 or float64.
      references: (N, D) of the same dtype. A query that is itself a reference finds itself.
      num_neighbors: k, in 1 .. N.
      metric: "cosine" or "euclidean".
      block_size: queries at a time; the result does not depend on it. Memory beyond the arrays is
        about two copies of both, plus block_size * N scores. If None, up to 256 with 64 MiB of
        float32 scores.

    Returns:
      Similarities, descending, or distances, ascending (Q, k), and indices of references (Q, k),
      int32.

    Raises:
      ValueError: if the arrays are empty or not finite (outside jit), their dimensions or dtypes
        differ, num_neighbors is not in 1 .. N, block_size < 1, or the metric is unknown.
    """
    queries, references = jnp.asarray(queries), jnp.asarray(references)
    check_features(queries, "queries")
    check_features(references, "references")
    if queries.shape[1] != references.shape[1] or queries.dtype != references.dtype:
        raise ValueError(
            f"queries {queries.dtype}{list(queries.shape)} and references {references.dtype}"
            f"{list(references.shape)} must have the same number of columns and dtype"
        )
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    count = len(references)
    if not 1 <= num_neighbors <= count:
        raise ValueError(
            f"num_neighbors={num_neighbors} must lie in 1 .. {count}, the number of references"
        )
    if block_size is None:
        block_size = max(1, min(_MOST_QUERIES, _SCORES // count))
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    block_size = min(block_size, len(queries))
    return _search(queries, references, num_neighbors, metric, block_size)
