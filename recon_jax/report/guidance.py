"""Reconstruction error against perception accuracy, guided and not: tables, a figure, words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recon_jax.report.figures import new_figure
from recon_jax.report.tables import Table

# Marker of the unguided runs, then of the guidances in ascending order.
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
EQUAL_ERROR = 0.05
"""Relative change below which two reconstruction errors count as equal in the words."""
UNPUBLISHED = "not published here"
CAPTION = (
    "Test reconstruction error against the test accuracy of a linear probe. Left: trained "
    "autoencoders, circles without guidance, arrows to the guided ones. Right: the linear optimum "
    "over the weight of reconstruction, from nearly PCA (circles) to nearly supervised (triangles)."
)


class Outcome(NamedTuple):
    """Autoencoders of one latent size under one guidance; arrays have one entry a seed.

    Attributes:
      latents: entries of the latent K.
      guidance: g.
      error: test mean squared error per pixel.
      relative_error: the same over that of the mean training image.
      linear_head: test accuracy of the linear head trained along, in [0, 1].
      mlp_head: test accuracy of the MLP head trained along.
      linear_probe: test accuracy of a linear probe fitted on the frozen latents.
    """

    latents: int
    guidance: float
    error: np.ndarray
    relative_error: np.ndarray
    linear_head: np.ndarray
    mlp_head: np.ndarray
    linear_probe: np.ndarray


class Frontier(NamedTuple):
    """The linear optimum of one latent size; arrays have one entry a reconstruction weight.

    Attributes:
      latents: K.
      weights: w, ascending.
      error: test mean squared error per pixel.
      relative_error: the same over that of the mean training image.
      accuracy: test accuracy of the least-squares classifier, in [0, 1].
      train_error: training mean squared error per pixel.
      train_label_error: training squared error of the classifier per image, one-hot.
    """

    latents: int
    weights: np.ndarray
    error: np.ndarray
    relative_error: np.ndarray
    accuracy: np.ndarray
    train_error: np.ndarray
    train_label_error: np.ndarray


class Change(NamedTuple):
    """What guidance changed at one latent size, seed by seed, against the least guidance.

    Attributes:
      latents: K.
      guidance: g.
      error: relative change of the reconstruction error.
      linear_head: change of accuracy of the linear head.
      mlp_head: change of accuracy of the MLP head.
      linear_probe: change of accuracy of the linear probe on frozen latents.
    """

    latents: int
    guidance: float
    error: np.ndarray
    linear_head: np.ndarray
    mlp_head: np.ndarray
    linear_probe: np.ndarray


def spread(values: np.ndarray, digits: int = 1, sign: str = "") -> str:
    """Mean ± standard deviation over seeds; the value alone for one seed."""
    text = f"{np.mean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def changes(outcomes: Sequence[Outcome]) -> list[Change]:
    """The effect of guidance: each outcome against the least guided one of its latent size."""
    found = []
    for outcome in outcomes:
        same_size = [item for item in outcomes if item.latents == outcome.latents]
        base = min(same_size, key=lambda item: item.guidance)
        if outcome.guidance > base.guidance:
            gains = (
                getattr(outcome, name) - getattr(base, name)
                for name in ("linear_head", "mlp_head", "linear_probe")
            )
            error = outcome.error / base.error - 1
            found.append(Change(outcome.latents, outcome.guidance, error, *gains))
    return found


def guidance_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """Reconstruction error and accuracies of every latent size and guidance, and the changes."""
    effect = {(item.latents, item.guidance): item for item in changes(outcomes)}
    rows = []
    for item in outcomes:
        change = effect.get((item.latents, item.guidance))
        rows.append(
            [
                str(item.latents),
                f"{item.guidance:g}",
                UNPUBLISHED,
                spread(1e3 * item.error, 2),
                spread(100 * item.relative_error),
                *(
                    spread(100 * values)
                    for values in (item.linear_head, item.mlp_head, item.linear_probe)
                ),
                "-" if change is None else spread(100 * change.error, 1, "+"),
                "-" if change is None else spread(100 * change.linear_probe, 1, "+"),
            ]
        )
    columns = [
        "latents",
        "g",
        "paper",
        "MSE (1e-3)",
        "MSE (% var)",
        "linear head",
        "MLP head",
        "linear probe",
        "Δ MSE (%)",
        "Δ probe",
    ]
    title = (
        "Test error per pixel and test accuracy (%), without and with guidance g; Δ: change by "
        "guidance, of the probe in points"
    )
    return Table("guidance", title, columns, rows, note)


def frontier_table(frontiers: Sequence[Frontier], note: str) -> Table:
    """The linear optimum at every latent size and reconstruction weight."""
    rows = [
        [
            str(item.latents),
            f"{weight:.3g}",
            f"{1e3 * item.error[i]:.2f}",
            f"{100 * item.relative_error[i]:.1f}",
            f"{100 * item.accuracy[i]:.1f}",
            f"{1e3 * item.train_error[i]:.2f}",
            f"{item.train_label_error[i]:.3f}",
        ]
        for item in frontiers
        for i, weight in enumerate(item.weights)
    ]
    columns = [
        "latents",
        "weight w",
        "MSE (1e-3)",
        "MSE (% var)",
        "accuracy (%)",
        "train MSE (1e-3)",
        "train label error",
    ]
    title = "Linear theory: the joint optimum of supervision and reconstruction"
    return Table("closed_form", title, columns, rows, note)


def _percent(values) -> np.ndarray:
    return 100 * np.asarray(values)


def _label(axes, latents: int, point: tuple[float, float]) -> None:
    """The latent size, left of its point."""
    axes.annotate(
        str(latents), point, xytext=(-7, 0), textcoords="offset points", ha="right", va="center"
    )


def _legend(axes, labels: Sequence[str]) -> None:
    """What the markers mean, below the axes, where no point can be."""
    handles = [
        Line2D([], [], color="black", marker=marker, linestyle="", label=label)
        for label, marker in zip(labels, itertools.cycle(MARKERS), strict=False)
    ]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": len(labels)}
    axes.legend(handles=handles, handletextpad=0.1, columnspacing=1, **place)


def _plot_trained(axes, outcomes: Sequence[Outcome], colors) -> None:
    """One point an outcome, with its spread; an arrow from less to more guidance."""
    guidances = sorted({item.guidance for item in outcomes})
    for latents, color in colors.items():
        chain = sorted(
            (item for item in outcomes if item.latents == latents), key=lambda item: item.guidance
        )
        points = [(1e3 * item.error.mean(), _percent(item.linear_probe).mean()) for item in chain]
        for start, end in itertools.pairwise(points):
            arrow = {"arrowstyle": "->", "color": color, "shrinkA": 4, "shrinkB": 4}
            axes.annotate("", end, start, arrowprops=arrow)
        for item, (x, y) in zip(chain, points, strict=True):
            several = len(item.error) > 1
            axes.errorbar(
                x,
                y,
                xerr=1e3 * item.error.std(ddof=1) if several else None,
                yerr=_percent(item.linear_probe).std(ddof=1) if several else None,
                marker=MARKERS[guidances.index(item.guidance) % len(MARKERS)],
                color=color,
                markersize=6,
                capsize=2,
            )
        _label(axes, latents, points[0])
    _legend(axes, [f"guidance {value:g}" for value in guidances])


def _plot_closed_form(axes, frontiers: Sequence[Frontier], colors) -> None:
    """One curve a latent size, over the reconstruction weight; its ends are marked."""
    for item in frontiers:
        color, x, y = colors[item.latents], 1e3 * item.error, _percent(item.accuracy)
        axes.plot(x, y, color=color, linewidth=1, marker=".", markersize=4)
        axes.plot(x[-1], y[-1], color=color, marker="o", markersize=6)
        axes.plot(x[0], y[0], color=color, marker="^", markersize=6)
        _label(axes, item.latents, (x[-1], y[-1]))
    if frontiers:
        low, high = frontiers[0].weights[[0, -1]]
        _legend(axes, [f"w = {high:g}: nearly PCA", f"w = {low:.2g}: nearly supervised"])


def guidance_figure(outcomes: Sequence[Outcome], frontiers: Sequence[Frontier]) -> Figure:
    """Test error against test accuracy: trained autoencoders, and the linear optimum beside them.

    The number at a point is its latent size, which also has a colour; the marker is the guidance.
    """
    figure, axes = new_figure(9.5, 4.6, 1, 2, sharex=True, sharey=True)
    sizes = sorted({item.latents for item in outcomes} | {item.latents for item in frontiers})
    # A dark-to-light order that survives colour blindness and print; its pale end is left out.
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sizes)))
    colors = {size: tuple(shade) for size, shade in zip(sizes, shades, strict=True)}
    _plot_trained(axes[0, 0], outcomes, colors)
    _plot_closed_form(axes[0, 1], frontiers, colors)
    xlabel = "test reconstruction error (MSE per pixel, 1e-3)"
    ylabel = "test accuracy of a linear probe (%)"
    axes[0, 0].set(
        title="Trained autoencoders (number: latents)", xlabel=xlabel, ylabel=ylabel, xscale="log"
    )
    axes[0, 1].set(title="Linear theory, closed form (number: latents)", xlabel=xlabel)
    axes[0, 0].margins(x=0.1)  # the numbers stand left of the points
    axes[0, 1].tick_params(labelleft=True)
    # Errors often span less than a decade, which the default ticks would leave without numbers.
    axes[0, 0].xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes[0, 0].xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes[0, 0].xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    return figure


def _effect(change: Change) -> str:
    return (
        f"{change.latents} latents: guidance {change.guidance:g} changes the reconstruction error "
        f"by {spread(100 * change.error, 1, '+')}% and the accuracy of a linear probe by "
        f"{spread(100 * change.linear_probe, 1, '+')} points (heads trained along: linear "
        f"{spread(100 * change.linear_head, 1, '+')}, MLP {spread(100 * change.mlp_head, 1, '+')})."
    )


def _is_gain(values: np.ndarray) -> bool:
    """Whether a gain exceeds twice its standard deviation over seeds, and a point in any case."""
    floor = 2 * np.std(values, ddof=1) if len(values) > 1 else 0.0
    return bool(np.mean(values) > max(floor, 0.01))


def _verdict(outcomes: Sequence[Outcome]) -> str:
    found = changes(outcomes)
    if not found:
        return "Only one guidance was tried: there is nothing to compare."
    limit = f"{100 * EQUAL_ERROR:g}%"
    equal = [item for item in found if abs(np.mean(item.error)) <= EQUAL_ERROR]
    if not equal:
        least = min(found, key=lambda item: abs(np.mean(item.error)))
        return (
            f"No guided autoencoder has a reconstruction error within {limit} of the unguided one; "
            f"the closest, {least.latents} latents with guidance {least.guidance:g}, differs by "
            f"{spread(100 * least.error, 1, '+')}%: these runs show an exchange of reconstruction "
            "for perception, not equal reconstructions. Try a smaller guidance or more epochs."
        )
    best = max(equal, key=lambda item: np.mean(item.linear_probe))
    seeds = len(best.error)
    amount = f"{spread(100 * best.linear_probe, 1, '+')} points of a linear probe"
    where = (
        f"{best.latents} latents, guidance {best.guidance:g}, errors "
        f"{spread(100 * best.error, 1, '+')}% apart, "
        f"{f'{seeds} seeds' if seeds > 1 else 'one seed, spread unknown'}"
    )
    if _is_gain(best.linear_probe):
        return (
            "Equal reconstruction errors do hide different perception: where the errors differ by "
            f"at most {limit}, guidance changes accuracy by up to {amount} ({where})."
        )
    return (
        f"Where the reconstruction errors differ by at most {limit}, no guided accuracy is higher "
        f"beyond its spread; the best change is {amount} ({where})."
    )


def _closed_form_line(frontiers: Sequence[Frontier]) -> str:
    gains = []
    for item in frontiers:
        allowed = item.error <= (1 + EQUAL_ERROR) * item.error[-1]
        best = int(np.argmax(np.where(allowed, item.accuracy, -1)))
        gains.append(
            f"{100 * item.accuracy[-1]:.1f} to {100 * item.accuracy[best]:.1f}% with "
            f"{item.latents} latents"
        )
    return (
        "Linear theory: supervision that costs at most "
        f"{100 * EQUAL_ERROR:g}% of reconstruction error raises test accuracy from "
        f"{', '.join(gains)} (from the largest reconstruction weight, nearly PCA)."
    )


def answer(outcomes: Sequence[Outcome], frontiers: Sequence[Frontier]) -> list[str]:
    """The findings in words: the verdict, the linear theory, then every latent size."""
    lines = [_verdict(outcomes)]
    if frontiers:
        lines.append(_closed_form_line(frontiers))
    return lines + [_effect(change) for change in changes(outcomes)]
