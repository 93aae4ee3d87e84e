"""All measures of one encoder."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Integer

from recon_jax.audit.encoders import Encoder
from recon_jax.audit.extraction import constant_features, extract, prepare
from recon_jax.audit.geometry import measure_geometry
from recon_jax.audit.intervals import over_seeds, resamples
from recon_jax.audit.invariance import (
    Views,
    make_views,
    measure_invariance,
    undefined_invariance,
)
from recon_jax.audit.labels import (
    label_alignment,
    label_errors,
    label_fault,
    pca_label_errors,
    undefined_alignment,
)
from recon_jax.audit.probing import measure_probes, undefined_probes
from recon_jax.audit.readout import fit_read_out
from recon_jax.audit.records import Audited, Estimate
from recon_jax.audit.spectrum import spectrum_kept
from recon_jax.audit.stability import measure_stability
from recon_jax.audit.subjects import Subjects

MEASURES = ("spectrum", "labels", "geometry", "probes", "stability", "invariance")


class Setting(NamedTuple):
    """How encoders are measured; the same for all of an audit.

    Attributes:
      measures: some of `MEASURES`.
      seeds: of whatever is drawn.
      batch_size: images a call.
      strengths: of the views.
      cutoff: highest wave number of the deformations.
      displacement: nominal one in pixels.
      probe_images: test images that are deformed and augmented, at most.
      shots: of the few-shot probe.
      neighbors: of kNN.
    """

    measures: tuple[str, ...]
    seeds: tuple[int, ...]
    batch_size: int
    strengths: tuple[float, ...]
    cutoff: int
    displacement: float
    probe_images: int
    shots: int
    neighbors: int


class Bench(NamedTuple):
    """What all encoders of an audit are measured with.

    Attributes:
      subjects: the images.
      setting: the options.
      counts: resamples of the test images.
      pca_errors: dimension -> `labels.pca_label_errors`, computed once for each.
      views: from `invariance.make_views`, or why there are none.
    """

    subjects: Subjects
    setting: Setting
    counts: Integer[np.ndarray, "r t"]
    pca_errors: Callable[[int], np.ndarray]
    views: Views | str


def make_bench(subjects: Subjects, setting: Setting, bootstraps: int) -> Bench:
    """What all encoders are measured with.

    Args:
      subjects: the images.
      setting: the options.
      bootstraps: resamples of the test images.
    """
    counts = resamples(jax.random.key(setting.seeds[0]), len(subjects.test), bootstraps)
    pca_errors = functools.cache(lambda dimension: pca_label_errors(subjects, dimension))
    bench = Bench(subjects, setting, counts, pca_errors, "not asked for")
    if "invariance" not in setting.measures:
        return bench
    shown = probed(bench)
    size = min(batch_size(bench), len(shown))
    try:
        return bench._replace(views=make_views(shown, setting.strengths, setting.seeds, size))
    except ValueError as error:
        return bench._replace(views=str(error))


def measure(bench: Bench, encoder: Encoder, role: str, seeds: Sequence[int]) -> Audited:
    """Every measure of an encoder.

    Args:
      bench: images and options.
      encoder: to be measured.
      role: "encoder" or "baseline".
      seeds: of the draws, which can be fewer than the setting's.

    Returns:
      The Audited.

    Raises:
      ValueError: if the encoder cannot be audited, see `extraction.prepare`.
    """
    subjects, setting = bench.subjects, bench.setting
    size = batch_size(bench)
    prepared = prepare(encoder, subjects.train[:size], with_layers="stability" in setting.measures)
    train = extract(
        prepared, subjects.train, size, what="training images", numbers=subjects.train_numbers
    )
    test = extract(prepared, subjects.test, size, what="test images", numbers=subjects.test_numbers)
    constant = constant_features(train)
    row = Audited(
        encoder.name,
        prepared.dimension,
        role,
        warnings=(*prepared.warnings, *_constant_warning(constant, prepared.dimension)),
        compiled=prepared.compiled,
    )
    row = _with_read_outs(bench, row, train, test)
    if "probes" in setting.measures:
        row = row._replace(probes=_probes(bench, train, test, seeds))
    if "geometry" in setting.measures:
        same = constant == prepared.dimension
        row = row._replace(geometry=measure_geometry(train, seeds, same))
    shown = probed(bench)
    if "stability" in setting.measures:
        options = {"cutoff": setting.cutoff, "displacement": setting.displacement}
        row = row._replace(
            stability=measure_stability(prepared, shown, seeds, min(size, len(shown)), **options)
        )
    if "invariance" in setting.measures:
        row = row._replace(invariance=_invariance(bench, prepared, seeds))
    return row


def batch_size(bench: Bench) -> int:
    """Images a call: those of the setting, if there are as many in both sets.

    Args:
      bench: images and options.
    """
    subjects = bench.subjects
    return min(bench.setting.batch_size, len(subjects.train), len(subjects.test))


def probed(bench: Bench) -> np.ndarray:
    """Test images that are deformed and augmented: whole batches of them, if possible.

    Args:
      bench: images and options.
    """
    count, size = min(bench.setting.probe_images, len(bench.subjects.test)), batch_size(bench)
    return bench.subjects.test[: count if count < size else count - count % size]


def _constant_warning(constant: int, dimension: int) -> tuple[str, ...]:
    if not constant:
        return ()
    return (f"constant: {constant} of {dimension} features are the same for all training images",)


def _with_read_outs(bench: Bench, row: Audited, train, test) -> Audited:
    """The row with what ridge regression reads: pixel directions and labels."""
    subjects, measures = bench.subjects, bench.setting.measures
    if not {"spectrum", "labels"} & set(measures):
        return row
    fitted = fit_read_out(train, test)
    if "spectrum" in measures:
        kept, directions = spectrum_kept(subjects, fitted, bench.counts)
        row = row._replace(spectrum=kept, spectrum_directions=directions)
    if "labels" in measures:
        dimension, fault = min(row.dimension, subjects.directions), label_fault(subjects)
        if fault:
            return row._replace(labels=undefined_alignment(fault, dimension))
        errors, pca = label_errors(subjects, fitted), bench.pca_errors(dimension)
        row = row._replace(labels=label_alignment(subjects, errors, pca, dimension, bench.counts))
    return row


def _probes(bench: Bench, train, test, seeds):
    subjects, setting = bench.subjects, bench.setting
    fault = label_fault(subjects)
    if fault:
        return undefined_probes(fault)
    return measure_probes(
        train,
        subjects.train_labels,
        test,
        subjects.test_labels,
        bench.counts,
        seeds=seeds,
        shots=setting.shots,
        neighbors=setting.neighbors,
    )


def _invariance(bench: Bench, prepared, seeds):
    strengths = bench.setting.strengths
    if isinstance(bench.views, str):
        return undefined_invariance(strengths, bench.views)
    size = min(batch_size(bench), len(probed(bench)))
    return measure_invariance(prepared, bench.views, strengths, seeds, size)


def average(rows: Sequence[Audited], name: str) -> Audited:
    """One row of several networks, one a seed: means, and standard deviations over them.

    Args:
      rows: with the same measures.
      name: of the row.

    Returns:
      The Audited; warnings of each network that has some, with its number.
    """
    warnings = tuple(
        f"network {number}: {warning}"
        for number, row in enumerate(rows, start=1)
        for warning in row.warnings
    )
    return _merged(rows)._replace(name=name, warnings=warnings)


def _merged(parts: Sequence[Any]) -> Any:
    """Records field by field: estimates over seeds, arrays by their mean, the rest of the first."""
    first = parts[0]
    if isinstance(first, Estimate):
        return over_seeds([part.value for part in parts], _first(part.note for part in parts))
    if isinstance(first, np.ndarray):
        return np.mean(parts, axis=0)
    if hasattr(first, "_fields"):
        return type(first)(*(_merged(fields) for fields in zip(*parts, strict=True)))
    if isinstance(first, Mapping):
        return OrderedDict((key, _merged([part[key] for part in parts])) for key in first)
    if isinstance(first, tuple) and first and isinstance(first[0], Estimate):
        return tuple(_merged(items) for items in zip(*parts, strict=True))
    return first


def _first(notes) -> str:
    return next((note for note in notes if note), "")
