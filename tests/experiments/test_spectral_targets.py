import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs import spectral_targets as recipe
from experiments import masked_runs, spectral_targets, trained
from recon_jax import spectral


def small(variant="", **changes):
    config = spectral_targets.smoke(recipe.get_config(variant))
    config.data.train_limit, config.data.test_limit = 80, 40
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    config = small(**{"data.image_size": 8, "subspaces": (("top", 75), ("bottom", 25))})
    return masked_runs.open_data(config, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def spectrum(context):
    return spectral_targets.find_spectrum(context)


def pixels_of(source):
    return source.read(np.arange(source.num_images))[0] / 255


def test_the_spectrum_is_that_of_normalised_images(context, spectrum):
    images = pixels_of(context.train).reshape(80, -1)
    centred = images - images.mean(0)
    singular = np.linalg.svd(centred / centred.std(), compute_uv=False)
    np.testing.assert_allclose(np.asarray(spectrum.values)[:20], singular[:20] ** 2, rtol=1e-5)
    np.testing.assert_allclose(spectrum.mean, 0, atol=1e-6)
    assert spectrum.values.dtype == np.float64


def test_targets_are_projections_of_the_input(context, spectrum):
    images = pixels_of(context.test).reshape(40, -1) - pixels_of(context.train).mean(0).ravel()
    seen = pixels_of(context.train).reshape(80, -1)
    seen = seen - seen.mean(0)
    images = images / seen.std()
    basis = np.linalg.svd(seen, full_matrices=False)[2]
    share = np.cumsum(np.asarray(spectrum.values)) / np.sum(np.asarray(spectrum.values))
    rank = int(np.sum(share < 0.75))
    top = images @ basis[:rank].T @ basis[:rank]
    given = jnp.asarray(images.reshape(40, 8, 8, 1), jnp.float32)
    cells = spectral_targets.subspaces_of(context.config)
    assert [cell.label for cell in cells] == ["all", "top 75%", "bottom 25%"]
    tasks = [spectral_targets.make_task(context, cell, spectrum) for cell in cells]
    assert tasks[0].target is None
    for task, expected in zip(tasks[1:], (top, images - top), strict=True):
        np.testing.assert_allclose(task.target(given).reshape(40, -1), expected, atol=2e-5)
    assert [task.name for task in tasks] == ["all", "top75", "bottom25"]
    assert len({json.dumps(task.key) for task in tasks}) == 3
    assert all(task.corruption.mask.num_visible == 1 for task in tasks)


def test_strips_are_pixels_and_parts_add_up(context, spectrum):
    cells = spectral_targets.subspaces_of(context.config)
    strips = spectral_targets.strips(context, cells, spectrum)
    assert list(strips) == ["original", "top 75%", "bottom 25%"]
    pixels = pixels_of(context.test)[:4]
    np.testing.assert_allclose(strips["original"], pixels, atol=1e-6)
    mean = pixels_of(context.train).mean(0)
    np.testing.assert_allclose(strips["top 75%"] + strips["bottom 25%"] - mean, pixels, atol=1e-5)


@pytest.mark.parametrize(("targets", "unit"), [("pixels", 1.0), ("normalized", None)])
def test_rows_hold_what_was_found(context, spectrum, targets, unit):
    def run(base):
        return {"finetuned": base, "linear_probe": base + 1, "knn": base + 2, "squared_error": 0.1}

    cells = spectral_targets.subspaces_of(context.config)[::2]
    missing = run(5) | {"squared_error": np.nan}
    found = {"all": [run(1), run(2)], "bottom 25%": [run(3), run(4)], "none": [missing] * 2}
    rows = spectral_targets.gather(found, cells, spectrum, targets)
    kept, variance = spectral.kept_components(cells[1], spectrum)
    assert [row.target for row in rows] == ["all", "bottom 25%", "none"]
    assert [row.rank for row in rows] == [64, 64 - kept.start, 0]
    assert rows[1].variance == variance
    np.testing.assert_array_equal(rows[1].finetuned, [3, 4])
    np.testing.assert_array_equal(rows[1].linear, [4, 5])
    np.testing.assert_array_equal(rows[1].knn, [5, 6])
    np.testing.assert_allclose(rows[1].error, 0.1 / (variance / 100 if unit else 1))
    assert np.isnan(rows[2].variance)
    assert np.isnan(rows[2].error).all()


def test_subspaces_that_keep_nothing_are_refused(spectrum):
    whole = spectral.Subspace("all", 100.0, 1.0)
    spectral_targets.require_parts([whole, spectral.Subspace("top", 75, 0.75)], spectrum)
    for cell in (spectral.Subspace("top", 1, 0.01), spectral.Subspace("bottom", 99, 0.01)):
        with pytest.raises(ValueError, match=r"(top 1%|bottom 99%) keeps (0|64) of 64 components"):
            spectral_targets.require_parts([whole, cell], spectrum)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subspaces": ()}, "subspaces must be one or more different ones"),
        ({"subspaces": (("top", 75), ("top", 75))}, "subspaces must be one or more different ones"),
        ({"subspaces": (("middle", 75),)}, "pairs of top or bottom and per cent"),
        ({"subspaces": (("top", 100),)}, "pairs of top or bottom and per cent"),
        ({"subspaces": (("bottom", 0),)}, "pairs of top or bottom and per cent"),
        ({"precision": "bfloat16"}, "precision must be one of float32, float64"),
        ({"targets": "latents"}, "targets must be one of pixels, normalized"),
        ({"num_pictures": 0}, "num_pictures must be at least 1"),
        ({"finetuning.drop_path": -0.1}, "finetuning.drop_path must lie in"),
        ({"finetuning.schedule": "linear"}, "finetuning.schedule must be one of constant"),
        ({"train.warmup_epochs": 2.0}, "train.warmup_epochs must be .* below train.epochs=2"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    config = small()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        spectral_targets.run(config, tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetuning.batch_size": 120}, "finetuning.batch_size=120 is more than the 80 training"),
        ({"corruption": ("patch_subset", 0.0, 4)}, "a masked autoencoder needs 1 or more of both"),
        ({"subspaces": (("top", 1),)}, "top 1% keeps 0 of 256 components"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        spectral_targets.run(small(**changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    spectral_targets.validate(recipe.get_config(variant))
    spectral_targets.validate(spectral_targets.smoke(recipe.get_config(variant)))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu"):
        recipe.get_config("stl10")


def results_without_times(workdir: Path):
    results = json.loads((workdir / "results.json").read_text())
    return {key: results[key] for key in ("summary", "outcomes", "runs")}


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path, rules_fit):
    first, copy = tmp_path / "first", tmp_path / "copy"
    spectral_targets.run(small(), first, [0, 1])
    for name in ("report.html", "tables/targets.md", "figures/accuracy.png", "figures/targets.pdf"):
        assert (first / name).stat().st_size > 100
    rules_fit("spectral_targets_embedded", first)
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert [(line["target"], line["seed"]) for line in lines] == [
        (target, seed) for target in ("all", "bottom 25%", "none") for seed in (0, 1)
    ]
    shutil.copytree(first, copy)
    # As if killed in the middle of a fine-tuning.
    (cached,) = (copy / "cache").glob("bottom25-finetuning-seed1-*.npz")
    cached.unlink()
    steps = (copy / "runs/bottom25-finetuning-seed1/checkpoints").glob("[0-9]*")
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    spectral_targets.run(small(), copy, [0, 1])
    assert results_without_times(copy) == results_without_times(first)
    for name in ("metrics.jsonl", "figures/accuracy.png", "tables/targets.csv"):
        assert (copy / name).read_bytes() == (first / name).read_bytes()
