"""Figures of scale detection: D, G, R by depth, homogeneity of filters, error over networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from recon_jax.report.figures import COLORS, new_figure
from recon_jax.report.scale_detection import MEASURES, STATES, VIEWS, Outcome
from recon_jax.report.vae_outcomes import share_legend

TITLES = {
    "depth": "What every layer keeps",
    "filters": "Do filters become homogeneous?",
    "error": "Does the error go with the sensitivity of the output?",
}
CAPTIONS = {
    "depth": "Sensitivity to deformations (D), to noise (G) and their ratio (R) by layer, before "
    "and after training; mean and range over seeds. {}",
    "filters": "Share of the constant mode in the energy of the filters by convolution, before and "
    "after training; mean and range over seeds.",
    "error": "Test error against the sensitivity of the output, one marker a network; mean and "
    "range over seeds.",
}
WITH_THEORY = "Dashed: constant filters on a long line."
WITH_SHUFFLED = "Shuffled: a random permutation of the input channels of every convolution."

STYLES = {
    "initial": {"color": COLORS[6], "marker": "s", "linestyle": ":"},
    "trained": {"color": COLORS[1], "marker": "o", "linestyle": "-"},
    "shuffled": {"color": COLORS[2], "marker": "^", "linestyle": "-."},
}
THEORY = {"color": COLORS[0], "linestyle": "--", "linewidth": 1.4, "zorder": 1}
MARKERS = "osD^vPX*<>"


def _finite(values: np.ndarray) -> np.ndarray:
    """The values, with NaN, which leaves a gap, also for infinity, which no axis can show."""
    return np.where(np.isfinite(values), values, np.nan)


def _bars(values: np.ndarray) -> np.ndarray | None:
    """From the mean over seeds down to the least and up to the largest; None for one seed."""
    # Standard deviations would reach below 0, which a logarithmic axis does not show.
    mean = values.mean(0)
    bars = np.stack([mean - values.min(0), values.max(0) - mean]) if len(values) > 1 else None
    return bars if bars is None else np.maximum(bars, 0)


def _with_range(axes, x, values: np.ndarray, **style) -> None:
    """Mean (points,) and range of values (seeds, points)."""
    values = _finite(values)
    bars = _bars(values)
    axes.errorbar(x, values.mean(0), bars, capsize=2, markersize=4, linewidth=1.2, **style)


def _logarithmic(axes, name: str) -> None:
    """Make the axis "x" or "y" logarithmic, with plain numbers that do not run into each other."""
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 100 * low else (1,)
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def depth_figure(outcomes: Sequence[Outcome]) -> Figure:
    """One row a network and representation, columns D, G, R; all layers, or those predicted."""
    rows = [(item, view) for item in outcomes for view in VIEWS if "trained" + view in item.curves]
    figure, axes = new_figure(9, 0.6 + 2.2 * len(rows), len(rows), 3)
    for line, (item, view) in zip(axes, rows, strict=True):
        # Depth in two dimensions is relative: networks differ in it.
        on_line, layers = not item.is_square, item.depths
        x = np.arange(1, len(layers) + 1) / (1 if on_line else len(layers))
        name = f"{item.name}, {VIEWS[view]}" if on_line else item.name
        for index, (ax, measure) in enumerate(zip(line, MEASURES, strict=True)):
            for state in STATES:
                if state + view in item.curves:
                    values = item.curves[state + view][:, index][:, layers]
                    _with_range(ax, x, values, label=state, **STYLES[state])
            if item.prediction is not None:
                ax.plot(x, item.prediction.curves[index], label="constant filters", **THEORY)
            if on_line:
                if item.prediction is not None and item.prediction.stride == 1:
                    ax.set_xscale("log")
                ax.set_xticks(x, [f"{k:g}" for k in x])
                ax.xaxis.set_minor_locator(ticker.NullLocator())
            _logarithmic(ax, "y")
            ax.set(title=name, ylabel=f"{measure}$_k$")
    for ax in axes[-1]:
        ax.set_xlabel("relative depth" if outcomes[0].is_square else "layer k")
    share_legend(figure, 4)
    return figure


def filters_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Constant mode by convolution, one panel a network."""
    columns = min(3, len(outcomes))
    lines = -(-len(outcomes) // columns)
    figure, axes = new_figure(3.2 * columns + 1, 0.6 + 2.4 * lines, lines, columns)
    for ax in axes.flat[len(outcomes) :]:
        ax.remove()
    for ax, item in zip(axes.flat, outcomes, strict=False):
        x = np.arange(1, len(item.filters) + 1)
        for state, values in item.fractions.items():
            _with_range(ax, x, values, label=state, **STYLES[state])
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        ax.set(
            title=item.name,
            xlabel="convolution",
            ylabel="constant mode (share)",
            ylim=(0, None),
        )
    share_legend(figure, 3)
    return figure


def error_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Test error in per cent against D_f, G_f and R_f on logarithmic axes."""
    figure, axes = new_figure(9, 3.4, 1, 3, sharey=True)
    for index, (ax, measure) in enumerate(zip(axes[0], MEASURES, strict=True)):
        for place, item in enumerate(outcomes):
            x, y = _finite(item.curves["trained"][:, index, -1]), item.test_error
            ax.errorbar(
                x.mean(keepdims=True),
                y.mean(keepdims=True),
                _bars(y[:, None]),
                _bars(x[:, None]),
                color=COLORS[place % len(COLORS)],
                marker=MARKERS[place % len(MARKERS)],
                linestyle="none",
                capsize=2,
                label=item.name,
            )
        _logarithmic(ax, "x")
        ax.set_xlabel(f"{measure}$_f$")
    axes[0, 0].set_ylabel("test error (%)")
    share_legend(figure, 5)
    return figure


def draw(outcomes: Sequence[Outcome]) -> dict[str, tuple[Figure, str]]:
    """All figures with their captions, by name."""
    square = outcomes[0].is_square
    predicted = any(item.prediction for item in outcomes)
    detail = WITH_SHUFFLED if square else WITH_THEORY if predicted else ""
    found = {
        "depth": (depth_figure(outcomes), CAPTIONS["depth"].format(detail)),
        "filters": (filters_figure(outcomes), CAPTIONS["filters"]),
    }
    if square:
        found["error"] = (error_figure(outcomes), CAPTIONS["error"])
    return found
