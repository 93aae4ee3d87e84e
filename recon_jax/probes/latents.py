"""What latents of variational autoencoders carry: active units, information, posterior collapse."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key, Shaped

from recon_jax.checks import check_numbers, is_concrete
from recon_jax.features import check_features

# Rows of the M x M matrix of log-densities that are in memory at once.
_BLOCK = 64


def _check_scales(scales: Array) -> None:
    check_features(scales, "scales")
    if is_concrete(scales) and not (np.asarray(scales) > 0).all():
        raise ValueError(
            f"scales must be positive, the least is {np.min(scales)}; standard deviations are "
            "expected, not their logarithms"
        )


def active_units(means: Float[ArrayLike, "m z"], threshold: float = 0.01) -> Bool[Array, " z"]:
    """Whether Var over images of the posterior mean of a latent unit exceeds the threshold.

    Args:
      means: posterior means of M >= 2 images (M, Z).
      threshold: in units of the prior's variance, >= 0.

    Raises:
      ValueError: if there are fewer than 2 images, the means are not finite, or threshold < 0.

    Source: Burda et al. 2016 (arXiv 1509.00519), section 5.
    """
    means = jnp.asarray(means)
    check_features(means, "means")
    check_numbers("threshold", threshold, "[0, inf)")
    if len(means) < 2:
        raise ValueError("means holds 1 image, whose variance says nothing; give 2 or more")
    return means.var(0) > threshold


def posterior_entropy(scales: Float[ArrayLike, "m z"]) -> Float[Array, " m"]:
    """Entropy sum_d log(scale_d sqrt(2 pi e)) of each Gaussian posterior, in nats.

    Args:
      scales: standard deviations (M, Z), > 0.

    Raises:
      ValueError: if a scale is not a finite positive number (checked outside jit).
    """
    scales = jnp.asarray(scales)
    _check_scales(scales)
    return (jnp.log(scales) + 0.5 * (1 + math.log(2 * math.pi))).sum(1)


def _log_mixture(z: Array, means: Array, inverse: Array, log_norms: Array) -> Array:
    """Rows of log (1/M) sum_m q(z | x_m) for z (B, Z), without (2 pi)^(-Z/2)."""
    # Differences, not the matrix product of expanded squares, which cancels if scales are small.
    scaled = (z[:, None, :] - means[None]) * inverse[None]
    log_density = log_norms[None] - jnp.square(scaled).sum(-1) / 2
    return jax.nn.logsumexp(log_density, axis=1) - math.log(len(means))


@partial(jax.jit, static_argnames="block")
def _mutual_information(key, means, scales, block):
    count, size = means.shape
    noise = jax.random.normal(key, means.shape, means.dtype)
    inverse, log_norms = 1 / scales, -jnp.log(scales).sum(1)
    z = means + scales * noise
    blocks = jnp.pad(z, ((0, -count % block), (0, 0))).reshape(-1, block, size)
    log_mixture = jax.lax.map(lambda z: _log_mixture(z, means, inverse, log_norms), blocks)
    # From z as it was rounded, not from the noise, so that log M remains the limit.
    log_posterior = log_norms - jnp.square((z - means) * inverse).sum(1) / 2
    return (log_posterior - log_mixture.reshape(-1)[:count]).mean()


def mutual_information(
    key: Key[Array, ""], means: Float[ArrayLike, "m z"], scales: Float[ArrayLike, "m z"]
) -> Float[Array, ""]:
    """Information in nats that the latent holds on which image it came from.

    I = E_x KL(q(z|x) || p) - KL(q(z) || p) = mean over m of log q(z_m | x_m) - log q(z_m), with one
    z_m drawn from q(z | x_m) for every image and q(z) = (1/M) sum_j q(z | x_j) over all M images,
    m among them. So it never exceeds log M, which is reached when no two posteriors overlap: read
    values near log M as "at least". It may fall below 0 by the noise of the draws. Time grows as
    M^2 Z; memory holds 64 rows of the M x M densities at once.

    Args:
      key: of the draws.
      means: posterior means of the M images (M, Z).
      scales: standard deviations (M, Z), > 0.

    Raises:
      ValueError: if shapes differ, or values are not finite or scales not positive (values:
        outside jit).

    Source: Hoffman & Johnson 2016, "ELBO surgery" (NIPS workshop on approximate inference).
    """
    means, scales = jnp.asarray(means), jnp.asarray(scales)
    check_features(means, "means")
    _check_scales(scales)
    return _mutual_information(key, means, scales, min(_BLOCK, len(means)))


def describe_collapse(
    kl_per_dimension: Float[ArrayLike, " z"], active: Shaped[ArrayLike, " z"]
) -> str:
    """Posterior collapse in words with its numbers; "" if every latent unit is active.

    Args:
      kl_per_dimension: mean over images of KL(q(z_d | x) || p) in nats (Z,).
      active: `active_units` of the same latents (Z,).

    Raises:
      ValueError: if the two are not vectors of one length, Z at least 1.
    """
    kl, active = np.asarray(kl_per_dimension, float), np.asarray(active, bool)
    if kl.ndim != 1 or kl.shape != active.shape or not kl.size:
        raise ValueError(
            f"kl_per_dimension {kl.shape} and active {active.shape} must be vectors (Z,) of the "
            "same latent units"
        )
    total, count, idle = float(kl.sum()), len(kl), int((~active).sum())
    if not idle:
        return ""
    if idle == count:
        return (
            f"Posterior collapse: none of the {count} latent units is active, and the whole latent "
            f"has {total:.3g} nats of KL. A draw of it says next to nothing of the image; probes "
            "see its means without the noise and may still read something. A weaker decoder, KL "
            "warm-up or free bits may bring it back."
        )
    return (
        f"Part of the latent has collapsed: {idle} of {count} latent units are inactive, with "
        f"{float(kl[~active].sum()):.3g} of {total:.3g} nats of KL; the other {count - idle} carry "
        "what the latent says of the image."
    )
