"""Outcomes of variational autoencoders and baselines: cells, paired seeds, verdicts, style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from recon_jax.report.figures import COLORS, LINES
from recon_jax.report.masked_autoencoder import is_more_than_spread, spread

READ_OUTS = {
    "linear": "linear probe",
    "knn": "kNN",
    "few_linear": "few-label linear",
    "few_knn": "few-label 1-NN",
}
VERDICTS = {
    "better": "better by more than twice the spread",
    "worse": "worse by more than twice the spread",
    "tie": "within twice the spread",
    "unknown": "one seed, spread unknown",
}


def decoder_name(horizon: int | None) -> str:
    """For people: 0 factorised, h local, None full."""
    if horizon is None:
        return "full"
    return f"local, h = {horizon}" if horizon else "factorised"


class Outcome(NamedTuple):
    """Autoencoders of one decoder and latent size, over seeds.

    Attributes:
      horizon: 0 factorised, h local, None full.
      latent_size: Z.
      dimensions: H W C of an image.
      nll: of the pixels given the latent, nats an image (seeds,).
      kl: of the posterior from the prior, nats an image (seeds,).
      active: number of active latent units (seeds,).
      information: mutual information of image and latent in nats (seeds,).
      linear: test accuracy in per cent of logistic regression (seeds,).
      knn: of nearest neighbours (seeds,).
      few_linear: of logistic regression with a few labels a class (seeds,).
      few_knn: of the nearest of a few labels a class (seeds,).
      kept: share of each principal direction of the pixels read from the latent (seeds, P).
      seconds: of a training run (seeds,).
      collapse: in words, "" if none, one a seed.
    """

    horizon: int | None
    latent_size: int
    dimensions: int
    nll: np.ndarray
    kl: np.ndarray
    active: np.ndarray
    information: np.ndarray
    linear: np.ndarray
    knn: np.ndarray
    few_linear: np.ndarray
    few_knn: np.ndarray
    kept: np.ndarray
    seconds: np.ndarray
    collapse: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        return decoder_name(self.horizon)

    @property
    def bits(self) -> np.ndarray:
        """Bits per dimension (seeds,): (nll + kl) / (ln 2 H W C)."""
        return (self.nll + self.kl) / (math.log(2) * self.dimensions)


class Baseline(NamedTuple):
    """What is read without a network.

    Attributes:
      name: "pixels", or such as "PCA, 16".
      latent_size: components; 0 for pixels.
      linear: see `Outcome`, as are the next three; one value if nothing is drawn.
      knn: as above.
      few_linear: as above.
      few_knn: as above.
      kept: share of each principal direction (P,), or None.
    """

    name: str
    latent_size: int
    linear: np.ndarray
    knn: np.ndarray
    few_linear: np.ndarray
    few_knn: np.ndarray
    kept: np.ndarray | None


def deviation(values: np.ndarray) -> float:
    """Standard deviation over seeds; 0 for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def error_bars(series: Sequence[np.ndarray]) -> list[float] | None:
    """Lengths of error bars, one an entry over seeds; None, which draws none, for one seed."""
    several = any(len(values) > 1 for values in series)
    return [deviation(values) for values in series] if several else None


def by_size(outcomes: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    """The outcomes of each latent size, smallest first."""
    sizes = sorted({item.latent_size for item in outcomes})
    return {size: [item for item in outcomes if item.latent_size == size] for size in sizes}


def find(outcomes: Sequence[Outcome], horizon: int | None) -> Outcome | None:
    """The one with this horizon."""
    return next((item for item in outcomes if item.horizon == horizon), None)


def local_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The local decoder of the shortest horizon: chosen by name, never by its test accuracy."""
    local = [item for item in outcomes if item.horizon]
    return min(local, key=lambda item: item.horizon, default=None)


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differences seed by seed.

    Raises:
      ValueError: if they are not over the same number of seeds.
    """
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} and {len(second)} seeds cannot be paired; give results over the same "
            "seeds"
        )
    return np.asarray(first, float) - np.asarray(second, float)


