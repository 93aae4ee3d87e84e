"""What the paper says of scale-detecting networks, and what became of it here, by fixed rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from recon_jax.report.claims import Claim
from recon_jax.report.claims import claims_table as table_of
from recon_jax.report.masked_autoencoder import UNPUBLISHED, is_more_than_spread
from recon_jax.report.scale_detection import (
    MEASURES,
    PAPER,
    STATES,
    VIEWS,
    Outcome,
    short,
)
from recon_jax.report.tables import Table

# A measured exponent agrees with a predicted one within this fraction of it.
TOLERANCE = 0.1
# A rank correlation over networks holds if it is this much without any one of them too.
MIN_CORRELATION = 0.5

REPRODUCED = "reproduced"
FAILED = "not reproduced at this budget"
UNDECIDED = "undecided: within twice the spread"
ONE_SEED = "no verdict: one seed, spread unknown"
UNMEASURED = "no verdict: not finite"
FEW_NETS = "no verdict: fewer than four networks"
FEW_DECIDE = "undecided: weak, or of one network's making"
IN_FIGURES = f"stated; values {UNPUBLISHED}"

RULE = (
    f"{REPRODUCED.capitalize()}: by more than twice the standard deviation over seeds, in the "
    f"direction of the paper; exponents: to {TOLERANCE:.0%}, and undecided within twice their "
    f"spread; rank correlations: at least {MIN_CORRELATION:g} without any one network."
)


# What each claim is judged by; `RULE` says the same once for all.
BY_SPREAD = "by more than twice the spread over seeds, in every network"
BY_VALUE = f"to {TOLERANCE:.0%} of the prediction"
BY_RANK = f"rank correlation >= {MIN_CORRELATION:g} without any one network"


def judge_sign(values: np.ndarray, sign: int) -> str:
    """Whether values (seeds,) have the sign by more than twice their spread."""
    if not np.isfinite(values).all():
        return UNMEASURED
    sure = is_more_than_spread(values)
    if sure is None:
        return ONE_SEED
    if not sure:
        return UNDECIDED
    return REPRODUCED if np.sign(np.mean(values)) == sign else FAILED


def judge_value(values: np.ndarray, expected: float) -> str:
    """Whether values (seeds,) agree with a prediction, by the rule of `TOLERANCE`."""
    if not np.isfinite(values).all():
        return UNMEASURED
    if len(values) < 2:
        return ONE_SEED
    distance = abs(np.mean(values) - expected)
    if distance <= TOLERANCE * abs(expected):
        return REPRODUCED
    return UNDECIDED if distance <= 2 * np.std(values, ddof=1) else FAILED


def slopes(abscissa: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least-squares slope of ln values (..., K) against the abscissa (K,)."""
    centred = abscissa - abscissa.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(values) @ centred / (centred @ centred))


def _log_ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(second) - np.log(first)


def _gather(text: str, detail: str, parts: Mapping[str, tuple[str, str]]) -> Claim:
    """A claim about every network, {name: (what was found, verdict)}: it must hold for all."""
    names, verdicts = list(parts), [verdict for _, verdict in parts.values()]
    where = names[0] if len(names) == 1 else f"{len(names)} networks"
    ours = "; ".join(
        found if len(names) == 1 else f"{name} {found}" for name, (found, _) in parts.items()
    )
    verdict = verdicts[0]
    if len(set(verdicts)) > 1:
        verdict = f"{REPRODUCED} in {verdicts.count(REPRODUCED)} of {len(names)} networks"
    of = f"{where}, {detail}" if detail else where
    return Claim(text, BY_SPREAD, ours, verdict, of, IN_FIGURES)


def depth_claims(outcomes: Sequence[Outcome], view: str) -> list[Claim]:
    """D falls and G rises from the first layer to the last; and by more than before training.

    The layers are the convolutions of a network on a line, all of one in two dimensions.
    """
    claims = []
    for index, word, sign in ((0, "falls", -1), (1, "rises", 1)):
        after, gains = {}, {}
        for item in outcomes:
            rows = item.depths
            initial, trained = (
                item.curves[state + view][:, index][:, [rows[0], rows[-1]]]
                for state in ("initial", "trained")
            )
            before, ratio = _log_ratio(*initial.T), _log_ratio(*trained.T)
            text = f"{short(trained[:, 0])} to {short(trained[:, 1])}"
            after[item.name] = (text, judge_sign(ratio, sign))
            text = f"ln last/first {short(before)} before, {short(ratio)} after"
            gains[item.name] = (text, judge_sign(ratio - before, sign))
        detail = "" if outcomes[0].is_square else VIEWS[view]
        text = f"{MEASURES[index]}_k {word}"
        claims.append(_gather(f"{text} with depth after training", detail, after))
        claims.append(_gather(f"{text} by more than before training", detail, gains))
    return claims


def exponent_claims(item: Outcome, view: str) -> list[Claim]:
    """Exponents of D, G and R in depth against those of constant filters at these depths."""
    prediction = item.prediction
    if prediction is None:
        return []
    rows = item.convolutions
    abscissa = prediction.abscissa(len(rows))
    unit = "k" if prediction.stride == 1 else f"{prediction.filter_size}^k"
    limits = (-1, 0.5, -1.5) if prediction.stride == 1 else (-1, 1, -2)
    claims = []
    for index, measure in enumerate(MEASURES):
        values = slopes(abscissa, item.curves["trained" + view][:, index][:, rows])
        expected = float(slopes(abscissa, prediction.curves[index]))
        claims.append(
            Claim(
                f"exponent of {measure}_k in {unit} is that of constant filters",
                BY_VALUE,
                short(values),
                judge_value(values, expected),
                f"{item.name}, {VIEWS[view]}",
                f"{limits[index]:g} at large k; {expected:.2f} at these",
            )
        )
    return claims


