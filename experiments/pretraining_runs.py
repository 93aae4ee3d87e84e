"""The runs of `pretraining_helps`: one pretraining a seed, then classifiers over shares of labels.

Every classifier is trained for a number of steps that does not depend on how many labels there are,
and is asked where it looks on the same test images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import masked_finetuning, masked_runs, trained
from recon_jax import data, models, multiview, probes, report, spectral, training
from recon_jax.report import pretraining_helps as words

Context = masked_runs.Context
Row = dict[str, np.ndarray]

# What is counted of every image, see `make_look`.
SEEN = ("needed", "pieces", "unordered")


class Cell(NamedTuple):
    """One way to a classifier, with part of the labels.

    Attributes:
      method: a key of `report.pretraining_helps.METHODS`.
      fraction: of the training images whose labels are known, in (0, 1].
    """

    method: str
    fraction: float


class Makers(NamedTuple):
    """What is compiled once for all seeds and shares, and only if it is needed.

    Attributes:
      task: what the encoder is trained to reconstruct.
      pretraining: the trainer of the masked autoencoder.
      short: of a classifier, for as long as fine-tuning.
      scratch: the same from scratch; another one if layers of a pretrained encoder learn slowly.
      long: from scratch, for as long as pretraining and fine-tuning together.
      look: see `make_look`.
    """

    task: masked_runs.Task
    pretraining: Callable[[], trained.Trainer]
    short: Callable[[], trained.Trainer]
    scratch: Callable[[], trained.Trainer]
    long: Callable[[], trained.Trainer]
    look: Callable[[], Callable[[Any], dict[str, Any]]]


def long_config(config: ConfigDict) -> ConfigDict:
    """The config with supervised training as long as pretraining and fine-tuning together."""
    changed = config.copy_and_resolve_references()
    changed.finetuning.epochs = config.train.epochs + config.finetuning.epochs
    return changed


def make_makers(context: Context) -> Makers:
    """Everything that is compiled; ValueError for a corruption that does not fit the images."""
    corruption = spectral.make_corruption(context.config.corruption, context.train.image_shape)
    task = masked_runs.Task("masked", corruption, None, list(context.config.corruption))
    short = functools.cache(
        functools.partial(masked_finetuning.make_trainer, context, "finetuning")
    )
    longer = context._replace(config=long_config(context.config))
    return Makers(
        task,
        functools.cache(functools.partial(masked_runs.make_trainer, context, task)),
        short,
        masked_finetuning.make_scratch_trainer(context, short),
        functools.cache(
            functools.partial(
                masked_finetuning.make_trainer, longer, "finetuning", pretrained=False
            )
        ),
        functools.cache(functools.partial(make_look, context)),
    )


def labels_of(source: data.Source) -> np.ndarray:
    """The labels of all images (N,)."""
    return source.read(np.arange(source.num_images))[1]


def labelled_rows(train: data.Source, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Indices of the labelled images of a seed: all, or as many of every class.

    Those of a smaller fraction are among those of a larger one.

    Raises:
      ValueError: if there is no image of a class, or fewer than the fraction asks for.
    """
    if fraction == 1:
        return np.arange(train.num_images)
    shots = round(fraction * train.num_images / train.num_classes)
    if shots < 1:
        raise ValueError(
            f"fractions={fraction} of {train.num_images} training images is no image of each of "
            f"{train.num_classes} classes; take {train.num_classes / train.num_images:.2g} or more"
        )
    key = jax.random.key(seed)
    return np.asarray(probes.few_shot_split(key, labels, shots, train.num_classes))


def check_labels(context: Context) -> dict[float, int]:
    """Labelled images of every fraction; ValueError for fewer than there are in a batch."""
    config, labels = context.config, labels_of(context.train)
    counts = {
        fraction: len(labelled_rows(context.train, labels, fraction, 0))
        for fraction in config.fractions
    }
    for fraction, count in counts.items():
        if count < config.finetuning.batch_size:
            raise ValueError(
                f"finetuning.batch_size={config.finetuning.batch_size} is more than the {count} "
                f"labelled images of fractions={fraction}; take smaller batches or more labels"
            )
    return counts


