"""Variational autoencoders with few labels: table, figure, and how many labels one saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from recon_jax.report.figures import line_style, new_figure
from recon_jax.report.masked_autoencoder import UNPUBLISHED, spread
from recon_jax.report.tables import Table
from recon_jax.report.vae_outcomes import (
    VERDICTS,
    decoder_style,
    error_bars,
    paired,
    share_legend,
    verdict,
)

SUPERVISED = "supervised only"
M2 = "M2, "
PROBE = "probe of a frozen VAE, "
PAPER = (
    "Paper: Zhang et al. 2022; its released code trains M2 on MNIST with 10 labels a class (100 "
    "epochs) and on SVHN with 100 (20 epochs), seeds 0 to 4, test accuracy of q(y|x); the numbers "
    "are not known here."
)
CAPTION = "Test accuracy against labels a class, mean and standard deviation over seeds."


class Outcome(NamedTuple):
    """One way of learning from few labels, over seeds.

    Attributes:
      method: for people: "supervised only", "M2, DECODER" or "probe of a frozen VAE, DECODER", the
        decoder being "factorised", "full" or such as "local, h = 1".
      shots: labels a class, at least 1.
      accuracy: on test images, in per cent (seeds,).
      bits: per dimension (seeds,); NaN where there is no decoder.
      seconds: of a run (seeds,).
    """

    method: str
    shots: int
    accuracy: np.ndarray
    bits: np.ndarray
    seconds: np.ndarray


def semi_supervised_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """Test accuracy of every method and number of labels.

    Args:
      outcomes: in the order of the rows, over the same seeds.
      note: setting, seeds, device.
    """
    rows = [
        [
            item.method,
            item.shots,
            spread(item.accuracy),
            UNPUBLISHED,
            "-" if np.isnan(item.bits).any() else spread(item.bits, digits=3),
            f"{item.seconds.mean():.0f}",
        ]
        for item in outcomes
    ]
    columns = [
        "method",
        "labels a class",
        "accuracy",
        "paper's accuracy",
        "bits per dimension",
        "seconds a run",
    ]
    title = "Test accuracy (%) by method and labels a class"
    return Table("semi_supervised", title, columns, rows, f"{PAPER} {note}")


def by_method(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of each method, fewest labels first."""
    names = dict.fromkeys(item.method for item in outcomes)
    ordered = sorted(outcomes, key=lambda item: item.shots)
    return {name: [item for item in ordered if item.method == name] for name in names}


def _style(method: str, index: int) -> dict:
    """A decoder has its colour and marker everywhere; M2 is solid, probes are dashed."""
    for prefix, line, fill in ((M2, "-", "full"), (PROBE, "--", "none")):
        if method.startswith(prefix):
            style = decoder_style(method.removeprefix(prefix))
            return {**style, "linestyle": line, "fillstyle": fill}
    if method == SUPERVISED:
        return {"color": "black", "marker": "X", "linestyle": ":"}
    return {**line_style(index), "marker": "."}


