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
      rule: when it holds, with the number of the rule if it has one.
      measured: the numbers, with what they were measured at.
      verdict: `HOLDS`, `FAILS` or `UNKNOWN`, or a word of the module that found it.
      of: the networks, representation or share of labels it is about, where there are several.
      paper: its number or statement; empty where there is none.
    """

    claim: str
    rule: str
    measured: str
    verdict: str
    of: str = ""
    paper: str = ""


def judge(needed: np.ndarray, holds: bool | np.bool_, at_least: int = 1) -> str:
    """The verdict; unknown if too few numbers are there or one is not finite."""
    if len(needed) < at_least or not np.isfinite(needed).all():
        return UNKNOWN
    return HOLDS if holds else FAILS


def tally(claims: Sequence[Claim]) -> str:
    """How many claims hold."""
    counts = [sum(item.verdict == word for item in claims) for word in (HOLDS, FAILS, UNKNOWN)]
    return (
        f"Of {len(claims)} claims {counts[0]} hold, {counts[1]} do not, {counts[2]} cannot be told."
    )


def sentence(claim: Claim) -> str:
    """Claim, verdict, rule and numbers."""
    text = f"{claim.claim[0].upper()}{claim.claim[1:]}: {claim.verdict}"
    return f"{text} ({claim.rule}). Measured: {claim.measured}."


def claims_table(title: str, claims: Sequence[Claim], note: str) -> Table:
    """The table "claims"; `of` and `paper` are columns where a claim has them."""
    columns = [
        name
        for name in ("claim", "of", "rule", "measured", "paper", "verdict")
        if name not in ("of", "paper") or any(getattr(claim, name) for claim in claims)
    ]
    rows = [[getattr(claim, name) for name in columns] for claim in claims]
    return Table("claims", title, columns, rows, note)
