"""Claims on table cells, for experiments whose own reports decide none: rules and verdicts.

A cell is "TABLE | where COLUMN = VALUE | columns COLUMN", as in `recon_jax.report.papers`, of a
table of the job. Verdicts are by means and spreads as they are shown, the same for a table that was
kept and for a new run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from recon_jax.report.papers import select
from recon_jax.report.recorded import FAILS, HOLDS, UNDECIDED, Record, Verdict

# What a reader of a verdict must know.
AFTERWARDS = (
    "These rules were written after the first results were known; they take means and spreads as "
    "the tables show them."
)
_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_CELL = re.compile(rf"(?:a = )?({_NUMBER})%?(?: ± ({_NUMBER}))?(?: \(.*\))?")


class Number(NamedTuple):
    """A mean and its spread; NaN where none is shown."""

    mean: float
    spread: float


class Rule(NamedTuple):
    """A claim on cells.

    Attributes:
      claim: the statement.
      rule: in words.
      cells: that it is about.
      decide: numbers in the cells -> one of the three verdicts.
      paper: its number or statement; empty if it is not published.
      guard: another cell, and the most it may be for the claim to be decided at all.
    """

    claim: str
    rule: str
    cells: Sequence[str]
    decide: Callable[..., str]
    paper: str = ""
    guard: tuple[str, float] | None = None


def _known(number: Number) -> float:
    return 0.0 if math.isnan(number.spread) else number.spread


def _advantage(first: Number, second: Number) -> tuple[float, float]:
    """Difference of means, and twice its spread."""
    return first.mean - second.mean, 2 * math.hypot(_known(first), _known(second))


def _ahead(first: Number, second: Number) -> str:
    difference, margin = _advantage(first, second)
    if abs(difference) <= margin:
        return UNDECIDED
    return HOLDS if difference > 0 else FAILS


def _no_better(first: Number, second: Number) -> str:
    difference, margin = _advantage(first, second)
    return FAILS if difference > margin else HOLDS


def ahead(claim: str, first: str, second: str, paper: str = "", guard=None) -> Rule:
    """The first cell is larger, by more than twice the spread of the difference."""
    rule = "larger by more than twice the spread of the difference, sqrt(a² + b²)"
    return Rule(claim, rule, (first, second), _ahead, paper, guard)


def no_better(claim: str, first: str, second: str, paper: str = "") -> Rule:
    """The first cell is not larger by more than twice the spread of the difference."""
    rule = "not larger by more than twice the spread of the difference, sqrt(a² + b²)"
    return Rule(claim, rule, (first, second), _no_better, paper)


def within(claim: str, where: str, low: float, high: float, paper: str = "") -> Rule:
    """The cell lies between two bounds, with twice its spread."""

    def decide(found: Number) -> str:
        below, above = (found.mean + sign * 2 * _known(found) for sign in (-1, 1))
        if low <= below and above <= high:
            return HOLDS
        return FAILS if above < low or below > high else UNDECIDED

    bounds = f">= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
    return Rule(claim, f"mean ± twice the spread {bounds}", (where,), decide, paper)


def positive(claim: str, value: str, interval: str, paper: str = "") -> Rule:
    """The 95% interval, a cell "LOW to HIGH", lies above 0."""

    def decide(_: Number, low: Number, high: Number) -> str:
        return HOLDS if low.mean > 0 else FAILS if high.mean < 0 else UNDECIDED

    return Rule(claim, "the 95% interval lies above 0", (value, interval), decide, paper)


def at_most(claim: str, where: str, most: float, paper: str = "") -> Rule:
    """Every cell of the column is at most so large."""

    def decide(*found: Number) -> str:
        return HOLDS if max(item.mean for item in found) <= most else FAILS

    return Rule(claim, f"at most {most:g} in all rows", (where,), decide, paper)


def read_number(text: str) -> Number:
    """Mean and spread of a cell such as "60.8 ± 0.7", "+7.62", "a = 64.4%" or "0.37 (k = 128)".

    Raises:
      ValueError: if it is none of these.
    """
    match = _CELL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number, with or without ± and its spread")
    return Number(float(match[1]), float(match[2]) if match[2] else math.nan)


def _texts(record: Record, where: str) -> list[str]:
    name, *wanted = where.split(" | ")
    return [text for row in select(record.table(name.strip()), wanted).rows for text in row]


def _numbers(texts: Sequence[str]) -> list[Number]:
    """One number a cell, and two of a cell "LOW to HIGH"."""
    return [read_number(part) for text in texts for part in text.split(" to ")]


def judge(rule: Rule, record: Record) -> Verdict:
    """What becomes of a claim; not decidable where a cell is missing or nothing has a spread."""
    try:
        texts = [text for where in rule.cells for text in _texts(record, where)]
        numbers = _numbers(texts)
        verdict = rule.decide(*numbers)
        measured = " against ".join(texts) if len(texts) <= 2 else f"largest {_largest(texts)}"
        measured = measured.replace(" against ", ", interval ") if " to " in texts[-1] else measured
        compares = rule.decide in (_ahead, _no_better)
        if compares and len(record.seeds) < 2 and all(math.isnan(n.spread) for n in numbers):
            verdict, measured = UNDECIDED, f"{measured}; one seed, spread unknown"
        if rule.guard is not None:
            (text,) = _texts(record, rule.guard[0])
            if read_number(text).mean > rule.guard[1]:
                verdict = UNDECIDED
                measured += (
                    f"; {rule.guard[0].split('columns ')[-1]} {text}, above {rule.guard[1]:g}"
                )
    except ValueError as error:
        verdict, measured = UNDECIDED, f"not in the tables: {error}"
    words = rule.rule
    if rule.guard is not None:
        words += f", if {rule.guard[0].split('columns ')[-1]} <= {rule.guard[1]:g}"
    return Verdict(rule.claim, "", words, measured, rule.paper, verdict, verdict)


def _largest(texts: Sequence[str]) -> str:
    return max(texts, key=lambda text: read_number(text).mean)


def decide_all(record: Record, rules: Mapping[str, Sequence[Rule]]) -> Record:
    """The record with its claims, if there are rules for the job and it has none of its own."""
    if record.job not in rules:
        return record
    claims = [judge(rule, record) for rule in rules[record.job]]
    return record._replace(claims=claims, rules=AFTERWARDS)
