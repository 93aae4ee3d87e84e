import json

import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import recorded
from recon_jax.report.recorded import FAILS, FROM_TABLE, HOLDS, UNDECIDED, Record, Verdict

TABLE = report.Table(
    "accuracy",
    "Accuracy (%)",
    ["way, of training", "accuracy"],
    [["plain", "60.8 ± 0.7"], ["with | bars", "-"]],
    "Three seeds.",
)


def record(**changes):
    claim = Verdict("it helps", "", "more than 2", "3 ± 1", "", HOLDS, "reproduced")
    fields = {
        "job": "job",
        "title": "A job: drawn",
        "source": FROM_TABLE,
        "command": "python -m experiments.job",
        "git_revision": "abc",
        "seeds": [0, 1],
        "seconds": 12.5,
        "device": "2 CPU cores",
        "versions": {"jax": "0.10"},
        "setting": "small",
        "config": {"a": [1, 2]},
        "rules": "",
        "claims": [claim],
        "tables": [TABLE],
        "figures": [("experiments/figures/x.png", "X")],
    }
    return Record(**fields | changes)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("holds", HOLDS),
        ("reproduced", HOLDS),
        ("reproduced in 3 of 5 networks", FAILS),
        ("in part", FAILS),
        ("not reproduced at this budget", FAILS),
        ("the opposite holds", FAILS),
        ("undecided: within two standard errors", UNDECIDED),
        ("cannot be told from these networks", UNDECIDED),
        ("no verdict: one seed", UNDECIDED),
        ("same sign, within chance", UNDECIDED),
    ],
)
def test_words_of_experiments_become_verdicts(said, verdict):
    assert recorded.verdict_of(said) == verdict


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="unknown verdict 'perhaps'; it must begin with one of"):
        recorded.verdict_of("perhaps")


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ("claim rule measured holds", "c r m holds", ("c", "", "r", "m", "", HOLDS, "holds")),
        (
            "claim of paper ours verdict",
            "c o p m in\u2007part",
            ("c", "o", "", "m", "p", FAILS, "in part"),
        ),
        (
            "claim share compared measured verdict",
            "c s r m undecided",
            ("c", "s", "r", "m", "", UNDECIDED, "undecided"),
        ),
    ],
)
def test_claims_are_read_by_the_names_of_columns(columns, row, expected):
    cells = [cell.replace("\u2007", " ") for cell in row.split(" ")]
    table = report.Table("claims", "", columns.split(), [cells])
    assert recorded.read_claims(table) == [Verdict(*expected)]


def test_a_table_that_holds_no_claims_is_refused():
    with pytest.raises(ValueError, match=r"unknown columns \['accuracy'\]"):
        recorded.read_claims(report.Table("claims", "", ["claim", "accuracy"], [["a", "b"]]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--config.data.source=npz:/work/runs/cifar10.npz", "--config.data.source=npz:cifar10.npz"),
        ("/a/b/c.npz, 10,000 images", "c.npz, 10,000 images"),
        ("1/f^2 and/or 28x28", "1/f^2 and/or 28x28"),
        ("configs/alignment.py:cifar10", "configs/alignment.py:cifar10"),
    ],
)
def test_paths_of_this_machine_are_cut(text, expected):
    assert recorded.hide_paths({"a": [text, 1]}) == {"a": [expected, 1]}


def test_a_record_is_read_as_it_was_written(tmp_path):
    found = record()
    recorded.write_record(tmp_path / "job", found)
    assert recorded.read_record(tmp_path / "job") == found
    unknown = record(seconds=float("nan"), config={})
    recorded.write_record(tmp_path / "job", unknown)
    again = recorded.read_record(tmp_path / "job")
    assert np.isnan(again.seconds)
    assert again._replace(seconds=0) == unknown._replace(seconds=0)


def test_a_table_that_was_edited_is_noticed(tmp_path):
    recorded.write_record(tmp_path / "job", record())
    path = tmp_path / "job" / "accuracy.csv"
    path.write_text(path.read_text().replace("60.8", "61.8"))
    with pytest.raises(ValueError, match=r"accuracy.csv is not the one that was recorded"):
        recorded.read_record(tmp_path / "job")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("device"), "is damaged"),
        (lambda content: content.update(more=1), "is damaged"),
        (lambda content: content["claims"][0].update(verdict="maybe"), "has the verdict 'maybe'"),
        (lambda content: content.update(job="other"), "is of the job 'other'"),
        (lambda content: content["tables"][0].update(name="gone"), "is damaged"),
    ],
)
def test_a_damaged_record_says_so(tmp_path, change, message):
    recorded.write_record(tmp_path / "job", record())
    path = tmp_path / "job" / "record.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        recorded.read_record(tmp_path / "job")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"record .* is damaged .*; restore it from git"):
        recorded.read_record(tmp_path / "job")


@pytest.fixture
def workdir(tmp_path):
    """As an experiment leaves it."""
    rows = [["a | b, c", 0.123456789, 7], ["d ± e", 12345.678, "-"]]
    table = report.Table("numbers", "Numbers (%)", ["name", "value", "count"], rows, "Of /a/b.npz.")
    claims = [["it helps", "more than 2", "3 ± 1", "does not hold"]]
    columns = ["claim", "rule", "measured", "holds"]
    for item in (table, report.Table("claims", "Claims", columns, claims, "The rules.")):
        (tmp_path / "tables").mkdir(exist_ok=True)
        report.write_table(tmp_path / "tables", item)
    results = {
        "command": "python -m experiments.job '--workdir=/x/y z' '--config.a=(1, 2)' --seeds=0,1",
        "git_revision": "abc",
        "seeds": [0, 1],
        "wall_seconds": 3.5,
        "device": "1 x cpu",
        "cpu_cores": 2,
        "versions": {"jax": "0.10"},
        "python": "3.11",
        "setting": "npz:/a/b.npz, small",
    }
    report.write_json(tmp_path / "results.json", results)
    report.write_json(tmp_path / "config.json", {"data": {"source": "npz:/a/b.npz"}})
    return tmp_path


def test_a_finished_run_becomes_a_record(workdir):
    found = recorded.from_workdir(workdir, "job", "A job", [("experiments/figures/x.png", "X")])
    assert found.command == "python -m experiments.job '--config.a=(1, 2)' --seeds=0,1"
    assert (found.setting, found.config) == ("npz:b.npz, small", {"data": {"source": "npz:b.npz"}})
    assert found.versions == {"jax": "0.10", "python": "3.11"}
    assert (found.device, found.seconds, found.rules) == ("1 x cpu, 2 CPU cores", 3.5, "The rules.")
    assert [claim.verdict for claim in found.claims] == [FAILS]
    (table,) = found.tables  # that of the claims is in `claims`
    assert table.rows == [["a | b, c", "0.1235", "7"], ["d ± e", "1.235e+04", "-"]]
    assert (table.title, table.note) == ("Numbers (%)", "Of b.npz.")


def test_the_two_files_of_a_table_must_agree(workdir):
    path = workdir / "tables" / "numbers.csv"
    path.write_text(path.read_text().replace("0.1234", "0.1334"))
    with pytest.raises(ValueError, match=r"numbers.md and .csv differ; run the experiment again"):
        recorded.from_workdir(workdir, "job", "A job")
