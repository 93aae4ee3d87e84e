"""Sums over all similarities of unit rows, and their gradients, a block of rows at a time.

For rows u_i, counts c_i (1 or 0) and a temperature t this is

  A = sum_i c_i (log sum_{l != i} c_l exp(u_i . u_l / t) - 1 / t),

with the gradient in u_k, p_il being the softmax over l,

  (1 / t) sum_l (c_k p_kl + c_l p_lk) u_l.

The matrix of similarities is never stored, in the gradient neither: its blocks are computed, used
and forgotten, so gradients are computed with the value where one is asked for, and there is nothing
to differentiate forward. Unit rows bound the logits by 1 / t, which takes the place of a running
maximum until exp(-2 / t) underflows. The similarities among one set of rows are symmetric, which
saves a third of the products and half of the exponentials; those of a device's rows with the rows
of all devices are not.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from recon_jax import parallel


class Setting(NamedTuple):
    """What is known while tracing.

    Attributes:
      temperature: t > 0.
      block_size: most rows of a block, >= 1.
    """

    temperature: float
    block_size: int


def bound_suffices(temperature: float, dtype: DTypeLike) -> bool:
    """Whether exp((s - 1) / t) is a normal number for every similarity s of unit rows."""
    # A tenth of the exponent is kept back for rows that are longer than 1 by rounding.
    return 2 / temperature < -0.9 * math.log(float(jnp.finfo(dtype).tiny))


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _transposed(a: Array) -> Array:
    # XLA's CPU has no fast product with a left operand that is read by columns.
    return jax.lax.optimization_barrier(a.T) if parallel.is_cpu() else a.T


def _inverse(sums: Array) -> Array:
    return jnp.where(sums > 0, 1 / jnp.where(sums > 0, sums, 1), 0)


def _log(sums: Array) -> Array:
    return jnp.log(jnp.where(sums > 0, sums, 1))


def _even_blocks(setting: Setting, count: int) -> tuple[int, int]:
    """Number and size of equal blocks that hold `count` rows."""
    blocks = -(-count // min(setting.block_size, count))
    return blocks, -(-count // blocks)


def _cut(array: Array, blocks: int, size: int) -> Array:
    padding = [(0, blocks * size - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(blocks, size, *array.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def log_sums_among(
    setting: Setting, units: Float[Array, "n d"], counts: Float[Array, " n"]
) -> Float[Array, ""]:
    """A of rows among themselves; only for temperatures where `bound_suffices`.

    Args:
      setting: temperature and rows of a block; up to that many rows are one block.
      units: rows (N, D) of length 1, or 0 where they do not count.
      counts: (N,) 1 or 0.
    """
    return _among(setting, units, counts, with_gradient=False)[0]


def _among(setting, units, counts, with_gradient):
    if len(units) <= setting.block_size:
        return _in_one_block(setting.temperature, units, counts, with_gradient)
    blocks, size = _even_blocks(setting, len(units))
    rows, weights = _cut(units, blocks, size), _cut(counts, blocks, size)
    pairs = tuple(index.astype(np.int32) for index in np.triu_indices(blocks))
    sums = _sums_of_pairs(setting.temperature, rows, weights, pairs)
    total = (weights * _log(sums)).sum()
    if not with_gradient:
        return total, None
    slopes = _slopes_of_pairs(setting.temperature, rows, weights * _inverse(sums), pairs)
    return total, slopes.reshape(-1, units.shape[1])[: len(units)]


def _exponentials(temperature, rows, columns, same):
    """exp((u_i . u_l - 1) / t) of two blocks, 0 where a row meets itself."""
    values = jnp.exp((_dot(rows, columns.T) - 1) / temperature)
    return jnp.where(same & jnp.eye(len(rows), dtype=bool), 0, values)


def _in_one_block(temperature, units, counts, with_gradient):
    values = _exponentials(temperature, units, units, True)
    sums = (values * counts[None, :]).sum(1)
    total = (counts * _log(sums)).sum()
    if not with_gradient:
        return total, None
    shares = counts * _inverse(sums)
    # Rows that do not count are zero, so that nothing of them enters.
    return total, _dot(values * (shares[:, None] + shares[None, :]), units) / temperature


def _sums_of_pairs(temperature, rows, weights, pairs):
    """sum_l c_l exp((u_i . u_l - 1) / t) of each row, from blocks on and above the diagonal."""

    def add(sums, pair):
        i, j = pair
        values = _exponentials(temperature, rows[i], rows[j], i == j)
        sums = sums.at[i].add((values * weights[j][None, :]).sum(1))
        below = (values * weights[i][:, None]).sum(0)
        return sums.at[j].add(jnp.where(i == j, 0, below)), None

    return jax.lax.scan(add, jnp.zeros_like(weights), pairs)[0]


def _slopes_of_pairs(temperature, rows, shares, pairs):
    """The gradient in every row, from the same blocks; shares are c_i / sum_i."""

    def add(slopes, pair):
        i, j = pair
        values = _exponentials(temperature, rows[i], rows[j], i == j)
        values *= shares[i][:, None] + shares[j][None, :]
        slopes = slopes.at[i].add(_dot(values, rows[j]))
        below = _dot(_transposed(values), rows[i])
        return slopes.at[j].add(jnp.where(i == j, 0, below)), None

    return jax.lax.scan(add, jnp.zeros_like(rows), pairs)[0] / temperature


def _among_forward(setting, units, counts):
    return _among(setting, units, counts, with_gradient=True)


log_sums_among.defvjp(_among_forward, lambda setting, slopes, cotangent: (cotangent * slopes, None))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def log_sums_against(
    setting: Setting,
    units: Float[Array, "n d"],
    counts: Float[Array, " n"],
    columns: Float[Array, "m d"],
    column_counts: Float[Array, " m"],
    first: Int[Array, ""],
) -> Float[Array, ""]:
    """A of some rows i against all rows l, for any temperature.

    Args:
      setting: temperature and rows of a block.
      units: rows (N, D), a part of the columns.
      counts: (N,) 1 or 0.
      columns: all rows (M, D).
      column_counts: (M,) 1 or 0.
      first: index of the first row among the columns.
    """
    return _against(setting, units, counts, columns, column_counts, first, with_gradient=False)[0]


def _against(setting, units, counts, columns, column_counts, first, with_gradient):
    blocks, size = _even_blocks(setting, len(units))
    places = jnp.arange(len(columns), dtype=jnp.int32)

    def add(column_slopes, block):
        index, rows, weights = block
        own = first + index * size + jnp.arange(size, dtype=jnp.int32)
        allowed = (column_counts > 0)[None, :] & (places[None, :] != own[:, None])
        logits = (_dot(rows, columns.T) - 1) / setting.temperature
        logits = jnp.where(allowed, logits, -jnp.inf)
        top = jnp.maximum(logits.max(1), jnp.finfo(logits.dtype).min)
        values = jnp.exp(logits - top[:, None])
        sums = values.sum(1)
        total = jnp.where(weights > 0, _log(sums) + top, 0).sum()
        if not with_gradient:
            return column_slopes, (total, None)
        values *= (weights * _inverse(sums))[:, None]
        column_slopes += _dot(_transposed(values), rows)
        return column_slopes, (total, _dot(values, columns))

    cut = (np.arange(blocks, dtype=np.int32), *(_cut(a, blocks, size) for a in (units, counts)))
    start = jnp.zeros_like(columns) if with_gradient else None
    column_slopes, (totals, slopes) = jax.lax.scan(add, start, cut)
    if not with_gradient:
        return totals.sum(), None
    slopes = slopes.reshape(-1, units.shape[1])[: len(units)]
    return totals.sum(), (slopes / setting.temperature, column_slopes / setting.temperature)


def _against_forward(setting, units, counts, columns, column_counts, first):
    return _against(setting, units, counts, columns, column_counts, first, with_gradient=True)


def _against_backward(setting, slopes, cotangent):
    return cotangent * slopes[0], None, cotangent * slopes[1], None, None


log_sums_against.defvjp(_against_forward, _against_backward)
