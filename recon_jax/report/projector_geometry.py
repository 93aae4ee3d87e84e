"""What encoder and projector keep of images at growing augmentation strength: outcomes, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from recon_jax.report.masked_autoencoder import UNPUBLISHED
from recon_jax.report.scale_detection import short
from recon_jax.report.tables import Table

# A run has solved its pretext if its loss is below this share of the collapsed network's.
SOLVED = 0.9

PAPER = (
    "Paper: Cosentino et al. 2022 (arXiv 2205.06926), of which the abstract states the claim; its "
    f"tables are {UNPUBLISHED}."
)
READING = (
    "H is the encoder's output, which is kept, Z the projector's. Non-invariance: squared distance "
    "of two views of an image over that of views of two images; 0 invariant, 1 as strangers. Rank: "
    "exponential of the entropy of the squared singular values. Mean ± standard deviation over the "
    f"seeds whose loss is below {SOLVED:g} of the collapsed network's; (2 of 3): finite in so many "
    "of these. Where no seed's is, the loss stands alone."
)
LOCAL_READING = (
    "A is the projector's Jacobian at test images, with the rank of H and Z. Alignment: mean "
    "squared cosine of the angles between the leading right singular vectors of A and a subspace "
    "of the same dimension, of differences to neighbours (tangent) or of displacements by "
    "augmentation; chance: of a random subspace. Gain: of A along the former over the latter."
)


class Outcome(NamedTuple):
    """A projector trained at one augmentation strength, or untrained, over seeds.

    Measures that failed are NaN.

    Attributes:
      projector: name, for people.
      depth: number of linear layers of the projector.
      width: of its hidden layers.
      strength: of the augmentation in training; None if untrained.
      loss: at the end of training (seeds,).
      collapsed: the loss of a network that makes the same of all images; NaN if the loss has no
        such value (seeds,).
      seconds: of the run (seeds,).
      encoder_rank: effective rank of centred test embeddings (seeds,), also projector_rank.
      encoder_fixed: non-invariance at the reference strength (seeds,), also projector_fixed.
      encoder_own: non-invariance at the strength of training (seeds,), also projector_own.
      encoder_probe: test accuracy of a linear probe in per cent (seeds,), also projector_probe.
      encoder_dimension: intrinsic dimension from two neighbours (seeds,), also
        projector_dimension.
      local_rank: effective rank of the projector's Jacobian (seeds,).
      tangent_alignment: of its row space with the tangent estimate, in [0, 1] (seeds,).
      augmentation_alignment: with the augmentation displacements, in [0, 1] (seeds,).
      chance: alignment of a random subspace (seeds,).
      gain: of the Jacobian along the tangent estimate over that along displacements (seeds,).
      encoder_singular: singular values of centred test embeddings over the largest, descending
        (seeds, D), also projector_singular (seeds, P).
      encoder_kept: share of the variance of each principal direction of the pixels that the
        features predict (seeds, Q), also projector_kept.
    """

    projector: str
    depth: int
    width: int
    strength: float | None
    loss: Float[np.ndarray, " seeds"]
    collapsed: Float[np.ndarray, " seeds"]
    seconds: Float[np.ndarray, " seeds"]
    encoder_rank: Float[np.ndarray, " seeds"]
    projector_rank: Float[np.ndarray, " seeds"]
    encoder_fixed: Float[np.ndarray, " seeds"]
    projector_fixed: Float[np.ndarray, " seeds"]
    encoder_own: Float[np.ndarray, " seeds"]
    projector_own: Float[np.ndarray, " seeds"]
    encoder_probe: Float[np.ndarray, " seeds"]
    projector_probe: Float[np.ndarray, " seeds"]
    encoder_dimension: Float[np.ndarray, " seeds"]
    projector_dimension: Float[np.ndarray, " seeds"]
    local_rank: Float[np.ndarray, " seeds"]
    tangent_alignment: Float[np.ndarray, " seeds"]
    augmentation_alignment: Float[np.ndarray, " seeds"]
    chance: Float[np.ndarray, " seeds"]
    gain: Float[np.ndarray, " seeds"]
    encoder_singular: Float[np.ndarray, "seeds D"]
    projector_singular: Float[np.ndarray, "seeds P"]
    encoder_kept: Float[np.ndarray, "seeds Q"]
    projector_kept: Float[np.ndarray, "seeds Q"]

    @property
    def gap(self) -> Float[np.ndarray, " seeds"]:
        """Points of probe accuracy that are lost from encoder to projector."""
        return self.encoder_probe - self.projector_probe

    @property
    def at(self) -> float:
        """Strength of training; NaN if untrained."""
        return float("nan") if self.strength is None else float(self.strength)

    @property
    def label(self) -> str:
        """For people."""
        if self.strength is None:
            return f"{self.projector}, untrained"
        return f"{self.projector} at {self.strength:g}"


MEASURED = Outcome._fields[4:]


def gather(
    projector: str,
    depth: int,
    width: int,
    strength: float | None,
    rows: Sequence[Mapping[str, Any]],
) -> Outcome:
    """An outcome from one mapping of arrays a seed, such as a run leaves.

    Args:
      projector: name, for people.
      depth: number of linear layers of the projector.
      width: of its hidden layers.
      strength: of the augmentation in training; None if untrained.
      rows: with every array field of `Outcome` without its axis of seeds.

    Raises:
      ValueError: if there are no rows, or one lacks a field.
    """
    if not rows:
        raise ValueError(f"projector {projector!r} at strength {strength} has no run; give one row")
    for index, row in enumerate(rows):
        missing = [field for field in MEASURED if field not in row]
        if missing:
            raise ValueError(
                f"run {index} of {projector!r} at strength {strength} lacks {', '.join(missing)}; "
                "give NaN for a measure that failed"
            )
    stacked = {
        field: np.stack([np.asarray(row[field], float) for row in rows]) for field in MEASURED
    }
    return Outcome(projector, depth, width, strength, **stacked)


def valid_runs(outcome: Outcome) -> Bool[np.ndarray, " seeds"]:
    """Which runs solved their pretext: a loss below 0.9 of the collapsed network's.

    Where that is unknown a finite loss is enough; nothing is asked of an untrained network.
    """
    if outcome.strength is None:
        return np.ones(len(outcome.loss), bool)
    known = np.isfinite(outcome.collapsed)
    solved = outcome.loss < SOLVED * outcome.collapsed
    return np.isfinite(outcome.loss) & np.where(known, solved, True)


def is_valid(outcome: Outcome) -> bool:
    """Whether every run solved its pretext."""
    return bool(valid_runs(outcome).all())


def trained(outcomes: Sequence[Outcome], projector: str) -> list[Outcome]:
    """Of one projector all that were trained, valid or not, by ascending strength."""
    found = [item for item in outcomes if item.projector == projector and item.strength is not None]
    return sorted(found, key=lambda item: item.at)


def untrained(outcomes: Sequence[Outcome], projector: str) -> Outcome | None:
    """The same network before training, if it was measured."""
    found = [item for item in outcomes if item.projector == projector and item.strength is None]
    return found[0] if found else None


def by_depth(outcomes: Sequence[Outcome], base: str) -> dict[float, list[Outcome]]:
    """Valid projectors by depth, ascending, at every strength at which there are two and more.

    They are of the hidden width of the projector `base`; one of one layer has no hidden layer and
    goes with every width.
    """
    first = next(item for item in outcomes if item.projector == base)
    names = {first.depth: base}
    for item in outcomes:
        if item.width == first.width or item.depth <= 1:
            names.setdefault(item.depth, item.projector)
    found: dict[float, list[Outcome]] = {}
    for depth in sorted(names):
        for item in filter(is_valid, trained(outcomes, names[depth])):
            found.setdefault(item.at, []).append(item)
    return {strength: found[strength] for strength in sorted(found) if len(found[strength]) > 1}


def failed_measures(outcomes: Sequence[Outcome]) -> str:
    """Which measures are not finite where they should be, "" if none."""
    found = []
    for item in outcomes:
        # Without training there is no loss and no strength of its own.
        absent = {"loss", "encoder_own", "projector_own"} if item.strength is None else set()
        for field in MEASURED:
            values = getattr(item, field)[valid_runs(item)]
            failed = ~np.isfinite(values).all(tuple(range(1, values.ndim)))
            if failed.any() and field not in absent | {"collapsed", "seconds"}:
                name = field.replace("_", " ")
                found.append(f"{name} of {item.label} ({failed.sum()} of {len(values)} runs)")
    return f"Not finite: {', '.join(found)}." if found else ""


def _cell(item: Outcome, values: Float[np.ndarray, " seeds"]) -> str:
    """Mean ± standard deviation over valid runs in which the measure is finite."""
    asked = values[valid_runs(item)]
    finite = asked[np.isfinite(asked)]
    if not len(finite):
        return "-"
    count = f" ({len(finite)} of {len(asked)})" if len(finite) < len(asked) else ""
    return short(finite) + count


def _loss_cell(item: Outcome) -> str:
    return _cell(item, item.loss) if valid_runs(item).any() else short(item.loss)


def _seconds_cell(item: Outcome) -> str:
    seconds = item.seconds[valid_runs(item) & np.isfinite(item.seconds)]
    return f"{seconds.mean():.0f}" if len(seconds) else "-"


def _valid_cell(item: Outcome) -> str:
    valid = valid_runs(item)
    if valid.all():
        return "yes"
    return f"no ({valid.sum()} of {len(valid)})" if valid.any() else "no"


def _heads(item: Outcome) -> list[str]:
    return [item.projector, "untrained" if item.strength is None else f"{item.strength:g}"]


def kept_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """Probe accuracy, invariance and rank of both outputs, one row a projector and strength.

    Args:
      outcomes: in the order of the rows.
      note: setting, reference strength, seeds, device.
    """
    rows = []
    for item in outcomes:
        measures = [
            item.encoder_probe,
            item.projector_probe,
            item.gap,
            item.encoder_fixed,
            item.projector_fixed,
            item.encoder_own,
            item.projector_own,
            item.encoder_rank,
            item.projector_rank,
        ]
        cells = [_loss_cell(item), *(_cell(item, values) for values in measures)]
        ends = [_valid_cell(item), UNPUBLISHED, _seconds_cell(item)]
        rows.append([*_heads(item), *cells, *ends])
    columns = [
        "projector",
        "strength",
        "loss",
        *("probe H (%)", "probe Z (%)", "gap (points)"),
        *(f"non-invariance {name}, fixed strength" for name in "HZ"),
        *(f"non-invariance {name}, own strength" for name in "HZ"),
        *("rank H", "rank Z", "valid", "paper", "seconds a run"),
    ]
    title = "What encoder and projector keep, by augmentation strength"
    return Table("kept", title, columns, rows, f"{PAPER} {READING} {note}")


def geometry_table(outcomes: Sequence[Outcome], note: str) -> Table:
    """Local geometry of the projector and intrinsic dimensions, the same rows as `kept_table`.

    Args:
      outcomes: in the order of the rows.
      note: setting, seeds, device.
    """
    rows = []
    for item in outcomes:
        measures = [
            item.local_rank,
            item.tangent_alignment,
            item.augmentation_alignment,
            item.chance,
            item.gain,
            item.encoder_dimension,
            item.projector_dimension,
        ]
        cells = [_cell(item, values) for values in measures]
        rows.append([*_heads(item), *cells, _valid_cell(item), UNPUBLISHED])
    columns = [
        "projector",
        "strength",
        "rank A",
        "alignment, tangent",
        "alignment, augmentation",
        "chance",
        "gain tangent / augmentation",
        "intrinsic dimension H",
        "intrinsic dimension Z",
        "valid",
        "paper",
    ]
    title = "What the projector does locally, by augmentation strength"
    return Table("geometry", title, columns, rows, f"{PAPER} {LOCAL_READING} {note}")
