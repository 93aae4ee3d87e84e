"""In which order modes were learned and when perception came, as tables and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recon_jax import spectral
from recon_jax.report.tables import Table

PAPER_FRONT = "paper, read off Fig. 1"


class LearningSetting(NamedTuple):
    """What all runs share.

    Attributes:
      epochs: at which they were measured (T,), ascending; 0 is before training.
      second: ||X c_k||^2 / N about the origin (D,).
      values: variance of each mode, ||X u_k||^2 / N about the mean (D,).
      predicted: gradient-flow learning times (D,), for the sums over images; infinite for modes
        without variance.
      num_images: N.
      initial: a_k(0) of gradient flow.
      fraction: of a mode, from which it counts as learned.
      arrival: fraction of its last value at which a measure has arrived.
      baselines: what else was probed -> test accuracy.
      note: dataset, networks and training in words, and how they are reduced.
    """

    epochs: Sequence[int]
    second: np.ndarray
    values: np.ndarray
    predicted: np.ndarray
    num_images: int
    initial: float
    fraction: float
    arrival: float
    baselines: Mapping[str, float]
    note: str


class LearningRun(NamedTuple):
    """One trained autoencoder.

    Attributes:
      model: name of the network.
      seed: of the run.
      energy: ||Xhat c_k||^2 / N about the origin (T, D).
      learned: a_k, the fraction of each mode that is reconstructed (T, D).
      explained: fraction of the test images' variance that is reconstructed (T,).
      accuracy: of the probe on test images (T,).
      seconds: of training and measuring.
    """

    model: str
    seed: int
    energy: np.ndarray
    learned: np.ndarray
    explained: np.ndarray
    accuracy: np.ndarray
    seconds: float


class LearningOutcome(NamedTuple):
    """What follows from one run.

    Attributes:
      learned_at: epoch at which each mode was learned (D,), infinite for never.
      agreement: with the predicted times.
      front: number of learned modes at each epoch (T,).
      reconstruction_at: epoch at which the explained variance arrived.
      perception_at: epoch at which the probe's accuracy arrived.
      perception_later: by how many epochs the second is later than the first; NaN if one never
        arrived.
    """

    learned_at: np.ndarray
    agreement: spectral.Agreement
    front: np.ndarray
    reconstruction_at: float
    perception_at: float
    perception_later: float


def learning_outcome(run: LearningRun, setting: LearningSetting) -> LearningOutcome:
    """Learning times of the modes and arrival times of the two measures."""
    epochs = np.asarray(setting.epochs, float)
    shown = np.isfinite(setting.predicted)
    # A mode without variance has no coefficient to compare.
    learned = np.where(shown, run.learned, 0.0)
    at = spectral.crossing_times(epochs, learned, setting.fraction)

    def arrived(curve):
        # A share of what is not above zero says nothing.
        level = setting.arrival * curve[-1] if curve[-1] > 0 else np.inf
        return float(spectral.crossing_times(epochs, curve, level))

    reconstruction, perception = arrived(run.explained), arrived(run.accuracy)
    both = np.isfinite(reconstruction) and np.isfinite(perception)
    return LearningOutcome(
        learned_at=at,
        agreement=spectral.order_agreement(setting.predicted, at),
        front=np.sum(learned >= setting.fraction, axis=1),
        reconstruction_at=reconstruction,
        perception_at=perception,
        perception_later=perception - reconstruction if both else float("nan"),
    )


def learning_record(run: LearningRun, setting: LearningSetting) -> dict[str, Any]:
    """What a run found, as JSON content without times."""
    outcome = learning_outcome(run, setting)
    numbers = {
        **outcome.agreement._asdict(),
        "reconstruction_at": outcome.reconstruction_at,
        "perception_at": outcome.perception_at,
    }
    # JSON has neither NaN nor infinity.
    numbers = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
    return {
        "model": run.model,
        "seed": run.seed,
        "epochs": list(setting.epochs),
        "explained_variance": run.explained.tolist(),
        "probe_accuracy": run.accuracy.tolist(),
        "learned_modes": outcome.front.tolist(),
        **numbers,
    }


def by_model(runs: Sequence[LearningRun]) -> dict[str, list[LearningRun]]:
    """Runs of each model, in the order of the models."""
    groups: dict[str, list[LearningRun]] = {}
    for run in runs:
        groups.setdefault(run.model, []).append(run)
    return groups


def mean_and_spread(values: Sequence[float] | np.ndarray, digits: int, none: str = "-") -> str:
    """Mean ± standard deviation over seeds; the value alone for one seed.

    Args:
      values: one a seed.
      digits: after the point.
      none: said where no value is finite; where some are not, their number is said.
    """
    values = np.asarray(values, float)
    missing = int(np.sum(~np.isfinite(values)))
    if missing:
        return none if missing == len(values) else f"{none} in {missing} of {len(values)} seeds"
    text = f"{values.mean():.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {values.std(ddof=1):.{digits}f}"


def _over(items: Sequence[Any], field: str, digits: int, none: str = "-") -> str:
    return mean_and_spread([getattr(item, field) for item in items], digits, none)


def _outcomes(runs: Sequence[LearningRun], setting: LearningSetting):
    for model, group in by_model(runs).items():
        yield model, group, [learning_outcome(run, setting) for run in group]


def front_table(runs: Sequence[LearningRun], setting: LearningSetting, note: str) -> Table:
    """How many modes are learned at each epoch."""
    gap = ["-"] * (len(setting.epochs) - 2)
    rows = [[PAPER_FRONT, "50 to 100", *gap, "450 to 500"]]
    for model, _, outcomes in _outcomes(runs, setting):
        fronts = np.array([outcome.front for outcome in outcomes])
        rows.append([model, *(mean_and_spread(column, 0) for column in fronts.T)])
    columns = ["autoencoder", *(f"epoch {epoch}" for epoch in setting.epochs)]
    text = (
        f"Modes of which {100 * setting.fraction:g}% and more is reconstructed, of "
        f"{np.isfinite(setting.predicted).sum():,} that vary by more than the rounding of pixels. "
        "The paper's, of 3,072 and with 512 latents, network not named, are those at which its "
        f"first and its last curve (epoch 49) meet the spectrum of the data. {note}"
    )
    return Table("front", "How many modes are learned?", columns, rows, text)


def order_table(runs: Sequence[LearningRun], setting: LearningSetting, note: str) -> Table:
    """Predicted against observed order of the modes."""
    rows = []
    for model, _, outcomes in _outcomes(runs, setting):
        found = [outcome.agreement for outcome in outcomes]
        rows.append(
            [
                model,
                _over(found, "num_learned", 0),
                _over(found, "rank_correlation", 3),
                found[0].num_modes,
                _over(found, "rank_correlation_all", 3),
                _over(found, "attainable", 3),
                _over(found, "exponent", 2),
            ]
        )
    columns = ["autoencoder", "learned", "rank correlation"]
    columns += ["all modes", "rank correlation, all modes", "at most", "exponent"]
    text = (
        f"Modes of which {100 * setting.fraction:g}% was reconstructed by epoch "
        f"{setting.epochs[-1]}, and Spearman's correlation of the epoch at which it was with the "
        "time that gradient flow of a linear autoencoder predicts; then the same for all modes "
        "that vary by more than the rounding of pixels, those never learned tied in the last "
        "place, and what it could be at most with as many learned. Exponent: slope of log epoch on "
        "log predicted time; gradient flow has 1, and 0 is all modes at once. Paper: not published "
        f"here. {note}"
    )
    return Table("order", "Are modes learned in the order of their variance?", columns, rows, text)


def perception_table(runs: Sequence[LearningRun], setting: LearningSetting, note: str) -> Table:
    """When the probe and when reconstruction arrive, with probes on other features beside it."""
    rows = []
    for model, group, outcomes in _outcomes(runs, setting):
        mean = np.mean([run.accuracy for run in group], 0)
        rows.append(
            [
                model,
                mean_and_spread([100 * run.accuracy[0] for run in group], 1),
                f"{100 * mean.max():.1f} ({setting.epochs[int(mean.argmax())]})",
                mean_and_spread([100 * run.accuracy[-1] for run in group], 1),
                mean_and_spread([100 * run.explained[-1] for run in group], 1),
                _over(outcomes, "reconstruction_at", 2, "never"),
                _over(outcomes, "perception_at", 2, "never"),
                _over(outcomes, "perception_later", 2),
            ]
        )
    for name, accuracy in setting.baselines.items():
        rows.append([name, "-", "-", f"{100 * accuracy:.1f}", *["-"] * 4])
    columns = [
        "features",
        f"accuracy, epoch {setting.epochs[0]} (%)",
        "highest (%) (epoch)",
        "last (%)",
        "variance explained (%)",
        "reconstruction at (epoch)",
        "perception at (epoch)",
        "later by (epochs)",
    ]
    text = (
        "Accuracy of a linear probe and explained variance, on test images. Each has arrived at "
        f"{100 * setting.arrival:g}% of its value at epoch {setting.epochs[-1]}, interpolated "
        "between the epochs measured. Paper: not published here; its claim is that what perception "
        f"needs is learned last. {note}"
    )
    return Table("perception", "When does perception come?", columns, rows, text)


def learning_findings(runs: Sequence[LearningRun], setting: LearningSetting) -> list[str]:
    """Order and perception of each model, in words."""
    lines = []
    for model, group, outcomes in _outcomes(runs, setting):
        lines.append(f"{model}: {_order_in_words(outcomes, setting)}")
        lines.append(f"{model}: {_perception_in_words(group, outcomes, setting)}")
    return lines


def _order_in_words(outcomes: Sequence[LearningOutcome], setting: LearningSetting) -> str:
    found = [outcome.agreement for outcome in outcomes]
    text = (
        f"{_over(found, 'num_learned', 0)} of {found[0].num_modes:,} modes are learned by epoch "
        f"{setting.epochs[-1]}"
    )
    if not all(np.isfinite(item.rank_correlation) for item in found):
        return f"{text}, too few to speak of an order."
    power = mean_and_spread([-item.exponent for item in found], 2)
    return (
        f"{text}. The order in which they came has a rank correlation of "
        f"{_over(found, 'rank_correlation', 2)} with the order of their variance; learning times "
        f"go as variance to the power of {power}, where gradient flow of a linear autoencoder has "
        "-1."
    )


def _perception_in_words(group, outcomes, setting: LearningSetting) -> str:
    later = np.array([outcome.perception_later for outcome in outcomes])
    if not np.isfinite(later).all():
        return f"no variance of the test images is explained by epoch {setting.epochs[-1]}."
    verdict = "perception comes last" if later.mean() > 0 else "perception does not come last"
    if np.any(later > 0) and np.any(later <= 0):
        verdict = "seeds differ in whether perception comes last"
    share = f"{100 * setting.arrival:g}%"
    first, last = (np.mean([100 * run.accuracy[i] for run in group]) for i in (0, -1))
    text = (
        f"{verdict}. Explained variance is at {share} of its last value at epoch "
        f"{_over(outcomes, 'reconstruction_at', 2)}, the accuracy of the probe at epoch "
        f"{_over(outcomes, 'perception_at', 2)}: {first:.1f}% at epoch {setting.epochs[0]}, "
        f"{last:.1f}% at epoch {setting.epochs[-1]}."
    )
    if setting.epochs[0] == 0 and first >= setting.arrival * last:
        than = "better" if setting.arrival * first > last else "about as well"
        text += f" The latents of the untrained network serve a linear probe {than}."
    return text
