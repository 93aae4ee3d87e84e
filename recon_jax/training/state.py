"""Everything a run carries from one step to the next, as one pytree."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """State of a run after `step` steps.

    Attributes:
      params: the model's parameters, float32.
      batch_stats: running statistics, such as those of batch normalisation; {} without any.
      opt_state: of the optax optimizer.
      step: number of steps taken, int32 ().
      key: the seed's key. It never changes: what is random at a step is drawn from
        fold_in(key, step).
      ema_params: exponential moving average of the parameters, or None.
    """

    params: Any
    batch_stats: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array
    ema_params: Any = None


def leaf_name(path: tuple) -> str:
    """Name of a leaf of a pytree, such as params.Dense_0.kernel."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _require_full_precision(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.dtype not in (jnp.float32, jnp.float64):
            raise ValueError(
                f"parameter {leaf_name(path)} is {leaf.dtype}; keep parameters in float32 "
                "(param_dtype) and give the reduced precision to the model as its dtype"
            )


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array,
    batch_stats: Any = None,
    ema: bool = False,
) -> TrainState:
    """The state before the first step.

    Every leaf is a copy: training donates the state's memory, and what the caller holds must
    survive that.

    Args:
      params: the model's parameters, float32 (or float64).
      optimizer: see `make_optimizer`.
      key: from `jax.random.key(seed)`.
      batch_stats: running statistics, if the model has any.
      ema: keep a moving average of the parameters, starting from `params`.

    Returns:
      A `TrainState` at step 0.

    Raises:
      ValueError: a parameter has another dtype.
    """
    params = jax.tree.map(jnp.asarray, params)
    _require_full_precision(params)

    def copy(tree):
        return jax.tree.map(jnp.copy, tree)

    return TrainState(
        params=copy(params),
        batch_stats=copy({} if batch_stats is None else batch_stats),
        opt_state=copy(optimizer.init(params)),
        step=jnp.zeros((), jnp.int32),
        key=copy(key),
        ema_params=copy(params) if ema else None,
    )
