import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import subspace_classification as recipe
from experiments import subspace_classification as experiment
from experiments import subspace_runs, trained
from recon_jax import data, spectral

ROOT = Path(__file__).parents[2]


def small(**changes):
    config = experiment.smoke(recipe.get_config())
    config.setups = (("mlp", {}, "crop_flip"),)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, experiment.run(small(), workdir, [0, 1])


def test_every_output_is_there(finished):
    workdir, results = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {"report.html", "results.json", "config.json", "metrics.jsonl"}
    wanted |= {f"tables/{t}.{e}" for t in ("accuracy", "comparison") for e in ("md", "csv", "tex")}
    wanted |= {f"figures/{f}.{e}" for f in ("accuracy", "images") for e in ("png", "pdf")}
    wanted |= {f"runs/mlp-crop_flip-{c}-seed{s}/metrics.jsonl" for s in (0, 1) for c in ("all100",)}
    assert wanted <= names
    for field in ("versions", "git_revision", "device", "wall_seconds", "command", "seeds"):
        assert results[field] is not None
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1] * 3


def test_networks_see_both_splits_projected_and_standardised():
    config = small()
    splits = subspace_runs.open_data(config)
    train, _ = trained.open_splits(config)
    raw = train.read(np.arange(train.num_images))[0] / 255.0
    scaled = raw / (1e-6 + raw.std((1, 2, 3), keepdims=True))
    mean = scaled.mean(0)
    images = splits.train.read(np.arange(300))[0]
    np.testing.assert_allclose(images, scaled - mean, atol=1e-5)
    spectrum = spectral.eigendecompose(spectral.stream_moments([(images, np.zeros(300, int))], 1))
    cell = spectral.subspaces_of([], [0.8])[0]
    seen_train, seen_test = subspace_runs.project_splits(splits, cell, spectrum)

    rows = (scaled - mean).reshape(300, -1)
    vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=True)[2]
    bottom = vectors[spectral.kept_components(cell, spectrum)[0]]

    def prepared(x, mean):
        part = (x.reshape(len(x), -1) @ bottom.T @ bottom).reshape(x.shape)
        scaled = part / (1e-6 + part.std((1, 2, 3), keepdims=True))
        return scaled - (scaled.mean(0) if mean is None else mean), scaled.mean(0)

    expected, second_mean = prepared(scaled - mean, None)
    found = seen_train.read(np.arange(300))[0]
    np.testing.assert_allclose(found, expected, atol=2e-4)
    test = trained.open_splits(config)[1].read(np.arange(100))[0] / 255.0
    test = test / (1e-6 + test.std((1, 2, 3), keepdims=True)) - mean
    np.testing.assert_allclose(
        seen_test.read(np.arange(100))[0], prepared(test, second_mean)[0], atol=2e-4
    )


def test_the_same_command_again_trains_nothing(finished, monkeypatch):
    workdir, first = finished
    tables = {path: path.read_bytes() for path in (workdir / "tables").iterdir()}
    metrics = (workdir / "metrics.jsonl").read_bytes()

    def forbidden(*args, **kwargs):
        raise AssertionError("a finished step was computed again")

    monkeypatch.setattr(trained, "train", forbidden)
    monkeypatch.setattr(spectral, "stream_moments", forbidden)
    again = experiment.run(small(), workdir, [0, 1])
    assert again["runs"] == first["runs"]
    assert {path: path.read_bytes() for path in tables} == tables
    assert (workdir / "metrics.jsonl").read_bytes() == metrics


def test_another_config_in_the_same_workdir_is_refused_with_the_difference(finished):
    workdir, _ = finished
    with pytest.raises(ValueError, match=r"train\.learning_rate: stored 0.001, now 0.01"):
        experiment.run(small(**{"train.learning_rate": 0.01}), workdir, [0])


def test_what_is_only_watched_may_differ(finished):
    workdir, first = finished
    again = experiment.run(small(**{"train.log_every": 3}), workdir, [0, 1])
    assert again["runs"] == first["runs"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": "mine"}, "grid must be one of published, given"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"label_loss": "hinge"}, "label_loss must be one of cross_entropy"),
        ({"strips": 0}, "strips must be at least 1"),
        ({"setups": ()}, "setups must be one or more"),
        ({"setups": (("resnet10", {}, "none"),)}, "unknown model 'resnet10'; choose one of mlp"),
        ({"setups": (("mlp", {"breadth": 3}, "none"),)}, "has no option breadth"),
        ({"setups": (("mlp", {}, "mixup"),)}, "augmentation must be one of none, crop_flip"),
        ({"top": (0.0,)}, r"top must hold per cents strictly in 0\.\.100, got 0.0"),
        ({"bottom": ()}, "grid=given needs at least one per cent"),
        ({"pair": (90.0,)}, "pair must be per cents of top and bottom"),
        ({"train.batch_size": 0}, "train.batch_size must be at least 1"),
        ({"train.accumulate_steps": 3}, "train.batch_size=64 must be a multiple of 3"),
        ({"train.epochs": 0}, "train.epochs must be at least 1"),
        ({"train.evaluate_every": 0}, "train.evaluate_every must be at least 1"),
        ({"train.checkpoint_every": 0}, "train.checkpoint_every must be at least 1"),
        ({"train.optimizer": "lion"}, "train.optimizer must be one of adamw"),
        ({"train.schedule": "linear"}, "train.schedule must be one of constant"),
        ({"train.dtype": "float16"}, "train.dtype must be one of float32, bfloat16"),
        ({"train.learning_rate": 0.0}, "peak=0.0 must be a finite learning rate"),
        ({"train.warmup_steps": 5}, "warmup_steps=5 must be 0 for one_cycle"),
        ({"train.ema_decay": 1.0}, r"train.ema_decay must lie in \[0, 1\)"),
        ({"train.weight_decay": -1.0}, "weight_decay=-1.0 must be 0 or more"),
        ({"data.train_limit": -1}, "data.train_limit must be at least 0"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("data was read in spite of a bad config")

    monkeypatch.setattr(data, "open_source", forbidden)
    config = small()
    with config.unlocked():
        for field, value in changes.items():
            *parents, leaf = field.split(".")
            target = config[parents[0]] if parents else config
            target[leaf] = value
    with pytest.raises(ValueError, match=message):
        experiment.run(config, tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.batch_size": 512}, "train.batch_size=512 is more than the 300 training images"),
        (
            {"train.schedule": "cosine", "train.warmup_steps": 8},
            r"warmup_steps=8 must be in 0\.\.7, below total_steps=8",
        ),
    ],
)
def test_what_depends_on_the_number_of_images_is_refused_before_training(
    tmp_path, monkeypatch, changes, message
):
    monkeypatch.setattr(trained, "train", None)
    with pytest.raises(ValueError, match=message):
        experiment.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    experiment.validate(recipe.get_config(variant))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu"):
        recipe.get_config("mnist3d")


def test_a_batch_must_divide_over_the_devices(tmp_path):
    command = [sys.executable, "-m", "experiments.subspace_classification", "--smoke"]
    run = subprocess.run(
        [*command, f"--workdir={tmp_path}", "--config.train.accumulate_steps=3"],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 2
    assert "train.batch_size=64 must be a multiple of 24, the 8 device(s) times" in run.stderr
    assert "Traceback" not in run.stderr
