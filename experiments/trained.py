"""What the trained experiments share: checking a config, opening data, and one training run.

A run has a folder of its own, runs/NAME, with metrics.jsonl and checkpoints/, and resumes there.
Runs that differ only in images or seed share one `Trainer`, which is compiled once.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from recon_jax import augment, data, models, parallel, training
from recon_jax.training.evaluation import Evaluate

# Fields of `config.train` that do not change the outcome.
WATCHING = ("log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints")
DTYPES = ("float32", "bfloat16")
# Fields of `config.train` that not every experiment has, and what their absence means.
OPTIONAL = {
    "b2": 0.999,
    "momentum": 0.0,
    "layer_decay": 0.0,
    "label_smoothing": 0.0,
    "warmup_epochs": 0.0,
    "half_period": 1.0,
}
EVALUATION_BATCH = 1000


class Plan(NamedTuple):
    """Length of a run.

    Attributes:
      epoch: steps of an epoch.
      total: steps of the run.
    """

    epoch: int
    total: int


class Trainer(NamedTuple):
    """A network and all it takes to train it.

    Attributes:
      model: the Flax module.
      init: seed -> state at step 0.
      step: compiled training step.
      evaluate: compiled (state, batches) -> means.
      schedule: learning rate of a step.
      plan: length of a run.
      options: the config's `train`.
    """

    model: Any
    init: Callable[[int], training.TrainState]
    step: Callable
    evaluate: Evaluate
    schedule: Callable
    plan: Plan
    options: ConfigDict


def require_choice(field: str, value: Any, allowed) -> None:
    """Raise ValueError unless the value is one of the allowed ones, which the message lists."""
    if value not in allowed:
        raise ValueError(f"{field} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def require_at_least(field: str, value: float, low: float) -> None:
    """Raise ValueError unless the value is at least `low`."""
    if not value >= low:
        raise ValueError(f"{field} must be at least {low}, got {value}")


def option(options: ConfigDict, name: str) -> Any:
    """A field of `OPTIONAL`, or what its absence means."""
    return options.get(name, OPTIONAL[name])


def decisive(options: ConfigDict) -> dict[str, Any]:
    """The fields that the outcome of a training depends on."""
    return {name: value for name, value in options.to_dict().items() if name not in WATCHING}


def validate(config: ConfigDict) -> None:
    """Raise ValueError for data and training fields that cannot work, before any data is read."""
    for field in ("image_size", "train_limit", "test_limit"):
        require_at_least(f"data.{field}", config.data[field], 0)
    validate_training(config.train, "train")


def validate_training(options: ConfigDict, name: str) -> None:
    """Raise ValueError for training fields that cannot work; `name` is theirs in the config."""
    require_choice(f"{name}.optimizer", options.optimizer, training.OPTIMIZERS)
    require_choice(f"{name}.schedule", options.schedule, training.SCHEDULES)
    require_choice(f"{name}.dtype", options.dtype, DTYPES)
    require_choice(f"{name}.augment", options.augment, augment.POLICIES)
    for field in ("epochs", "batch_size", "accumulate_steps", *WATCHING):
        require_at_least(f"{name}.{field}", options[field], 1)
    for field in ("ema_decay", "label_smoothing"):
        value = option(options, field) if field in OPTIONAL else options[field]
        if not 0 <= value < 1:
            raise ValueError(f"{name}.{field} must lie in [0, 1), got {value}")
    warmup = option(options, "warmup_epochs")
    if not 0 <= warmup < options.epochs:
        raise ValueError(
            f"{name}.warmup_epochs must be at least 0 and below {name}.epochs="
            f"{options.epochs}, got {warmup}"
        )
    rows = options.batch_size
    devices = parallel.total_device_count()
    share = devices * options.accumulate_steps
    if rows % share:
        raise ValueError(
            f"{name}.batch_size={rows} must be a multiple of {share}, the "
            f"{devices} device(s) times {name}.accumulate_steps="
            f"{options.accumulate_steps}; such as {-(-rows // share) * share}"
        )
    # All but the length, which the number of images decides.
    length = max(1000, options.warmup_steps + 1)
    _optimizer(options, _schedule(options, Plan(length, length * options.epochs)))


def _schedule(options: ConfigDict, plan: Plan):
    warmup = options.warmup_steps + round(plan.epoch * option(options, "warmup_epochs"))
    return training.make_schedule(
        options.schedule,
        options.learning_rate,
        plan.total,
        warmup,
        half_period=option(options, "half_period"),
    )


def _optimizer(options: ConfigDict, schedule):
    layer_decay = option(options, "layer_decay") or None
    # Fine-tuning in He et al. 2022 spares the class token, pretraining does not.
    spared = ("class_token",) if layer_decay else ()
    return training.make_optimizer(
        options.optimizer,
        schedule,
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm or None,
        momentum=option(options, "momentum"),
        b2=option(options, "b2"),
        layer_decay=layer_decay,
        mask=functools.partial(training.decay_mask, spared=spared),
    )


def open_splits(config: ConfigDict) -> tuple[data.Source, data.Source]:
    """Training and test images under the options of the config."""
    options = config.data

    def open_split(split, limit):
        return data.open_source(
            options.source,
            split,
            image_size=options.image_size or None,
            data_dir=options.data_dir or None,
            limit=limit or None,
        )

    return open_split("train", options.train_limit), open_split("test", options.test_limit)


def describe_data(config: ConfigDict, source: data.Source) -> dict[str, Any]:
    """What a run's outcome depends on in its data, as JSON content."""
    first = source.read(np.arange(min(64, source.num_images)))[0]
    return {
        **config.data.to_dict(),
        "num_images": source.num_images,
        "image_shape": list(source.image_shape),
        "first_images": hashlib.sha256(np.ascontiguousarray(first).tobytes()).hexdigest(),
    }


