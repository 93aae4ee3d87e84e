import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from configs import downstream_transfer as recipe
from experiments import downstream_transfer
from recon_jax import multiview


def small(**changes):
    config = downstream_transfer.smoke(recipe.get_config())
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.dim": 11}, "dim=11 cannot hold 8 features of pretraining and 4 downstream"),
        ({"data.num_train": 0}, "data.num_train must be at least 1, got 0"),
        ({"downstream.num_train": 0}, "downstream.num_train must be at least 1, got 0"),
        ({"downstream.num_classes": 0}, "downstream.num_classes must be at least 1, got 0"),
        ({"downstream.num_classes": 3}, "the 8 kernels of the encoder are not a multiple"),
        ({"network.keep": 2.0}, r"network.keep=2.0 must lie in \(0, 1\]"),
        ({"encoder_rate": 0.0}, "encoder_rate must be above 0, got 0.0"),
        ({"overlaps": ()}, "overlaps must be one or more that differ"),
        ({"overlaps": (0.5, 0.5)}, "overlaps must be one or more that differ"),
        ({"overlaps": (1.5,)}, r"overlap=1.5 must lie in \[0, 1\]"),
        ({"overlaps": (0.3,)}, "overlap=0.3 of 4 downstream features is no whole number"),
        ({"data.num_classes": 2}, "shares 4 of 4 downstream features, but 2 pretraining"),
    ],
)
def test_bad_config_is_refused_before_anything_is_computed(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("computed in spite of a bad config")

    monkeypatch.setattr(downstream_transfer, "_study", forbidden)
    with pytest.raises(ValueError, match=message):
        downstream_transfer.run(small(**changes), tmp_path, [0])
    assert not list(tmp_path.iterdir())


def test_every_variant_is_valid():
    for variant in recipe.VARIANTS:
        downstream_transfer.validate(recipe.get_config(variant))
        downstream_transfer.validate(downstream_transfer.smoke(recipe.get_config(variant)))
    with pytest.raises(ValueError, match="seeds must differ"):
        downstream_transfer.run(small(), None, [1, 1])
    with pytest.raises(ValueError, match="choose one of default, relearning"):
        recipe.get_config("imagenet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("transfer")
    with jax.enable_x64(False):
        return workdir, downstream_transfer.run(small(), workdir, [3, 0])


@pytest.mark.slow
def test_every_output_is_there_and_is_read_again(finished, monkeypatch):
    workdir, results = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {f"tables/{n}.{e}" for n in ("transfer", "claims") for e in ("md", "csv", "tex")}
    wanted |= {"figures/transfer.png", "figures/transfer.pdf", "report.html", "results.json"}
    assert wanted <= names
    assert len(results["runs"]) == 2 * 2 * 6
    note = (workdir / "tables" / "transfer.md").read_text()
    for word in ("smoke run", "seeds 3, 0.", "not published here"):
        assert word in note

    def forbidden(*args, **kwargs):
        raise AssertionError("computed again what the workdir holds")

    monkeypatch.setattr(downstream_transfer, "_study", forbidden)
    before = (workdir / "metrics.jsonl").read_bytes()
    assert downstream_transfer.run(small(), workdir, [3, 0])["summary"] == results["summary"]
    assert (workdir / "metrics.jsonl").read_bytes() == before
    with pytest.raises(AssertionError, match="computed again"):
        downstream_transfer.run(small(**{"overlaps": (0.0, 0.5)}), workdir, [3, 0])


@pytest.mark.slow
def test_numbers_are_what_the_library_makes_of_the_draws(finished):
    workdir, results = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    spec, downstream = downstream_transfer.make_specs(small())
    assert (spec.num_classes, downstream.num_classes) == (4, 2)
    with jax.enable_x64(False):
        feature, image, kernel, few, _, single = jax.random.split(jax.random.key(0), 6)
        features = multiview.sample_transfer_features(feature, spec, downstream, 1.0)
        seen = multiview.sample_multiview(image, spec, features.pretraining, 20)
        start = multiview.init_kernels(kernel, 8, spec.dim)
        masked = multiview.pretrain(start, seen.patches, 0.5, steps=5).kernels
        supervised = multiview.train_supervised(
            start, seen.patches, seen.labels, 4, max_steps=5
        ).kernels
        images = multiview.sample_multiview(few, downstream, features.downstream, 10)
        assert set(np.asarray(images.views)) == {multiview.BOTH_VIEWS}
        labelled = (images.patches, images.labels, 2)
        tests = multiview.sample_multiview(single, downstream, features.downstream, 20, 1.0)
        ways = {
            "pretrained": multiview.finetune(masked, *labelled, steps=5),
            "pretrained_frozen": multiview.train_head(masked, *labelled, steps=5),
            "transferred": multiview.finetune(supervised, *labelled, steps=5),
            "scratch": multiview.train_supervised(start, *labelled, max_steps=5),
            "random_tuned": multiview.finetune(start, *labelled, steps=5),
            "random_frozen": multiview.train_head(start, *labelled, steps=5),
        }
        for name, trained in ways.items():
            scores = multiview.class_scores(trained.kernels, trained.head, tests.patches)
            accuracy = 100 * np.mean(np.argmax(scores, 1) == tests.labels)
            [line] = [x for x in lines if (x["method"], x["seed"], x["overlap"]) == (name, 0, 1)]
            assert_allclose(line["single"], accuracy, atol=1e-4)
            covered = multiview.aligned(trained.kernels, features.downstream)
            assert_allclose(line["after"], covered.mean(), atol=1e-6)
        before = multiview.aligned(masked, features.downstream)
        after = multiview.aligned(ways["pretrained"].kernels, features.downstream)
        [line] = [
            x for x in lines if (x["method"], x["seed"], x["overlap"]) == ("pretrained", 0, 1)
        ]
        assert before.any()
        assert_allclose(line["before"], before.mean(), atol=1e-6)
        assert_allclose(line["kept"], (before & after).sum() / before.sum(), atol=1e-6)
    covered = results["covered"]["pretraining"][1]
    assert_allclose(covered, multiview.aligned(masked, features.pretraining).mean(), atol=1e-6)
