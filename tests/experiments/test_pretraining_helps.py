import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import pretraining_helps as recipe
from experiments import masked_finetuning, masked_runs, pretraining_helps, pretraining_runs, trained
from experiments.pretraining_runs import Cell
from recon_jax import data, training
from recon_jax.multiview import activation_maps


def small(variant="", **changes):
    config = pretraining_helps.smoke(recipe.get_config(variant))
    config.data.train_limit, config.data.test_limit = 80, 40
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    config = small(**{"data.image_size": 8})
    return masked_runs.open_data(config, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def labels(context):
    return pretraining_runs.labels_of(context.train)


def test_labelled_images_are_balanced_nested_and_drawn_by_the_seed(context, labels):
    rows = {
        fraction: pretraining_runs.labelled_rows(context.train, labels, fraction, 3)
        for fraction in (0.125, 0.5, 1.0)
    }
    assert [len(found) for found in rows.values()] == [10, 40, 80]
    for found in rows.values():
        np.testing.assert_array_equal(np.bincount(labels[found]), len(found) // 10)
    assert set(rows[0.125]) < set(rows[0.5]) < set(rows[1.0])
    other = pretraining_runs.labelled_rows(context.train, labels, 0.5, 4)
    assert set(other) != set(rows[0.5])


def test_a_share_without_an_image_of_each_class_is_refused(context, labels):
    with pytest.raises(ValueError, match=r"fractions=0.01 of 80 .* take 0.12 or more"):
        pretraining_runs.labelled_rows(context.train, labels, 0.01, 0)


def test_the_long_run_is_as_long_as_both_others(context):
    makers = pretraining_runs.make_makers(context)
    plans = [getattr(makers, name)().plan for name in ("pretraining", "short", "long")]
    assert [plan.total for plan in plans] == [4, 4, 8]
    assert makers.scratch is makers.short
    decayed = context._replace(config=small(**{"finetuning.layer_decay": 0.5}))
    makers = pretraining_runs.make_makers(decayed)
    assert makers.scratch().options.layer_decay == makers.long().options.layer_decay == 0
    assert makers.short().options.layer_decay == 0.5
    assert context.config.finetuning.epochs == 2


@pytest.fixture(scope="module")
def model(context):
    return masked_finetuning.make_classifier(
        context.config, "finetuning", context.train.image_shape, 10
    )


@pytest.fixture(scope="module")
def variables(context, model):
    shape = (1, *context.train.image_shape)
    found = jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.float32))
    # A head whose logits differ.
    kernel = 0.5 * jax.random.normal(jax.random.key(1), found["params"]["head"]["kernel"].shape)
    head = {"kernel": kernel.astype(np.float32), "bias": found["params"]["head"]["bias"]}
    return {"params": {**found["params"], "head": head}, "batch_stats": {}}


def test_networks_are_asked_about_test_images_as_they_see_them(context, model, variables):
    found = pretraining_runs.make_look(context)(variables)
    rows = pretraining_runs.look_rows(context)
    pixels = context.test.read(rows)[0]
    images = np.asarray(data.normalize(context.normalization, pixels))
    _, inside = model.apply(variables, images, mutable=["intermediates"])
    tokens = inside["intermediates"]["encoder"]["blocks"]["block1"]
    maps = activation_maps.eigen_cam(
        np.asarray(tokens)[:, 1:].reshape(8, 2, 2, 16), center=context.config.regions.center
    )
    np.testing.assert_allclose(found["maps"], maps, atol=1e-3)
    # Every part by hand for the first image.
    order = np.argsort(-found["maps"][0].ravel(), kind="stable")
    scores, image = [], images[0]
    for count in range(5):
        shown = np.full_like(image, image.mean())
        for region in order[:count]:
            i, j = 4 * (region // 2), 4 * (region % 2)
            shown[i : i + 4, j : j + 4] = image[i : i + 4, j : j + 4]
        scores.append(np.asarray(model.apply(variables, shown[None]))[0])
    scores = np.array(scores)[:, np.argmax(scores[-1])] - np.mean(scores, 1)
    held = scores >= 0.9 * scores[-1]
    assert found["needed"][0] == max([r + 1 for r in range(5) if not held[r]], default=0)
    assert found["needed"].shape == found["pieces"].shape == found["unordered"].shape == (8,)
    assert (found["pieces"] <= found["needed"]).all()
    assert (found["pieces"] <= 2).all()
    assert found["needed"].max() > 0


def test_a_network_that_diverged_sees_nothing(context, variables):
    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), variables)
    found = pretraining_runs.make_look(context)(broken)
    assert all(np.isnan(found[name]).all() for name in pretraining_runs.SEEN)
    np.testing.assert_array_equal(found["maps"], 0)


