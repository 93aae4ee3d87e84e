"""Classifiers on the encoder of a masked autoencoder: all of it fine-tuned, or a head on it alone.

Both start from a pretrained encoder, or from a new one, and see the images as pretraining did.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import masked_runs, trained
from recon_jax import data, models, parallel, training

# Fields of `config.model` that a classifier shares with the autoencoder.
ENCODER = ("patch_size", "width", "depth", "heads", "position_grid", "remat")
Encoder = Callable[[], Any]


def validate(config: ConfigDict, name: str) -> None:
    """Raise ValueError for the fields of a classifier's training that cannot work.

    Args:
      config: of the experiment.
      name: "linear", a head on the frozen encoder, or "finetuning".
    """
    options = config[name]
    trained.validate_training(options, name)
    if name == "finetuning" and not 0 <= options.drop_path < 1:
        raise ValueError(f"finetuning.drop_path must lie in [0, 1), got {options.drop_path}")


def make_classifier(
    config: ConfigDict, name: str, image_shape: tuple[int, int, int], num_classes: int
) -> models.ViTClassifier:
    """The classifier of a config: with batch norm on a frozen encoder, or to be fine-tuned."""
    options = {k: v for k, v in config.model.to_dict().items() if k in ENCODER}
    if name == "linear":
        options |= {"pooling": config.model.pooling, "head_norm": "batch", "frozen": True}
    else:
        options |= {"pooling": "mean", "head_norm": "layer", "head_std": 2e-5}
        options["drop_path"] = config.finetuning.drop_path
    return models.ViTClassifier(
        num_classes,
        image_shape,
        dtype=config[name].dtype,
        axis_name=parallel.AXIS,
        **options,
    )


def make_trainer(
    context: masked_runs.Context, name: str, *, pretrained: bool = True
) -> trained.Trainer:
    """The trainer of one kind of classifier, for all encoders.

    Args:
      context: of the run.
      name: "linear" or "finetuning".
      pretrained: whether the encoder will be. A new one has no reason to learn more slowly the
        deeper it lies, and is trained without layer_decay.
    """
    config, shape = context.config, context.train.image_shape
    options = ConfigDict(config[name].to_dict())
    if not pretrained and "layer_decay" in options:
        options.layer_decay = 0.0
    normalize = functools.partial(data.normalize, context.normalization)

    def loss(model, *, policy, axis_name):
        return training.classification_loss(
            model,
            policy=lambda keys, images: normalize(policy(keys, images)),
            label_smoothing=trained.option(options, "label_smoothing"),
            axis_name=axis_name,
        )

    def metrics(model):
        judge = training.classification_metrics(model)

        def on_normalized(state, batch):
            images = normalize(training.unit_pixels(batch.images))
            return judge(state, batch._replace(images=images))

        return on_normalized

    return trained.make_trainer(
        options,
        make_classifier(config, name, shape, context.train.num_classes),
        shape,
        context.train.num_images,
        loss,
        metrics,
        wrap=training.freeze if name == "linear" else lambda optimizer: optimizer,
    )


def make_scratch_trainer(
    context: masked_runs.Context, finetuned: Callable[[], trained.Trainer]
) -> Callable[[], trained.Trainer]:
    """Makes the trainer from scratch: that of fine-tuning, if it has no layer_decay."""
    if not trained.option(context.config.finetuning, "layer_decay"):
        return finetuned
    make = functools.partial(make_trainer, context, "finetuning", pretrained=False)
    return functools.cache(make)


def with_encoder(state: training.TrainState, encoder: Any) -> training.TrainState:
    """A state at step 0 with pretrained parameters, copied, in place of the encoder's."""
    # Copied: training donates the state, and other classifiers start from the same encoder.
    params = jax.tree.map(jax.numpy.copy, encoder)
    params = training.start_from({"params": state.params}, params)["params"]
    average = None if state.ema_params is None else jax.tree.map(jax.numpy.copy, params)
    return state._replace(params=params, ema_params=average)


def fit(
    context: masked_runs.Context,
    name: str,
    folder: str,
    made: Callable[[], trained.Trainer],
    seed: int,
    key: Any,
    encoder: Encoder | None = None,
) -> dict[str, np.ndarray]:
    """Train one classifier, or read what it came to: test accuracy in per cent, and seconds.

    Args:
      context: of the run.
      name: "linear" or "finetuning".
      folder: of the run, under runs/.
      made: the trainer, if it is needed.
      seed: of the head, the order of the images and all draws.
      key: what the encoder is a function of, as JSON content.
      encoder: its parameters, if they are needed; None for those that the seed draws.
    """
    config = context.config
    model = {"model": config.model.to_dict(), "encoder": key, "kind": name}
    if name == "finetuning":
        model["drop_path"] = config.finetuning.drop_path

    def compute():
        trainer = made()
        if encoder is not None:
            parameters, draw = encoder(), trainer.init
            trainer = trainer._replace(init=lambda seed: with_encoder(draw(seed), parameters))
        place = context.workdir / "runs" / folder
        identity = {"data": context.data_key, **model}
        state, seconds = trained.train(trainer, context.train, seed, place, identity)
        found = trainer.evaluate(state, trained.evaluation_batches(context.test))
        return {"accuracy": 100 * found["accuracy"], "seconds": seconds}

    return context.cached(folder, [model, trained.decisive(config[name]), seed], compute)


def probe_note(rows: Iterable[Mapping[str, Any]]) -> str:
    """How many logistic regressions stopped early, if any did."""
    failed = sum(not row["probe_converged"] for row in rows if "probe_converged" in row)
    return f"{failed} logistic regressions stopped before they converged." if failed else ""


def encoder_of(state: training.TrainState) -> Any:
    """Parameters of the encoder of a trained masked autoencoder, in host memory."""
    # Copies: on the CPU a plain conversion may be a view of memory that is given away.
    return jax.tree.map(np.array, training.variables_of(state)["params"]["encoder"])


def digest(params: Any) -> str:
    """SHA-256 of parameters: what pretrained weights are, wherever they lie."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()
