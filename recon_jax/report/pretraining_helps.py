"""Pretraining against supervision from scratch: tables, claims by fixed rules, answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon_jax.report.claims import HOLDS, Claim
from recon_jax.report.claims import claims_table as table_of
from recon_jax.report.masked_autoencoder import UNPUBLISHED, spread
from recon_jax.report.tables import Table

METHODS = {
    "finetuned": "pretrained, fine-tuned",
    "scratch": "scratch, as many supervised steps",
    "scratch_long": "scratch, as long in all",
    "probe": "linear probe, frozen pretrained encoder",
    "probe_new": "linear probe, frozen new encoder",
}
# Those that need the pretraining.
PRETRAINED = ("finetuned", "probe")
# Those that are trained as a whole, and asked where they look.
TRAINED = ("finetuned", "scratch", "scratch_long")

REVERSED = "the opposite holds"
UNDECIDED = "undecided: within two standard errors"
ONE_SEED = "no verdict: one seed"
UNMEASURED = "no verdict: not finite"

# A difference is told from zero if it exceeds this many standard errors of its mean over seeds.
ERRORS = 2.0

PAPER = (
    "Paper: Pan et al. 2023 (arXiv 2206.03826), whose abstract says that the pretrained network is "
    "the better one and captures more features; ImageNet and ResNet-50, numbers not known here."
)
RULE = (
    f"Rule: the mean over seeds of the difference, seed by seed, exceeds {ERRORS:g} of its standard"
    " errors in the direction of the claim; so few seeds make the rule a weak one."
)


class Outcome(NamedTuple):
    """One way to a classifier with part of the labels, over seeds.

    Attributes:
      method: a key of `METHODS`.
      fraction: of the training images whose labels are known, in (0, 1].
      labels: how many they are.
      accuracy: on test images, in per cent (seeds,).
      needed: regions of each test image that keep the prediction's logit (seeds, images); NaN
        where nothing was measured, as in the next two.
      pieces: separate pieces in which these regions lie (seeds, images).
      unordered: regions needed if they come in a random order (seeds, images).
      seconds: of training, pretraining included (seeds,).
    """

    method: str
    fraction: float
    labels: int
    accuracy: np.ndarray
    needed: np.ndarray
    pieces: np.ndarray
    unordered: np.ndarray
    seconds: np.ndarray

    @property
    def name(self) -> str:
        """For people."""
        return METHODS[self.method]

    @property
    def share(self) -> str:
        """The fraction in per cent, for people."""
        return share_name(self.fraction)


def share_name(fraction: float) -> str:
    """Such as "1% of labels"."""
    return f"{100 * fraction:g}% of labels"


def by_fraction(outcomes: Sequence[Outcome]) -> dict[float, dict[str, Outcome]]:
    """Outcomes of each fraction by method, smallest fraction first."""
    found: dict[float, dict[str, Outcome]] = {}
    for item in sorted(outcomes, key=lambda item: item.fraction):
        found.setdefault(item.fraction, {})[item.method] = item
    return found


def judge(differences: np.ndarray) -> str:
    """The verdict on differences (seeds,) that a claim says are positive."""
    differences = np.asarray(differences, float)
    if not np.isfinite(differences).all():
        return UNMEASURED
    if len(differences) < 2:
        return ONE_SEED
    error = differences.std(ddof=1) / len(differences) ** 0.5
    if abs(differences.mean()) <= ERRORS * error:
        return UNDECIDED
    return HOLDS if differences.mean() > 0 else REVERSED


def told(first: np.ndarray, second: np.ndarray, unit: str = "") -> str:
    """Both means and the paired difference with its spread and standard error."""
    gap = np.asarray(first, float) - np.asarray(second, float)
    error = ""
    if len(gap) > 1:
        error = f", standard error {gap.std(ddof=1) / len(gap) ** 0.5:.1f}"
    return f"{spread(first)}{unit} against {spread(second)}{unit}: {spread(gap, '+')}{error}"


def _accuracy_claims(found: dict[float, dict[str, Outcome]]) -> list[Claim]:
    compared = (
        ("pretraining beats scratch", "finetuned", "scratch"),
        ("pretraining beats scratch", "finetuned", "scratch_long"),
        ("the frozen pretrained encoder beats a frozen new one", "probe", "probe_new"),
    )
    return [
        Claim(
            text,
            f"test accuracy; {METHODS[other]}",
            told(methods[one].accuracy, methods[other].accuracy, "%"),
            judge(methods[one].accuracy - methods[other].accuracy),
            share_name(fraction),
        )
        for text, one, other in compared
        for fraction, methods in found.items()
    ]


def _region_claims(methods: dict[str, Outcome]) -> list[Claim]:
    measures = (
        ("the pretrained network needs more of an image", "needed", "regions"),
        ("what it needs lies in more separate pieces", "pieces", "pieces"),
        ("it needs more of an image in a random order", "unordered", "regions"),
    )
    claims = []
    for text, field, what in measures:
        ours = getattr(methods["finetuned"], field).mean(1)
        for other in ("scratch", "scratch_long"):
            theirs = getattr(methods[other], field).mean(1)
            rule = f"{what}, mean over images; {METHODS[other]}"
            verdict = judge(ours - theirs)
            share = methods["finetuned"].share
            claims.append(Claim(text, rule, told(ours, theirs), verdict, share))
    return claims


def find_claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """Claims about accuracy at every fraction, then about images, with the most labels.

    Args:
      outcomes: every method at every fraction, over the same seeds.
    """
    found = by_fraction(outcomes)
    return _accuracy_claims(found) + _region_claims(list(found.values())[-1])


def claims_table(claims: Sequence[Claim], note: str) -> Table:
    """Every claim with its rule, the numbers and the verdict."""
    title = "Does pretraining help, and does the network then look at more of an image?"
    return table_of(title, claims, f"{PAPER} {RULE} {note}")


def accuracy_table(outcomes: Sequence[Outcome], regions: int, note: str) -> Table:
    """Test accuracy, and what of an image is needed, for every fraction and method.

    Args:
      outcomes: in the order of the rows, over the same seeds.
      regions: of an image.
      note: setting, seeds, seconds, device.
    """
    rows = [
        [
            item.share,
            item.labels,
            item.name,
            spread(item.accuracy),
            UNPUBLISHED,
            *(
                "-" if np.isnan(values).any() else spread(values.mean(1))
                for values in (item.needed, item.pieces, item.unordered)
            ),
            f"{item.seconds.mean():.0f}",
        ]
        for item in outcomes
    ]
    columns = [
        "labels",
        "labelled images",
        "method",
        "accuracy (%)",
        "paper's accuracy",
        f"regions needed, of {regions}",
        "in pieces",
        "needed in random order",
        "seconds a run",
    ]
    title = "Test accuracy and regions of an image that a prediction needs, by share of labels"
    return Table("accuracy", title, columns, rows, f"{PAPER} {note}")


def answer(claims: Sequence[Claim]) -> list[str]:
    """One line for each statement and rival: the verdict and the numbers at every share."""
    lines: dict[str, list[str]] = {}
    for item in claims:
        told_here = f"{item.of}: {item.verdict} ({item.measured})"
        lines.setdefault(f"{item.claim} ({item.rule})", []).append(told_here)
    return [f"{kind[0].upper()}{kind[1:]}. {'; '.join(found)}." for kind, found in lines.items()]
