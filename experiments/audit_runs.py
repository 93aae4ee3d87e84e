"""The encoders of an audit: trained here, read from runs, weights and modules, and then audited."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from experiments import audit_entries, masked_finetuning, stability_runs, trained
from experiments.audit_entries import Entry
from recon_jax import audit, data, models, parallel, report, spectral, training


class Context(NamedTuple):
    """What every encoder needs.

    Attributes:
      config: of the experiment.
      workdir: of the experiment.
      train: training images.
      test: test images.
      data_key: what the pixels are a function of, as JSON content.
    """

    config: ConfigDict
    workdir: Path
    train: data.Source
    test: data.Source
    data_key: dict[str, Any]


class Built(NamedTuple):
    """An encoder that is ready to be audited.

    Attributes:
      encoder: what is audited.
      key: what it is a function of, as JSON content; None if that is not known.
      notes: what whoever uses it should know.
      seconds: of training.
    """

    encoder: audit.Encoder
    key: Any
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def open_data(config: ConfigDict, workdir: Path) -> Context:
    """Both splits; ValueError for images that fit neither the networks nor the batches."""
    train, test = trained.open_splits(config)
    key = {split.split: trained.describe_data(config, split) for split in (train, test)}
    context = Context(config, workdir, train, test, key)
    for entry in audit_entries.entries_of(config):
        if "model" in entry.options:
            check_network(context, entry)
    return context


def check_network(context: Context, entry: Entry) -> None:
    """Raise ValueError if images, layer or batches do not fit an entry's network."""
    model, layer = model_of(context, entry), entry.options["layer"]
    layers = models.layer_shapes(model, context.train.image_shape)
    if layer not in layers and (layer or not audit_entries.is_classifier(entry)):
        raise ValueError(
            f"encoders: {entry.name}, layer={layer!r} must be one of {', '.join(layers)}"
        )
    if entry.kind == "train":
        options = audit_entries.train_fields_of(context.config, entry)
        trained.plan_run(options, context.train.num_images, f"encoders: {entry.name}, train")
        if entry.options["corruption"]:
            spectral.make_corruption(entry.options["corruption"], context.train.image_shape)


def model_of(context: Context, entry: Entry) -> Any:
    """The network of an entry."""
    source, dtype = context.train, context.config.train.dtype
    return audit_entries.make_model(entry, source.image_shape, source.num_classes, dtype)


@functools.lru_cache(maxsize=4)
def _fitted(train: data.Source, name: str) -> data.Normalization:
    if name == "channels":
        return stability_runs.by_channel(train)
    return data.fit_normalization(name, trained.all_batches(train))


def normalization_of(context: Context, name: str) -> dict[str, Any]:
    """Mean and deviation that a network's images are normalised by; {} for none."""
    if name == "none":
        return {}
    if name == "imagenet":
        return {"mean": models.IMAGENET_MEAN, "std": models.IMAGENET_STD}
    found = _fitted(context.train, name)
    mean = found.mean[0, 0] if name == "channels" else found.mean  # the same for all pixels
    return {"mean": mean, "std": found.scale}


def _mean_position(features):
    return features.reshape(len(features), -1, features.shape[-1]).mean(1)


def _first_token(features):
    return features.reshape(len(features), -1, features.shape[-1])[:, 0]


# Functions that are always the same, so that one compiled program serves all networks of a kind.
POOLS = {"none": None, "mean": _mean_position, "first": _first_token}


def network_encoder(context: Context, entry: Entry, model: Any, variables: Any) -> audit.Encoder:
    """The encoder of a network of this library, with the layers before its features."""
    layer = entry.options["layer"]
    variables = jax.tree.map(jnp.asarray, variables)
    names = list(models.layer_shapes(model, context.train.image_shape))
    return audit.flax_encoder(
        model,
        variables,
        layer=layer or None,
        layers=names[: names.index(layer) if layer else -1],
        output=POOLS[entry.options["pool"]],
        image_shape=context.train.image_shape,
        name=entry.name,
        **normalization_of(context, entry.options["normalize"]),
    )


def make_trainer(context: Context, entry: Entry) -> trained.Trainer:
    """The trainer of an entry, for all seeds."""
    options, train = entry.options, context.train
    losses = {
        "classification": (training.classification_loss, training.classification_metrics),
        "reconstruction": (training.autoencoder_loss, training.autoencoder_metrics),
    }
    if options["objective"] == "denoising":
        shared = {
            "corruption": spectral.make_corruption(options["corruption"], train.image_shape),
            "normalization": _fitted(train, "global"),
        }
        losses["denoising"] = (
            functools.partial(training.denoising_loss, **shared),
            functools.partial(training.denoising_metrics, **shared),
        )
    model = model_of(context, entry)
    if hasattr(model, "axis_name"):
        model = model.clone(axis_name=parallel.AXIS)
    fields = audit_entries.train_fields_of(context.config, entry)
    return trained.make_trainer(
        fields, model, train.image_shape, train.num_images, *losses[options["objective"]]
    )


