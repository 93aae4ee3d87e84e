"""What the experiments with variational autoencoders share: data, one training run, its read-outs.

Training images get a new draw of the texture, if any, at every visit; the images that probes are
fitted to and tested on have one fixed draw each. Representations are posterior means.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import recon_jax
from experiments import trained
from recon_jax import augment, data, losses, models, parallel, report, spectral, training
from recon_jax.augment.policies import Policy

FULL = "full"
FACTORISED = "factorised"
LOCAL = "local"


class Context(NamedTuple):
    """What every step of a run needs.

    Attributes:
      config: of the experiment.
      workdir: of the experiment.
      train: training images, to be trained on.
      seen: the same with their fixed texture, for probes.
      unseen: test images with theirs.
      likelihood: of the pixels.
      scores: principal components of `seen` and of `unseen`, all of them.
      data_key: what the pixels are a function of, as JSON content.
    """

    config: ConfigDict
    workdir: Path
    train: data.Source
    seen: data.Source
    unseen: data.Source
    likelihood: losses.Likelihood
    scores: tuple[np.ndarray, np.ndarray]
    data_key: dict[str, Any]

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step of the run, kept in the workdir."""
        key = [self.data_key, recon_jax.__version__, key]
        return report.cached(self.workdir / "cache", name, key, compute)


def parse_decoder(name: str) -> int | None:
    """Horizon of a decoder by its name: "factorised", "full", or "local-3" for 3 pixels.

    Raises:
      ValueError: for another name.
    """
    kind, _, number = name.partition("-")
    if name in (FULL, FACTORISED):
        return None if name == FULL else 0
    if kind != LOCAL or not number.isdigit() or int(number) < 1:
        raise ValueError(
            f"unknown decoder {name!r}; choose {FACTORISED}, {FULL}, or {LOCAL}-H for a horizon of "
            f"H pixels, such as {LOCAL}-1"
        )
    return int(number)


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    trained.require_choice("likelihood.name", config.likelihood.name, losses.LIKELIHOODS)
    trained.require_choice("model.networks", config.model.networks, ("mlp", "conv", "residual"))
    trained.require_at_least("kl_warmup", config.kl_warmup, 0)
    if config.kl_warmup > 1:
        raise ValueError(f"kl_warmup is a part of the run in [0, 1], got {config.kl_warmup}")
    trained.require_at_least("free_bits", config.free_bits, 0)
    for field in ("max_iterations", "num_neighbors", "shots", "draws"):
        trained.require_at_least(f"probe.{field}", config.probe[field], 1)
    trained.require_at_least("probe.regularization", config.probe.regularization, 0)
    trained.require_at_least("texture.strength", config.texture.strength, 0)


def texture_of(options: ConfigDict, image_shape: tuple[int, int, int]):
    """The policy of the config's `texture`; none if it changes nothing."""
    if not options.strength and not options.brightness and options.contrast == 1:
        return augment.no_augmentation()
    return augment.texture(image_shape, **options.to_dict())


def fixed_texture(source: data.Source, policy: Any) -> data.Source:
    """All images in memory, pixels in [0, 1], image i textured by fold_in(key(split), i)."""
    key = jax.random.key({"train": 1, "test": 2}[source.split])

    @jax.jit
    def draw(images, first):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(len(images)))
        return policy(keys, training.unit_pixels(images))

    parts, labels, first = [], [], 0
    for batch in trained.all_batches(source):
        parts.append(np.asarray(draw(batch.images, first))[batch.mask])
        labels.append(batch.labels[batch.mask])
        first += len(batch.labels)
    return data.from_arrays(
        np.concatenate(parts).astype(np.float32),
        np.concatenate(labels),
        source.label_names,
        name=source.name,
        split=source.split,
    )


def principal_components(seen: data.Source, unseen: data.Source):
    """Scores of both splits on the principal directions of the first, in descending order."""
    rows = [
        np.concatenate([b.images[b.mask] for b in trained.all_batches(s)]).reshape(s.num_images, -1)
        for s in (seen, unseen)
    ]
    with jax.enable_x64(True):
        batch = data.Batch(
            jnp.asarray(rows[0], jnp.float64),
            np.zeros(len(rows[0]), np.int32),
            np.ones(len(rows[0]), bool),
        )
        spectrum = spectral.eigendecompose(spectral.stream_moments([batch], 1))
        mean, vectors = np.asarray(spectrum.mean), np.asarray(spectrum.vectors)
    return tuple((part - mean[None, :]) @ vectors for part in rows)