def look_rows(context: Context) -> np.ndarray:
    """Which test images the networks are asked about: ascending, the same for all of them."""
    count, total = context.config.regions.images, context.test.num_images
    if count > total:
        raise ValueError(f"regions.images={count} is more than the {total} test images there are")
    return np.sort(np.random.default_rng(0).permutation(total)[:count])


def nothing_seen(count: int) -> dict[str, np.ndarray]:
    """What `make_look` counts, where there is nothing to count."""
    return {name: np.full(count, np.nan) for name in SEEN}


def make_look(context: Context) -> Callable[[Any], dict[str, Any]]:
    """Function (variables) -> maps (n, A, B), and what is needed of every image (n,).

    These are regions in the order of the map, their separate pieces, and regions in a random order,
    the same for all networks: a poor map needs more regions too, this order does not know it. All
    are NaN where logits are not finite.
    """
    config, shape = context.config, context.train.image_shape
    model = masked_finetuning.make_classifier(
        config, "finetuning", shape, context.train.num_classes
    )
    grid = tuple(side // config.model.patch_size for side in shape[:2])
    pixels = context.test.read(look_rows(context))[0]
    images = data.normalize(context.normalization, jnp.asarray(pixels))
    unordered = jax.random.uniform(jax.random.key(0), (len(images), *grid), jnp.float32)

    def apply(variables, images):
        return model.apply(variables, images, train=False)

    @jax.jit
    def features(variables, images):
        # Before the last norm, which would give every token the same length.
        inside = models.apply_with_intermediates(model, variables, images)[1]
        tokens = inside[f"encoder/blocks/block{config.model.depth}"][:, 1:]
        return tokens.reshape(len(images), *grid, -1).astype(jnp.float32)

    def count(variables, maps):
        return multiview.regions_for_logit(
            apply, variables, images, maps, share=config.regions.share
        ).needed

    def look(variables):
        found = features(variables, images)
        if not np.isfinite(found).all():
            return {"maps": np.zeros((len(images), *grid)), **nothing_seen(len(images))}
        maps = multiview.eigen_cam(found, center=config.regions.center)
        needed = np.asarray(count(variables, maps))
        kept = multiview.kept_regions(maps, needed)
        values = needed, multiview.distinct_regions(kept), count(variables, unordered)
        return {"maps": maps} | {
            name: np.where(needed >= 0, value, np.nan)
            for name, value in zip(SEEN, values, strict=True)
        }

    return look


def pretrain(context: Context, makers: Makers, seed: int) -> Row:
    """Test error of the pretrained autoencoder, and features of all images, as of a new encoder."""
    config = context.config

    def compute():
        state, seconds = masked_runs.pretrain(context, makers.task, makers.pretraining, seed)
        trainer = makers.pretraining()
        encode = masked_runs.make_encoder(context, trainer.model)
        metrics = trainer.evaluate(state, trained.evaluation_batches(context.test))
        found = {"squared_error": metrics["squared_error"], "seconds": seconds}
        for name, weights in (("pretrained", state), ("new", trainer.init(seed))):
            variables = training.variables_of(weights)
            for split in (context.train, context.test):
                features, _ = masked_runs.features_of(context, encode, variables, split)
                found[f"{name}_{split.split}"] = features
        return found

    key = [*pretraining_key(context, makers), config.model.pooling, seed]
    return context.cached(f"pretrained-seed{seed}", key, compute)


def pretraining_key(context: Context, makers: Makers) -> list[Any]:
    """What a pretrained encoder is a function of beside data and seed, as JSON content."""
    config = context.config
    decisive = trained.decisive(config.train)
    return ["trained", makers.task.key, config.targets, config.model.to_dict(), decisive]


def fit(
    context: Context,
    cell: Cell,
    seed: int,
    made: Callable[[], trained.Trainer],
    look: Callable[[], Callable[[Any], dict[str, Any]]],
    key: Any,
    encoder: Callable[[], Any] | None = None,
) -> Row:
    """Train one classifier: test accuracy in per cent, where it looks (see `make_look`), seconds.

    Args:
      context: of the run.
      cell: what is trained.
      seed: of the labelled images, the head, the order of the images and all draws.
      made: the trainer, if it is needed.
      look: the measure, if it is needed.
      key: what the encoder is a function of, as JSON content.
      encoder: its parameters, if they are needed; None for those that the seed draws.
    """
    config, train = context.config, context.train
    name = f"{cell.method}-{cell.fraction:g}-seed{seed}"
    model = {
        "model": config.model.to_dict(),
        "encoder": key,
        "labelled": cell.fraction,
        "drop_path": config.finetuning.drop_path,
        "long": cell.method == "scratch_long",
    }

    def compute():
        trainer = made()
        if encoder is not None:
            parameters, draw = encoder(), trainer.init
            trainer = trainer._replace(
                init=lambda seed: masked_finetuning.with_encoder(draw(seed), parameters)
            )
        rows = labelled_rows(train, labels_of(train), cell.fraction, seed)
        folder = context.workdir / "runs" / name
        identity = {"data": context.data_key, **model}
        labelled = data.source_subset(train, rows)
        state, seconds = trained.train(trainer, labelled, seed, folder, identity)
        metrics = trainer.evaluate(state, trained.evaluation_batches(context.test))
        seen = look()(training.variables_of(state))
        return {"accuracy": 100 * metrics["accuracy"], **seen, "seconds": seconds}

    settings = [model, trained.decisive(config.finetuning), config.train.epochs]
    return context.cached(name, [settings, config.regions.to_dict(), seed], compute)


def probe(context: Context, makers: Makers, cell: Cell, seed: int) -> Row:
    """Test accuracy of logistic regression and neighbours on a frozen encoder, with few labels."""
    config, encoder = context.config, {"probe": "pretrained", "probe_new": "new"}[cell.method]

    def compute():
        features = pretrain(context, makers, seed)
        labels, truth = labels_of(context.train), labels_of(context.test)
        rows = labelled_rows(context.train, labels, cell.fraction, seed)
        seen = (features[f"{encoder}_{context.train.split}"][rows], labels[rows])
        found = masked_runs.read_out(
            context, seen, (features[f"{encoder}_{context.test.split}"], truth)
        )
        accuracy, missing = found.pop("linear_probe"), nothing_seen(config.regions.images)
        return {"accuracy": accuracy, **found, **missing, "seconds": 0.0}

    key = [*pretraining_key(context, makers), config.probe.to_dict(), config.regions.images]
    name = f"{cell.method}-{cell.fraction:g}-seed{seed}"
    return context.cached(name, [key, cell.fraction, seed], compute)


def run_seed(context: Context, makers: Makers, seed: int) -> Iterator[tuple[Cell, Row]]:
    """Everything of one seed, share of labels by share; finished runs are read, not repeated."""
    key = pretraining_key(context, makers)
    seconds = pretrain(context, makers, seed)["seconds"]

    @functools.cache
    def encoder():
        state = masked_runs.pretrain(context, makers.task, makers.pretraining, seed)[0]
        return masked_finetuning.encoder_of(state)

    ways = {
        "finetuned": (makers.short, {"key": key, "encoder": encoder}),
        "scratch": (makers.scratch, {"key": "new"}),
        "scratch_long": (makers.long, {"key": "new"}),
    }
    for fraction in report.progress(context.config.fractions, f"labels, seed {seed}"):
        for method in words.METHODS:
            cell = Cell(method, fraction)
            if method in ways:
                made, start = ways[method]
                row = fit(context, cell, seed, made, makers.look, **start)
            else:
                row = probe(context, makers, cell, seed)
            spent = seconds if method in words.PRETRAINED else np.zeros(())
            yield cell, {**row, "pretraining_seconds": spent}
