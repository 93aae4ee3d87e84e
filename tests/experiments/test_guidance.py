import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import guidance as recipe
from experiments import guidance, guidance_runs, guidance_theory, trained
from recon_jax import data, spectral


def small(**changes):
    config = guidance.smoke(recipe.get_config())
    config.latent_sizes = (4,)
    config.data.train_limit, config.data.test_limit = 200, 100
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, guidance.run(small(), workdir, [0, 1])


def results_without_times(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for record in results["runs"]:
        del record["found"]["seconds"]
    return {key: results[key] for key in ("summary", "outcomes", "closed_form", "runs")}


def tables(workdir):
    """Everything but the notes, which tell seconds."""
    return {path.name: path.read_bytes() for path in (workdir / "tables").glob("*.[ct][se][vx]")}


@pytest.mark.slow
def test_every_output_is_there(finished, rules_fit):
    workdir, results = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {"report.html", "results.json", "config.json", "metrics.jsonl"}
    wanted |= {f"tables/{t}.{e}" for t in ("guidance", "closed_form") for e in ("md", "csv", "tex")}
    wanted |= {"figures/guidance.png", "figures/guidance.pdf"}
    wanted |= {
        f"runs/latent4-guidance{g}-seed{s}/metrics.jsonl" for g in ("0", "0.01") for s in (0, 1)
    }
    assert wanted <= names
    rules_fit("guidance_embedded", workdir)
    written = json.loads((workdir / "results.json").read_text())
    for field in ("versions", "git_revision", "device", "wall_seconds", "command", "seeds"):
        assert written[field] is not None
    assert written["summary"] == results["summary"]
    note = (workdir / "tables" / "guidance.md").read_text()
    for word in ("seeds 0, 1", "smoke run", "of training in all on", "not published here"):
        assert word in note


@pytest.mark.slow
def test_one_line_a_run_without_times(finished):
    workdir, results = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["guidance"], line["seed"]) for line in lines] == [
        (0.0, 0), (0.0, 1), (0.01, 0), (0.01, 1)
    ]  # fmt: skip
    assert not any("seconds" in line for line in lines)
    errors = results["outcomes"][0]["error"]
    np.testing.assert_array_equal(errors, [line["squared_error"] for line in lines[:2]])
    last = (workdir / "runs/latent4-guidance0-seed0/metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["squared_error"] == lines[0]["squared_error"]


@pytest.mark.slow
def test_relative_errors_are_over_the_mean_image(finished):
    _, results = finished
    images = []
    for split, limit in (("train", 200), ("test", 100)):
        source = data.open_source("embedded", split, image_size=8, limit=limit)
        images.append(source.read(np.arange(limit))[0] / 255)
    variance = np.mean((images[1] - images[0].mean(0)) ** 2)
    first = results["outcomes"][0]
    np.testing.assert_allclose(first["relative_error"], first["error"] / variance, rtol=1e-12)


@pytest.mark.slow
def test_the_closed_form_is_the_library_s(finished):
    _, results = finished
    frontier = results["closed_form"][0]
    source = data.open_source("embedded", image_size=8, limit=200)
    pixels, labels = source.read(np.arange(200))
    moments = spectral.stream_moments([(pixels / 255, labels)], 10)
    for i, weight in enumerate(frontier["weights"]):
        joint = spectral.solve_joint(moments, 4, weight)
        # Pixels over 255 before or after the sums.
        expected = joint.reconstruction_loss / (200 * 64)
        np.testing.assert_allclose(frontier["train_error"][i], expected, rtol=1e-7)
        test, truth = data.open_source("embedded", "test", image_size=8, limit=100).read(
            np.arange(100)
        )
        centred = (test / 255).reshape(100, -1) - np.asarray(moments.mean)
        latents = centred @ np.asarray(joint.encoder)
        error = np.mean((latents @ np.asarray(joint.decoder) - centred) ** 2)
        np.testing.assert_allclose(frontier["error"][i], error, rtol=1e-6)
        scores = latents @ np.asarray(joint.classifier) + np.bincount(labels) / 200
        assert frontier["accuracy"][i] == pytest.approx(np.mean(scores.argmax(1) == truth))


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(finished, tmp_path, monkeypatch):
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)

    def forbidden(*args, **kwargs):
        raise AssertionError("a finished step was computed again")

    for module, name in (
        (trained, "make_trainer"),
        (trained, "train"),
        (guidance_runs, "judge"),
        (guidance_theory, "_statistics"),
        (guidance_theory, "pixel_variance"),
    ):
        monkeypatch.setattr(module, name, forbidden)
    before = (workdir / "metrics.jsonl").read_bytes()
    guidance.run(small(), workdir, [0, 1])
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert results_without_times(workdir) == results_without_times(finished[0])
    assert tables(workdir) == tables(finished[0])