def open_data(config: ConfigDict, workdir: Path) -> Context:
    """Both splits; ValueError for images that fit neither a model nor the likelihood."""
    train, test = trained.open_splits(config)
    trained.plan_run(config.train, train.num_images)
    options = config.likelihood.to_dict()
    likelihood = losses.make_likelihood(options.pop("name"), train.image_shape[2], **options)
    policy = texture_of(config.texture, train.image_shape)
    seen, unseen = (fixed_texture(split, policy) for split in (train, test))
    key = {split.split: trained.describe_data(config, split) for split in (train, test)}
    key["texture"] = config.texture.to_dict()
    scores = principal_components(seen, unseen)
    return Context(config, workdir, train, seen, unseen, likelihood, scores, key)


def make_model(context: Context, decoder: str, latent_size: int, **changes: Any) -> models.VAE:
    """The variational autoencoder of a decoder and a latent size."""
    return models.VAE(
        context.train.image_shape,
        latent_size,
        context.likelihood.num_params,
        parse_decoder(decoder),
        dtype=jnp.dtype(context.config.train.dtype),
        axis_name=parallel.AXIS,
        **context.config.model.to_dict(),
        **changes,
    )


def with_texture(context: Context, policy: Policy) -> Policy:
    """A policy followed by a new draw of the texture."""
    texture = texture_of(context.config.texture, context.train.image_shape)

    def both(keys, images):
        first, second = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return texture(second, policy(first, images))

    return both


def kl_schedule(config: ConfigDict, total: int):
    """Weight of the KL divergence: from 0 to 1 in the first part of the run, or always 1."""
    steps = round(config.kl_warmup * total)
    return optax.linear_schedule(0.0, 1.0, steps) if steps else 1.0


def make_trainer(context: Context, decoder: str, latent_size: int) -> trained.Trainer:
    """The trainer of a decoder and a latent size, for all its seeds."""
    config, train = context.config, context.train
    plan = trained.plan_run(config.train, train.num_images)

    def loss(model, policy, axis_name):
        return training.vae_loss(
            model,
            context.likelihood,
            policy=with_texture(context, policy),
            kl_weight=kl_schedule(config, plan.total),
            free_bits=config.free_bits,
            axis_name=axis_name,
        )

    return trained.make_trainer(
        config.train,
        make_model(context, decoder, latent_size),
        train.image_shape,
        train.num_images,
        loss,
        functools.partial(training.vae_metrics, likelihood=context.likelihood),
        takes_step=bool(config.kl_warmup),
    )


def run_of(context: Context, decoder: str, latent_size: int, seed: int):
    """The folder of a run, and what decides its outcome beside the training options."""
    config = context.config
    key = {
        "model": config.model.to_dict(),
        "likelihood": config.likelihood.to_dict(),
        "kl": [config.kl_warmup, config.free_bits],
        "cell": [decoder, latent_size],
        "data": context.data_key,
    }
    return f"{decoder}-z{latent_size}-t{config.texture.strength:g}-seed{seed}", key


def train_cell(
    context: Context, trainer: trained.Trainer, decoder: str, latent_size: int, seed: int
) -> tuple[training.TrainState, float]:
    """The trained state, or the rest of the way there, and seconds."""
    name, key = run_of(context, decoder, latent_size, seed)
    return trained.train(trainer, context.train, seed, context.workdir / "runs" / name, key)


def require_cells(config: ConfigDict) -> None:
    """Raise ValueError for decoders or latent sizes that cannot be, or are there twice."""
    for field in ("decoders", "latent_sizes"):
        found = tuple(config[field])
        if not found or len(set(found)) < len(found):
            raise ValueError(f"{field} must be one or more different ones, got {found}")
    for name in config.decoders:
        parse_decoder(name)
    for size in config.latent_sizes:
        trained.require_at_least("latent_sizes", size, 1)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks."""
    config.data.train_limit, config.data.test_limit, config.data.image_size = 120, 120, 8
    config.model.networks, config.model.widths, config.model.norm = "mlp", (16,), "layer"
    config.model.decoder_features, config.model.head_width, config.model.num_blocks = 2, 4, 1
    config.model.first_kernel, config.model.inner_kernel = 3, 3
    config.train.epochs, config.train.batch_size = 2, 40
    config.train.evaluate_every = config.train.checkpoint_every = 1
    config.probe.draws, config.probe.shots, config.probe.max_iterations = 1, 2, 20
    config.reduction = "smoke run, whose numbers mean nothing"
    return config