def filter_claim(outcomes: Sequence[Outcome]) -> Claim:
    """Training makes filters more homogeneous: the mean over convolutions of the constant mode."""
    parts = {}
    for item in outcomes:
        before, after = (100 * item.fractions[state].mean(1) for state in ("initial", "trained"))
        text = f"{short(before)}% to {short(after)}% of the energy in the constant mode"
        parts[item.name] = (text, judge_sign(after - before, 1))
    return _gather("filters become more homogeneous", "", parts)


def output_claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """Training lowers D_f and raises G_f."""
    claims = []
    for index, word, sign in ((0, "lowers", -1), (1, "raises", 1)):
        parts = {}
        for item in outcomes:
            before, after = (item.curves[s][:, index, -1] for s in ("initial", "trained"))
            text = f"{short(before)} to {short(after)}"
            parts[item.name] = (text, judge_sign(_log_ratio(before, after), sign))
        claims.append(_gather(f"training {word} {MEASURES[index]}_f", "", parts))
    return claims


def pooling_claim(outcomes: Sequence[Outcome]) -> Claim:
    """D of shuffled networks lies between that of trained and untrained ones.

    The geometric mean over layers counts. Shuffling destroys what channels do together and leaves
    the filters, so the first step is spatial pooling and the second one channel pooling.
    """
    parts = {}
    for item in outcomes:
        with np.errstate(divide="ignore"):
            means = {state: np.log(item.curves[state][:, 0]).mean(1) for state in STATES}
        steps = {
            "spatial": judge_sign(means["shuffled"] - means["initial"], -1),
            "channel": judge_sign(means["trained"] - means["shuffled"], -1),
        }
        verdict = next((v for v in steps.values() if v != REPRODUCED), REPRODUCED)
        shown = ", ".join(f"{short(np.exp(means[s]))} {s}" for s in STATES)
        parts[item.name] = (shown, verdict)
    return _gather("both poolings lower D: trained < shuffled < initial", "mean layer", parts)


def _correlation(values: np.ndarray, errors: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where all values are the same."""
    if np.ptp(values) == 0 or np.ptp(errors) == 0:
        return 0.0
    return float(stats.spearmanr(values, errors).statistic)


def correlation_claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """Rank correlation over networks of test error with D_f, G_f and R_f, and without each one."""
    errors = np.array([item.test_error.mean() for item in outcomes])
    claims = []
    for index, (measure, sign) in enumerate((("D", 1), ("G", -1), ("R", 1))):
        values = np.array([item.curves["trained"][:, index, -1].mean() for item in outcomes])
        text = f"test error {'rises' if sign > 0 else 'falls'} with {measure}_f over networks"
        where = f"{len(outcomes)} networks"
        if len(outcomes) < 4 or not np.isfinite(values).all():
            verdict = FEW_NETS if len(outcomes) < 4 else UNMEASURED
            claims.append(Claim(text, BY_RANK, "-", verdict, where, IN_FIGURES))
            continue
        rows = np.arange(len(errors))
        without = [_correlation(values[rows != i], errors[rows != i]) for i in rows]
        ours = (
            f"rank correlation {_correlation(values, errors):+.2f}, between {min(without):+.2f} "
            f"and {max(without):+.2f} without one network"
        )
        verdict = FEW_DECIDE
        if min(sign * value for value in without) >= MIN_CORRELATION:
            verdict = REPRODUCED
        elif max(sign * value for value in without) < 0:
            verdict = FAILED
        claims.append(Claim(text, BY_RANK, ours, verdict, where, IN_FIGURES))
    return claims


def find_claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """All claims that outcomes of networks of one task, over the same seeds, can speak to."""
    if outcomes[0].is_square:
        return [
            *correlation_claims(outcomes),
            *output_claims(outcomes),
            pooling_claim(outcomes),
            *depth_claims(outcomes, ""),
            filter_claim(outcomes),
        ]
    claims = []
    for view in VIEWS:
        claims += depth_claims(outcomes, view)
        for item in outcomes:
            claims += exponent_claims(item, view)
    return [*claims, filter_claim(outcomes)]


def claims_table(claims: Sequence[Claim], note: str) -> Table:
    """Every claim with the paper's number, ours and the verdict."""
    title = "What the paper says, and what was found"
    return table_of(title, claims, f"{PAPER} {RULE} {note}")


def answer(claims: Sequence[Claim]) -> list[str]:
    """One line a claim, verdict first; before them how many there are of each verdict."""
    counts: dict[str, int] = {}
    for claim in claims:
        counts[claim.verdict] = counts.get(claim.verdict, 0) + 1
    told = "; ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines = [f"{len(claims)} claims: {told}. {RULE}"]
    for claim in claims:
        found = "" if claim.measured == "-" else f"; {claim.measured}"
        lines.append(f"{claim.claim} ({claim.of}): {claim.verdict}{found}.")
    return lines
