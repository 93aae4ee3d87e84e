import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import alignment as recipe
from experiments import alignment
from recon_jax import data, report, spectral

ROOT = Path(__file__).parents[2]


def small(**changes):
    config = alignment.smoke(recipe.get_config())
    config.corruptions = (("gaussian", 0.5), ("patch_mask", 0.5, 4))
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, alignment.run(small(), workdir, [0])


def test_every_output_is_there(finished, rules_fit):
    workdir, _ = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {"report.html", "results.json", "config.json", "metrics.jsonl"}
    wanted |= {f"tables/{t}.{e}" for t in ("impact", "neutrality") for e in ("md", "csv", "tex")}
    figures = ("spectrum", "alignment", "impact")
    wanted |= {f"figures/{f}.{e}" for f in figures for e in ("png", "pdf")}
    assert wanted <= names
    rules_fit("alignment_embedded", workdir)
    results = json.loads((workdir / "results.json").read_text())
    for field in ("versions", "git_revision", "device", "wall_seconds", "command", "seeds"):
        assert results[field] is not None
    assert results["summary"]


def test_verdicts_and_numbers_equal_the_library(finished):
    _, results = finished
    source = data.open_source("embedded", image_size=8, limit=500)
    pixels, labels = source.read(np.arange(500))
    moments = spectral.stream_moments([(pixels, labels)], 10)
    moments = spectral.scale_moments(moments, 1 / spectral.global_std(moments))
    noise, mask = results["corruptions"]
    assert bool(noise["is_neutral"])
    assert not bool(mask["is_neutral"])
    np.testing.assert_allclose(noise["impact"], 0, atol=1e-9)
    expected = spectral.corruption_impact(moments, spectral.patch_mask(0.5, 4, (8, 8, 1)))
    np.testing.assert_allclose(mask["impact"], expected, atol=1e-9)
    # The same cell of the sweep: ratio 0.5, patch 4, K = 4 and 16.
    np.testing.assert_allclose(
        results["sweep"]["impacts"][1, 1], np.asarray(expected)[[3, 15]], atol=2e-3
    )


def test_the_same_command_again_reads_finished_steps(finished, monkeypatch):
    workdir, first = finished
    before = {path: path.stat().st_mtime_ns for path in (workdir / "cache").iterdir()}

    def forbidden(*args, **kwargs):
        raise AssertionError("a finished step was computed again")

    monkeypatch.setattr(spectral, "survey", forbidden)
    monkeypatch.setattr(spectral, "stream_moments", forbidden)
    monkeypatch.setattr(spectral, "mask_sweep", forbidden)
    again = alignment.run(small(), workdir, [0])
    assert {path: path.stat().st_mtime_ns for path in (workdir / "cache").iterdir()} == before
    for old, new in zip(first["corruptions"], again["corruptions"], strict=True):
        np.testing.assert_array_equal(old["impact"], new["impact"])


@pytest.mark.parametrize("normalization", ["unit", "per_image", "per_pixel"])
def test_normalisations_match_normalised_images(tmp_path, normalization):
    config = small(**{"data.normalization": normalization, "folds": 0})
    source = alignment.open_data(config.data, "embedded")
    folds, _ = alignment.stream(config, source, tmp_path)
    moments = spectral.union_moments(folds)
    pixels, _ = source.read(np.arange(500))
    x = pixels.reshape(500, -1) / 255.0
    if normalization == "per_image":
        x = x / (1e-6 + x.std(1, keepdims=True))
    if normalization == "per_pixel":
        x = x / np.maximum(x.std(0), 1e-12)
    centred = x - x.mean(0)
    # per_image images are float32.
    np.testing.assert_allclose(moments.scatter, centred.T @ centred, rtol=1e-4, atol=1e-3)


def test_scenes_are_compared_over_seeds(tmp_path, rules_fit):
    config = alignment.smoke(recipe.get_config("scenes"))
    config.data.limit = 200
    config.compare = ("scenes:image_size=8&background_amplitude=0.5&num_images=200",)
    table = alignment.compare(config, tmp_path, [0, 1, 2])
    assert len(table.rows) == 1
    assert table.rows[0][1] == 8 * 8 * 3
    assert all("±" in cell for cell in table.rows[0][2:])
    (tmp_path / "tables").mkdir()
    report.write_table(tmp_path / "tables", table)
    rules_fit("alignment_scenes", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.normalization": "zca"},
            "data.normalization must be one of unit, global, per_image, per_pixel",
        ),
        ({"precision": "bfloat16"}, "precision must be one of"),
        ({"folds": 1}, "folds must be 0"),
        ({"ranks": ()}, "ranks must be one or more"),
        ({"ranks": (65,)}, "ranks must not exceed D = 64"),
        ({"data.batch_size": 0}, "data.batch_size must be at least 1"),
        ({"sweep.patch_sizes": (3,)}, "choose one of 1, 2, 4, 8"),
        ({"corruptions": (("gaussian", -1.0),)}, "stddev must lie in"),
        ({"corruptions": (("fog", 1.0),)}, "unknown corruption 'fog'; choose one of identity"),
        ({"corruptions": (("blur",),)}, "blur"),
    ],
)
def test_bad_config_is_refused_before_images_are_streamed(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("streamed in spite of a bad config")

    monkeypatch.setattr(alignment, "stream", forbidden)
    config = small()
    with config.unlocked():
        for field, value in changes.items():
            *parents, leaf = field.split(".")
            target = config[parents[0]] if parents else config
            target[leaf] = value
    with pytest.raises(ValueError, match=message):
        alignment.run(config, tmp_path, [0])


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    alignment.validate(recipe.get_config(variant))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10"):
        recipe.get_config("imagenet22k")


def command(*arguments, timeout=240):
    return subprocess.run(
        [sys.executable, "-m", "experiments.alignment", "--smoke", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.nothing=1", "unknown config field 'nothing'; choose one of compare"),
        ("--config=configs/alignment.py:mars", "unknown variant 'mars'; choose one of embedded"),
        ("--config.folds=many", "folds"),
        ("--config.data.source=ftp:x", "choose one of embedded, tfds, npz, folder, scenes"),
        ("--workdir=/proc/nowhere", "cannot be written"),
        ("--config=configs/alignment.py:cifar10", "download_and_prepare"),
    ],
)
def test_command_line_errors_are_one_clear_line(tmp_path, argument, message):
    extra = [] if argument.startswith("--workdir") else [f"--workdir={tmp_path}"]
    if argument.endswith("cifar10"):
        extra.append(f"--config.data.data_dir={tmp_path}")
    run = command(argument, *extra)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_command_line_run(tmp_path):
    run = command(f"--workdir={tmp_path}", "--config.corruptions=(('gaussian', 0.5),)")
    assert run.returncode == 0, run.stderr
    assert "100%" in run.stderr  # plain progress lines where there is no terminal
    assert "Can it ever help?" in run.stdout
    assert (tmp_path / "report.html").exists()
