from pathlib import Path

import pytest

from experiments import reproduce_pages, reproduce_runs, subspace_runs
from experiments.reproduce_claims import (
    ahead,
    at_most,
    decide_all,
    judge,
    no_better,
    positive,
    read_number,
    within,
)
from experiments.reproduce_jobs import JOBS
from experiments.reproduce_rules import RULES
from recon_jax import report
from recon_jax.report import learning_order
from recon_jax.report.recorded import FAILS, HOLDS, UNDECIDED
from tests.report import test_learning_order
from tests.report.test_recorded import record

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60.8 ± 0.7", (60.8, 0.7)),
        ("+7.62", (7.62, None)),
        ("a = 64.4%", (64.4, None)),
        ("-1.2e-05 ± 3e-06", (-1.2e-5, 3e-6)),
        ("0.37 (k = 128)", (0.37, None)),
    ],
)
def test_numbers_in_cells(text, expected):
    number = read_number(text)
    assert number.mean == expected[0]
    assert number.spread == expected[1] or expected[1] is None


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="'about 3' is not a number"):
        read_number("about 3")


def judged(rule_of, cells, seeds=(0, 1)):
    table = report.Table("t", "", ["name", "value"], [[str(i), c] for i, c in enumerate(cells)])
    places = [f"t | where name = {i} | columns value" for i in range(len(cells))]
    return judge(rule_of(places), record(tables=[table], seeds=seeds, claims=[]))


@pytest.mark.parametrize(
    ("cells", "larger", "no_larger"),
    [
        (("5.1 ± 0.3", "4.0 ± 0.4"), HOLDS, FAILS),  # a difference of 1.1, twice its spread is 1
        (("4.9 ± 0.3", "4.0 ± 0.4"), UNDECIDED, HOLDS),
        (("4.0 ± 0.4", "5.1 ± 0.3"), FAILS, HOLDS),
        (("5", "4 ± 0.4"), HOLDS, FAILS),
    ],
)
def test_one_cell_against_another(cells, larger, no_larger):
    found = judged(lambda places: ahead("a claim", *places), cells)
    assert (found.verdict, found.measured) == (larger, " against ".join(cells))
    assert judged(lambda places: no_better("a claim", *places), cells).verdict == no_larger


def test_one_seed_decides_nothing():
    found = judged(lambda places: ahead("a claim", *places), ("5", "4"), seeds=(0,))
    assert found.verdict == UNDECIDED
    assert "one seed" in found.measured


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [("1.5 ± 0.2", HOLDS), ("1.9 ± 0.2", UNDECIDED), ("2.5 ± 0.2", FAILS), ("0.5 ± 0.2", FAILS)],
)
def test_a_cell_between_bounds(cell, verdict):
    found = judged(lambda places: within("a claim", places[0], 1, 2), [cell])
    assert found.verdict == verdict
    assert found.rule == "mean ± twice the spread in [1, 2]"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [("+0.1 to +0.9", HOLDS), ("-0.1 to +0.9", UNDECIDED), ("-0.9 to -0.1", FAILS)],
)
def test_an_interval_above_zero(interval, verdict):
    found = judged(lambda places: positive("a claim", *places), ["+0.5", interval])
    assert (found.verdict, found.measured) == (verdict, f"+0.5, interval {interval}")


def test_a_column_that_is_small_everywhere():
    table = report.Table("t", "", ["value"], [["1e-9"], ["2e-7"], ["0"]])
    found = record(tables=[table], claims=[])
    rules = [at_most("a claim", "t | columns value", most) for most in (1e-6, 1e-7)]
    verdicts = [judge(rule, found) for rule in rules]
    assert [item.verdict for item in verdicts] == [HOLDS, FAILS]
    assert verdicts[0].measured == "largest 2e-7"


@pytest.mark.parametrize(("most", "verdict"), [(90, UNDECIDED), (99, FAILS)])
def test_a_guard_keeps_from_a_verdict(most, verdict):
    cells = ("69.5 ± 0.7", "75.8 ± 0.4", "98.5 ± 0.1")
    found = judged(lambda p: ahead("a claim", *p[:2], guard=(p[2], most)), cells)
    assert found.verdict == verdict
    assert found.rule.endswith(f"if value <= {most}")


def test_a_missing_cell_decides_nothing():
    found = judge(ahead("a claim", "t | columns x", "t | columns x"), record(claims=[]))
    assert found.verdict == UNDECIDED
    assert "has no table 't'" in found.measured


def test_all_rules_find_their_cells_in_the_committed_tables():
    records = reproduce_pages.read_records(ROOT)
    for name, rules in RULES.items():
        made = decide_all(records[name], RULES)
        assert len(made.claims) == len(rules)
        assert not [claim for claim in made.claims if claim.measured.startswith("not in")]
        assert made.claims == records[name].claims


def test_rules_for_subspaces_name_networks_of_the_job():
    jobs = [job for job in JOBS[1] if job.experiment == "subspace_classification"]
    assert jobs
    for job in jobs:
        config = reproduce_runs.config_of(job, {}, smoke=False)
        networks = {setup.name for setup in subspace_runs.setups_of(config)}
        for rule in RULES[job.name]:
            assert {cell.rpartition("columns ")[2] for cell in rule.cells} <= networks


def test_rules_for_the_order_of_learning_find_the_cells_of_its_tables():
    """Also those of a run of some seconds, as a slow test does for all experiments."""
    runs = [test_learning_order.RUN, test_learning_order.SECOND]
    builders = (learning_order.order_table, learning_order.perception_table)
    tables = [build(runs, test_learning_order.SETTING, "note") for build in builders]
    for table in tables:
        assert len(set(table.columns)) == len(table.columns)
    found = record(tables=tables, seeds=[0, 1])
    rules = [rule for rule in RULES["learning_order_embedded"] if "MLP" in rule.claim]
    assert len(rules) == 2
    for rule in rules:
        assert not judge(rule, found).measured.startswith("not in")
