import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import records


def test_json_holds_arrays_and_null_for_what_json_lacks(tmp_path):
    path = tmp_path / "a.json"
    content = {"array": jnp.arange(3), "nan": np.float64("nan"), "flag": np.bool_(True), 1: (2.5,)}
    report.write_json(path, content)
    expected = {"array": [0, 1, 2], "nan": None, "flag": True, "1": [2.5]}
    assert json.loads(path.read_text()) == expected


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    report.write_json(path, {"old": 1})

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        report.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_cached_step_is_computed_once_for_a_key(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(4.0)}

    first = report.cached(tmp_path, "step", {"a": 1, "b": 2}, compute)
    second = report.cached(tmp_path, "step", {"b": 2, "a": 1}, compute)
    np.testing.assert_array_equal(first["x"], second["x"])
    assert len(calls) == 1
    report.cached(tmp_path, "step", {"a": 1, "b": 3}, compute)
    assert len(calls) == 2


@pytest.mark.parametrize("position", [0, 70, -1])
def test_damaged_cache_is_noticed_and_computed_again(tmp_path, position):
    values = np.arange(100.0)
    report.cached(tmp_path, "step", 1, lambda: {"x": values})
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    again = report.cached(tmp_path, "step", 1, lambda: {"x": values + 1})
    np.testing.assert_array_equal(again["x"], values + 1)


def test_truncated_cache_is_computed_again(tmp_path):
    report.cached(tmp_path, "step", 1, lambda: {"x": np.arange(100.0)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:90])
    assert report.cached(tmp_path, "step", 1, lambda: {"x": np.ones(1)})["x"] == 1


def test_workdir_that_cannot_be_written_is_refused_with_the_way_out(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot be written .*--workdir"):
        report.prepare_workdir(blocked / "below")


def test_provenance_names_versions_device_and_revision():
    facts = report.provenance()
    assert facts["versions"]["jax"].split(".")[0].isdigit()
    assert "cpu" in facts["device"].lower()
    assert facts["cpu_cores"] >= 1
    assert facts["git_revision"]


def test_digest_depends_on_content_not_on_order():
    assert records.digest({"a": 1, "b": [2]}) == records.digest({"b": [2], "a": 1})
    assert records.digest({"a": 1}) != records.digest({"a": 2})


def test_metrics_are_appended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    report.append_jsonl(path, {"step": 1})
    report.append_jsonl(path, {"step": 2})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
