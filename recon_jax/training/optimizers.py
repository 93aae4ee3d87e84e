"""Optimizers by name: optax chains with clipping first and no decay of biases and norm scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax


def decay_mask(params: Any) -> Any:
    """True for parameters that weight decay shrinks: those with two or more axes.

    Biases and the scales of normalisation layers have one; decaying them changes what the layer
    computes without making it simpler.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _adamw(schedule, decay, options):
    return optax.chain(
        optax.scale_by_adam(options["b1"], options["b2"], options["eps"]),
        decay,
        optax.scale_by_learning_rate(schedule),
    )


def _adam(schedule, decay, options):
    return optax.chain(
        decay,
        optax.scale_by_adam(options["b1"], options["b2"], options["eps"]),
        optax.scale_by_learning_rate(schedule),
    )


def _sgd(schedule, decay, options):
    momentum, nesterov = options["momentum"], options["nesterov"]
    trace = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(decay, trace, optax.scale_by_learning_rate(schedule))


OPTIMIZERS = {"adamw": _adamw, "adam": _adam, "sgd": _sgd}


def make_optimizer(
    name: str,
    schedule: optax.Schedule | float,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    clip_norm: float | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mask: Callable[[Any], Any] | None = decay_mask,
) -> optax.GradientTransformation:
    """An optax optimizer by name.

    adamw: decay separate from the gradient, p <- p - lr (adam(g) + weight_decay p). adam and sgd:
    decay as part of the gradient, g + weight_decay p, as PyTorch has it. sgd with momentum:
    m <- momentum m + g, then p <- p - lr m, or p - lr (g + momentum m) with Nesterov.

    Args:
      name: adamw, adam or sgd.
      schedule: learning rate as a function of the step (see `make_schedule`), or a number.
      weight_decay: at least 0.
      momentum: of sgd, in [0, 1).
      nesterov: Nesterov's momentum, for sgd.
      clip_norm: largest global norm of the gradient, before anything else; None does not clip.
      b1: decay of the first moment of Adam, in [0, 1).
      b2: decay of the second moment of Adam, in [0, 1).
      eps: added to the root of the second moment, above 0.
      mask: maps the parameters to a tree of True where weight decay applies; by default those with
        two or more axes; None for all.

    Returns:
      An `optax.GradientTransformation`.

    Raises:
      ValueError: an unknown name, a number outside its range, or an option of another optimizer.

    Source: AdamW, Loshchilov & Hutter 2019 (arXiv 1711.05101).
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay={weight_decay} must be 0 or more")
    for option, value in (("momentum", momentum), ("b1", b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise ValueError(f"{option}={value} must lie in [0, 1)")
    if not eps > 0:
        raise ValueError(f"eps={eps} must be above 0")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm={clip_norm} must be above 0; use None not to clip")
    if name != "sgd" and (momentum or nesterov):
        raise ValueError(f"momentum and nesterov are options of sgd, not of {name}; use b1")
    if nesterov and not momentum:
        raise ValueError("nesterov needs a momentum above 0, such as momentum=0.9")
    decay = optax.add_decayed_weights(weight_decay, mask) if weight_decay else optax.identity()
    options = {"momentum": momentum, "nesterov": nesterov, "b1": b1, "b2": b2, "eps": eps}
    optimizer = OPTIMIZERS[name](schedule, decay, options)
    if clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