def slug(name: str) -> str:
    """A name for files."""
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)


def build_trained(context: Context, entry: Entry, seed: int) -> Built:
    """A network trained here; a finished run is read, one under way resumes."""
    options = entry.options
    task = {"model": [options["model"], options["options"]], "objective": options["objective"]}
    identity = {"data": context.data_key, **task, "corruption": list(options["corruption"])}
    folder = context.workdir / "runs" / f"{slug(entry.name)}-seed{seed}"
    trainer = make_trainer(context, entry)
    state, seconds = trained.train(trainer, context.train, seed, folder, identity)
    key = [identity, trained.decisive(trainer.options), seed]
    # Of a run that is read again, what it took.
    times = report.cached(
        context.workdir / "cache", f"{folder.name}-seconds", key, lambda: {"seconds": seconds}
    )
    variables = jax.device_get(training.variables_of(state))
    encoder = network_encoder(context, entry, model_of(context, entry), variables)
    return Built(encoder, key, seconds=float(times["seconds"]))


def build_random(context: Context, entry: Entry, seed: int) -> Built:
    """A network before training."""
    model = model_of(context, entry)
    image = np.zeros((1, *context.train.image_shape), np.float32)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(seed), image))
    return Built(network_encoder(context, entry, model, variables), ["random", seed])


def build_checkpoint(context: Context, entry: Entry, seed: int) -> Built:
    """A network from a run of this library."""
    model = model_of(context, entry)
    template = models.variable_shapes(model, context.train.image_shape)
    saved = training.read_variables(entry.options["run"], template)
    digest = masked_finetuning.digest(saved.variables)
    encoder = network_encoder(context, entry, model, saved.variables)
    return Built(encoder, [digest], (f"{entry.options['run']}, step {saved.step}",))


def build_weights(context: Context, entry: Entry, seed: int) -> Built:
    """A published encoder."""
    options, shape = entry.options, context.train.image_shape
    if options["family"] == "masked_autoencoder":
        found = models.load_published(
            options["path"], heads=options["heads"] or None, image_size=shape[:2]
        )
        module, variables = found.model, {"params": found.params}
        mean, std = models.IMAGENET_MEAN, models.IMAGENET_STD
        expected, method = tuple(module.image_shape), "encode"
    else:
        found = models.load_encoder(
            options["path"], heads=options["heads"] or None, image_size=shape[:2]
        )
        module, variables, mean, std = found.module, found.variables, found.mean, found.std
        expected, method = (*shape[:2], found.channels), None
    if expected != shape:
        raise ValueError(
            f"encoders: {entry.name}: the weights are for images of {expected}, those of "
            f"{context.train.name} are {shape}; set data.image_size, or take images with as many "
            "channels"
        )
    encoder = audit.flax_encoder(
        module,
        variables,
        method=method,
        output=POOLS[options["pool"]],
        mean=mean,
        std=std,
        image_shape=shape,
        name=entry.name,
    )
    return Built(encoder, [masked_finetuning.digest(variables)], found.notes)


def build_python(context: Context, entry: Entry, seed: int) -> Built:
    """A function of the user's own, of which nobody knows what it depends on."""
    return Built(audit.as_encoder(audit_entries.load_function(entry), name=entry.name), None)


BUILDERS: dict[str, Callable[[Context, Entry, int], Built]] = {
    "train": build_trained,
    "random": build_random,
    "checkpoint": build_checkpoint,
    "weights": build_weights,
    "python": build_python,
}


def audit_options(config: ConfigDict) -> dict[str, Any]:
    """Arguments of `audit.audit`, the same for all encoders, so that they can be compared."""
    options = config.audit.to_dict()
    seeds = tuple(range(options.pop("draws")))
    limits = {name: options[name] or None for name in ("num_images", "num_test_images")}
    return {**options, **limits, "seeds": seeds}


def run_entry(
    context: Context, entry: Entry, seed: int, name: str
) -> tuple[audit.AuditReport, Built]:
    """Build one encoder and audit it under a name; a finished audit is read where that is safe."""
    print(f"audit {name}", file=sys.stderr, flush=True)
    built = BUILDERS[entry.kind](context, entry, seed)
    options = audit_options(context.config)

    def compute() -> Mapping[str, Any]:
        encoder = built.encoder._replace(name=name)
        found = audit.audit(encoder, context.train, test=context.test, **options)
        return {"report": np.array(json.dumps(found.to_dict()))}

    if built.key is None:
        text = compute()["report"]
    else:
        parts = [name, built.key, entry.kind, entry.options, options, context.data_key]
        key = [recon_jax.__version__, *parts]
        folder = context.workdir / "cache"
        text = report.cached(folder, f"audit-{slug(name)}", key, compute)["report"]
    return audit.AuditReport.from_dict(json.loads(str(text))), built
