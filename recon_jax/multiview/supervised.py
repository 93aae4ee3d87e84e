"""Supervised training from scratch: kernels of a class compete for one gradient.

Source: Allen-Zhu & Li 2020 (arXiv 2012.09816), section 3; the comparison, Pan et al. 2023 (arXiv
2206.03826).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Integer

from recon_jax.checks import check_integer, check_numbers
from recon_jax.losses import cross_entropy
from recon_jax.multiview.checks import (
    as_labels,
    as_network_input,
    as_power,
)
from recon_jax.multiview.descent import History, Trained, flow_rate
from recon_jax.multiview.network import activations, block_head, lay_out


def train_supervised(
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    labels: Integer[ArrayLike, " n"],
    num_classes: int,
    *,
    train_head: bool = False,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    max_rate: ArrayLike = 200.0,
    max_length: ArrayLike = 0.3,
    stop_loss: ArrayLike = 0.02,
    max_steps: int = 800,
) -> Trained:
    """Kernels after full-batch descent on the cross-entropy of F_c = sum of the kernels of class c.

    The rate is min(max_rate, max_length / |g|): gradient flow whose time runs faster where it is
    flat, because gradients start at the order of <w, v>^(q - 1). It stops once the loss is at most
    `stop_loss`: then the gradient that both views of a class compete for is used up.

    Args:
      kernels: at the start (R, d), R a multiple of k; see `block_head` for whose they are.
      patches: images (N, P, d).
      labels: classes (N,) in 0 .. k - 1.
      num_classes: k.
      train_head: if True the head, which starts as `block_head`, is trained as well.
      threshold: rho > 0 of the rectifier.
      power: q >= 1 of the rectifier.
      max_rate: largest rate, > 0.
      max_length: largest length of a step of all parameters together, > 0.
      stop_loss: mean cross-entropy in nats at which training ends, in [0, 1].
      max_steps: at least 1.

    Returns:
      `Trained`, with the head (k, R).

    Raises:
      ValueError: if an array has another shape, labels or numbers are out of range (values: checked
        outside jit), or k does not divide R.

    Source: Allen-Zhu & Li 2020 (arXiv 2012.09816), section 3; rates and stopping chosen here.
    """
    kernels, patches = as_network_input(kernels, patches)
    head = block_head(num_classes, len(kernels), kernels.dtype)
    labels = as_labels(labels, len(patches), num_classes)
    check_numbers("threshold", threshold, "(0, inf)", "where the rectifier becomes linear")
    check_numbers("max_rate", max_rate, "(0, inf)", "largest rate of a step")
    check_numbers("max_length", max_length, "(0, inf)", "largest length of a step")
    check_numbers("stop_loss", stop_loss, "[0, 1]", "nats; 0 trains for all steps")
    check_integer("max_steps", max_steps, 1, "steps of the training")
    rates = [
        jnp.asarray(number, kernels.dtype)
        for number in (threshold, max_rate, max_length, stop_loss)
    ]
    return _train(
        kernels,
        head,
        patches,
        labels,
        *rates,
        power=as_power(power),
        train_head=bool(train_head),
        max_steps=max_steps,
    )


@functools.partial(jax.jit, static_argnames=("power", "train_head", "max_steps"))
def _train(
    kernels,
    head,
    patches,
    labels,
    threshold,
    max_rate,
    max_length,
    stop_loss,
    *,
    power,
    train_head,
    max_steps,
):
    columns = lay_out(patches)

    def loss_of(trained, fixed):
        kernels, head = {**trained, **fixed}["kernels"], {**trained, **fixed}["head"]
        scores = (head @ activations(kernels, columns, threshold, power)).T
        return cross_entropy(scores, labels).mean()

    trained, fixed = {"kernels": kernels}, {"head": head}
    if train_head:
        trained, fixed = {**trained, **fixed}, {}

    def unfinished(carry):
        step, loss, *_ = carry
        return (step < max_steps) & ~(loss <= stop_loss)

    def advance(carry):
        step, _, trained, losses, norms = carry
        loss, gradients = jax.value_and_grad(loss_of)(trained, fixed)
        losses = losses.at[step].set(loss)
        norms = norms.at[step].set(jnp.linalg.norm(trained["kernels"]))
        rate = jnp.where(loss <= stop_loss, 0, flow_rate(gradients, max_rate, max_length))
        trained = jax.tree.map(lambda p, g: p - rate * g, trained, gradients)
        return step + 1, loss, trained, losses, norms

    empty = jnp.zeros(max_steps, kernels.dtype)
    start = jnp.asarray(0, jnp.int32), jnp.asarray(math.inf, kernels.dtype), trained, empty, empty
    evaluated, loss, trained, losses, norms = jax.lax.while_loop(unfinished, advance, start)
    # The last evaluation of an early stop moved nothing.
    steps = evaluated - (loss <= stop_loss)
    reached = jnp.minimum(jnp.arange(max_steps), evaluated - 1)
    history = History(losses[reached], norms[reached], steps.astype(jnp.int32))
    found = {**trained, **fixed}
    return Trained(found["kernels"], found["head"], history)
