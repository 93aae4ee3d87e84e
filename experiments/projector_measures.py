"""What encoder and projector keep of images: the measures of one network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments import trained
from recon_jax import augment, data, geometry, models, probes, spectral, training

BATCH = 500


class Subjects(NamedTuple):
    """What all networks are measured on.

    Attributes:
      options: the config's `measure`.
      policy: augmentation with a strength.
      raw: test images as the source has them (N, H, W, C), of which views are made.
      train: training images as networks see them without augmentation.
      train_labels: classes.
      test: test images as networks see them without augmentation.
      test_labels: classes.
      num_classes: how many.
      scores: of training images along the principal directions of their pixels (N, Q).
      test_scores: of test images along the same directions.
    """

    options: ConfigDict
    policy: augment.StrengthPolicy
    raw: np.ndarray
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    scores: np.ndarray
    test_scores: np.ndarray


def read_all(source: data.Source) -> tuple[np.ndarray, np.ndarray]:
    """All images in [0, 1], and their labels."""
    batches = list(trained.all_batches(source))
    images = [np.asarray(training.unit_pixels(batch.images[batch.mask])) for batch in batches]
    return np.concatenate(images), np.concatenate([batch.labels[batch.mask] for batch in batches])


def in_batches(fn: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """A function of rows, a bounded number at a time; trees of NumPy arrays."""
    count = len(arrays[0])
    parts = [
        jax.device_get(fn(*(array[start : start + BATCH] for array in arrays)))
        for start in range(0, count, BATCH)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class Functions(NamedTuple):
    """What is compiled once for all networks of one shape.

    Attributes:
      apply: (variables, images) -> features and projections.
      jacobian: (variables, features) -> derivative of the projector at each of them.
    """

    apply: Callable[[Any, Any], models.Projection]
    jacobian: Callable[[Any, Any], jax.Array]


@functools.lru_cache(maxsize=8)
def functions_of(model: models.Projected) -> Functions:
    """The functions of a model."""

    def jacobian(variables, features):
        project = functools.partial(model.apply, variables, method="project")
        return geometry.local_jacobian(project, features)

    return Functions(jax.jit(model.apply), jax.jit(jacobian))


_compiled_policy = functools.lru_cache(maxsize=8)(jax.jit)


def make_views(
    policy: augment.StrengthPolicy, images: np.ndarray, key: jax.Array, strength: float
) -> np.ndarray:
    """One view of each image; image i by fold_in(key, i)."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
    views, strengths = _compiled_policy(policy), np.full(len(images), strength, np.float32)
    return in_batches(views, keys, images, strengths)


def check_sizes(options: ConfigDict, images: np.ndarray) -> None:
    """Raise ValueError if more is asked for than there are test images or pixels."""
    count, pixels = len(images), images[0].size
    for field, most, what in (
        ("points", count, f"{count} test images"),
        ("directions", pixels, f"{pixels} pixels"),
    ):
        if options[field] > most:
            raise ValueError(f"measure.{field}={options[field]} is more than the {what} there are")
    if options.neighbors >= count:
        raise ValueError(
            f"measure.neighbors={options.neighbors} must be below the {count} test images, among "
            "which they are searched for"
        )


def gather_subjects(
    options: ConfigDict, train: data.Source, test: data.Source, policy: augment.StrengthPolicy
) -> Subjects:
    """Both splits and the principal directions of their pixels."""
    (raw_train, train_labels), (raw, test_labels) = read_all(train), read_all(test)
    # Strength 0 leaves images as they are; latents it turns into what networks see.
    seen, test_seen = (
        make_views(policy, images, jax.random.key(0), 0.0) for images in (raw_train, raw)
    )
    check_sizes(options, test_seen)
    rows, test_rows = (images.reshape(len(images), -1) for images in (seen, test_seen))
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)[None, :]
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, : options.directions]
    test_centred = test_rows - rows.mean(0, dtype=np.float64)[None, :]
    return Subjects(
        options,
        policy,
        raw,
        seen,
        train_labels,
        test_seen,
        test_labels,
        train.num_classes,
        centred @ vectors,
        test_centred @ vectors,
    )


