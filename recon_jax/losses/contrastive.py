"""Losses of two views of the same images: NT-Xent, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from recon_jax.checks import check_integer, check_numbers
from recon_jax.losses.log_sums import (
    Setting,
    bound_suffices,
    log_sums_against,
    log_sums_among,
)
from recon_jax.losses.redundancy import barlow_twins, vicreg
from recon_jax.losses.view_pairs import view_pairs

# Shorter rows keep this length, as in PyTorch's normalize.
_SHORTEST = 1e-12

# On two CPU cores one block is the fastest way up to here, and larger blocks gain nothing.
_ROWS_IN_ONE_BLOCK = 1024
_BLOCK_SIZE = 512


def _check_temperature(temperature: float) -> None:
    check_numbers("temperature", temperature, "(0, inf)", "0.5 is SimCLR's at CIFAR-10")


def _check_block_size(block_size: int | None) -> None:
    if block_size is not None:
        check_integer("block_size", block_size, 1, "rows at a time; None chooses their number")


def _unit_rows(rows: Array) -> Array:
    # The root of a maximum, not the maximum of a root, has a finite gradient at 0.
    squares = jnp.square(rows).sum(1, keepdims=True)
    return rows / jnp.sqrt(jnp.maximum(squares, _SHORTEST**2))


def nt_xent(
    view_a: Float[ArrayLike, "n d"],
    view_b: Float[ArrayLike, "m k"],
    temperature: float = 0.5,
    *,
    mask: Shaped[ArrayLike, "..."] | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Normalised temperature-scaled cross-entropy, SimCLR's loss, with negatives of all devices.

    L = -(1 / 2B) sum_i log(exp(u_i . u_j(i) / t) / sum_{l != i} exp(u_i . u_l / t)),
    u = z / max(|z|, 1e-12), i and l over the 2B embeddings of both views, j(i) the other view of
    the same image. Equal embeddings give log(2B - 1), which is also about what an untrained network
    has. Computed in float32, or float64 for float64, in blocks: the 2B x 2B similarities are never
    stored. It can be differentiated once, in reverse mode; the gradient is computed along with the
    value, and only where one is asked for.

    Args:
      view_a: embeddings z (B, D) of one view of each image.
      view_b: those of the other view, of the same shape.
      temperature: t > 0.
      mask: False or 0 for padding (B,), which is neither anchor nor negative; None counts all.
      axis_name: mapped axis over whose members the batch is spread. Embeddings of all are gathered,
        and each member returns the mean over its own anchors that count, so that by the gradient
        rule of `training.make_train_step` the gradient is that of one device.
      block_size: most rows whose similarities are held at once, with all other rows or with as many
        of them; None chooses.

    Returns:
      A scalar in nats, 0 where no pair counts or, over all devices, only one does.

    Raises:
      ValueError: if t or block_size is out of range, the shapes differ or there are fewer than two
        pairs over all devices; outside jit, if fewer than two pairs count or an embedding that
        counts is not finite.

    Source: Chen et al. 2020 (arXiv 2002.05709), section 2.1 and algorithm 1; Cosentino et al. 2022
    (arXiv 2205.06926) train with it.
    """
    _check_temperature(temperature)
    _check_block_size(block_size)
    pairs = view_pairs(view_a, view_b, mask, axis_name)
    unit_a, unit_b = _unit_rows(pairs.view_a), _unit_rows(pairs.view_b)
    units = jnp.concatenate([unit_a, unit_b])
    counts = jnp.concatenate([pairs.counts] * 2)
    log_sums = _log_sums(units, counts, float(temperature), axis_name, block_size)
    # 1 / t less, as the log-sums are, so that equal embeddings lose no digits.
    apart = (1 - (unit_a * unit_b).sum(1)) / temperature
    total = log_sums + 2 * (pairs.counts * apart).sum()
    return total / (2 * jnp.maximum(pairs.counts.sum(), 1))


def _log_sums(units, counts, temperature, axis_name, block_size):
    """Sum over the anchors of this device of log-sums over the rows of all, less 1 / t each."""
    if axis_name is None and bound_suffices(temperature, units.dtype):
        chosen = len(units) if len(units) <= _ROWS_IN_ONE_BLOCK else _BLOCK_SIZE
        return log_sums_among(Setting(temperature, block_size or chosen), units, counts)
    setting, first = Setting(temperature, block_size or _BLOCK_SIZE), jnp.int32(0)
    if axis_name is None:
        return log_sums_against(setting, units, counts, units, counts, first)
    columns, column_counts = (
        jax.lax.all_gather(array, axis_name, tiled=True) for array in (units, counts)
    )
    first = jax.lax.axis_index(axis_name).astype(jnp.int32) * len(units)
    return log_sums_against(setting, units, counts, columns, column_counts, first)


CONTRASTIVE_LOSSES: dict[str, Callable[..., Float[Array, ""]]] = {
    "nt_xent": nt_xent,
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
}
