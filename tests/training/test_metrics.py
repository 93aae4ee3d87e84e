import itertools
import math
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.training import compute_metrics, merge_metrics, read_metrics
from recon_jax.training.metrics_log import open_metrics, truncate_metrics

values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(values, st.data())
def test_any_split_gives_the_mean(numbers, data):
    cuts = data.draw(st.lists(st.integers(0, len(numbers)), max_size=6))
    edges = [0, *sorted(cuts), len(numbers)]
    parts = [{"x": (sum(numbers[a:b]), b - a)} for a, b in itertools.pairwise(edges)]
    order = data.draw(st.permutations(range(len(parts))))
    merged = {}
    for index in order:
        merged = merge_metrics(merged, parts[index])
    assert compute_metrics(merged)["x"] == pytest.approx(np.mean(numbers), rel=1e-9, abs=1e-9)


def test_merge_keeps_what_one_side_has():
    merged = merge_metrics({"a": (1.0, 2.0)}, {"b": (3.0, 1.0), "a": (1.0, 2.0)})
    assert merged == {"a": (2.0, 4.0), "b": (3.0, 1.0)}
    assert merge_metrics(merged, {}) == merge_metrics({}, merged) == merged
    assert compute_metrics(merged) == {"a": 0.5, "b": 3.0}


def test_no_weight_has_no_mean():
    assert math.isnan(compute_metrics({"a": (0.0, 0.0)})["a"])
    assert compute_metrics({}) == {}


def test_log_drops_what_comes_after_the_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_metrics(path, 0) as write:
        for step in (1, 2, 3):
            write({"step": step, "loss": step / 3, "bad": float("nan")})
    whole = path.read_bytes()
    assert read_metrics(path)[1] == {"step": 2, "loss": 2 / 3, "bad": None}
    with open_metrics(path, 2) as write:
        write({"step": 3, "loss": 1.0, "bad": float("inf")})
    assert path.read_bytes() == whole
    truncate_metrics(path, 0)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("tail", [b'{"step": 3, "lo', b'{"step": 3}', b"\x00\x00\n", b'{"a": 1}\n'])
def test_log_drops_half_a_line(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    truncate_metrics(path, 5)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_no_log_is_no_error(tmp_path):
    truncate_metrics(tmp_path / "none", 3)
    assert read_metrics(tmp_path / "none") == []


def test_a_line_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = rf"{path} could not be written at step 2 \(.+\); .* run the same command again"
    with open_metrics(path, 0) as write:
        write({"step": 1, "split": "train"})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
            with pytest.raises(OSError, match=message):
                write({"step": 2, "split": "train"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record["step"] for record in read_metrics(path)] == [1]
