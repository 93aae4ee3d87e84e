"""What mask-reconstruction pretraining minimises: a teacher's features, or the pixels.

Source: Pan et al. 2023 (arXiv 2206.03826), which analyses both; the expectation over masks in
closed form is derived here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer, check_numbers
from recon_jax.multiview.checks import (
    as_floats,
    as_network_input,
    as_power,
    check_keep,
)
from recon_jax.multiview.network import lay_out, rectify, responses


def mask_reconstruction_loss(
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    keep: ArrayLike,
    teacher_scale: ArrayLike,
    threshold: ArrayLike = 1.0,
    power: float = 4,
) -> Float[Array, ""]:
    """Squared error of a student that sees a part of the patches, in expectation over the masks.

    With a_p = sR(<w_r, x_p>), student h'_r = (1 / theta) sum_p eps_p a_p, eps_p ~ Bernoulli(theta),
    and teacher t_r = sum_p sR(tau <w_r, x_p>), which is a constant for the gradient,
    E 1/2 sum_r (t_r - h'_r)^2 = 1/2 sum_r [(t_r - sum_p a_p)^2 + (1 - theta) / theta sum_p a_p^2],
    averaged over images. The loss is a sum over kernels that do not interact.

    Args:
      kernels: w, rows (R, d).
      patches: x (N, P, d).
      keep: theta, probability that a patch stays visible, in (0, 1]; 1 masks nothing.
      teacher_scale: tau > 0, weights of the teacher over those of the student.
      threshold: rho > 0 of the rectifier sR.
      power: q >= 1 of the rectifier.

    Returns:
      The loss, a scalar.

    Raises:
      ValueError: if an array has another shape, or a number is out of range (checked outside jit).

    Source: Pan et al. 2023 (arXiv 2206.03826), appendix E.1 for the loss; the expectation is
      derived here.
    """
    kernels, patches = as_network_input(kernels, patches)
    keep, teacher_scale, threshold, power = _settings(
        kernels, keep, teacher_scale, threshold, power
    )
    return exact_loss(kernels, lay_out(patches), keep, teacher_scale, threshold, power)


def mask_reconstruction_loss_sampled(
    key: Array,
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    keep: ArrayLike,
    teacher_scale: ArrayLike,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    *,
    num_masks: int = 1,
) -> Float[Array, ""]:
    """`mask_reconstruction_loss` by Monte Carlo: its mean over random masks of every image.

    Args:
      key: of the masks.
      kernels: rows (R, d).
      patches: (N, P, d).
      keep: theta in (0, 1].
      teacher_scale: tau > 0.
      threshold: rho > 0.
      power: q >= 1.
      num_masks: masks drawn for each image, at least 1.

    Raises:
      ValueError: as `mask_reconstruction_loss`, and if there is no mask.

    Source: Pan et al. 2023 (arXiv 2206.03826), appendix E.1.
    """
    check_integer("num_masks", num_masks, 1, "masks of each image")
    kernels, patches = as_network_input(kernels, patches)
    settings = _settings(kernels, keep, teacher_scale, threshold, power)
    columns = lay_out(patches)
    losses = jax.lax.map(
        lambda mask_key: sampled_loss(mask_key, kernels, columns, *settings),
        jax.random.split(key, num_masks),
    )
    return losses.mean()


def mae_loss(
    kernels: Float[ArrayLike, "r d"],
    decoder: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    key: Array,
    keep: ArrayLike,
    threshold: ArrayLike = 1.0,
    power: float = 4,
) -> Float[Array, ""]:
    """Squared error 1/2 |sum_p x_p - D^T h'(eps X)|^2 of the pixels, averaged over images.

    A linear decoder reads the encoder, which sees a part of the patches, and predicts the sum of
    all of them: a masked autoencoder without positions. How the paper poses its own is not public.

    Args:
      kernels: rows (R, d).
      decoder: D (R, d).
      patches: (N, P, d).
      key: of the masks, one for each image.
      keep: theta in (0, 1].
      threshold: rho > 0.
      power: q >= 1.

    Returns:
      The loss, a scalar.

    Raises:
      ValueError: if an array has another shape, or a number is out of range (checked outside jit).

    Source: chosen here, after Pan et al. 2023 (arXiv 2206.03826).
    """
    kernels, patches = as_network_input(kernels, patches)
    decoder = as_floats("decoder", decoder, 2, "number of kernels, dim")
    if decoder.shape != kernels.shape:
        raise ValueError(
            f"decoder has shape {decoder.shape}, kernels {kernels.shape}; it needs one row a kernel"
        )
    keep, _, threshold, power = _settings(kernels, keep, 1.0, threshold, power)
    decoder = decoder.astype(kernels.dtype)
    return pixel_loss(kernels, decoder, lay_out(patches), key, keep, threshold, power)


def _settings(kernels, keep, teacher_scale, threshold, power):
    """The numbers of a loss in the dtype of the kernels, checked."""
    check_keep(keep)
    check_numbers(
        "teacher_scale", teacher_scale, "(0, inf)", "teacher weights over student weights"
    )
    check_numbers("threshold", threshold, "(0, inf)", "where the rectifier becomes linear")
    numbers = (jnp.asarray(number, kernels.dtype) for number in (keep, teacher_scale, threshold))
    return (*numbers, as_power(power))


def _teacher(found: Array, teacher_scale: Array, threshold: Array, power: int | float) -> Array:
    # The teacher's weights are tau times the student's, so one product of matrices serves both.
    return jax.lax.stop_gradient(rectify(teacher_scale * found, threshold, power).sum(1))


def _visible(key: Array, keep: Array, columns: Array) -> Array:
    """Masks (P, N) of 0 and 1 / theta, which leave every sum over patches unbiased."""
    return jax.random.bernoulli(key, keep, columns.shape[1:]) / keep


def exact_loss(
    kernels: Array,
    columns: Array,
    keep: Array,
    teacher_scale: Array,
    threshold: Array,
    power: int | float,
) -> Array:
    """`mask_reconstruction_loss` without checks, of patches as `lay_out` returns them."""
    found = responses(kernels, columns)
    seen = rectify(found, threshold, power)
    error = _teacher(found, teacher_scale, threshold, power) - seen.sum(1)
    spread = (1 - keep) / keep * jnp.square(seen).sum(1)
    return (jnp.square(error) + spread).sum() / (2 * columns.shape[2])


def sampled_loss(
    key: Array,
    kernels: Array,
    columns: Array,
    keep: Array,
    teacher_scale: Array,
    threshold: Array,
    power: int | float,
) -> Array:
    """`mask_reconstruction_loss_sampled` of one mask an image, without checks."""
    found = responses(kernels, columns)
    visible = _visible(key, keep, columns)
    student = (rectify(found, threshold, power) * visible[None]).sum(1)
    error = _teacher(found, teacher_scale, threshold, power) - student
    return jnp.square(error).sum() / (2 * columns.shape[2])


def pixel_loss(
    kernels: Array,
    decoder: Array,
    columns: Array,
    key: Array,
    keep: Array,
    threshold: Array,
    power: int | float,
) -> Array:
    """`mae_loss` without checks, of patches as `lay_out` returns them."""
    visible = _visible(key, keep, columns)
    student = (rectify(responses(kernels, columns), threshold, power) * visible[None]).sum(1)
    error = columns.sum(1) - decoder.T @ student
    return jnp.square(error).sum() / (2 * columns.shape[2])