def plan_run(options: ConfigDict, num_images: int, name: str = "train") -> Plan:
    """Steps of an epoch and of a run; ValueError if a batch is more than there are images."""
    epoch = num_images // options.batch_size
    if not epoch:
        raise ValueError(
            f"{name}.batch_size={options.batch_size} is more than the {num_images} training images"
        )
    return Plan(epoch, epoch * options.epochs)


def evaluation_batches(source: data.Source, batch_size: int = EVALUATION_BATCH) -> Iterator:
    """All images in order, in batches that any number of devices divides: this process's share."""
    devices = parallel.total_device_count()
    size = -(-min(batch_size, source.num_images) // devices) * devices
    return data.epoch_batches(source, size, shuffle=False, **parallel.placement())


def all_batches(source: data.Source, batch_size: int = EVALUATION_BATCH) -> Iterator:
    """All images in order, in every process, for what each computes for itself."""
    return data.epoch_batches(source, min(batch_size, source.num_images), shuffle=False)


def make_trainer(
    options: ConfigDict,
    model: Any,
    image_shape: tuple[int, int, int],
    num_images: int,
    loss: Callable[..., Any],
    metrics: Callable[..., Any],
    *,
    wrap: Callable[[Any], Any] = lambda optimizer: optimizer,
    takes_step: bool = False,
) -> Trainer:
    """Put a trainer together.

    Args:
      options: the config's `train`.
      model: a Flax module with `train`.
      image_shape: (H, W, C).
      num_images: of the training split.
      loss: (model, policy=, axis_name=) -> loss, such as `training.classification_loss`.
      metrics: model -> metrics, such as `training.classification_metrics`.
      wrap: of the optimizer, such as `training.freeze`.
      takes_step: the loss changes with the step.
    """
    plan = plan_run(options, num_images)
    schedule = _schedule(options, plan)
    optimizer = wrap(_optimizer(options, schedule))
    policy = augment.make_policy(options.augment, image_shape)
    models.variable_shapes(model, image_shape)  # refuses images that do not fit

    @parallel.fast_jit
    def initial(key):
        return model.init(key, np.zeros((1, *image_shape), np.float32))

    def init(seed: int) -> training.TrainState:
        key = jax.random.key(seed)
        variables = initial(jax.random.fold_in(key, 2**31 - 1))  # no step has this key
        return training.init_state(
            variables["params"],
            optimizer,
            key=key,
            batch_stats=variables.get("batch_stats"),
            ema=options.ema_decay > 0,
        )

    step = training.make_train_step(
        loss(model, policy=policy, axis_name=parallel.AXIS),
        optimizer,
        axis_name=parallel.AXIS,
        accumulate_steps=options.accumulate_steps,
        ema_decay=options.ema_decay or None,
        takes_step=takes_step,
    )
    return Trainer(
        model,
        init,
        parallel.data_parallel(step),
        training.make_evaluate(metrics(model)),
        schedule,
        plan,
        options,
    )


def train(
    trainer: Trainer,
    source: data.Source,
    seed: int,
    workdir: Path,
    identity: Mapping[str, Any],
    *,
    evaluate: Callable[[training.TrainState], Mapping[str, float]] | None = None,
    batches: Callable[[int], Any] | None = None,
) -> tuple[training.TrainState, float]:
    """Train from the newest checkpoint in the workdir, or from the start.

    Args:
      trainer: see `make_trainer`.
      source: training images.
      seed: of the parameters, the order of the images and all draws.
      workdir: of this run.
      identity: what decides the outcome beside the options and the seed, such as the data.
      evaluate: called with the state every `evaluate_every` epochs, for the metrics file.
      batches: step -> batch, if not all of the source in turn.

    Returns:
      The trained state, and seconds spent here: less than the whole if the run was resumed.
    """
    options, plan = trainer.options, trainer.plan
    start = time.perf_counter()
    batches = batches or data.run_batches(
        source, options.batch_size, seed=seed, **parallel.placement()
    )
    state = training.fit(
        trainer.init(seed),
        trainer.step,
        batches,
        plan.total,
        workdir=workdir,
        identity={**identity, "train": decisive(options), "seed": seed},
        evaluate=evaluate,
        evaluate_every=plan.epoch * options.evaluate_every if evaluate else 0,
        checkpoint_every=plan.epoch * options.checkpoint_every,
        log_every=options.log_every,
        keep=options.keep_checkpoints,
        schedule=trainer.schedule,
    )
    jax.block_until_ready(state)
    return state, time.perf_counter() - start


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds; the value alone for one seed."""
    values = np.asarray(values, float)
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


def device_note(facts: Mapping[str, Any], seconds: float) -> str:
    """Where and how long, for the note of a table."""
    minutes = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{math.ceil(seconds)} s"
    return f"{minutes} of training in all on {facts['device']}, {facts['cpu_cores']} cores."
