"""Networks of constant filters, measured, beside the depth laws: tables, figure, words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from recon_jax.report.figures import COLORS, new_figure
from recon_jax.report.masked_autoencoder import UNPUBLISHED
from recon_jax.report.tables import Table

# Relative differences from the exact sums within which a measurement agrees.
AGREES = {"D": 1e-6, "G": 0.02}
KINDS = {"relu": "ReLU", "linear": "no ReLU", "rectified": "ReLU, rectified noise"}
QUANTITIES = ("D", "G", "R")
CAPTION = (
    "Sensitivity by layer to deformations (D), to noise (G), and R = D / G. Points: measured, mean "
    "and standard deviation over seeds; lines: exact sums for this number of sites; dashed: "
    "asymptotes for many sites; grey: without ReLU, where G is 1 but for the finite size."
)
_STYLES = dict(zip((2, 3, 4, 5), ((1, "o"), (2, "s"), (3, "D"), (4, "^")), strict=True))


class Outcome(NamedTuple):
    """One network with one kind of noise: what was measured, and what the laws say.

    Attributes:
      filter_size: F.
      stride: 1 or F.
      dimensions: axes of the images.
      num_sites: N, along each axis.
      kind: a key of `KINDS`.
      D: measured (K,).
      G: measured (seeds, K).
      error: standard error of G (seeds, K).
      exact: D and G of the exact sums, (K,) each.
      limit: their asymptotes for many sites, (K,) each.
      seconds: of measuring D and G of one seed, with compilation.
    """

    filter_size: int
    stride: int
    dimensions: int
    num_sites: int
    kind: str
    D: np.ndarray
    G: np.ndarray
    error: np.ndarray
    exact: tuple[np.ndarray, np.ndarray]
    limit: tuple[np.ndarray, np.ndarray]
    seconds: float

    @property
    def name(self) -> str:
        """Of the network, for people."""
        return (
            f"{self.dimensions}-D, stride {self.stride}, F = {self.filter_size}, "
            f"N = {self.num_sites}"
        )

    @property
    def panel(self) -> str:
        """The group it is drawn in."""
        return f"{self.dimensions}-D, stride {1 if self.stride == 1 else 'F'}"

    @property
    def standard_error(self) -> np.ndarray:
        """Of the mean of G over seeds (K,)."""
        return np.sqrt(np.mean(self.error**2, axis=0) / len(self.error))

    @property
    def distances(self) -> np.ndarray:
        """Of the mean of G over seeds from the exact sums, in standard errors (K,)."""
        return np.abs(self.G.mean(0) - self.exact[1]) / self.standard_error

    @property
    def differences(self) -> tuple[np.ndarray, np.ndarray]:
        """Of D, and of G averaged over seeds, from the exact sums, relative (K,)."""
        return self.D / self.exact[0] - 1, self.G.mean(0) / self.exact[1] - 1


class Exponents(NamedTuple):
    """Exponents of D, G and R: in k at stride 1, in F^k at stride F.

    Attributes:
      network: its name.
      panel: of the network.
      layers: first and last k of the fit.
      measured: (3, seeds).
      exact: of the exact sums at the same k (3,).
      deep_layers: first and last k of the fit to the exact sums of many sites.
      deep: their exponents (3,).
      predicted: as k grows (3,).
    """

    network: str
    panel: str
    layers: tuple[int, int]
    measured: np.ndarray
    exact: np.ndarray
    deep_layers: tuple[int, int]
    deep: np.ndarray
    predicted: tuple[float, float, float]


def _spread(values: np.ndarray, digits: int = 4) -> str:
    """Mean ± standard deviation over seeds, with significant digits; the value alone for one."""
    error = f" ± {values.std(ddof=1):.1g}" if len(values) > 1 else ""
    return f"{values.mean():#.{digits}g}".rstrip(".") + error


def shown_layers(depth: int) -> list[int]:
    """The k of the table: powers of two, and the last."""
    return sorted({*(2**i for i in range(depth.bit_length()) if 2**i <= depth), depth})


def depth_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """D and G of the networks with ReLU at some depths, measured and exact."""
    rows = []
    for item in outcomes:
        if item.kind != "relu":
            continue
        of_d, of_g = item.differences
        for k in shown_layers(len(item.D)):
            i = k - 1
            rows.append(
                [
                    item.name,
                    k,
                    f"{item.D[i]:.6g}",
                    f"{item.exact[0][i]:.6g}",
                    f"{of_d[i]:+.0e}" if of_d[i] else "0",
                    _spread(item.G[:, i]),
                    f"{item.standard_error[i]:.1g}",
                    f"{item.exact[1][i]:#.4g}",
                    f"{100 * of_g[i]:+.2f}",
                    f"{item.limit[0][i]:.4g}",
                    f"{item.limit[1][i]:.4g}",
                    UNPUBLISHED,
                    f"{item.seconds:.1f}",
                ]
            )
    columns = ["network", "k", "D measured", "D exact", "rel. difference", "G measured"]
    columns += ["standard error", "G exact", "difference (%)", "D asymptotic", "G asymptotic"]
    title = "Sensitivity to deformations (D) and noise (G) of layer k of constant-filter networks"
    return Table("depth_laws", title, [*columns, "paper", "seconds"], rows, note)


def agreement_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """The largest differences from the exact sums over all layers, for every kind of noise."""
    rows = []
    for item in outcomes:
        of_d, of_g = (np.abs(found) for found in item.differences)
        at = int(of_g.argmax())
        rows.append(
            [
                item.name,
                KINDS[item.kind],
                len(item.D),
                f"{of_d.max():.0e}" if of_d.any() else "0",
                f"{100 * of_g[at]:.2f} (k = {at + 1})",
                f"{100 * item.standard_error[at] / item.exact[1][at]:.2f}",
                f"{item.distances[at]:.1f}",
            ]
        )
    columns = ["network", "kind", "layers", "D, largest relative difference"]
    columns += ["G, largest difference (%)", "its standard error (%)", "in standard errors"]
    return Table("agreement", "Measured against the exact sums, all layers", columns, rows, note)


def exponent_table(fits: Sequence[Exponents], note: str) -> Table:
    """Exponents of D, G and R: measured, exact and predicted."""
    rows = []
    for item in fits:
        for index, quantity in enumerate(QUANTITIES):
            rows.append(
                [
                    item.network,
                    quantity,
                    "{}-{}".format(*item.layers),
                    _spread(item.measured[index]) if index else f"{item.measured[0].mean():#.4g}",
                    f"{item.exact[index]:#.4g}",
                    "{}-{}".format(*item.deep_layers),
                    f"{item.deep[index]:#.4g}",
                    f"{item.predicted[index]:g}",
                ]
            )
    columns = ["network", "quantity", "k", "measured", "exact, same k"]
    columns += ["k, many sites", "exact, many sites", "predicted"]
    title = "Exponents: of k at stride 1, of F^k at stride F"
    return Table("exponents", title, columns, rows, note)


def _worst(items: Sequence[Outcome], which: int) -> tuple[float, Outcome, int]:
    """The largest relative difference of D (0) or G (1): its size, network and layer from 0."""
    found = [(np.abs(item.differences[which]), item) for item in items]
    values, item = max(found, key=lambda pair: pair[0].max())
    return float(values.max()), item, int(values.argmax())


def _noise_line(items: Sequence[Outcome], kind: str) -> str:
    value, item, at = _worst(items, 1)
    error = item.standard_error[at] / item.exact[1][at]
    verdict = "agrees with the exact sums"
    if value > AGREES["G"]:
        unclear = "was measured too roughly to tell whether it agrees with the exact sums"
        verdict = unclear if value < 3 * error else "does not agree with the exact sums"
    return (
        f"G, {KINDS[kind]}: {verdict} to {100 * AGREES['G']:g}%; the largest difference is "
        f"{100 * value:.2f}% ({item.name}, layer {at + 1}, standard error {100 * error:.2f}%), "
        f"{max(x.distances.max() for x in items):.1f} standard errors at most in any layer."
    )


def _control_line(items: Sequence[Outcome]) -> str:
    # The exact control differs from 1 by the finite size alone.
    found = np.concatenate([item.G.mean(0) / item.exact[1] for item in items])
    return (
        "Without ReLU, G divided by its exact finite-size factor S^d / (S^d - N^-d) lies between "
        f"{found.min():.3f} and {found.max():.3f} in all layers: noise is neither amplified nor "
        "damped there."
    )


def _exponent_lines(fits: Sequence[Exponents]) -> list[str]:
    """One line a panel, of its deepest network."""
    lines = []
    for panel in dict.fromkeys(item.panel for item in fits):
        item = max((x for x in fits if x.panel == panel), key=lambda x: x.layers[1])
        measured = ", ".join(f"{values.mean():.2f}" for values in item.measured)
        exact = ", ".join(f"{value:.2f}" for value in item.exact)
        deep = ", ".join(f"{value:.2f}" for value in item.deep)
        predicted = ", ".join(f"{value:g}" for value in item.predicted)
        lines.append(
            f"Exponents of D, G, R, {item.network}: measured {measured} at k = {item.layers[0]} to "
            f"{item.layers[1]} (exact {exact}); exact sums of many sites {deep} at k = "
            f"{item.deep_layers[0]} to {item.deep_layers[1]}; predicted for k to infinity "
            f"{predicted}."
        )
    return lines


def answer(outcomes: Sequence[Outcome], fits: Sequence[Exponents]) -> list[str]:
    """The findings in words: agreement of D and G, the controls, the exponents."""
    kinds = {
        kind: [item for item in outcomes if item.kind == kind]
        for kind in dict.fromkeys(item.kind for item in outcomes)
    }
    value, item, at = _worst(outcomes, 0)
    agrees = "agrees" if value <= AGREES["D"] else "does not agree"
    lines = [
        f"D {agrees} with the exact sums to {AGREES['D']:g}: the largest "
        f"relative difference in {len(kinds['relu'])} networks is {value:.0e} ({item.name}, layer "
        f"{at + 1})."
    ]
    lines += [_noise_line(items, kind) for kind, items in kinds.items()]
    if "linear" in kinds:
        lines.append(_control_line(kinds["linear"]))
    return [*lines, *_exponent_lines(fits)]


def _quantities(deformation: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
    return {"D": deformation, "G": noise, "R": deformation / noise}


def _draw(column, item: Outcome) -> None:
    """One network in the three panels of its column."""
    depth = np.arange(1, len(item.D) + 1)
    points = {"linestyle": "none", "markersize": 4, **_style(item.filter_size)}
    if item.kind == "linear":
        points |= {"color": "gray", "markersize": 3}
    line = {"color": points["color"], "linewidth": 0.8 if item.kind == "linear" else 1.2}
    steps = np.unique(np.round(np.geomspace(1, len(depth), 10)).astype(int)) - 1
    exact, limit = _quantities(*item.exact), _quantities(*item.limit)
    for ax, name in zip(column, QUANTITIES, strict=True):
        if item.kind == "linear" and name != "G":
            continue
        seeds = _quantities(item.D[None] + 0 * item.G, item.G)[name]
        error = seeds.std(0, ddof=1)[steps] if len(seeds) > 1 else None
        ax.errorbar(depth[steps], seeds.mean(0)[steps], error, **points)
        ax.plot(depth, exact[name], **line)
        if item.kind == "relu":
            ax.plot(depth, limit[name], linestyle="--", **{**line, "linewidth": 0.9})


def depth_figure(outcomes: Sequence[Outcome]) -> Figure:
    """D, G and R by depth, one column a group of networks; grey: without ReLU."""
    panels = list(dict.fromkeys(item.panel for item in outcomes))
    figure, axes = new_figure(2.9 * len(panels) + 0.3, 8, 3, len(panels))
    for panel, column in zip(panels, axes.T, strict=True):
        items = [item for item in outcomes if item.panel == panel and item.kind != "rectified"]
        for item in sorted(items, key=lambda item: item.kind == "relu"):
            _draw(column, item)
        for ax in column:
            _scale(ax, items)
        column[0].set_title(panel)
        column[-1].set_xlabel("layer k")
    for ax, label in zip(axes[:, 0], ("D", "G", "R = D / G"), strict=True):
        ax.set_ylabel(label)
    _legend(figure, sorted({item.filter_size for item in outcomes}))
    return figure


def _scale(ax, items: Sequence[Outcome]) -> None:
    """Logarithmic axes with plain numbers; depth is linear where laws are exponential in it."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    if items[0].stride == 1:
        ax.set_xscale("log")
        ax.set_xticks([2**i for i in range(max(len(item.D) for item in items).bit_length())])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def _style(filter_size: int) -> dict[str, str]:
    color, marker = _STYLES.get(filter_size, (5, "v"))
    return {"color": COLORS[color], "marker": marker, "mfc": "none"}


def _legend(figure: Figure, sizes: Sequence[int]) -> None:
    handles = [Line2D([], [], label=f"F = {size}", **_style(size)) for size in sizes]
    black = {"color": COLORS[0], "mfc": "none"}
    handles += [
        Line2D([], [], linestyle="none", marker="o", label="measured", **black),
        Line2D([], [], label="exact", **black),
        Line2D([], [], linestyle="--", label="asymptotic", **black),
        Line2D([], [], color="gray", label="exact, no ReLU"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