def gap(first: Outcome, second: Outcome | Baseline, measure: str) -> np.ndarray:
    """First minus second in a read-out (seeds,); a baseline stands against its mean."""
    ours, theirs = getattr(first, measure), getattr(second, measure)
    if isinstance(second, Baseline):
        theirs = np.full(len(ours), np.mean(theirs))
    return paired(ours, theirs)


def verdict(differences: np.ndarray) -> str:
    """A key of `VERDICTS`, for differences (seeds,) of which more is better."""
    sure = is_more_than_spread(differences)
    if sure is None:
        return "unknown"
    return ("better" if differences.mean() > 0 else "worse") if sure else "tie"


def collapse_line(item: Outcome) -> str:
    """What collapsed in the run with the fewest active units, "" if nothing did in any run."""
    told = [run for run, text in enumerate(item.collapse) if text]
    if not told:
        return ""
    worst = min(told, key=lambda run: item.active[run])
    runs = len(item.collapse)
    return f"{item.name}, {len(told)} of {runs} runs, the worst: {item.collapse[worst]}"


def outcome_cells(item: Outcome) -> list[str]:
    """Cells from the decoder to the last read-out."""
    return [
        item.name,
        str(item.latent_size),
        spread(item.bits, digits=3),
        *(spread(values) for values in (item.kl, item.active, item.information)),
        *(spread(getattr(item, measure)) for measure in READ_OUTS),
    ]


def baseline_cells(item: Baseline) -> list[str]:
    """The same of a baseline."""
    size = str(item.latent_size or "-")
    return [item.name, size, *"----", *(spread(getattr(item, measure)) for measure in READ_OUTS)]


def cell_columns(shots: int) -> list[str]:
    """Headings of `outcome_cells`."""
    return [
        "decoder",
        "latent size",
        "bits per dimension",
        "KL (nats)",
        "active units",
        "information (nats)",
        "linear probe",
        "kNN",
        f"linear, {shots} labels a class",
        f"1-NN, {shots} labels a class",
    ]


def compare(first: Outcome, second: Outcome | Baseline) -> str:
    """First against second, read-out by read-out, as one sentence without the latent size."""
    gaps = {name: gap(first, second, measure) for measure, name in READ_OUTS.items()}
    found = [verdict(values) for values in gaps.values()]
    head = f"{first.name} against {second.name}"
    if "unknown" in found:
        shown = ", ".join(f"{name} {spread(values, '+')}" for name, values in gaps.items())
        return f"{head}: one seed, spread unknown, no verdict; in points: {shown}."
    shown = ", ".join(
        f"{name} {spread(values, '+')} ({word})"
        for (name, values), word in zip(gaps.items(), found, strict=True)
    )
    counts = {word: found.count(word) for word in ("better", "worse", "tie")}
    return (
        f"{head}: better in {counts['better']}, worse in {counts['worse']} of {len(found)} "
        f"read-outs by more than twice the spread over seeds, a tie in {counts['tie']}; in points: "
        f"{shown}."
    )


def decoder_style(name: str) -> dict[str, str]:
    """Colour, marker and dash of a decoder by its name, the same in every figure."""
    if name in ("factorised", "full"):
        index, marker, line = {"factorised": (2, "s", 1), "full": (3, "^", 2)}[name]
        return {"color": COLORS[index], "marker": marker, "linestyle": LINES[line]}
    step = int(name.rpartition("= ")[2]) - 1
    color = (COLORS[1], COLORS[5], COLORS[4], COLORS[6], COLORS[0])[step % 5]
    return {"color": color, "marker": "oDvPX*"[step % 6], "linestyle": LINES[3 * (step % 2)]}


def share_legend(figure: Figure, columns: int = 4) -> None:
    """One legend of all panels, below, every label once."""
    found = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns)
