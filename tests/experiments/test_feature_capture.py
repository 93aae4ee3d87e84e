import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from configs import feature_capture as recipe
from experiments import capture_runs, feature_capture
from recon_jax import multiview
from recon_jax.report import feature_capture as words


def small(**changes):
    config = feature_capture.smoke(recipe.get_config())
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.dim": 3}, "dim=3 cannot hold 4 orthonormal features"),
        ({"data.num_patches": 3}, "num_patches=3 have no room"),
        ({"data.num_train": 0}, "data.num_train must be at least 1, got 0"),
        ({"network.members": 0}, "network.members must be at least 1, got 0"),
        ({"network.kernels_per_class": 0}, "network.kernels_per_class must be at least 1"),
        ({"network.keep": 0.0}, r"network.keep=0.0 must lie in \(0, 1\]"),
        ({"network.keep": 1.5}, r"network.keep=1.5 must lie in \(0, 1\]"),
        ({"network.init_scale": 0.0}, "network.init_scale must be above 0, got 0.0"),
        ({"network.power": 0}, "network.power must be at least 1, got 0"),
        ({"sweep_seeds": 0}, "sweep_seeds must be at least 1"),
        ({"sweeps.width": (2, 2)}, "sweeps.width must be values that differ"),
        ({"sweeps.width": (0,)}, "sweeps.width must be at least 1, got 0"),
        ({"sweeps.steps": (0,)}, "sweeps.steps must be at least 1, got 0"),
        ({"sweeps.teacher_scale": (-1.0,)}, "sweeps.teacher_scale must be above 0, got -1.0"),
        ({"sweeps.threshold": (0.0,)}, "sweeps.threshold must be above 0, got 0.0"),
        ({"sweeps.single_view": (1.5,)}, r"sweeps.single_view must lie in \[0, 1\], got 1.5"),
        ({"sweeps.variant": ("BEiT",)}, "sweeps.variant must be one of expected masks, sampled"),
    ],
)
def test_bad_config_is_refused_before_anything_is_computed(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("computed in spite of a bad config")

    monkeypatch.setattr(multiview, "capture_studies", forbidden)
    with pytest.raises(ValueError, match=message):
        feature_capture.run(small(**changes), tmp_path, [0])
    assert not list(tmp_path.iterdir())


def test_equal_seeds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"seeds must differ, got \[1, 1\]"):
        feature_capture.run(small(), tmp_path, [1, 1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    feature_capture.validate(recipe.get_config(variant))
    feature_capture.validate(feature_capture.smoke(recipe.get_config(variant)))


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of default, k10"):
        recipe.get_config("k7")


def test_a_point_changes_one_thing():
    config = recipe.get_config()
    base = capture_runs.point(config, "variant", "expected masks")
    assert base["numbers"] == {
        "keep": 0.5, "threshold": 1.0, "init_scale": 0.05, "single_view": 0.0,
        "teacher_scale": pytest.approx(2**0.25),
    }  # fmt: skip
    for sweep, value, changes, number in (
        ("teacher_scale", 1.05, {}, True),
        ("width", 4, {}, False),
        ("steps", 800, {}, False),
        ("single_view", 0.05, {"supervise": True}, True),
        ("threshold", 0.2, {"supervise": True}, True),
    ):
        found = capture_runs.point(config, sweep, value)
        name = {sweep: value}
        expected = {**base, **changes, **({} if number else name)}
        expected["numbers"] = {**base["numbers"], **(name if number else {})}
        assert found == expected
    sampled = capture_runs.point(config, "variant", "sampled masks")
    assert sampled == {**base, "mode": "sampled"}
    few = capture_runs.point(config, "variant", "keep 0.25")["numbers"]
    assert (few["keep"], few["teacher_scale"]) == (0.25, pytest.approx(3**0.25))
    assert capture_runs.point(config, "variant", "MAE-like")["mode"] == "pixels"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("capture")
    with jax.enable_x64(False):
        return workdir, feature_capture.run(small(), workdir, [3, 0])


@pytest.mark.slow
def test_every_output_is_there(finished):
    workdir, results = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {
        f"tables/{name}.{end}"
        for name in ("methods", "claims", "sweeps")
        for end in ("md", "csv", "tex")
    }
    wanted |= {
        f"figures/{name}.{end}"
        for name in ("methods", "threshold", "width", "sensitivity")
        for end in ("png", "pdf")
    }
    assert wanted | {"report.html", "results.json", "config.json"} <= names
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    # Six ways of training and what is common to them, and ten points, of two seeds each.
    assert len(lines) == 2 * (6 + 1) + 2 * 10
    assert len(results["claims"]) == 32
    note = (workdir / "tables" / "methods.md").read_text()
    for word in ("smoke run", "seeds 3, 0;", "not published here"):
        assert word in note


@pytest.mark.slow
def test_numbers_are_those_of_the_library(finished):
    workdir, _ = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    config = small()
    with jax.enable_x64(False):
        study = multiview.capture_study(
            jax.random.key(0),
            spec=capture_runs.make_spec(config.data),
            num_train=20,
            num_test=20,
            **config.network,
        )
    [line] = [x for x in lines if x.get("method") == "frozen" and x["seed"] == 0]
    assert_allclose(line["single"], 100 * study.frozen.single_view, atol=1e-3)
    assert_allclose(line["growth"], study.growth, rtol=1e-4)
    [line] = [x for x in lines if x.get("method") == "ensemble_2" and x["seed"] == 0]
    assert_allclose(line["multi"], 100 * study.ensemble_multi_view[1], atol=1e-3)


@pytest.mark.slow
def test_a_point_is_what_the_library_makes_of_its_draws(finished):
    workdir, _ = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    [found] = [x for x in lines if (x.get("sweep"), x.get("value")) == ("threshold", 0.2)
               and x["seed"] == 3]  # fmt: skip
    spec = capture_runs.make_spec(small().data)
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(3), 6)
        features = multiview.sample_features(keys[0], spec)
        train = multiview.sample_multiview(keys[1], spec, features, 20)
        start = multiview.init_kernels(keys[2], 4, spec.dim)
        options = {"threshold": 0.2}
        trained = multiview.pretrain(start, train.patches, 0.5, 2**0.25, steps=5, **options)
        labelled = (train.patches, train.labels, 2)
        supervised = multiview.train_supervised(start, *labelled, max_steps=5, **options)
        head = multiview.train_head(trained.kernels, *labelled, steps=5, **options).head
        test = multiview.sample_multiview(keys[5], spec, features, 20, 1.0)
        assert set(np.asarray(test.views)) <= {0, 1}

        def accuracy(kernels, head):
            scores = multiview.class_scores(kernels, head, test.patches, 0.2)
            return np.mean(np.argmax(scores, 1) == test.labels)

        assert_allclose(found["single"], accuracy(trained.kernels, head))
        assert_allclose(found["supervised_single"], accuracy(*supervised[:2]))
        assert_allclose(found["growth"], multiview.norm_growth(start, trained.kernels), rtol=1e-4)
        ratio = np.linalg.norm(trained.kernels, axis=1) / np.linalg.norm(start, axis=1)
        assert_allclose(found["largest"], ratio.max(), rtol=1e-4)


@pytest.mark.slow
def test_a_finished_run_is_read_and_not_repeated(finished, tmp_path, monkeypatch):
    workdir, first = finished

    def forbidden(*args, **kwargs):
        raise AssertionError("computed again what the workdir holds")

    monkeypatch.setattr(multiview, "capture_studies", forbidden)
    monkeypatch.setattr(capture_runs, "_measure", forbidden)
    before = (workdir / "metrics.jsonl").read_bytes()
    again = feature_capture.run(small(), workdir, [3, 0])
    assert again["summary"] == first["summary"]
    assert (workdir / "metrics.jsonl").read_bytes() == before
    # Other seeds, and other values, are other numbers.
    with pytest.raises(AssertionError, match="computed again"):
        feature_capture.run(small(), workdir, [0, 3])
    with pytest.raises(AssertionError, match="computed again"):
        feature_capture.run(small(**{"sweeps.steps": (5, 20)}), workdir, [3, 0])


def test_predictions_are_of_the_config():
    setting = feature_capture.setting_of(recipe.get_config("k10"))
    assert setting == words.Setting(10, 10, 0.5, 2, 4)
