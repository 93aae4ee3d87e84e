import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mask_sweep as recipe
from experiments import mask_sweep, masked_runs
from recon_jax import data, probes, spectral, training


def small(**changes):
    config = mask_sweep.smoke(recipe.get_config())
    config.corruptions = (
        ("identity",), ("gaussian", 0.5), ("patch_subset", 0.75, 4), ("grid_mask", 2, 4)
    )  # fmt: skip
    config.data.train_limit, config.data.test_limit, config.data.image_size = 80, 40, 8
    config.train.epochs, config.train.warmup_steps, config.model.patch_size = 1, 0, 2
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    with jax.enable_x64(False):
        return masked_runs.open_data(small(), tmp_path_factory.mktemp("run"))


def test_predictions_are_those_of_the_library(context):
    found = mask_sweep.predict(context)
    pixels, labels = data.open_source("embedded", image_size=8, limit=80).read(np.arange(80))
    normalized = data.normalize(context.normalization, pixels).reshape(80, -1)
    with jax.enable_x64(True):
        moments = spectral.stream_moments([(normalized.astype(np.float64), labels)], 10)
        for spec in context.config.corruptions:
            corruption = spectral.make_corruption(spec, (8, 8, 1))
            curve = spectral.alignment_curve(moments, corruption)
            # The moments of 8-bit pixels scaled, against those of pixels normalised in float32.
            np.testing.assert_allclose(found[str(spec)]["alignment"], curve, atol=2e-4)
    neutral = {spec: bool(found[str(spec)]["is_neutral"]) for spec in context.config.corruptions}
    assert neutral == {
        ("identity",): True, ("gaussian", 0.5): True,
        ("patch_subset", 0.75, 4): False, ("grid_mask", 2, 4): False,
    }  # fmt: skip


def test_read_outs_of_pixels_are_the_probes(context):
    with jax.enable_x64(False):
        found = masked_runs.read_out_pixels(context)
        seen, unseen = (
            (data.normalize(context.normalization, pixels).reshape(len(pixels), -1), labels)
            for pixels, labels in (
                split.read(np.arange(split.num_images)) for split in (context.train, context.test)
            )
        )
        fitted, _ = probes.logistic_probe(*seen, 10, regularization=1e-3, max_iterations=300)
        predicted = np.asarray(fitted.logits(unseen[0])).argmax(1)
    accuracy = 100 * np.mean(predicted == unseen[1])
    assert float(found["linear_probe"]) == pytest.approx(accuracy, abs=1e-4)
    assert 20 < float(found["knn"]) < 100


def test_features_are_pooled_tokens_of_whole_images(context):
    tokens = np.random.default_rng(0).standard_normal((3, 1 + 16, 16)).astype(np.float32)
    seen = []

    class Model:
        def apply(self, variables, images, method):
            seen.append((variables, np.asarray(images), method))
            return jnp.asarray(tokens)

    pixels = context.test.read(np.arange(3))[0]
    mean = masked_runs.make_encoder(context, Model())("variables", pixels)
    np.testing.assert_allclose(mean, tokens[:, 1:].mean(1), rtol=1e-5)
    first = context._replace(config=small(**{"model.pooling": "class_token"}))
    found = masked_runs.make_encoder(first, Model())("variables", pixels)
    np.testing.assert_array_equal(found, tokens[:, 0])
    for variables, images, method in seen:
        assert (variables, method) == ("variables", "encode")
        np.testing.assert_allclose(
            images, data.normalize(context.normalization, pixels), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_every_output_is_there_and_the_same_command_trains_nothing(
    tmp_path, monkeypatch, rules_fit
):
    with jax.enable_x64(False):
        results = mask_sweep.run(small(), tmp_path / "run", [0, 1])
    names = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*")}
    wanted = {"report.html", "results.json", "config.json", "metrics.jsonl"}
    wanted |= {f"tables/{t}.{e}" for t in ("corruptions", "agreement") for e in ("md", "csv")}
    wanted |= {f"figures/{f}.png" for f in ("scatter", "corruptions")}
    wanted |= {f"runs/patch_subset-0.75-4-seed{s}/metrics.jsonl" for s in (0, 1)}
    assert wanted <= names
    rules_fit("mask_sweep_embedded", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1] * 4
    assert len(results["cells"]) == 4
    tables = {p.name: p.read_bytes() for p in (tmp_path / "run/tables").glob("*.csv")}

    def forbidden(*args, **kwargs):
        raise AssertionError("a finished run was computed again")

    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    monkeypatch.setattr(training, "fit", forbidden)
    monkeypatch.setattr(spectral, "survey", forbidden)
    with jax.enable_x64(False):
        again = mask_sweep.run(small(), tmp_path / "copy", [0, 1])
    assert again["summary"] == results["summary"]
    for path in (tmp_path / "copy/tables").glob("*.csv"):
        assert path.read_bytes() == tables[path.name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corruptions": (("identity",), ("gaussian", 1.0))}, "must hold four or more"),
        ({"corruptions": (("gaussian", 1.0),) * 4}, "must hold four or more, each once"),
        (
            {"corruptions": tuple(("gaussian", s) for s in (0.1, 0.2, 0.3, 0.4))},
            r"must hold \('identity',\)",
        ),
        ({"rank": 0}, "rank and ranks must be 1 or more"),
        ({"rank": 7}, "ranks must hold rank=7"),
        ({"model.pooling": "max"}, "model.pooling must be one of class_token, mean, got 'max'"),
        ({"targets": "edges"}, "targets must be one of pixels, normalized, got 'edges'"),
        ({"probe.num_neighbors": 0}, "probe.num_neighbors must be at least 1, got 0"),
        ({"precision": "float16"}, "precision must be one of float32, float64, got 'float16'"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(ValueError, match=message):
        mask_sweep.validate(small(**changes))


def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path):
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="patch_size=3 does not divide image height 8"):
            masked_runs.open_data(small(**{"model.patch_size": 3}), tmp_path)
        with pytest.raises(ValueError, match=r"ranks=\(4, 16, 65\) exceed the 64 scalars"):
            mask_sweep.run(small(ranks=(4, 16, 65)), tmp_path, [0])


def test_unknown_variants():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu, cifar10"):
        recipe.get_config("imagenet")