@pytest.mark.slow
def test_a_killed_experiment_ends_with_the_same_tables(finished, tmp_path):
    workdir, name = tmp_path / "copy", "latent4-guidance0.01-seed1"
    shutil.copytree(finished[0], workdir)
    # As it was in the middle of the last run.
    (cached,) = (workdir / "cache").glob(f"{name}-*.npz")
    cached.unlink()
    steps = sorted(
        (workdir / "runs" / name / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name)
    )
    assert len(steps) == 2
    shutil.rmtree(steps[-1])
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[:3]))
    guidance.run(small(), workdir, [0, 1])
    assert (workdir / "metrics.jsonl").read_text() == "".join(lines)
    assert tables(workdir) == tables(finished[0])
    assert results_without_times(workdir) == results_without_times(finished[0])
    records = f"runs/{name}/metrics.jsonl"
    assert (workdir / records).read_bytes() == (finished[0] / records).read_bytes()


def test_a_map_counts_all_its_entries_and_the_closed_form_has_its_own_size(tmp_path):
    config = small(**{"model.name": "conv_autoencoder", "closed_form.image_size": 4})
    config.model.options = ConfigDict({"depth": 2, "first_width": 2})
    context = guidance.open_data(config, tmp_path, config.data.image_size)
    assert guidance.latent_count(context, 4) == 2 * 2 * 4
    frontiers = guidance.solve(context, 1.0)
    assert [item.latents for item in frontiers] == [16]  # all pixels of 4 x 4
    np.testing.assert_allclose(frontiers[0].train_error, 0, atol=1e-12)
    assert frontiers[0].relative_error.max() < 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "resnet18"}, "model.name must be one of mlp_autoencoder, conv_auto"),
        ({"model.options": {"width": 3}}, "has no option width; choose from"),
        ({"latent_sizes": ()}, "latent_sizes must be one or more different numbers"),
        ({"latent_sizes": (4, 4)}, "latent_sizes must be one or more different numbers"),
        ({"latent_sizes": (4, 0)}, r"latent_sizes must be whole numbers >= 1, got \(4, 0\)"),
        ({"guidances": ()}, "guidances must be one or more different numbers"),
        ({"guidances": (0.0, -0.01)}, "guidances must be finite and >= 0"),
        ({"guidances": (0.0, float("nan"))}, "guidances must be finite and >= 0"),
        ({"closed_form.weights": ()}, "closed_form.weights must be one or more"),
        ({"closed_form.weights": (0.0, 1.0)}, "closed_form.weights must be finite and > 0"),
        ({"closed_form.precision": "bfloat16"}, "closed_form.precision must be one of float32"),
        ({"closed_form.image_size": -1}, "closed_form.image_size must be at least 0"),
        ({"probe.hidden": ()}, "number of hidden layers=0 must be"),
        ({"probe.regularization": -1.0}, "probe.regularization must be at least 0"),
        ({"probe.max_iterations": 0}, "probe.max_iterations must be at least 1"),
        ({"train.clip_norm": 1.0}, "train.clip_norm must be 0, got 1.0"),
        ({"train.epochs": 0}, "train.epochs must be at least 1"),
        ({"train.augment": "cutmix"}, "train.augment must be one of none"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    config = small()
    with config.unlocked():
        for field, value in changes.items():
            *parents, leaf = field.split(".")
            target = config[parents[0]] if parents else config
            target[leaf] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message):
        guidance.run(config, tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.batch_size": 256}, "train.batch_size=256 is more than the 200 training images"),
        ({"data.image_size": 128}, "D = 16,384 .* set closed_form.image_size"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        guidance.run(small(**changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    guidance.validate(recipe.get_config(variant))
    guidance.validate(guidance.smoke(recipe.get_config(variant)))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu"):
        recipe.get_config("imagenet22k")
