"""What each way of training captured of features that are known: outcomes and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from recon_jax import multiview
from recon_jax.report.masked_autoencoder import UNPUBLISHED
from recon_jax.report.scale_detection import short
from recon_jax.report.tables import Table

PAPER = (
    "Paper: Pan et al. 2023 (arXiv 2206.03826), of which the claims are known; the constants of "
    f"its theorems and its tables are {UNPUBLISHED}."
)
READING = (
    "Captured: features whose best kernel reaches 0.3 of what winning features reach. Purity: live "
    "kernels whose second-largest correlation is at most 0.3 of the largest. Growth: median norm "
    "of a kernel over the one at the start. The rule of capture is relative: it says nothing of "
    "random kernels and of those whose norm has not grown."
)
SWEEP_READING = (
    "Accuracy of pretrained kernels is that of a head on them, frozen. Aligned: features with a "
    "kernel at cosine 0.6 or more. Largest growth: of the one kernel that grew most. Predicted, of "
    "teacher scales: what features should do; of widths: 1 - (1 - 1/(2k))^(km) captured."
)
NAMES = {
    "supervised": "supervision",
    "supervised_head": "supervision, head trained too",
    "frozen": "pretraining + head",
    "finetuned": "pretraining + fine-tuning",
    "random_encoder": "random kernels + head",
}
# Sweeps, in the order of the tables, as people call them.
SWEEPS = {
    "teacher_scale": "teacher scale",
    "width": "kernels a class",
    "single_view": "single-view share in training",
    "threshold": "threshold of the rectifier",
    "steps": "steps of pretraining",
    "variant": "way of pretraining",
}


class Method(NamedTuple):
    """A way of training, over seeds; NaN where a measure was not made.

    Attributes:
      name: for people.
      captured: share of the features (seeds,).
      purity: of its kernels, in [0, 1] (seeds,).
      growth: of their norm (seeds,).
      multi: accuracy on multi-view test images in per cent (seeds,).
      single: on single-view test images, likewise (seeds,).
    """

    name: str
    captured: Float[np.ndarray, " seeds"]
    purity: Float[np.ndarray, " seeds"]
    growth: Float[np.ndarray, " seeds"]
    multi: Float[np.ndarray, " seeds"]
    single: Float[np.ndarray, " seeds"]


class Study(NamedTuple):
    """All ways of training on the same images.

    Attributes:
      methods: by the names of `multiview.CaptureStudy`, and "ensemble_M" of M supervised networks.
      aligned: share of the features with a pretrained kernel at cosine 0.6 (seeds,).
      predicted_winners: share of classes whose winning view the start foretells (seeds,).
      agreeing_winners: share of classes in which two supervised networks agree (seeds,).
      seconds: all of it took, compilation included.
    """

    methods: Mapping[str, Method]
    aligned: Float[np.ndarray, " seeds"]
    predicted_winners: Float[np.ndarray, " seeds"]
    agreeing_winners: Float[np.ndarray, " seeds"]
    seconds: float


class Point(NamedTuple):
    """One value of a sweep.

    Attributes:
      sweep: one of `SWEEPS`.
      value: a number; a name in the sweep of ways of pretraining.
      found: shares and growths by name (seeds,); those of supervision may be missing.
      seconds: it took, compilation included.
    """

    sweep: str
    value: Any
    found: Mapping[str, Float[np.ndarray, " seeds"]]
    seconds: float = 0.0

    def measure(self, name: str) -> Float[np.ndarray, " seeds"]:
        """Measures of a name (seeds,), accuracies in per cent; NaN if it was not made."""
        values = self.found.get(name)
        if values is None:
            return np.full_like(self.found["captured"], np.nan)
        return 100 * values if name.endswith(("multi", "single")) else values


class Setting(NamedTuple):
    """What predictions depend on.

    Attributes:
      num_classes: k.
      kernels_per_class: m.
      keep: theta.
      patches_per_feature: C_p.
      power: q.
    """

    num_classes: int
    kernels_per_class: int
    keep: float
    patches_per_feature: int
    power: float

    @property
    def window(self) -> tuple[float, float]:
        """Teacher scales between which features grow and the noise of single patches does not."""
        return multiview.teacher_scale_bounds(self.keep, self.patches_per_feature, self.power)

    @property
    def pair_bound(self) -> float:
        """Teacher scale from which on two features that occur together grow together."""
        return multiview.teacher_scale_bounds(self.keep, 2 * self.patches_per_feature, self.power)[
            0
        ]

    def coverage(self, kernels_per_class: int) -> float:
        """Expected share of features captured by so many kernels a class."""
        return multiview.expected_coverage(
            2 * self.num_classes, self.num_classes * kernels_per_class
        )


def gather(arrays: Mapping[str, np.ndarray]) -> Study:
    """A study from the arrays of `multiview.CaptureStudy`, named such as "frozen.captured".

    Args:
      arrays: with a leading axis of seeds, and "seconds".
    """
    nothing = np.full_like(arrays["purity"], np.nan)
    methods = {}
    for key, name in NAMES.items():
        captured, multi, single = (
            arrays[f"{key}.{field}"] for field in ("captured", "multi_view", "single_view")
        )
        captured = nothing if key == "random_encoder" else captured
        measured = [arrays[f] if key == "frozen" else nothing for f in ("purity", "growth")]
        methods[key] = Method(name, captured, *measured, 100 * multi, 100 * single)
    accuracies = [arrays[f"ensemble_{kind}_view"] for kind in ("multi", "single")]
    for count in range(2, accuracies[0].shape[1] + 1):
        multi, single = (100 * values[:, count - 1] for values in accuracies)
        name = f"supervision, ensemble of {count}"
        methods[f"ensemble_{count}"] = Method(name, *[nothing] * 3, multi, single)
    others = (arrays[name] for name in ("aligned", "predicted_winners", "agreeing_winners"))
    return Study(methods, *others, float(arrays["seconds"]))


def of_sweep(points: Sequence[Point], sweep: str) -> list[Point]:
    """The points of one sweep, ascending if they are numbers."""
    found = [item for item in points if item.sweep == sweep]
    return found if sweep == "variant" else sorted(found, key=lambda item: item.value)


def cell(values: np.ndarray) -> str:
    """Mean ± standard deviation over the seeds in which the measure is finite, and how many."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "-"
    count = f" ({len(finite)} of {len(values)})" if len(finite) < len(values) else ""
    return short(finite) + count


