"""Fixtures of the experiments' tests."""

import re

import pytest

from experiments.reproduce_rules import RULES
from recon_jax.report import recorded


def _cells(rule):
    return [*rule.cells, *([rule.guard[0]] if rule.guard else [])]


def _without_numbers(text):
    """Ranks and thresholds are of the config."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


@pytest.fixture(scope="session")
def rules_fit():
    """Asserts that the rules for a job name tables and columns that its experiment wrote.

    Otherwise a user's own run would be judged "not in the tables", whatever it found.
    """

    def check(job, workdir):
        for cell in {cell for rule in RULES[job] for cell in _cells(rule)}:
            name, *parts = cell.split(" | ")
            table = recorded.read_run_table(workdir / "tables", name)
            written = [_without_numbers(column) for column in table.columns]
            for part in parts:
                column = part.removeprefix("columns ").removeprefix("where ").split(" = ")
                # "where NAME = VALUE" or "columns NAME", and a name may be "K = 64".
                column = column[0] if part.startswith("where ") else " = ".join(column)
                assert _without_numbers(column) in written, (cell, table.columns)
                assert table.columns.count(column) <= 1, (cell, table.columns)

    return check