def measure(
    subjects: Subjects, model: models.Projected, variables: Any, strength: float
) -> dict[str, np.ndarray]:
    """All measures of one network whose augmentations have a strength, by the names of the report.

    A measure that fails on this network, as on features that are the same for all images, is NaN.
    """
    functions = functions_of(model)
    apply = functools.partial(functions.apply, variables)
    train, test = (in_batches(apply, images) for images in (subjects.train, subjects.test))
    views = {
        "fixed": view_pair(subjects, apply, subjects.options.reference),
        "own": view_pair(subjects, apply, strength),
    }
    found = {}
    for part, name in enumerate(("encoder", "projector")):
        kept = measure_part(
            subjects,
            train[part],
            test[part],
            {label: (first[part], second[part]) for label, (first, second) in views.items()},
        )
        found |= {f"{name}_{field}": value for field, value in kept.items()}
    jacobian = functools.partial(functions.jacobian, variables)
    local = attempt(lambda: measure_locally(subjects, apply, jacobian, test[0], strength))
    names = ("local_rank", "tangent_alignment", "augmentation_alignment", "chance", "gain")
    return found | (local or dict.fromkeys(names, np.nan))


def attempt(compute: Callable[[], Any]) -> Any:
    """What is computed, or None where a network has no such measure."""
    try:
        return compute()
    except ValueError as error:
        # A network that died must not take the hours of the others with it.
        logging.warning("not measured: %s", error)
        return None


def view_pair(subjects: Subjects, apply: Callable[..., Any], strength: float) -> tuple:
    """Features and projections of two views of every test image."""

    def seen(number):
        key = jax.random.fold_in(jax.random.key(1), number)
        return in_batches(apply, make_views(subjects.policy, subjects.raw, key, strength))

    return seen(0), seen(1)


def measure_part(
    subjects: Subjects,
    train: np.ndarray,
    test: np.ndarray,
    views: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Rank, invariance, probe, dimension and pixel directions of features (N, D)."""

    def singular():
        values = np.linalg.svd(test - test.mean(0)[None, :], compute_uv=False)
        return values / values[0]

    def kept():
        # Some units of a ReLU hardly ever open in training, and widely on a test image.
        return spectral.predicted_directions(
            train,
            subjects.scores,
            test,
            subjects.test_scores,
            ridge=subjects.options.directions_ridge,
        )

    calls = {
        "rank": lambda: geometry.embedding_rank(test),
        "fixed": lambda: geometry.non_invariance(*views["fixed"]),
        "own": lambda: geometry.non_invariance(*views["own"]),
        "probe": lambda: 100 * probe_accuracy(subjects, train, test),
        "dimension": lambda: geometry.intrinsic_dimension(test),
    }
    found = {name: attempt(call) for name, call in calls.items()}
    found = {name: np.nan if value is None else float(value) for name, value in found.items()}
    width = min(test.shape)
    values, share = attempt(singular), attempt(kept)
    found["singular"] = np.full(width, np.nan) if values is None else values
    count = subjects.scores.shape[1]
    return found | {"kept": np.full(count, np.nan) if share is None else share}


def probe_accuracy(subjects: Subjects, train: np.ndarray, test: np.ndarray) -> float:
    """Test accuracy of a ridge probe on standardised features."""
    scale = probes.fit_standardizer(train)
    probe = probes.ridge_probe(
        probes.standardize(scale, train),
        subjects.train_labels,
        subjects.num_classes,
        subjects.options.ridge / len(train),
    )
    logits = probe.logits(probes.standardize(scale, test))
    return float(probes.accuracy(logits, subjects.test_labels))


def measure_locally(
    subjects: Subjects,
    apply: Callable[..., Any],
    jacobian_at: Callable[[np.ndarray], jax.Array],
    features: np.ndarray,
    strength: float,
) -> dict[str, float]:
    """The projector at some test images, against tangent plane and augmentations there; means."""
    options = subjects.options
    points = np.sort(np.random.default_rng(0).permutation(len(features))[: options.points])
    jacobian = jacobian_at(features[points])
    key = jax.random.key(2)
    draws = [
        make_views(subjects.policy, subjects.raw[points], jax.random.fold_in(key, i), strength)
        for i in range(options.draws)
    ]
    moved = np.stack([np.asarray(apply(images).features) for images in draws], 1)
    displacements = moved - features[points][:, None, :]
    rank = min(options.rank, jacobian.shape[1], jacobian.shape[2])
    rows = geometry.row_space(jacobian, rank)
    tangents = geometry.tangent_bases(features, options.neighbors, rank, queries=points)
    augmented = geometry.displacement_basis(displacements, rank)
    differences = geometry.neighbor_differences(features, options.neighbors, queries=points)
    found = {
        "local_rank": geometry.effective_rank(jacobian),
        "tangent_alignment": geometry.subspace_alignment(rows, tangents),
        "augmentation_alignment": geometry.subspace_alignment(rows, augmented),
        "gain": geometry.gain_ratio(jacobian, differences, displacements),
    }
    means = {name: float(np.mean(value)) for name, value in found.items()}
    return means | {"chance": rank / features.shape[1]}
