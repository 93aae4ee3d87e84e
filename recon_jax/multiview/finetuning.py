"""A classifier on top of the encoder: a head alone, or head and encoder together.

Source: Pan et al. 2023 (arXiv 2206.03826), the downstream task; the rates are chosen here.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from recon_jax.checks import check_integer, check_numbers
from recon_jax.losses import cross_entropy
from recon_jax.multiview.checks import (
    as_labels,
    as_network_input,
    as_power,
)
from recon_jax.multiview.descent import History, Trained
from recon_jax.multiview.network import activations, lay_out

# Kernels an image excites most, whose mean activation sets the scale of the head's rate.
_LEADING = 3


def finetune(
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    labels: Integer[ArrayLike, " n"],
    num_classes: int,
    *,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    head_rate: ArrayLike = 0.1,
    encoder_rate: ArrayLike = 0.01,
    steps: int = 300,
) -> Trained:
    """Head and kernels after full-batch gradient descent on the cross-entropy of F = u h(X).

    The head starts at 0, at the rate head_rate / s^2, with s the mean activation of the three
    kernels that an image excites most, at the start. So a head on the tiny activations of random
    kernels learns as fast as one on those of pretrained kernels.

    Args:
      kernels: at the start (R, d), such as those of `pretrain`.
      patches: images (N, P, d).
      labels: classes (N,) in 0 .. k - 1.
      num_classes: k, at least 1.
      threshold: rho > 0 of the rectifier.
      power: q >= 1 of the rectifier.
      head_rate: rate of the head in units of 1 / s^2, > 0.
      encoder_rate: rate of the kernels, > 0; `train_head` leaves them as they are.
      steps: at least 1.

    Returns:
      `Trained`, with the head (k, R). If no image excites a kernel, head and kernels stay as they
      were, and the loss is that of guessing, log k, throughout.

    Raises:
      ValueError: if an array has another shape, or labels or numbers are out of range (values:
        checked outside jit).

    Source: Pan et al. 2023 (arXiv 2206.03826), theorem on fine-tuning; rates chosen here.
    """
    kernels, patches, labels, power = _check(
        kernels, patches, labels, num_classes, threshold, power, head_rate, steps
    )
    check_numbers(
        "encoder_rate", encoder_rate, "(0, inf)", "of the kernels; train_head freezes them"
    )
    numbers = [jnp.asarray(n, kernels.dtype) for n in (threshold, head_rate, encoder_rate)]
    static = {"num_classes": num_classes, "power": power, "steps": steps}
    return _finetune(kernels, patches, labels, *numbers, **static)


def train_head(
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    labels: Integer[ArrayLike, " n"],
    num_classes: int,
    *,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    head_rate: ArrayLike = 0.1,
    steps: int = 300,
) -> Trained:
    """`finetune` with frozen kernels: a linear probe of the encoder, by the same rule.

    Args:
      kernels: (R, d), which stay as they are.
      patches: images (N, P, d).
      labels: classes (N,) in 0 .. k - 1.
      num_classes: k, at least 1.
      threshold: rho > 0 of the rectifier.
      power: q >= 1 of the rectifier.
      head_rate: rate of the head in units of 1 / s^2, > 0.
      steps: at least 1.

    Returns:
      `Trained`, with the kernels given and the head (k, R).

    Raises:
      ValueError: as `finetune`.

    Source: Pan et al. 2023 (arXiv 2206.03826); rates chosen here.
    """
    kernels, patches, labels, power = _check(
        kernels, patches, labels, num_classes, threshold, power, head_rate, steps
    )
    numbers = [jnp.asarray(n, kernels.dtype) for n in (threshold, head_rate)]
    static = {"num_classes": num_classes, "power": power, "steps": steps}
    return _train_head(kernels, patches, labels, *numbers, **static)


def _check(kernels, patches, labels, num_classes, threshold, power, head_rate, steps):
    kernels, patches = as_network_input(kernels, patches)
    check_integer("num_classes", num_classes, 1, "k")
    labels = as_labels(labels, len(patches), num_classes)
    check_numbers("threshold", threshold, "(0, inf)", "where the rectifier becomes linear")
    check_numbers("head_rate", head_rate, "(0, inf)", "rate of the head in units of 1 / s^2")
    check_integer("steps", steps, 1, "steps of the training")
    return kernels, patches, labels, as_power(power)


def _scale(found: Array) -> Array:
    """Mean of the leading activations of images, of (R, N); 1 if there are none to divide by."""
    leading = jax.lax.top_k(found.T, min(_LEADING, len(found)))[0].mean()
    return jnp.where(leading > 0, leading, 1)


@functools.partial(jax.jit, static_argnames=("num_classes", "power", "steps"))
def _finetune(
    kernels,
    patches,
    labels,
    threshold,
    head_rate,
    encoder_rate,
    *,
    num_classes,
    power,
    steps,
):
    columns = lay_out(patches)
    # A head on h / s at rate r is one on h at r / s^2, without squares that leave float32.
    scale = _scale(activations(kernels, columns, threshold, power))

    def loss_of(kernels, head):
        scores = (head @ (activations(kernels, columns, threshold, power) / scale)).T
        return cross_entropy(scores, labels).mean()

    def advance(carry, _):
        now, head = carry
        loss, (kernel_slope, head_slope) = jax.value_and_grad(loss_of, (0, 1))(now, head)
        new = now - encoder_rate * kernel_slope, head - head_rate * head_slope
        return new, (loss, jnp.linalg.norm(now))

    start = kernels, jnp.zeros((num_classes, len(kernels)), kernels.dtype)
    (trained, head), (loss, norms) = jax.lax.scan(advance, start, length=steps)
    return Trained(trained, head / scale, History(loss, norms, jnp.asarray(steps, jnp.int32)))


@functools.partial(jax.jit, static_argnames=("num_classes", "power", "steps"))
def _train_head(kernels, patches, labels, threshold, head_rate, *, num_classes, power, steps):
    found = activations(kernels, lay_out(patches), threshold, power)
    scale = _scale(found)
    inputs = found / scale

    def loss_of(head):
        return cross_entropy((head @ inputs).T, labels).mean()

    def advance(head, _):
        loss, slope = jax.value_and_grad(loss_of)(head)
        return head - head_rate * slope, loss

    start = jnp.zeros((num_classes, len(kernels)), kernels.dtype)
    head, loss = jax.lax.scan(advance, start, length=steps)
    norms = jnp.full_like(loss, jnp.linalg.norm(kernels))
    return Trained(kernels, head / scale, History(loss, norms, jnp.asarray(steps, jnp.int32)))
