"""The runs of the scale-detection experiment: its images, its trainings, and what is measured."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from experiments import trained
from experiments.nets import Net, nets_of, train_options
from recon_jax import data, diffeo, losses, models, parallel, report, training
from recon_jax.diffeo import scale_detection as tasks
from recon_jax.diffeo import scale_probes

TASKS = ("task1", "task2", "task2d")
CIRCULAR = "circular_cnn"
LABEL_NAMES = ("far", "near")


class Context(NamedTuple):
    """What every step of a run needs.

    Attributes:
      config: of the experiment.
      workdir: of the experiment.
      train: images of training pairs; far is 0, near 1.
      test: images of test pairs.
      probes: test images, deformed, and under noise.
    """

    config: ConfigDict
    workdir: Path
    train: data.Source
    test: data.Source
    probes: diffeo.Probes

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step of the run, kept in the workdir."""
        key = [recon_jax.__version__, self.config.task.to_dict(), key]
        return report.cached(self.workdir / "cache", name, key, compute)


def is_square(config: ConfigDict) -> bool:
    """Whether the task has two dimensions."""
    return config.task.name == "task2d"


def make_net(config: ConfigDict, net: Net) -> nn.Module:
    """The Flax module; ValueError for an unknown name or option, or one that does not fit."""
    if (net.model == CIRCULAR) == is_square(config):
        raise ValueError(
            f"model {net.model!r} of net {net.name!r} does not fit task.name={config.task.name}; "
            f"{CIRCULAR} is for lines, those of recon_jax.models.MODELS for images"
        )
    dtype = jnp.dtype(config.train.dtype)
    if net.model == CIRCULAR:
        try:
            return models.CircularCNN(alpha=config.alpha, dtype=dtype, **net.options)
        except TypeError as error:  # a field it does not have
            raise ValueError(f"net {net.name!r}: {error}") from error
    model = models.make_model(net.model, num_classes=1, dtype=dtype, **net.options)
    return model.clone(axis_name=parallel.AXIS) if hasattr(model, "axis_name") else model


def training_options(config: ConfigDict, net: Net) -> ConfigDict:
    """The config's `train` for one network, with the scaling and the ridge of the mean-field one.

    ridge sum w^2 / (width depth) has the gradient 2 ridge w / (width depth), a weight decay.
    """
    options = train_options(config, net)
    if net.model == CIRCULAR:
        model = make_net(config, net)
        options.learning_rate *= model.width
        options.weight_decay += 2 * config.ridge / (model.width * model.depth)
    return options


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any pair is listed."""
    trained.require_choice("task.name", config.task.name, TASKS)
    trained.require_at_least("ridge", config.ridge, 0)
    trained.require_at_least("measure.seed", config.measure.seed, 0)
    trained.require_at_least("measure.pairs", config.measure.pairs, 4)
    if config.measure.pairs > config.task.test_pairs:
        raise ValueError(
            f"measure.pairs={config.measure.pairs} are some of the task.test_pairs="
            f"{config.task.test_pairs}; ask for no more of them"
        )
    if not config.alpha > 0:
        raise ValueError(f"alpha must be above 0, got {config.alpha}")
    names = [net[0] for net in config.nets]
    if not names or len({slug(name) for name in names} - {""}) < len(names):
        raise ValueError(f"nets must be one or more with different names, got {names}")
    trained.validate_training(config.train, "train")
    for net in nets_of(config):
        make_net(config, net)
        trained.validate_training(training_options(config, net), f"net {net.name!r}: train")


def list_pairs(config: ConfigDict) -> tuple[tasks.Pairs, tasks.Pairs]:
    """Training and test pairs of the config's task."""
    task = config.task
    if is_square(config):
        pairs = tasks.task_2d(
            task.size,
            task.scale,
            task.gap,
            task.distance,
            periodic=task.periodic,
            include_diagonal=task.include_diagonal,
        )
    else:
        pairs = tasks.task_1d(task.size, task.scale, int(task.name[-1]), task.gap)
    return tasks.split(pairs, task.train_pairs, task.test_pairs, task.split_seed)


def probe_sites(config: ConfigDict, sites: np.ndarray) -> diffeo.Probes:
    """The images to measure on, deformed, and under noise."""
    key, size = jax.random.key(config.measure.seed), config.task.size
    if is_square(config):
        return scale_probes.probe_sites_2d(key, sites, size)
    block = config.task.scale if config.task.name == "task2" else None
    return scale_probes.probe_sites_1d(key, sites, size, block)


def open_data(config: ConfigDict, workdir: Path) -> Context:
    """The images of all pairs; ValueError for a task, a split or networks that do not fit."""
    train, test = list_pairs(config)
    render = tasks.render_2d if is_square(config) else tasks.render_1d
    sources = [
        data.from_arrays(
            np.asarray(render(pairs.sites, config.task.size)),
            (pairs.labels + 1) // 2,
            LABEL_NAMES,
            name=config.task.name,
            split=split,
        )
        for pairs, split in ((train, "train"), (test, "test"))
    ]
    for net in nets_of(config):
        trained.plan_run(training_options(config, net), len(train.labels))
        models.variable_shapes(make_net(config, net), sources[0].image_shape)
    probes = probe_sites(config, test.sites[: config.measure.pairs])
    return Context(config, workdir, *sources, probes)


def judged(outputs: jax.Array, batch: Any, alpha: float = 1.0) -> dict[str, tuple]:
    """Hinge loss max(0, 1 - y f) / alpha with y = +1 near, -1 far; share with y f > 0.

    Args:
      outputs: f (N, 1).
      batch: with labels 0 far, 1 near, and mask.
      alpha: above 0.
    """
    signs = 2 * jnp.asarray(batch.labels).astype(outputs.dtype) - 1
    margins = signs * outputs[:, 0]
    return {
        "hinge": losses.total_of(jax.nn.relu(1 - margins) / alpha, batch.mask),
        "accuracy": losses.total_of(margins > 0, batch.mask),
    }


def hinge_loss(model: nn.Module, *, policy=None, axis_name=None, alpha: float = 1.0):
    """Loss of a network with one output, for `make_train_step`: mean of `judged`'s hinge."""

    def loss_fn(params, batch_stats, batch, key):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, new = model.apply(variables, batch.images, train=True, mutable=["batch_stats"])
        metrics = judged(outputs, batch, alpha)
        return losses.mean_of(metrics["hinge"]), (new.get("batch_stats", {}), metrics)

    return loss_fn


def hinge_metrics(model: nn.Module, alpha: float = 1.0) -> training.objectives.MetricsFn:
    """`judged` of a network in evaluation mode, for `make_evaluate`."""

    def metrics(state: training.TrainState, batch):
        outputs = model.apply(training.variables_of(state), batch.images, train=False)
        return judged(outputs, batch, alpha)

    return metrics


def make_trainer(context: Context, net: Net) -> trained.Trainer:
    """The trainer of a network, for all its seeds."""
    config, train = context.config, context.train
    return trained.make_trainer(
        training_options(config, net),
        make_net(config, net),
        train.image_shape,
        train.num_images,
        functools.partial(hinge_loss, alpha=config.alpha),
        functools.partial(hinge_metrics, alpha=config.alpha),
    )


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
