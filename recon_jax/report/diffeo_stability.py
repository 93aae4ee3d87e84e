"""Deformation sensitivities and test errors of networks: outcomes and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from recon_jax.diffeo import degenerate_sums
from recon_jax.report.log_correlation import Correlation, correlate_logs
from recon_jax.report.masked_autoencoder import UNPUBLISHED
from recon_jax.report.tables import Table


class State(NamedTuple):
    """Sensitivities of a network in one state, over seeds.

    Attributes:
      mean: D, G, R of every representation, by means over images (seeds, 3, layers).
      median: D, G, R of the output, by medians over images (seeds, 3).
    """

    mean: Float[np.ndarray, "seeds 3 layers"]
    median: Float[np.ndarray, "seeds 3"]


class Outcome(NamedTuple):
    """A network with or without noise on its inputs in training, over seeds.

    Attributes:
      name: of the network.
      noise: standard deviation times sqrt(D) of the noise on its inputs; 0 for none.
      error: test error in per cent (seeds,).
      noisy_error: on test images with that noise; NaN without (seeds,).
      layers: names of the representations, from input to output.
      states: "trained", and without noise also "initial" and, of convolutional networks,
        "shuffled", geometric means over shuffles.
      kernels: names of the kernels whose filters are measured; empty if none.
      modes: eigenvalues of the modes of these filters, ascending (modes,).
      spectra: energy of the filters by mode, (seeds, kernels, modes), "initial" and "trained".
      seconds: of a training run (seeds,).
    """

    name: str
    noise: float
    error: Float[np.ndarray, " seeds"]
    noisy_error: Float[np.ndarray, " seeds"]
    layers: tuple[str, ...]
    states: Mapping[str, State]
    kernels: tuple[str, ...]
    modes: Float[np.ndarray, " modes"]
    spectra: Mapping[str, Float[np.ndarray, "seeds kernels modes"]]
    seconds: Float[np.ndarray, " seeds"]

    @property
    def label(self) -> str:
        """For people."""
        return self.name + (f", noise {self.noise:g}" if self.noise else "")


def geometric(values: np.ndarray, axis: int | None = None) -> np.ndarray | np.floating:
    """Geometric mean."""
    return np.exp(np.log(values).mean(axis))


def gather(name: str, noise: float, rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """An outcome from one mapping of arrays a seed, such as a run leaves.

    Args:
      name: of the network.
      noise: see `Outcome`.
      rows: with error, noisy_error, seconds; STATE_layers, STATE_mean (3, layers) and STATE_median
        (3,) for the states trained, initial, shuffled0, shuffled1, ...; initial_kernels,
        initial_modes (modes,), and initial_spectra and trained_spectra (kernels, modes).
    """

    def stack(field):
        return np.stack([np.asarray(row[field]) for row in rows])

    def state(*prefixes):
        parts = (
            np.stack([stack(f"{prefix}_{field}") for prefix in prefixes])
            for field in ("mean", "median")
        )
        # Of one prefix exactly itself, not the exponential of its logarithm.
        return State(*(p[0] if len(prefixes) == 1 else geometric(p, 0) for p in parts))

    keys = list(rows[0])
    shuffled = [key.removesuffix("_mean") for key in keys if key.startswith("shuffled")]
    shuffled = list(dict.fromkeys(key for key in shuffled if f"{key}_mean" in keys))
    groups = {"initial": ["initial"], "trained": ["trained"], "shuffled": shuffled}
    measured = {
        name: found for name, found in groups.items() if found and f"{found[0]}_mean" in keys
    }
    has_filters = "initial_spectra" in keys
    return Outcome(
        name=name,
        noise=noise,
        error=stack("error"),
        noisy_error=stack("noisy_error"),
        layers=tuple(map(str, rows[0]["trained_layers"])),
        states={name: state(*found) for name, found in measured.items()},
        kernels=tuple(map(str, rows[0]["initial_kernels"])) if has_filters else (),
        modes=np.asarray(rows[0]["initial_modes"] if has_filters else (), float),
        spectra={s: stack(f"{s}_spectra") for s in ("initial", "trained")} if has_filters else {},
        seconds=stack("seconds"),
    )


def is_measured(item: Outcome) -> bool:
    """Whether all sensitivities are finite; a network that died has none."""
    return all(np.isfinite(part).all() for state in item.states.values() for part in state)


def clean(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Networks trained without noise."""
    return [item for item in outcomes if not item.noise]


def convolutional(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Networks whose channels were shuffled."""
    return [item for item in outcomes if "shuffled" in item.states]


def at_output(item: Outcome, state: str, letter: str) -> Float[np.ndarray, " seeds"]:
    """D_f, G_f or R_f of a state."""
    return item.states[state].mean[:, "DGR".index(letter), -1]


def point(item: Outcome, letter: str) -> tuple[float, float]:
    """Sensitivity of the trained output and test error in per cent, means over seeds."""
    return float(geometric(at_output(item, "trained", letter))), float(geometric(item.error))


def correlation(outcomes: Sequence[Outcome], letter: str) -> Correlation:
    """Of log test error (a fraction) with log D_f, G_f or R_f."""
    x, y = np.array([point(item, letter) for item in outcomes]).T
    return correlate_logs(x, y / 100)


def _spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds in three digits."""
    error = f" ± {values.std(ddof=1):.1g}" if len(values) > 1 else ""
    return f"{values.mean():.3g}{error}"


def nets_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """Test errors and sensitivities of the output, one row a network and noise.

    Args:
      outcomes: in the order of the rows.
      note: setting, seeds, device.
    """
    rows = []
    for item in outcomes:
        before = ["-"] * 4
        if "initial" in item.states:
            before = [_spread(at_output(item, "initial", letter)) for letter in "DGR"]
            before.append(_spread(item.states["initial"].median[:, 2]))
        after = [_spread(at_output(item, "trained", letter)) for letter in "DGR"]
        rows.append(
            [
                item.name,
                f"{item.noise:g}",
                _spread(item.error),
                _spread(item.noisy_error) if item.noise else "-",
                *before,
                *after,
                _spread(item.states["trained"].median[:, 2]),
                UNPUBLISHED,
                f"{item.seconds.mean():.0f}",
            ]
        )
    names = [*(f"{letter}_f" for letter in "DGR"), "R_f by medians"]
    columns = [
        "network",
        "input noise",
        "test error (%)",
        "with that noise (%)",
        *(f"{name} at initialisation" for name in names),
        *(f"{name} trained" for name in names),
        "paper",
        "seconds a run",
    ]
    title = "Test error and sensitivities of the output"
    return Table("networks", title, columns, rows, note, 3)


def gained_shares(
    item: Outcome,
) -> tuple[Float[np.ndarray, " sets"], Float[np.ndarray, "kernels sets"]]:
    """What training made of the shares of the filters' energy in the modes, as factors.

    Args:
      item: a network with measured filters.

    Returns:
      Eigenvalues, each once, ascending, because only sums over modes of one eigenvalue mean
      anything; trained over initial share of each kernel, geometric means over seeds.
    """
    shares = {}
    for state, found in item.spectra.items():
        values, sums = degenerate_sums(item.modes, found)
        shares[state] = sums / found.sum(-1, keepdims=True)
    return values, geometric(shares["trained"] / shares["initial"], 0)
