"""Mask-reconstruction pretraining of the kernels, without labels.

Source: Pan et al. 2023 (arXiv 2206.03826); the rates and numbers of steps are chosen here.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer, check_numbers
from recon_jax.multiview.checks import (
    as_network_input,
    as_power,
    check_keep,
)
from recon_jax.multiview.descent import History, Trained, per_kernel_step
from recon_jax.multiview.network import lay_out
from recon_jax.multiview.reconstruction import exact_loss, pixel_loss, sampled_loss
from recon_jax.multiview.teacher import default_teacher_scale, warn_outside


def pretrain(
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    keep: ArrayLike = 0.5,
    teacher_scale: ArrayLike | None = None,
    *,
    patches_per_feature: int = 2,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    step_size: ArrayLike = 0.01,
    steps: int = 400,
    mask_key: Array | None = None,
) -> Trained:
    """Kernels after full-batch descent on `mask_reconstruction_loss`, each at its own rate.

    Kernel r moves by -step_size g_r / max_(t' <= t) |g_r|. That is allowed because the loss is a
    sum over kernels, and needed because gradients start at the order of <w, v>^(2q - 1).

    Args:
      kernels: at the start (R, d), as `init_kernels` draws them.
      patches: unlabelled images (N, P, d).
      keep: theta, probability that a patch stays visible to the student, in (0, 1].
      teacher_scale: tau > 0; `default_teacher_scale` if None. Outside `teacher_scale_bounds` there
        is a warning: below, kernels shrink; above, they also learn the noise of single patches.
      patches_per_feature: C_p of the data, on which only the default and the warning depend.
      threshold: rho > 0 of the rectifier.
      power: q >= 1 of the rectifier.
      step_size: length of a step of a kernel at its largest gradient, > 0.
      steps: at least 1. A kernel that has locked on a feature slowly adds the other one of the
        class, so many more steps than the default make kernels impure.
      mask_key: if given, every step draws a mask for each image instead of the exact expectation.

    Returns:
      `Trained`, without a head. A kernel that no patch excites stays as it was.

    Raises:
      ValueError: if an array has another shape, or a number is out of range (values: checked
        outside jit).

    Source: Pan et al. 2023 (arXiv 2206.03826), theorem on pretraining; step rule chosen here.
    """
    kernels, patches = as_network_input(kernels, patches)
    power = _check_training(keep, threshold, power, "step_size", step_size, steps)
    check_integer("patches_per_feature", patches_per_feature, 1, "C_p of the data")
    if teacher_scale is None:
        teacher_scale = default_teacher_scale(keep, patches_per_feature, power)
    warn_outside(teacher_scale, keep, patches_per_feature, power)
    numbers = [
        jnp.asarray(number, kernels.dtype) for number in (keep, teacher_scale, threshold, step_size)
    ]
    return _pretrain(kernels, patches, mask_key, *numbers, power=power, steps=steps)


def pretrain_mae(
    key: Array,
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    keep: ArrayLike = 0.5,
    *,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    learning_rate: ArrayLike = 0.01,
    steps: int = 400,
) -> Trained:
    """Kernels and linear decoder after Adam on `mae_loss`, with new masks at every step.

    Args:
      key: of the decoder, standard normal over sqrt(R), and of the masks.
      kernels: at the start (R, d).
      patches: unlabelled images (N, P, d).
      keep: theta in (0, 1].
      threshold: rho > 0 of the rectifier.
      power: q >= 1 of the rectifier.
      learning_rate: of Adam, > 0.
      steps: at least 1.

    Returns:
      `Trained`, with the decoder (R, d) for a head.

    Raises:
      ValueError: if an array has another shape, or a number is out of range (values: checked
        outside jit).

    Source: chosen here, after Pan et al. 2023 (arXiv 2206.03826).
    """
    kernels, patches = as_network_input(kernels, patches)
    power = _check_training(keep, threshold, power, "learning_rate", learning_rate, steps)
    numbers = [jnp.asarray(number, kernels.dtype) for number in (keep, threshold, learning_rate)]
    return _pretrain_mae(key, kernels, patches, *numbers, power=power, steps=steps)


def _check_training(keep, threshold, power, rate_name, rate, steps):
    check_keep(keep)
    check_numbers("threshold", threshold, "(0, inf)", "where the rectifier becomes linear")
    check_numbers(rate_name, rate, "(0, inf)", "how far a step goes")
    check_integer("steps", steps, 1, "steps of the training")
    return as_power(power)


@functools.partial(jax.jit, static_argnames=("power", "steps"))
def _pretrain(
    kernels, patches, mask_key, keep, teacher_scale, threshold, step_size, *, power, steps
):
    columns, settings = lay_out(patches), (keep, teacher_scale, threshold, power)

    def loss_of(kernels, step):
        if mask_key is None:
            return exact_loss(kernels, columns, *settings)
        return sampled_loss(jax.random.fold_in(mask_key, step), kernels, columns, *settings)

    def advance(carry, step):
        now, largest = carry
        loss, gradient = jax.value_and_grad(loss_of)(now, step)
        move, largest = per_kernel_step(gradient, largest, step_size)
        return (now - move, largest), (loss, jnp.linalg.norm(now))

    start = kernels, jnp.zeros(len(kernels), kernels.dtype)
    (trained, _), (loss, norms) = jax.lax.scan(advance, start, jnp.arange(steps))
    return Trained(trained, None, History(loss, norms, jnp.asarray(steps, jnp.int32)))


@functools.partial(jax.jit, static_argnames=("power", "steps"))
def _pretrain_mae(key, kernels, patches, keep, threshold, learning_rate, *, power, steps):
    columns, optimizer = lay_out(patches), optax.adam(learning_rate)
    decoder_key, mask_key = jax.random.split(key)
    decoder = jax.random.normal(decoder_key, kernels.shape, kernels.dtype) / len(kernels) ** 0.5

    def loss_of(parameters, step):
        masks = jax.random.fold_in(mask_key, step)
        return pixel_loss(*parameters, columns, masks, keep, threshold, power)

    def advance(carry, step):
        parameters, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(parameters, step)
        updates, state = optimizer.update(gradients, state)
        new = optax.apply_updates(parameters, updates)
        return (new, state), (loss, jnp.linalg.norm(parameters[0]))

    parameters = (kernels, decoder)
    start = parameters, optimizer.init(parameters)
    (trained, _), (loss, norms) = jax.lax.scan(advance, start, jnp.arange(steps))
    return Trained(*trained, History(loss, norms, jnp.asarray(steps, jnp.int32)))
