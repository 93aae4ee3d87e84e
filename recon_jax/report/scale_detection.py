"""What scale-detecting networks lose with depth: outcomes, claims of the paper, tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from recon_jax.report.masked_autoencoder import UNPUBLISHED
from recon_jax.report.tables import Table

STATES = ("initial", "trained", "shuffled")
MEASURES = ("D", "G", "R")
VIEWS = {"": "all channels", ", channel mean": "channel mean"}
PAPER = (
    "Paper: Tomasini et al. 2022 (arXiv 2210.01506), whose values are in figures and are "
    f"{UNPUBLISHED}; a number in its column is the one that it predicts."
)


class Prediction(NamedTuple):
    """D, G and R of constant filters.

    Attributes:
      curves: (3, layers), k = 1, 2, ...
      filter_size: F.
      stride: 1 or F.
    """

    curves: Float[np.ndarray, "3 k"]
    filter_size: int
    stride: int

    def abscissa(self, count: int) -> Float[np.ndarray, " k"]:
        """What ln D is a line in: ln k for stride 1, k ln F for stride F."""
        depths = np.arange(1, count + 1)
        return np.log(depths) if self.stride == 1 else depths * np.log(self.filter_size)


class Outcome(NamedTuple):
    """A network over seeds.

    Attributes:
      name: for people.
      layers: names from input to output.
      curves: state, with ", channel mean" behind it or nothing -> (D, G, R) by layer,
        (seeds, 3, layers).
      filters: names of convolutions.
      fractions: "initial" and "trained" -> share of the constant mode in the energy of their
        filters (seeds, filters).
      train_error: per cent of the training pairs (seeds,).
      test_error: per cent of the test pairs (seeds,).
      seconds: of a training run (seeds,).
      prediction: of constant filters, if there is one for this network.
    """

    name: str
    layers: tuple[str, ...]
    curves: Mapping[str, Float[np.ndarray, "s 3 k"]]
    filters: tuple[str, ...]
    fractions: Mapping[str, Float[np.ndarray, "s f"]]
    train_error: Float[np.ndarray, " s"]
    test_error: Float[np.ndarray, " s"]
    seconds: Float[np.ndarray, " s"]
    prediction: Prediction | None = None

    @property
    def convolutions(self) -> list[int]:
        """Indices of the layers with filters."""
        return [i for i, layer in enumerate(self.layers) if layer in self.filters]

    @property
    def is_square(self) -> bool:
        """Whether it was trained on the two-dimensional task, where channels are shuffled."""
        return "shuffled" in self.curves

    @property
    def depths(self) -> list[int]:
        """Indices of the layers that are compared: on a line those that the theory is about."""
        return list(range(len(self.layers))) if self.is_square else self.convolutions


def short(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds; three significant digits of the mean."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if not np.isfinite(mean):
        return "not finite"
    small = 0 < abs(mean) < 1e-3
    digits = 2 if small else max(2 - math.floor(math.log10(abs(mean))), 0) if mean else 1
    form = f".{digits}e" if small else f".{digits}f"
    error = f" ± {values.std(ddof=1):{form}}" if len(values) > 1 else ""
    return f"{mean:{form}}{error}"


def nets_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """Errors, sensitivities of the output and homogeneity of filters, before and after training."""
    rows = []
    for item in outcomes:
        ends = [item.curves[s][:, i, -1] for i in range(3) for s in ("initial", "trained")]
        shares = [100 * item.fractions[s].mean(1) for s in ("initial", "trained")]
        errors = [item.train_error, item.test_error]
        cells = [short(values) for values in (*errors, *ends, *shares)]
        rows.append([item.name, *cells, UNPUBLISHED, f"{item.seconds.mean():.0f}"])
    columns = ["network", "training error (%)", "test error (%)"]
    columns += [f"{m}_f {s}" for m in MEASURES for s in ("initial", "trained")]
    columns += [f"constant mode {s} (%)" for s in ("initial", "trained")]
    columns += ["paper", "seconds a run"]
    return Table("networks", "Networks before and after training", columns, rows, f"{PAPER} {note}")


def layers_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """D, G and R of every layer."""
    third = "shuffled" if outcomes[0].is_square else "constant filters"

    def theory(item: Outcome, layer: int, measure: int) -> str:
        if item.prediction is None or layer not in item.convolutions:
            return "-"
        return f"{item.prediction.curves[measure, item.convolutions.index(layer)]:.3g}"

    def cells(item: Outcome, view: str, layer: int) -> list[str]:
        found = []
        for index in range(3):
            states = [s for s in STATES if s + view in item.curves]
            found += [short(item.curves[s + view][:, index, layer]) for s in states]
            if third not in STATES:
                found.append(theory(item, layer, index))
        return found

    rows = [
        [item.name, VIEWS[view], name, *cells(item, view, layer)]
        for item in outcomes
        for view in VIEWS
        if "trained" + view in item.curves
        for layer, name in enumerate(item.layers)
    ]
    heads = [f"{m} {s}" for m in MEASURES for s in ("initial", "trained", third)]
    columns = ["network", "representation", "layer", *heads]
    return Table("layers", "Sensitivity by layer", columns, rows, f"{PAPER} {note}")
