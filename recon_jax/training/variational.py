"""The evidence lower bound of variational autoencoders, as a loss and as metrics.

Everything is in nats per image; `bits_per_dimension` is the bound over ln 2 and the H W C values of
an image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from recon_jax import augment, losses, models
from recon_jax.augment.policies import Policy
from recon_jax.losses import Likelihood, Posterior
from recon_jax.training.keys import example_keys
from recon_jax.training.objectives import MetricsFn, augmented_images, unit_pixels, variables_of
from recon_jax.training.state import TrainState
from recon_jax.training.step import LossFn

Weight = float | Callable[[Array], Array]


class VariationalTerms(NamedTuple):
    """What the bounds are made of, for N images and S latents of each.

    Attributes:
      posterior: q(z|x), of (N, Z).
      latents: (S, N, Z), drawn from it.
      log_likelihood: log p(x|z) in nats, (S, N).
    """

    posterior: Posterior
    latents: Float[Array, "s n z"]
    log_likelihood: Float[Array, "s n"]


def latent_noise(
    keys: Key[Array, " n"], num_samples: int, latent_size: int
) -> Float[Array, "s n z"]:
    """Standard normal numbers of each image's own key, (S, N, Z).

    Args:
      keys: one for each image (N,), such as `example_keys`.
      num_samples: S.
      latent_size: Z.
    """
    draw = functools.partial(jax.random.normal, shape=(num_samples, latent_size))
    return jnp.swapaxes(jax.vmap(lambda key: draw(key, dtype=jnp.float32))(keys), 0, 1)


def variational_terms(
    model: models.VAE,
    likelihood: Likelihood,
    variables: Any,
    levels: Int[Array, "n h w c"],
    noise: Float[Array, "s n z"],
    *,
    labels: Int[Array, " n"] | None = None,
    train: bool = False,
) -> tuple[VariationalTerms, Any]:
    """Encode once, decode each latent, and look up the images' likelihood.

    Args:
      model: see `models.VAE`.
      likelihood: of the images' levels.
      variables: {"params", "batch_stats"} of the model.
      levels: images (N, H, W, C) as whole numbers 0 .. L - 1.
      noise: standard normal (S, N, Z).
      labels: (N,), for a model that is given labels.
      train: use batch statistics, and move the running ones.

    Returns:
      The terms, and the batch statistics after them.
    """
    pixels = losses.from_levels(levels, likelihood.levels)
    samples = len(noise)
    stats = variables.get("batch_stats", {})

    def apply(method, *args, **inputs):
        nonlocal stats
        output, new = model.apply(
            {**variables, "batch_stats": stats},
            *args,
            **inputs,
            train=train,
            method=method,
            mutable=["batch_stats"] if train else [],
        )
        stats = new.get("batch_stats", stats)
        return output

    def repeated(rows):
        return None if rows is None else jnp.tile(rows, (samples,) + (1,) * (rows.ndim - 1))

    posterior = Posterior(*apply("encode", pixels, labels=labels))
    latents = losses.sample_posterior(posterior, noise)
    rows = latents.reshape(-1, latents.shape[-1])
    features = apply("decode", rows, labels=repeated(labels))
    params = model.apply(variables, repeated(pixels), features, method="predict")
    log_prob = likelihood.log_prob(params, repeated(levels)).sum((1, 2))
    return VariationalTerms(posterior, latents, log_prob.reshape(samples, -1)), stats


def log_weights(terms: VariationalTerms) -> Float[Array, "s n"]:
    """Log of p(x, z) / q(z|x) for every latent, in nats.

    Args:
      terms: from `variational_terms`.
    """
    mean, scale = terms.posterior
    prior = losses.log_normal(terms.latents, jnp.zeros_like(mean), jnp.ones_like(scale))
    posterior = losses.log_normal(terms.latents, mean, scale)
    return terms.log_likelihood + (prior - posterior).sum(-1)


def _sums(terms: VariationalTerms, likelihood, levels, mask) -> dict[str, tuple]:
    """Metrics: negative log-likelihood and KL in nats, bits per dimension of the bound."""
    nll = -terms.log_likelihood.mean(0)
    kl = losses.gaussian_kl(terms.posterior).sum(-1)
    bits = losses.bits_per_dimension(nll + kl, levels.shape[1:])
    named = {"nll": nll, "kl": kl, "bits_per_dimension": bits}
    return {name: losses.total_of(values, mask) for name, values in named.items()}


def _require(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise ValueError(f"{name}={value} must be at least {low:g}")


def vae_loss(
    model: models.VAE,
    likelihood: Likelihood,
    *,
    policy: Policy | None = None,
    kl_weight: Weight = 1.0,
    free_bits: float = 0.0,
    num_samples: int = 1,
    axis_name: str | None = None,
) -> LossFn:
    """The negative evidence lower bound, the mean over images of -log p(x|z) + w KL(q(z|x) || p).

    Args:
      model: see `models.VAE`.
      likelihood: of the pixels, with as many parameters as the model gives.
      policy: augmentation of pixels in [0, 1]; none if None.
      kl_weight: w >= 0, 1 for the bound; or a function of the number of steps made so far, for a
        warm-up: then the step must be made with `takes_step`.
      free_bits: nats of KL that each latent dimension has for free, on average over the batch; 0
        for the bound.
      num_samples: latents of each image. More than one trains the importance-weighted bound,
        -log 1/S sum_s p(x, z_s) / q(z_s|x), which knows neither weight nor free bits.
      axis_name: name of the device axis, so that every image draws its own latents.

    Returns:
      A loss for `make_train_step`. Metrics: nll and kl in nats an image, bits_per_dimension of
      nll + kl.

    Raises:
      ValueError: an option is out of range, or the importance-weighted bound was asked for with
        an option it does not know.

    Source: Zhang et al. 2022 (arXiv 2205.14539), released code: one latent, weight 1, no free bits.
      Free bits: Kingma et al. 2016 (arXiv 1606.04934); importance weights: Burda et al. 2015
      (arXiv 1509.00519).
    """
    _check_options(kl_weight, free_bits, num_samples)
    policy = policy or augment.no_augmentation()

    def loss_fn(params, batch_stats, batch, key, step=None):
        augment_key, latent_key = jax.random.split(key)
        images = augmented_images(batch, augment_key, policy, axis_name)
        levels = losses.to_levels(images, likelihood.levels)
        keys = example_keys(latent_key, len(images), axis_name)
        noise = latent_noise(keys, num_samples, model.latent_size)
        variables = {"params": params, "batch_stats": batch_stats}
        terms, stats = variational_terms(model, likelihood, variables, levels, noise, train=True)
        metrics = _sums(terms, likelihood, levels, batch.mask)
        if num_samples > 1:
            bound = losses.importance_weighted_bound(log_weights(terms))
            return -losses.mean_of(losses.total_of(bound, batch.mask)), (stats, metrics)
        weight = kl_weight(_required(step)) if callable(kl_weight) else kl_weight
        kl = losses.free_bits(
            losses.gaussian_kl(terms.posterior), free_bits, batch.mask, axis_name=axis_name
        )
        rate = losses.mean_of(losses.total_of(kl, batch.mask))
        return losses.mean_of(metrics["nll"]) + weight * rate, (stats, metrics)

    return loss_fn


def _required(step):
    if step is None:
        raise ValueError("a kl_weight that changes needs make_train_step(..., takes_step=True)")
    return step


def _check_options(kl_weight, free_bits, num_samples) -> None:
    if not callable(kl_weight):
        _require("kl_weight", kl_weight, 0)
    _require("free_bits", free_bits, 0)
    _require("num_samples", num_samples, 1)
    if num_samples > 1 and (callable(kl_weight) or kl_weight != 1 or free_bits):
        raise ValueError(
            f"num_samples={num_samples} trains the importance-weighted bound, which has neither "
            f"kl_weight={kl_weight} nor free_bits={free_bits}; leave them at 1 and 0"
        )


def vae_metrics(model: models.VAE, likelihood: Likelihood, *, num_samples: int = 1) -> MetricsFn:
    """Metrics in evaluation: nll, kl, bits_per_dimension, and the importance-weighted bound.

    Args:
      model: see `models.VAE`.
      likelihood: of the pixels.
      num_samples: S latents of each image, drawn from fold_in(key(0), row of the batch). The
        metric importance_weighted_bits, bits per dimension of the bound of S latents, is there
        for S > 1.

    Raises:
      ValueError: for less than one sample.
    """
    _require("num_samples", num_samples, 1)

    def metrics(state: TrainState, batch):
        levels = losses.to_levels(unit_pixels(batch.images), likelihood.levels)
        keys = example_keys(jax.random.key(0), len(levels))
        noise = latent_noise(keys, num_samples, model.latent_size)
        terms, _ = variational_terms(model, likelihood, variables_of(state), levels, noise)
        found = _sums(terms, likelihood, levels, batch.mask)
        if num_samples > 1:
            bound = losses.importance_weighted_bound(log_weights(terms))
            bits = losses.bits_per_dimension(-bound, levels.shape[1:])
            found["importance_weighted_bits"] = losses.total_of(bits, batch.mask)
        return found

    return metrics


def make_encode(model: nn.Module, num_levels: int) -> Callable[[Any, Array], Float[Array, "n z2"]]:
    """A function (variables, images) -> posterior means and scales side by side (N, 2 Z).

    The paper's representation of an image is the mean, the first Z columns.

    Args:
      model: with `encode`, such as `models.VAE`.
      num_levels: L, of the likelihood the model was trained with.
    """

    def encode(variables, images):
        levels = losses.to_levels(unit_pixels(images), num_levels)
        pixels = losses.from_levels(levels, num_levels)
        return jnp.concatenate(model.apply(variables, pixels, method="encode"), axis=-1)

    return encode