def semi_supervised_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Accuracy against labels a class, one line a method."""
    methods = by_method(outcomes)
    figure, axes = new_figure(6.5, 4.6)
    ax = axes[0, 0]
    for index, (method, items) in enumerate(methods.items()):
        # Side by side, so that bars can be told apart.
        shift = 1.02 ** (index - (len(methods) - 1) / 2)
        ax.errorbar(
            [item.shots * shift for item in items],
            [item.accuracy.mean() for item in items],
            error_bars([item.accuracy for item in items]),
            capsize=3,
            markersize=5,
            linewidth=1.2,
            label=method,
            **_style(method, index),
        )
    ax.set(xscale="log", xlabel="labels a class", ylabel="test accuracy (%)")
    shots = sorted({item.shots for item in outcomes})
    ax.set_xticks(shots, [str(number) for number in shots])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    share_legend(figure, 2)
    return figure


def labels_needed(shots: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    """Fewest labels a class at which a curve reaches an accuracy; NaN outside what was measured.

    Linear in log shots between measured points; the first crossing, if the curve falls again.

    Args:
      shots: labels a class, ascending (P,).
      accuracy: of the curve there (P,).
      target: to be reached.

    Returns:
      labels a class in shots[0] .. shots[-1]; NaN if the first point is above the target already,
      for fewer labels might do, or no point reaches it.
    """
    reached = np.flatnonzero(np.asarray(accuracy) >= target)
    if not len(reached):
        return float("nan")
    last = int(reached[0])
    if last == 0:
        return float(shots[0]) if accuracy[0] == target else float("nan")
    part = (target - accuracy[last - 1]) / (accuracy[last] - accuracy[last - 1])
    low, high = np.log(shots[last - 1]), np.log(shots[last])
    return float(np.exp(low + part * (high - low)))


def _main_method(outcomes: Sequence[Outcome]) -> str | None:
    """M2 with the local decoder of the shortest horizon: chosen by name, not by accuracy."""
    names = {item.method for item in outcomes if item.method.startswith(f"{M2}local")}
    return min(names, key=lambda name: int(name.rpartition("= ")[2]), default=None)


def _needed_words(ours: Outcome, supervised: Sequence[Outcome]) -> str:
    """With how many labels supervised learning has our mean accuracy."""
    shots = np.array([item.shots for item in supervised])
    means = np.array([item.accuracy.mean() for item in supervised])
    target = ours.accuracy.mean()
    needed = labels_needed(shots, means, target)
    head = f"{SUPERVISED} reaches {target:.1f}%"
    if np.isfinite(needed):
        word = "saved" if needed >= ours.shots else "lost"
        return (
            f"{head} with {needed:.3g} labels a class, {abs(needed - ours.shots):.3g} {word} "
            f"({needed / ours.shots:.2g} times as many)"
        )
    side = f"more than {shots[-1]}" if means.max() < target else f"fewer than {shots[0]}"
    return f"{head} beyond the measured range, with {side} labels a class"


def _supervised_line(ours: Outcome, supervised: Sequence[Outcome]) -> list[str]:
    """The verdict on saving labels; none without the supervised method at as many labels."""
    same = [item for item in supervised if item.shots == ours.shots]
    if not same:
        return []
    difference = paired(ours.accuracy, same[0].accuracy)
    # What follows from the means alone is said to, unless the gap is sure.
    head, source = {
        "better": ("{} saves labels", "labels saved"),
        "worse": ("{} saves no labels, it costs some", "labels saved"),
        "tie": ("no evidence that {} saves labels", "by the means alone"),
        "unknown": ("whether {} saves labels cannot be said from one seed", "by this seed alone"),
    }[verdict(difference)]
    return [
        f"{head.format(ours.method)}: {spread(ours.accuracy)}%, {spread(difference, '+')} points "
        f"on {SUPERVISED} ({VERDICTS[verdict(difference)]}); {source}: "
        f"{_needed_words(ours, supervised)}."
    ]


def _shot_lines(ours: Outcome, outcomes: Sequence[Outcome]) -> list[str]:
    """One number of labels: does it save any, and how does it stand against the other methods."""
    parts = []
    for item in outcomes:
        if item.shots == ours.shots and item.method not in (ours.method, SUPERVISED):
            difference = paired(ours.accuracy, item.accuracy)
            shown = f"{spread(difference, '+')} ({VERDICTS[verdict(difference)]})"
            parts.append(f"{shown} on {item.method}")
    lines = _supervised_line(ours, by_method(outcomes).get(SUPERVISED, []))
    return lines + ([f"{ours.method}, in points: {'; '.join(parts)}."] if parts else [])


def answer(outcomes: Sequence[Outcome]) -> list[str]:
    """Whether M2 with a local decoder saves labels, against every other method.

    Args:
      outcomes: over the same seeds; the local decoder is the one of the shortest horizon.
    """
    main = _main_method(outcomes)
    if main is None:
        return ["No M2 with a local decoder was trained: nothing to compare."]
    return [
        f"{ours.shots} label{'s' if ours.shots > 1 else ''} a class: {line}"
        for ours in by_method(outcomes)[main]
        for line in _shot_lines(ours, outcomes)
    ]
