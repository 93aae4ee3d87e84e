"""The runs of the deformation experiment: networks x noise x seeds, trained and then measured."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

import recon_jax
from experiments import trained
from experiments.nets import Net, nets_of, train_options
from recon_jax import data, diffeo, models, parallel, report, training
from recon_jax.augment.policies import Policy


class Cell(NamedTuple):
    """A network and the standard deviation of the noise it is trained with, 0 for none."""

    net: Net
    noise: float

    @property
    def name(self) -> str:
        """For people and file names."""
        return self.net.name + (f"-noise{self.noise:g}" if self.noise else "")


class Context(NamedTuple):
    """What every run needs.

    Attributes:
      config: of the experiment.
      workdir: of the experiment.
      train: training images, normalised.
      test: test images, normalised.
      probes: some of the test images, deformed and with noise.
      data_key: what the pixels are a function of, as JSON content.
    """

    config: ConfigDict
    workdir: Path
    train: data.Source
    test: data.Source
    probes: diffeo.Probes
    data_key: dict[str, Any]

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step of the run, kept in the workdir."""
        key = [self.data_key, recon_jax.__version__, key]
        return report.cached(self.workdir / "cache", name, key, compute)


def cells_of(config: ConfigDict) -> list[Cell]:
    """All networks without noise, then those that are also trained with it."""
    nets = {net.name: net for net in nets_of(config)}
    noisy = [Cell(nets[name], std) for name in config.noise_nets for std in config.noise_stds]
    return [*(Cell(net, 0.0) for net in nets.values()), *noisy]


def make_model(net: Net, num_classes: int, dtype: str, axis_name: str | None = None):
    """The Flax module; ValueError for options that it has not."""
    model = models.make_model(net.model, num_classes, dtype=jnp.dtype(dtype), **net.options)
    return model.clone(axis_name=axis_name) if hasattr(model, "axis_name") else model


def by_channel(source: data.Source) -> data.Normalization:
    """Mean and standard deviation of each channel over all pixels of all images, in [0, 1]."""
    sums, squares, count = 0.0, 0.0, 0
    for batch in trained.all_batches(source):
        pixels = np.asarray(training.unit_pixels(batch.images[batch.mask]), np.float64)
        pixels = pixels.reshape(-1, source.image_shape[2])
        sums, squares = sums + pixels.sum(0), squares + np.square(pixels).sum(0)
        count += len(pixels)
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if not deviation.all():
        raise ValueError(f"a channel of {source.name} has one value in all training images")
    return data.Normalization("channels", np.broadcast_to(mean, source.image_shape), deviation)


def draw_probes(config: ConfigDict, test: data.Source) -> diffeo.Probes:
    """Images of the test split, deformed and with noise: the same for all networks and seeds."""
    options = config.measure.to_dict()
    count = options.pop("images")
    if count > test.num_images:
        raise ValueError(
            f"measure.images={count} is more than the {test.num_images} test images there are"
        )
    rows = np.sort(np.random.default_rng(0).permutation(test.num_images)[:count])
    return diffeo.probe_images(jax.random.key(0), test.read(rows)[0], **options)


def open_data(config: ConfigDict, workdir: Path) -> Context:
    """Both splits, normalised; ValueError for images that fit neither networks nor batches."""
    splits = trained.open_splits(config)
    for net in nets_of(config):
        trained.plan_run(train_options(config, net), splits[0].num_images)
        models.variable_shapes(
            make_model(net, splits[0].num_classes, config.train.dtype), splits[0].image_shape
        )
    key = {split.split: trained.describe_data(config, split) for split in splits}
    normalization = by_channel(splits[0])
    train, test = (data.normalized_source(split, normalization) for split in splits)
    return Context(config, workdir, train, test, draw_probes(config, test), key)


def add_noise(keys: jax.Array, images: jax.Array, std: float) -> jax.Array:
    """Images (N, H, W, C) plus std N(0, 1) / sqrt(H W C), of norm about std, one key an image."""
    shape = images.shape[1:]
    draw = jax.vmap(lambda key: jax.random.normal(key, shape, images.dtype))
    return images + std / float(np.sqrt(np.prod(shape))) * draw(keys)


def with_noise(policy: Policy, std: float) -> Policy:
    """A policy, then noise."""
    if not std:
        return policy

    def noisy(keys, images):
        first, second = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return add_noise(second, policy(first, images), std)

    return noisy


def noisy_source(source: data.Source, std: float) -> data.Source:
    """The images with one draw of noise each: image i by fold_in(key, i)."""
    key = jax.random.key(1)

    @jax.jit
    def draw(images, rows):
        return add_noise(jax.vmap(jax.random.fold_in, (None, 0))(key, rows), images, std)

    def read(indices):
        images, labels = source.read(indices)
        return np.asarray(draw(images, np.asarray(indices))), labels

    return source._replace(read=read)