def test_what_is_asked_about_does_not_depend_on_the_seed(context):
    rows = pretraining_runs.look_rows(context)
    assert len(set(rows)) == 8
    np.testing.assert_array_equal(rows, np.sort(rows))
    with pytest.raises(ValueError, match=r"regions.images=50 is more than the 40 test images"):
        pretraining_runs.look_rows(context._replace(config=small(**{"regions.images": 50})))


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_fit_sees_labelled_images_and_starts_from_its_encoder(
    context, variables, labels, monkeypatch, tmp_path, pretrained
):
    started = {}

    def init(seed):
        params = jax.tree.map(lambda leaf: leaf + seed, variables["params"])
        return training.TrainState(params, {}, (), np.int32(0), jax.random.key(seed))

    def train(trainer, source, seed, folder, identity):
        state = trainer.init(seed)
        started.update(state=state, source=source, folder=folder, identity=identity)
        return state, 7.0

    monkeypatch.setattr(trained, "train", train)
    trainer = trained.Trainer(None, init, None, lambda *_: {"accuracy": 0.25}, None, None, None)
    encoder = jax.tree.map(lambda leaf: 0 * leaf - 3, variables["params"]["encoder"])
    method = "finetuned" if pretrained else "scratch"
    row = pretraining_runs.fit(
        context._replace(workdir=tmp_path),
        Cell(method, 0.5),
        2,
        lambda: trainer,
        lambda: lambda _: pretraining_runs.nothing_seen(8),
        "where from",
        (lambda: encoder) if pretrained else None,
    )
    assert (row["accuracy"], row["seconds"]) == (25, 7)
    assert started["folder"] == tmp_path / "runs" / f"{method}-0.5-seed2"
    assert (started["identity"]["labelled"], started["identity"]["encoder"]) == (0.5, "where from")
    found = started["source"]
    rows = pretraining_runs.labelled_rows(context.train, labels, 0.5, 2)
    expected = context.train.read(rows)
    for got, wanted in zip(found.read(np.arange(found.num_images)), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    for leaf in jax.tree.leaves(started["state"].params["encoder"]):
        assert (np.asarray(leaf) == -3).all() == pretrained
    np.testing.assert_allclose(
        started["state"].params["head"]["kernel"], variables["params"]["head"]["kernel"] + 2
    )


def test_rows_hold_what_was_found():
    def row(accuracy, seconds, pretraining):
        seen = {name: np.arange(3.0) + accuracy for name in pretraining_runs.SEEN}
        numbers = {"accuracy": accuracy, "seconds": seconds, "pretraining_seconds": pretraining}
        return {name: np.asarray(value) for name, value in numbers.items()} | seen

    found = {
        Cell("finetuned", 0.5): [row(1, 10, 100), row(2, 20, 200)],
        Cell("scratch", 0.5): [row(3, 30, 0), row(4, 40, 0)],
        Cell("finetuned", 1.0): [row(5, 50, 100), row(6, 60, 200)],
    }
    outcomes = pretraining_helps.gather(found, {0.5: 40, 1.0: 80})
    assert [(item.method, item.labels) for item in outcomes] == [
        ("finetuned", 40), ("scratch", 40), ("finetuned", 80)
    ]  # fmt: skip
    np.testing.assert_array_equal(outcomes[0].seconds, [110, 220])
    np.testing.assert_array_equal(outcomes[2].needed, [[5, 6, 7], [6, 7, 8]])
    assert pretraining_helps.seconds_of(found) == 210 + 300
    lines = pretraining_helps.records(found, [7, 8])
    assert lines[1] == {
        "method": "finetuned", "fraction": 0.5, "seed": 8, "accuracy": 2, "needed": 3,
        "pieces": 3, "unordered": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": ()}, "fractions must be one or more different ones"),
        ({"fractions": (0.1, 0.1)}, "fractions must be one or more different ones"),
        ({"fractions": (0.0, 1.0)}, r"fractions must lie in \(0, 1\], got 0.0"),
        ({"fractions": (10.0,)}, "got 10.0; 0.01 is 1 per cent"),
        ({"regions.images": 0}, "regions.images must be at least 1"),
        ({"regions.share": 0.0}, "regions.share must lie in"),
        ({"num_pictures": 0}, "num_pictures must be at least 1"),
        ({"targets": "latents"}, "targets must be one of pixels, normalized"),
        ({"finetuning.drop_path": 1.0}, "finetuning.drop_path must lie in"),
        ({"finetuning.warmup_epochs": 2.0}, "finetuning.warmup_epochs must be .* below"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        pretraining_helps.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": (0.125, 1.0)}, "finetuning.batch_size=40 is more than the 10 labelled"),
        ({"regions.images": 50}, "regions.images=50 is more than the 40"),
        ({"corruption": ("patch_subset", 0.0, 4)}, "a masked autoencoder needs 1 or more of both"),
        ({"finetuning.batch_size": 120}, "finetuning.batch_size=120 is more than the 80 training"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        pretraining_helps.run(small(**changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    pretraining_helps.validate(config)
    pretraining_helps.validate(pretraining_helps.smoke(config))
    assert recipe.get_config(variant).fractions == (0.01, 0.1, 1.0)


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu, cifar10"):
        recipe.get_config("imagenet")


def results_without_times(workdir: Path):
    results = json.loads((workdir / "results.json").read_text())
    return {key: results[key] for key in ("summary", "claims", "runs")}


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path):
    first, copy = tmp_path / "first", tmp_path / "copy"
    pretraining_helps.run(small(), first, [0, 1])
    for name in (
        "report.html", "tables/claims.md", "tables/accuracy.csv", "figures/accuracy.png",
        "figures/regions.pdf", "figures/maps.png",
    ):  # fmt: skip
        assert (first / name).stat().st_size > 100
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 5 * 2
    assert [line["fraction"] for line in lines] == [0.5] * 10 + [1.0] * 10
    for line in lines:
        assert 0 <= line["accuracy"] <= 100
        assert (line["needed"] is None) == line["method"].startswith("probe")
    probes = [line["accuracy"] for line in lines if line["method"] == "probe"]
    assert probes != [line["accuracy"] for line in lines if line["method"] == "probe_new"]
    shutil.copytree(first, copy)
    # As if killed in the middle of a fine-tuning and before the last probe.
    for name in ("finetuned-1-seed1", "probe-1-seed1", "scratch_long-0.5-seed1"):
        (cached,) = (copy / "cache").glob(f"{name}-*.npz")
        cached.unlink()
    steps = (copy / "runs/finetuned-1-seed1/checkpoints").glob("[0-9]*")
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    pretraining_helps.run(small(), copy, [0, 1])
    assert results_without_times(copy) == results_without_times(first)
    for name in ("metrics.jsonl", "figures/regions.png", "figures/maps.png", "tables/claims.csv"):
        assert (copy / name).read_bytes() == (first / name).read_bytes()
