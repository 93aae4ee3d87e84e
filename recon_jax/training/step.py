"""One training step as a pure function, the same on one device and on many.

The gradient rule: each device differentiates its own loss L_d, then the gradients are averaged.
Where a batch is padded, devices hold different numbers of images w_d, and the average is
sum_d grad(w_d L_d) / sum_d w_d: pmean where nothing is padded, and the gradient of the mean over
all images always. The weight stands inside the derivative because losses may depend on other
devices' images, through batch statistics that are averaged over devices. The same holds for
micro-batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from recon_jax.checks import check_integer
from recon_jax.training.keys import step_key
from recon_jax.training.state import TrainState

RESERVED = ("loss", "grad_norm", "finite")

LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, tuple[Any, Mapping[str, tuple]]]]


def batch_weight(batch: Any) -> jax.Array:
    """Number of images that count in a batch: those not masked, or all rows without a mask.

    Args:
      batch: a pytree of arrays with a common leading axis; its `mask` (attribute or key), if it has
        one, is False or 0 for padding.
    """
    mask = batch.get("mask") if isinstance(batch, Mapping) else getattr(batch, "mask", None)
    if mask is None:
        return jnp.asarray(jax.tree.leaves(batch)[0].shape[0], jnp.float32)
    return jnp.sum(mask, dtype=jnp.float32)


def _at_least_float32(value):
    value = jnp.asarray(value)
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def _weighted(tree, weight):
    # A device or micro-batch of padding alone has a mean over nothing, NaN: times 0 still NaN.
    return jax.tree.map(lambda leaf: jnp.where(weight > 0, leaf * weight, 0), tree)


def _divided(leaf, weight):
    return leaf / jnp.where(weight > 0, weight, 1).astype(leaf.dtype)


def _average_stats(stats, weight, axis_name):
    """Weighted mean over devices of the floating leaves; counters are the same everywhere."""
    total = jax.lax.psum(weight, axis_name)

    def average(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return _divided(jax.lax.psum(_weighted(leaf, weight), axis_name), total).astype(leaf.dtype)

    return jax.tree.map(average, stats)


def _check_metrics(metrics) -> None:
    taken = sorted(set(metrics) & set(RESERVED))
    if taken:
        raise ValueError(f"metrics named {taken} are added by the step; choose other names")


def _local_sums(loss_fn: LossFn, params, batch_stats, batch, key):
    """Sums over the rows of one batch: weight, weight * gradient, metrics; and the new stats."""
    weight = batch_weight(batch)

    def summed(params):
        loss, aux = loss_fn(params, batch_stats, batch, key)
        return loss * weight.astype(jnp.result_type(loss)), (loss, aux)

    grads, (loss, (stats, metrics)) = jax.grad(summed, has_aux=True)(params)
    # The mean over padding alone may be NaN, and so is its gradient. A finite one stays: through
    # batch norm over devices the losses of others depend on the padding here.
    grads = jax.tree.map(lambda leaf: jnp.where((weight > 0) | jnp.isfinite(leaf), leaf, 0), grads)
    _check_metrics(metrics)
    stats = jax.tree.map(
        lambda new, old: jnp.where(weight > 0, new, old).astype(old.dtype), stats, batch_stats
    )
    metrics = {"loss": (_weighted(_at_least_float32(loss), weight), weight), **metrics}
    metrics = jax.tree.map(_at_least_float32, dict(metrics))
    return weight, grads, metrics, stats


def _split_rows(batch, parts):
    def split(leaf):
        if leaf.shape[0] % parts:
            raise ValueError(
                f"accumulate_steps={parts} does not divide the {leaf.shape[0]} rows of a device's "
                f"batch; choose a divisor of {leaf.shape[0]}"
            )
        return leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])

    return jax.tree.map(split, batch)


def _accumulated_sums(loss_fn: LossFn, params, batch_stats, batch, key, parts):
    """`_local_sums` over micro-batches, one after another, in the memory of one."""

    def body(carry, item):
        grads, stats = carry
        index, rows = item
        weight, more, metrics, stats = _local_sums(
            loss_fn, params, stats, rows, jax.random.fold_in(key, index)
        )
        return (jax.tree.map(jnp.add, grads, more), stats), (weight, metrics)

    zeros = jax.tree.map(jnp.zeros_like, params)
    items = (jnp.arange(parts), _split_rows(batch, parts))
    (grads, stats), sums = jax.lax.scan(body, (zeros, batch_stats), items)
    weight, metrics = jax.tree.map(lambda leaf: leaf.sum(0), sums)
    return weight, grads, metrics, stats


def _next_ema(ema, params, decay):
    if (ema is None) != (decay is None):
        raise ValueError(
            f"ema_decay={decay} needs a state from init_state(..., ema={decay is not None})"
        )
    if decay is None:
        return None
    return jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, ema, params)


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    takes_step: bool = False,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, tuple[jax.Array, jax.Array]]]]:
    """Build step(state, batch) -> (state, metrics), a pure function for jit or `data_parallel`.

    The state moves by the gradient of the mean loss over all images of the batch that are not
    masked, over all devices. Statistics in `batch_stats` are averaged over the devices with the
    same weights.

    Args:
      loss_fn: (params, batch_stats, batch, key) -> (loss, (new batch_stats, metrics)). `loss` is
        the mean over the images of its batch that are not masked (with batch norm over the devices
        it must be finite also where all are masked: divide by max(count, 1)); metrics are
        {name: (total, weight)} sums over them. `key` is the step's, the same on all devices: see
        `recon_jax.training.keys` for what to draw from it.
      optimizer: see `make_optimizer`; clipping belongs there.
      axis_name: name of the device axis, if the step is mapped over devices.
      accumulate_steps: number of micro-batches a device's rows are cut into, run one after another;
        micro-batch m gets fold_in(key, m) and passes its batch_stats on. A loss that compares the
        images of a batch with each other sees only those of its micro-batch.
      ema_decay: d of ema <- d ema + (1 - d) params, in [0, 1); None keeps no average.
      takes_step: call the loss with `step=` too, the number of steps made so far, for weights that
        change during a run.

    Returns:
      The step. Its metrics are those of `loss_fn`, summed, and `loss`, `grad_norm` (before
      clipping) and `finite`, whose total falls short of its weight if the loss or the gradient is
      NaN or infinite. A batch of padding alone has gradient 0.

    Raises:
      ValueError: an option is out of range; while tracing, if the rows do not divide by
        `accumulate_steps`, the state's ema_params do not fit `ema_decay`, or a metric has a
        reserved name.
    """
    check_integer("accumulate_steps", accumulate_steps, 1)
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay={ema_decay} must lie in [0, 1); use None for no average")

    def sums_of(state: TrainState, batch):
        key = step_key(state.key, state.step)
        loss = functools.partial(loss_fn, step=state.step) if takes_step else loss_fn
        if accumulate_steps == 1:
            return _local_sums(loss, state.params, state.batch_stats, batch, key)
        return _accumulated_sums(
            loss, state.params, state.batch_stats, batch, key, accumulate_steps
        )

    def step(state: TrainState, batch):
        weight, grads, metrics, stats = sums_of(state, batch)
        if axis_name is not None:
            stats = _average_stats(stats, weight, axis_name)
            weight, grads, metrics = jax.lax.psum((weight, grads, metrics), axis_name)
        grads = jax.tree.map(lambda leaf: _divided(leaf, weight), grads)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grads)))
        finite = jnp.isfinite(metrics["loss"][0]) & jnp.isfinite(norm)
        one = jnp.ones((), jnp.float32)
        metrics |= {"grad_norm": (norm, one), "finite": (finite.astype(jnp.float32), one)}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = _next_ema(state.ema_params, params, ema_decay)
        return TrainState(params, stats, opt_state, state.step + 1, state.key, ema), metrics

    return step
