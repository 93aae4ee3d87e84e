"""Gaussian posteriors over latents: KL divergence from the prior, and bounds on log p(x)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Shaped

from recon_jax.checks import is_concrete


class Posterior(NamedTuple):
    """q(z | x) = N(mean, diag(scale^2)) of N images; the prior is N(0, I).

    Attributes:
      mean: (N, Z).
      scale: standard deviations (N, Z), > 0.
    """

    mean: Float[Array, "n z"]
    scale: Float[Array, "n z"]


def _check_scale(scale: ArrayLike) -> None:
    if is_concrete(scale) and not (np.asarray(scale) > 0).all():
        raise ValueError(
            f"scale must be positive everywhere, its least value is {np.asarray(scale).min()}; "
            "standard deviations are expected, such as softplus(output) + 1e-6"
        )


def gaussian_kl(posterior: Posterior) -> Float[Array, "n z"]:
    """KL(q(z_d | x) || N(0, 1)) = (mean^2 + scale^2 - 1) / 2 - log scale, in nats, >= 0.

    Args:
      posterior: means and standard deviations (N, Z).

    Raises:
      ValueError: if a scale is not positive (checked outside jit).
    """
    mean, scale = posterior
    _check_scale(scale)
    # (s^2 - 1) / 2 - log s in terms of s - 1 keeps its digits near s = 1, where it vanishes.
    excess = scale - 1
    spread = excess * (scale + 1) / 2 - jnp.log1p(excess)
    return jnp.square(mean) / 2 + jnp.maximum(spread, 0)


def sample_posterior(
    posterior: Posterior, noise: Float[ArrayLike, "*draws n z"]
) -> Float[Array, "*draws n z"]:
    """Draws z = mean + scale noise, differentiable in the posterior.

    Args:
      posterior: of N images.
      noise: standard normal, (N, Z), or (K, N, Z) for K draws an image.
    """
    noise = jnp.asarray(noise)
    mean, scale = (jnp.broadcast_to(part, noise.shape) for part in posterior)
    return mean + scale * noise


def log_normal(
    z: Float[ArrayLike, "..."], mean: Float[ArrayLike, "..."], scale: Float[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Log-density log N(z; mean, scale^2) of every entry, in nats and not summed.

    Args:
      z: of any shape.
      mean: a number, or an array that broadcasts against z: (N, Z) does against (K, N, Z).
      scale: likewise; standard deviations > 0.

    Raises:
      ValueError: if a scale is not positive (checked outside jit).
    """
    _check_scale(scale)
    arrays = [jnp.asarray(array) for array in (z, mean, scale)]
    shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    z, mean, scale = (jnp.broadcast_to(array, shape) for array in arrays)
    return -jnp.square((z - mean) / scale) / 2 - jnp.log(scale) - 0.5 * math.log(2 * math.pi)


def free_bits(
    kl: Float[Array, "n z"],
    nats_per_dimension: float,
    mask: Shaped[ArrayLike, " n"] | None = None,
    *,
    axis_name: str | None = None,
) -> Float[Array, " n"]:
    """KL term with a floor: its mean over the batch is sum_d max(mean_n kl_nd, lambda).

    A dimension whose mean KL over the batch lies below lambda costs lambda nats and has no
    gradient, so that nothing is gained by collapsing it further; the others cost their KL. One
    number an image, so that it is averaged as other losses are, by `mean_of(total_of(.., mask))`.

    Args:
      kl: `gaussian_kl` of the batch (N, Z).
      nats_per_dimension: lambda, >= 0; 0 leaves the KL as it is.
      mask: False for padding, which does not enter the batch mean; None counts all.
      axis_name: mapped axis over whose members the batch is spread.

    Raises:
      ValueError: if lambda is negative or not finite.

    Source: Kingma et al. 2016 (arXiv 1606.04934), appendix C.8.
    """
    if not 0 <= nats_per_dimension < math.inf:
        raise ValueError(
            f"nats_per_dimension={nats_per_dimension} must be a finite number >= 0; 0 is no floor"
        )
    counts = jnp.ones(len(kl), bool) if mask is None else jnp.asarray(mask, bool)
    fixed = jax.lax.stop_gradient(kl)
    total, count = jnp.where(counts[:, None], fixed, 0).sum(0), counts.sum(dtype=kl.dtype)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    pays = total > nats_per_dimension * count
    return jnp.where(pays[None, :], kl, nats_per_dimension).sum(1)


def importance_weighted_bound(log_weights: Float[Array, "k n"]) -> Float[Array, " n"]:
    """Lower bound log (1/K) sum_k w_k on log p(x), which K -> infinity makes tight.

    w_k = p(x | z_k) p(z_k) / q(z_k | x), z_k drawn from q. K = 1 is the ELBO with one draw; the
    expectation never falls with K.

    Args:
      log_weights: log w_k in nats (K, N), K draws for each image.

    Raises:
      ValueError: if there is no draw.

    Source: Burda et al. 2016 (arXiv 1509.00519), section 3.
    """
    if not len(log_weights):
        raise ValueError("log_weights holds no draw (K = 0); give one or more an image")
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
