"""What training returns, and the step rules that make the slow start of the theory affordable."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


class History(NamedTuple):
    """How a training went, one entry a step.

    Attributes:
      loss: before each step (T,); after an early stop, the loss at which it stopped.
      norm: Frobenius norm of the kernels, likewise (T,).
      steps: how many steps were taken, at most T.
    """

    loss: Float[Array, " t"]
    norm: Float[Array, " t"]
    steps: Int[Array, ""]


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      kernels: (R, d).
      head: (k, R) of a classifier; what reconstructs the patches, (R, d), after `pretrain_mae`;
        None after `pretrain`, whose decoder is constant.
      history: how the training went.
    """

    kernels: Float[Array, "r d"]
    head: Float[Array, "_ _"] | None
    history: History


def per_kernel_step(gradient: Array, largest: Array, step_size: Array) -> tuple[Array, Array]:
    """Step of every kernel and its largest gradient norm so far: step_size g_r / max_t |g_r|.

    The loss is a sum over kernels, so each may have a rate of its own. It must: the gradient starts
    at the order of <w, v>^(2q - 1), and plain gradient descent would not move at all.

    Args:
      gradient: (R, d).
      largest: of the steps before (R,), 0 at first.
      step_size: length of a step at the largest gradient.
    """
    largest = jnp.maximum(largest, jnp.linalg.norm(gradient, axis=1))
    # A kernel that nothing excites has no gradient, and stays where it is.
    scale = jnp.where(largest > 0, step_size / jnp.where(largest > 0, largest, 1), 0)
    return scale[:, None] * gradient, largest


def flow_rate(gradients: object, max_rate: Array, max_length: Array) -> Array:
    """Rate min(max_rate, max_length / |g|): gradient flow in a time that runs faster when flat.

    The path is that of gradient flow; only how much of it a step covers changes, so that the start,
    where gradients are of the order of <w, v>^(q - 1), does not take poly(k) steps.
    """
    norm = optax.tree.norm(gradients)
    return jnp.where(
        norm * max_rate > max_length, max_length / jnp.where(norm > 0, norm, 1), max_rate
    )
