"""Whether the projector becomes invariant and the encoder does not: rules, numbers, findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from recon_jax.report.claims import FAILS, HOLDS, UNKNOWN, Claim, judge, sentence, tally
from recon_jax.report.claims import claims_table as table_of
from recon_jax.report.projector_geometry import (
    PAPER,
    SOLVED,
    Outcome,
    by_depth,
    failed_measures,
    is_valid,
    trained,
    valid_runs,
)
from recon_jax.report.projector_rules import (
    Series,
    change,
    end_claim,
    part,
    series,
    step_claim,
)
from recon_jax.report.scale_detection import short
from recon_jax.report.tables import Table

# Thresholds of the rules, from runs on 8x8 digits at strengths 0.1 to 0.6.
RANK_LEFT, ENCODER_RANK_LEFT = 0.3, 0.6
INVARIANCE_DROP, ENCODER_CHANGE = 0.35, 0.10
STRONG, ADVANTAGE = 0.3, 0.15
OVER_CHANCE, MIN_GAIN = 1.4, 1.15
FLOW_RANK_DROP, FLOW_GAIN = 3.0, 0.05
# What depth may change at most where it is said to change hardly anything.
DEPTH_RANK, DEPTH_INVARIANCE = 0.25, 0.1
# What is told of untrained networks.
COMPARED = ("encoder_rank", "projector_rank", "local_rank", "tangent_alignment", "gain")

RULES = (
    "The rules are this project's, because the paper's theorem and tables are not known here; "
    "their thresholds come from earlier runs on 8x8 digits at strengths 0.1 to 0.6 and stand here "
    "between the lowest and the highest valid strength. They are about means over seeds. A "
    "strength is valid if every run at it solved its pretext; the others take no part. "
    f"{UNKNOWN.capitalize()}: too few valid strengths, or a measure that failed."
)


class Flow(NamedTuple):
    """A linear projector trained on data of known geometry, over strengths of the augmentation.

    Attributes:
      strengths: in any order (S,).
      rank: effective rank of its output (seeds, S).
      both: gain along directions of the data that are also augmented, over the gain along those
        that are not (seeds, S).
      augmented: gain along directions that are only augmented, over the same (seeds, S).
    """

    strengths: Float[np.ndarray, " S"]
    rank: Float[np.ndarray, "seeds S"]
    both: Float[np.ndarray, "seeds S"]
    augmented: Float[np.ndarray, "seeds S"]


def _guard(outcomes: Sequence[Outcome], base: str) -> Claim:
    """That every run solved its pretext; names those that did not."""
    runs = [item for item in outcomes if item.strength is not None]
    known = any(np.isfinite(item.collapsed).any() for item in runs)

    def level(item: Outcome) -> np.ndarray:
        return item.loss / item.collapsed if known else item.loss

    valid = [item for item in trained(outcomes, base) if is_valid(item)]
    told = series([item.at for item in valid], [level(item) for item in valid]).words
    left = []
    for item in runs:
        solved = valid_runs(item)
        if not solved.all():
            values = ", ".join(f"{value:.3g}" for value in level(item)[~solved])
            left.append(f"{item.label} ({solved.sum()} of {len(solved)} runs; failed: {values})")
    what = "loss over log(2B - 1)" if known else "loss"
    return Claim(
        "the pretext is solved at every strength",
        f"guard: loss < {SOLVED:g} log(2B - 1)" if known else "guard: a finite loss",
        f"{what}, {base}: {told}" + (f"; left out: {', '.join(left)}" if left else ""),
        FAILS if left else HOLDS if runs else UNKNOWN,
    )


def _rank_claims(encoder: Series, projector: Series) -> list[Claim]:
    return [
        step_claim("the projector's rank falls at every step of strength", "1: rank Z", projector),
        end_claim(
            "the projector's rank falls to a small part",
            f"1: rank Z at the highest strength <= {RANK_LEFT:g} of that at the lowest",
            projector,
            lambda low, high: high <= RANK_LEFT * low,
            part,
        ),
        end_claim(
            "the encoder keeps most of its rank",
            f"1: rank H at the highest strength >= {ENCODER_RANK_LEFT:g} of that at the lowest",
            encoder,
            lambda low, high: high >= ENCODER_RANK_LEFT * low,
            part,
        ),
    ]


def _invariance_claims(encoder: Series, projector: Series, reference: float) -> list[Claim]:
    at = f"2: non-invariance at strength {reference:g} of"
    ends = "from the lowest to the highest strength"
    return [
        step_claim(
            "the projector becomes more invariant at every step of strength", f"{at} Z", projector
        ),
        end_claim(
            "the projector becomes much more invariant",
            f"{at} Z falls by >= {INVARIANCE_DROP:g} {ends}",
            projector,
            lambda low, high: low - high >= INVARIANCE_DROP,
            change,
        ),
        end_claim(
            "the encoder's invariance hardly changes",
            f"{at} H changes by <= {ENCODER_CHANGE:g} {ends}",
            encoder,
            lambda low, high: abs(high - low) <= ENCODER_CHANGE,
            change,
        ),
    ]


def _advantage_claim(points: Sequence[Outcome], reference: float) -> Claim:
    strong = [item for item in points if item.at >= STRONG]
    ahead = series(
        [item.at for item in strong], [item.encoder_fixed - item.projector_fixed for item in strong]
    )
    return Claim(
        "under strong augmentation the projector is more invariant than the encoder",
        f"3: non-invariance at strength {reference:g} of Z <= that of H - {ADVANTAGE:g} at every "
        f"strength >= {STRONG:g}",
        f"H - Z: {ahead.words}",
        judge(ahead.means, (ahead.means >= ADVANTAGE).all()),
    )


def _local_claims(
    tangent: Series, augmentation: Series, chance: Series, gain: Series
) -> list[Claim]:
    above = (tangent.means >= OVER_CHANCE * chance.means).all()
    levels = ", ".join(dict.fromkeys(f"{level:.3g}" for level in chance.means))
    return [
        Claim(
            "the projector locally keeps an estimate of the tangent plane",
            f"4: alignment with the tangent estimate >= {OVER_CHANCE:g} chance at every strength",
            f"tangent {tangent.words}; chance {levels or chance.words}",
            judge(np.append(tangent.means, chance.means), above),
        ),
        Claim(
            "it keeps the tangent plane rather than the augmentation directions",
            "4: alignment with the tangent estimate > with the augmentation at every strength",
            f"tangent {tangent.words}; augmentation {augmentation.words}",
            judge(
                np.append(tangent.means, augmentation.means),
                (tangent.means > augmentation.means).all(),
            ),
        ),
        Claim(
            "it amplifies tangent over augmentation directions",
            f"4: gain ratio >= {MIN_GAIN:g} at every strength",
            gain.words,
            judge(gain.means, (gain.means >= MIN_GAIN).all()),
        ),
    ]


def _gap_claim(gap: Series) -> Claim:
    return end_claim(
        "the projector loses more label information under stronger augmentation",
        "5, soft, a difference may be sampling error of the probes: gap in points of the probes "
        "on H and Z at the highest strength > at the lowest",
        gap,
        lambda low, high: high > low,
        change,
    )


def _flow_claims(flow: Flow | None) -> list[Claim]:
    """Rule 6: a linear projector keeps what of the tangent plane is not augmented."""
    rank = both = augmented = Series(np.zeros(0), "not run")
    if flow is not None:
        order = np.argsort(flow.strengths)
        rank, both, augmented = (
            series(flow.strengths[order].tolist(), list(found[:, order].T))
            for found in (flow.rank, flow.both, flow.augmented)
        )
    gain = "6: gain along augmented over other tangent directions"
    dropped = step_claim("it drops tangent directions the more they are augmented", gain, both)
    if flow is not None:
        told = f"{both.words}; directions that are only augmented: {augmented.words}"
        dropped = dropped._replace(measured=told)
    return [
        end_claim(
            "a linear projector on known geometry loses rank",
            f"6: rank at the lowest strength - rank at the highest >= {FLOW_RANK_DROP:g}",
            rank,
            lambda low, high: low - high >= FLOW_RANK_DROP,
            change,
        ),
        dropped,
        end_claim(
            "it drops them altogether under the strongest augmentation",
            f"{gain} < {FLOW_GAIN:g} at the highest strength",
            both,
            lambda _, high: high < FLOW_GAIN,
            lambda _, high: f"{high:.3g}",
        ),
    ]


def _depth_claims(outcomes: Sequence[Outcome], base: str, reference: float) -> list[Claim]:
    groups = by_depth(outcomes, base)

    def means(field: str) -> list[np.ndarray]:
        return [np.array([getattr(i, field).mean() for i in group]) for group in groups.values()]

    def told(field: str) -> str:
        return "; ".join(
            f"at {strength:g}: "
            + ", ".join(f"{short(getattr(item, field))} with {item.projector}" for item in group)
            for strength, group in groups.items()
        )

    def claim(text: str, rule: str, field: str, differences: list, limit: float) -> Claim:
        found = np.array(differences)
        largest = f"largest difference {found.max():.3g}; " if len(found) else ""
        words = largest + told(field) if groups else "no two depths at one strength"
        return Claim(text, f"depth: {rule}", words, judge(found, (found <= limit).all()))

    steps = np.array([step for found in means("local_rank") for step in np.diff(found)])
    return [
        Claim(
            "a deeper projector has a lower local rank at every strength",
            "depth: rank A strictly decreasing with depth at one hidden width",
            told("local_rank") or "no two depths at one strength",
            judge(steps, (steps < 0).all()),
        ),
        claim(
            "the projector's global rank depends hardly on its depth",
            f"least and largest rank Z differ by <= {DEPTH_RANK:g} of the largest at every "
            "strength",
            "projector_rank",
            [np.ptp(found) / found.max() for found in means("projector_rank")],
            DEPTH_RANK,
        ),
        claim(
            "the projector's invariance depends hardly on its depth",
            f"non-invariance at strength {reference:g} of Z differs by <= {DEPTH_INVARIANCE:g} "
            "at every strength",
            "projector_fixed",
            [np.ptp(found) for found in means("projector_fixed")],
            DEPTH_INVARIANCE,
        ),
    ]


def find_claims(
    outcomes: Sequence[Outcome], base: str, flow: Flow | None, reference: float
) -> list[Claim]:
    """Every rule on the outcomes of one projector, and what depth does.

    Args:
      outcomes: of all projectors and strengths; untrained ones take no part.
      base: name of the projector that the rules are about.
      flow: of a linear projector, for rule 6; None if it was not run.
      reference: strength at which the fixed non-invariance is measured.

    Returns:
      The claims in the order of the rules.

    Raises:
      ValueError: if no outcome is of the projector `base`.
    """
    names = list(dict.fromkeys(item.projector for item in outcomes))
    if base not in names:
        raise ValueError(f"base must be a projector of the outcomes, one of {names}, got {base!r}")
    points = [item for item in trained(outcomes, base) if is_valid(item)]

    def over_strength(*fields: str) -> list[Series]:
        strengths = [item.at for item in points]
        return [series(strengths, [getattr(item, field) for item in points]) for field in fields]

    local = ("tangent_alignment", "augmentation_alignment", "chance", "gain")
    return [
        _guard(outcomes, base),
        *_rank_claims(*over_strength("encoder_rank", "projector_rank")),
        *_invariance_claims(*over_strength("encoder_fixed", "projector_fixed"), reference),
        _advantage_claim(points, reference),
        *_local_claims(*over_strength(*local)),
        _gap_claim(*over_strength("gap")),
        *_flow_claims(flow),
        *_depth_claims(outcomes, base, reference),
    ]


def _untrained_line(item: Outcome) -> str:
    told = (f"{name.replace('_', ' ')} {short(getattr(item, name))}" for name in COMPARED)
    return f"To compare, {item.label}: {', '.join(told)}, probe gap in points {short(item.gap)}."


def answer(outcomes: Sequence[Outcome], claims: Sequence[Claim]) -> list[str]:
    """How many claims hold, every claim as a sentence, untrained networks, what was not measured.

    Args:
      outcomes: that the claims were found on.
      claims: in the order of the sentences.
    """
    lines = [tally(claims)]
    if any(len(item.loss) == 1 for item in outcomes):
        lines.append("One seed in some rows: the spread over seeds is not known there.")
    lines += map(sentence, claims)
    lines += [_untrained_line(item) for item in outcomes if item.strength is None]
    return [*lines, *filter(None, [failed_measures(outcomes)])]


def claims_table(claims: Sequence[Claim], note: str) -> Table:
    """Claim, rule, what was measured, and whether it holds."""
    title = "What is claimed of encoder and projector, and what was measured"
    return table_of(title, claims, f"{PAPER} {RULES} {note}")
