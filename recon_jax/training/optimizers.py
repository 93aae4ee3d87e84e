"""Optimizers by name: optax chains with clipping first and no decay of biases and norm scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from recon_jax.training.finetuning import check_layer_decay, is_stacked, scale_by_layer
from recon_jax.training.state import leaf_name

# Of LARS: the norm of an update over that of the parameters it moves, at a learning rate of 1.
TRUST_COEFFICIENT = 1e-3


def decay_mask(params: Any, *, spared: Sequence[str] = ()) -> Any:
    """True for parameters that weight decay shrinks: those with two or more axes in their layer.

    Biases and the scales of normalisation layers have one; decaying them changes what the layer
    computes without making it simpler. Where the parameters of equal blocks are stacked (see
    `finetuning.is_stacked`), the axis of the blocks does not count.

    Args:
      params: a tree of arrays.
      spared: names of further leaves not to decay, whatever their axes. Fine-tuning in He et al.
        2022 spares the class token, pretraining does not: `partial(decay_mask,
        spared=("class_token",))`.
    """

    def decays(path, leaf):
        return leaf.ndim - is_stacked(path) > 1 and leaf_name(path[-1:]) not in spared

    return jax.tree_util.tree_map_with_path(decays, params)


def _scale_by_trust_ratio():
    """Give each update TRUST_COEFFICIENT times the norm of its layer's parameters, if above 0."""

    def scale(path, update, param):
        # One norm for each block: the layers of a stack know nothing of each other.
        axes = tuple(range(int(is_stacked(path)), update.ndim))
        size, step = (jnp.sqrt(jnp.sum(x * x, axes, keepdims=True)) for x in (param, update))
        moving = (size > 0) & (step > 0)
        return update * jnp.where(moving, TRUST_COEFFICIENT * size / jnp.where(moving, step, 1), 1)

    def update(updates, state, params):
        return jax.tree_util.tree_map_with_path(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


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


def _lars(schedule, decay, options):
    momentum, nesterov = options["momentum"], options["nesterov"]
    trace = optax.trace(momentum, nesterov) if momentum else optax.identity()
    ratio = optax.masked(_scale_by_trust_ratio(), decay_mask)
    return optax.chain(decay, ratio, optax.scale_by_learning_rate(schedule), trace)


OPTIMIZERS = {"adamw": _adamw, "adam": _adam, "sgd": _sgd, "lars": _lars}
WITH_MOMENTUM = ("sgd", "lars")


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
    layer_decay: float | None = None,
) -> optax.GradientTransformation:
    """An optax optimizer by name.

    adamw: decay separate from the gradient, p <- p - lr (adam(g) + weight_decay p). adam and sgd:
    decay as part of the gradient, g + weight_decay p, as PyTorch has it. sgd with momentum:
    m <- momentum m + g, then p <- p - lr m, or p - lr (g + momentum m) with Nesterov. lars: like
    sgd, g + weight_decay p, scaled for each layer to the norm 0.001 |p| (biases and norms, those
    that `decay_mask` spares, are not scaled), then m <- momentum m + lr g and p <- p - m. With the
    learning rate inside m, as You et al. have it; the LARS of He et al.'s released code multiplies
    m by it instead, which is the same as long as it does not change.

    Args:
      name: adamw, adam, sgd or lars.
      schedule: learning rate as a function of the step (see `make_schedule`), or a number.
      weight_decay: at least 0.
      momentum: of sgd and lars, in [0, 1).
      nesterov: Nesterov's momentum, for sgd and lars.
      clip_norm: largest global norm of the gradient, before anything else; None does not clip.
      b1: decay of the first moment of Adam, in [0, 1).
      b2: decay of the second moment of Adam, in [0, 1).
      eps: added to the root of the second moment, above 0.
      mask: maps the parameters to a tree of True where weight decay applies; by default those with
        two or more axes; None for all.
      layer_decay: in (0, 1]; multiplies the learning rate of each layer of a ViT by its
        `layer_scales`. None for one rate everywhere.

    Returns:
      An `optax.GradientTransformation`. With `layer_decay`, its `init` raises ValueError for
      parameters without a ViT's encoder.

    Raises:
      ValueError: an unknown name, a number outside its range, or an option of another optimizer.

    Source: AdamW, Loshchilov & Hutter 2019 (arXiv 1711.05101); LARS, You et al. 2017 (arXiv
    1708.03888), with the exceptions of Grill et al. 2020 (arXiv 2006.07733).
    """
    _check(name, weight_decay, momentum, nesterov, clip_norm, b1, b2, eps)
    if layer_decay is not None:
        check_layer_decay(layer_decay)
    decay = optax.add_decayed_weights(weight_decay, mask) if weight_decay else optax.identity()
    options = {"momentum": momentum, "nesterov": nesterov, "b1": b1, "b2": b2, "eps": eps}
    optimizer = OPTIMIZERS[name](schedule, decay, options)
    before = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    after = [] if layer_decay is None else [scale_by_layer(layer_decay)]
    return optax.chain(*before, optimizer, *after) if before or after else optimizer


def _check(name, weight_decay, momentum, nesterov, clip_norm, b1, b2, eps) -> None:
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
    if name not in WITH_MOMENTUM and (momentum or nesterov):
        raise ValueError(
            f"momentum and nesterov are options of {' and '.join(WITH_MOMENTUM)}, not of {name}; "
            "use b1"
        )
    if nesterov and not momentum:
        raise ValueError("nesterov needs a momentum above 0, such as momentum=0.9")