def methods_table(study: Study, note: str) -> Table:
    """Features captured and accuracy of every way of training.

    Args:
      study: of all seeds.
      note: setting, seeds, device.
    """
    rows = [
        [item.name, *map(cell, item[1:]), UNPUBLISHED]  # all but the name are measures
        for item in study.methods.values()
    ]
    columns = [
        "way of training",
        *("features captured", "purity", "norm growth"),
        *("multi-view accuracy (%)", "single-view accuracy (%)", "paper"),
    ]
    title = "Which features each way of training captures, and what it is worth"
    return Table("methods", title, columns, rows, f"{PAPER} {READING} {note}")


def predicted(item: Point, setting: Setting) -> str:
    """What the theory says of a point; "-" if nothing."""
    if item.sweep == "width":
        return f"{setting.coverage(item.value):.3f}"
    if item.sweep != "teacher_scale":
        return "-"
    low, high = setting.window
    if item.value <= low:
        return "pairs grow" if item.value > setting.pair_bound else "shrink"
    # A value that was rounded to sit on the end of the window.
    return "grow" if item.value <= high * (1 + 1e-3) else "grow, noise too"


def sweeps_table(points: Sequence[Point], setting: Setting, note: str) -> Table:
    """Every sweep, one row a value.

    Args:
      points: of all sweeps.
      setting: for the predictions.
      note: setting, seeds, device.
    """
    measures = {
        "captured": "features captured",
        "aligned": "aligned",
        "purity": "purity",
        "growth": "norm growth",
        "largest": "largest growth",
        "multi": "multi-view accuracy (%)",
        "single": "single-view accuracy (%)",
        "supervised_captured": "supervision: captured",
        "supervised_single": "supervision: single-view accuracy (%)",
    }
    rows = [
        [
            words,
            item.value if isinstance(item.value, str) else f"{item.value:g}",
            predicted(item, setting),
            *(cell(item.measure(name)) for name in measures),
        ]
        for sweep, words in SWEEPS.items()
        for item in of_sweep(points, sweep)
    ]
    columns = ["what changes", "value", "predicted", *measures.values()]
    title = "What capture depends on, one change at a time"
    return Table("sweeps", title, columns, rows, f"{PAPER} {READING} {SWEEP_READING} {note}")
