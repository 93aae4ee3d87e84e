"""Claims about a measure over augmentation strengths: numbers in words, verdicts by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from recon_jax.report.claims import FAILS, HOLDS, UNKNOWN, Claim, judge
from recon_jax.report.scale_detection import short


class Series(NamedTuple):
    """A measure over ascending strengths.

    Attributes:
      means: over seeds (S,).
      words: mean ± standard deviation at every strength.
    """

    means: Float[np.ndarray, " S"]
    words: str


def series(strengths: Sequence[float], values: Sequence[np.ndarray]) -> Series:
    """Means and words of values (seeds,) at every strength."""
    told = ", ".join(
        f"{short(found)} at {strength:g}" for found, strength in zip(values, strengths, strict=True)
    )
    return Series(np.array([found.mean() for found in values]), told or "no valid strength")


def step_claim(claim: str, rule: str, found: Series) -> Claim:
    """A claim that means fall at every step of strength."""
    falls = (np.diff(found.means) < 0).all()
    return Claim(claim, f"{rule} strictly decreasing", found.words, judge(found.means, falls, 2))


def end_claim(
    claim: str,
    rule: str,
    found: Series,
    test: Callable[[float, float], bool],
    tell: Callable[[float, float], str],
) -> Claim:
    """A claim about the means at the lowest and the highest strength, if these are two."""
    if len(found.means) < 2 or not np.isfinite(found.means[[0, -1]]).all():
        return Claim(claim, rule, found.words, UNKNOWN)
    low, high = float(found.means[0]), float(found.means[-1])
    holds = HOLDS if test(low, high) else FAILS
    return Claim(claim, rule, f"{tell(low, high)}: {found.words}", holds)


def part(low: float, high: float) -> str:
    """What is left at the highest strength of the value at the lowest."""
    return f"{high / low:.3g} of it" if low else f"{high:.3g} of 0"


def change(low: float, high: float) -> str:
    """By how much the value rises from the lowest to the highest strength."""
    return f"{high - low:+.3g}"
