import json
import shlex
import time

import pytest
from ml_collections import ConfigDict

from configs.variants import named_config
from experiments import cli
from recon_jax import report


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["--smoke", "--seeds=0,1"], "--smoke --seeds=0,1"),
        (["--config.sizes=(8, 16)"], "'--config.sizes=(8, 16)'"),
        (["--config.models=(('mlp', 3),)"], "\"--config.models=(('mlp', 3),)\""),
        (["--workdir=it's $HOME"], None),
        (["--config.name=\"a\" 'b'"], None),
    ],
)
def test_a_shell_reads_the_command_as_it_was(words, written, monkeypatch):
    monkeypatch.setattr(cli.sys, "argv", ["x", *words])
    command = cli.command_of("alignment")
    assert shlex.split(command) == ["python", "-m", "experiments.alignment", *words]
    if written:
        assert command == f"python -m experiments.alignment {written}"


def test_what_a_run_leaves(tmp_path, capsys):
    workdir = cli.begin(ConfigDict({"name": "x", "data": {"limit": 3}}), tmp_path / "run")
    assert json.loads((workdir / "config.json").read_text()) == {"name": "x", "data": {"limit": 3}}
    facts = cli.facts_of("x", (0, 1), time.perf_counter())
    tables = [report.Table(name, f"Of {name}", ["n"], [[name]], "") for name in ("one", "two")]
    sections = [report.Section("Both", (), tables=tables)]
    results = {"summary": ["It works."], "setting": "small", "runs": [1, 2]}
    found = cli.publish(workdir, "A run", sections, tables, results, facts, shown=1)
    assert json.loads((workdir / "results.json").read_text()) == json.loads(json.dumps(found))
    assert found["runs"] == [1, 2]
    assert found["seeds"] == [0, 1]
    assert found["wall_seconds"] >= 0
    assert found["command"].startswith("python -m experiments.x")
    for name in ("one", "two"):
        assert name in (workdir / "tables" / f"{name}.csv").read_text()
    page = (workdir / "report.html").read_text()
    assert "It works." in page
    assert "small" in page
    printed = capsys.readouterr().out
    assert "Of one" in printed
    assert "Of two" not in printed
    assert "- It works." in printed
    assert str(workdir / "report.html") in printed


def test_a_workdir_that_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="cannot be written"):
        cli.begin(ConfigDict(), "/proc/nowhere")


def test_recipes_know_their_variants():
    assert named_config("", {"embedded": {}}).name == "embedded"
    assert named_config("", {"large": {}}, "large").name == "large"
    with pytest.raises(ValueError, match="unknown variant 'small'; choose one of large, huge"):
        named_config("small", {"large": {}, "huge": {}})