def make_trainer(context: Context, cell: Cell) -> trained.Trainer:
    """The trainer of a cell, for all its seeds."""
    train, dtype = context.train, context.config.train.dtype

    def loss(model, policy, axis_name):
        policy = with_noise(policy, cell.noise)
        return training.classification_loss(model, policy=policy, axis_name=axis_name)

    return trained.make_trainer(
        train_options(context.config, cell.net),
        make_model(cell.net, train.num_classes, dtype, parallel.AXIS),
        train.image_shape,
        train.num_images,
        loss,
        training.classification_metrics,
    )


def identity_of(context: Context, cell: Cell) -> dict[str, Any]:
    """What decides a run's outcome, beside the options of training and the seed."""
    return {
        "data": context.data_key,
        "model": [cell.net.model, cell.net.options],
        "noise": cell.noise,
    }


def is_convolutional(params: Any) -> bool:
    """Whether there is a kernel over positions."""
    return any(leaf.ndim == 4 for leaf in jax.tree.leaves(params))


def make_measure(context: Context, net: Net) -> Callable[..., dict[str, np.ndarray]]:
    """Function (variables, batch_statistics) -> D, G, R (3, layers) and of the output by medians.

    All of them are NaN for a network that makes the same of all images.
    """
    train = context.train
    model = make_model(net, train.num_classes, context.config.train.dtype)
    names = list(models.layer_shapes(model, train.image_shape))

    @functools.partial(jax.jit, static_argnums=2)
    def outputs(variables, images, batch_statistics):
        return models.apply_with_intermediates(
            model, variables, images, batch_statistics=batch_statistics
        )[0]

    def measure(variables, batch_statistics=False):
        apply = functools.partial(
            models.apply_with_intermediates, model, variables, batch_statistics=batch_statistics
        )
        try:
            layers = diffeo.layerwise_sensitivities(apply, *context.probes)
            parts = (outputs(variables, images, batch_statistics) for images in context.probes)
            median = diffeo.sensitivities(*parts, reduce="median")
        except ValueError as error:
            # A network that died must not take the hours of the others with it.
            logging.warning("%s has no sensitivities: %s", net.name, error)
            layers, median = dict.fromkeys(names, (np.nan,) * 3), (np.nan,) * 3
        return {
            "layers": np.array(names),
            "mean": np.array([np.array(layers[name], float) for name in names]).T,
            "median": np.array(median, float),
        }

    return measure


def spectra_of(params: Any, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Energy of the filters by mode, of all kernels with the sides of the first one.

    Args:
      params: of a convolutional network.
      layers: names of its representations, in whose order the kernels come.
    """
    places = {f"{name}/conv": place for place, name in enumerate(layers)}
    found = diffeo.filter_spectra(params)
    found = {name: found[name] for name in sorted(found, key=places.__getitem__)}
    size = len(next(iter(found.values())))
    kept = {
        name: np.asarray(energy, float) for name, energy in found.items() if len(energy) == size
    }
    modes = diffeo.laplacian_modes(round(size**0.5)).values
    return {
        "kernels": np.array(list(kept)),
        "modes": np.asarray(modes, float),
        "spectra": np.stack(list(kept.values())),
    }


def judge(
    context: Context, cell: Cell, trainer: trained.Trainer, state: training.TrainState, seed: int
) -> dict[str, Any]:
    """Test errors in per cent, and sensitivities before and after training and shuffled."""

    def error(source):
        metrics = trainer.evaluate(state, trained.evaluation_batches(source))
        return 100 * (1 - metrics["accuracy"])

    test, noisy = context.test, noisy_source(context.test, cell.noise)
    measure = make_measure(context, cell.net)
    variables = training.variables_of(state)
    initial = training.variables_of(trainer.init(seed))
    found = {"error": error(test), "noisy_error": error(noisy) if cell.noise else np.nan}
    states = {"trained": measure(variables)}
    if not cell.noise:
        states["initial"] = measure(initial, batch_statistics=True)
    if not cell.noise and is_convolutional(variables["params"]):
        for shuffle in range(context.config.shuffles):
            params = diffeo.shuffle_channels(jax.random.key(shuffle), variables["params"])
            states[f"shuffled{shuffle}"] = measure({**variables, "params": params})
        layers = list(states["trained"]["layers"])
        states["trained"] |= spectra_of(variables["params"], layers)
        states["initial"] |= spectra_of(initial["params"], layers)
    for name, parts in states.items():
        found |= {f"{name}_{field}": value for field, value in parts.items()}
    return found


def run_cell(context: Context, cell: Cell, seeds: list[int]) -> Iterator[dict[str, np.ndarray]]:
    """Train and measure once for each seed; finished runs are read, not trained again."""
    config = context.config
    made = functools.cache(functools.partial(make_trainer, context, cell))
    identity = identity_of(context, cell)
    settings = [
        config.measure.to_dict(),
        config.shuffles,
        trained.decisive(train_options(config, cell.net)),
    ]
    for seed in seeds:
        name = f"{cell.name}-seed{seed}"

        def compute(name=name, seed=seed):
            print(f"run {name}", file=sys.stderr, flush=True)
            folder = context.workdir / "runs" / name
            state, seconds = trained.train(made(), context.train, seed, folder, identity)
            return {**judge(context, cell, made(), state, seed), "seconds": seconds}

        yield context.cached(name, [identity, settings, seed], compute)
