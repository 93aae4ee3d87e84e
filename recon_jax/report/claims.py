"""Claims as rows of a table: the statement, its rule, the numbers, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon_jax.report.tables import Table

HOLDS = "holds"
FAILS = "does not hold"
UNKNOWN = "cannot be told"


class Claim(NamedTuple):
    """A statement and what was found.

    Attributes:
      claim: the statement.
      rule: when it holds, with the number of the rule.
      measured: the numbers, with what they were measured at.
      holds: `HOLDS`, `FAILS` or `UNKNOWN`.
    """

    claim: str
    rule: str
    measured: str
    holds: str


def judge(needed: np.ndarray, holds: bool | np.bool_, at_least: int = 1) -> str:
    """The verdict; unknown if too few numbers are there or one is not finite."""
    if len(needed) < at_least or not np.isfinite(needed).all():
        return UNKNOWN
    return HOLDS if holds else FAILS


def tally(claims: Sequence[Claim]) -> str:
    """How many claims hold."""
    counts = [sum(item.holds == word for item in claims) for word in (HOLDS, FAILS, UNKNOWN)]
    return (
        f"Of {len(claims)} claims {counts[0]} hold, {counts[1]} do not, {counts[2]} cannot be told."
    )


def sentence(claim: Claim) -> str:
    """Claim, verdict, rule and numbers."""
    text = f"{claim.claim[0].upper()}{claim.claim[1:]}: {claim.holds}"
    return f"{text} ({claim.rule}). Measured: {claim.measured}."


def claims_table(title: str, claims: Sequence[Claim], note: str) -> Table:
    """The table "claims": claim, rule, what was measured, and whether it holds."""
    rows = [list(claim) for claim in claims]
    return Table("claims", title, list(Claim._fields), rows, note)
