import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import scale_detection as recipe
from experiments import scale_detection, scale_measures, scale_runs
from experiments.nets import nets_of
from recon_jax import data, diffeo
from recon_jax.diffeo import depth_laws
from recon_jax.diffeo import scale_detection as tasks


def small(variant="", **changes):
    config = scale_detection.smoke(recipe.get_config(variant))
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def batch(labels, mask=None):
    labels = np.asarray(labels, np.int32)
    mask = np.ones(len(labels), bool) if mask is None else np.asarray(mask)
    return data.Batch(np.zeros((len(labels), 1, 1, 1), np.float32), labels, mask)


def test_the_hinge_loss_of_near_and_far():
    outputs = jnp.array([[2.0], [0.5], [-0.25], [-3.0], [0.0], [9.0]])
    found = scale_runs.judged(outputs, batch([1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0]), alpha=0.5)
    # Margins 2, -0.5, 0.25, -3, 0: an output of 0 is an error.
    np.testing.assert_allclose(found["hinge"], [(0 + 1.5 + 0.75 + 4 + 1) / 0.5, 5])
    np.testing.assert_allclose(found["accuracy"], [2, 5])


def test_the_ridge_is_a_weight_decay_and_rates_grow_with_the_width():
    config = small(ridge=0.03, **{"train.weight_decay": 0.5, "train.learning_rate": 0.01})
    (net,) = nets_of(config)
    model = scale_runs.make_net(config, net)
    options = scale_runs.training_options(config, net)
    assert (model.width, model.depth) == (8, 3)
    assert options.learning_rate == pytest.approx(0.08)
    kernel = jnp.arange(1.0, 4)
    gradient = jax.grad(lambda w: 0.03 * jnp.square(w).sum() / (8 * 3))(kernel)
    np.testing.assert_allclose((options.weight_decay - 0.5) * kernel, gradient, rtol=1e-6)
    # Networks in two dimensions are left alone, but for their own changes.
    square = small("task2d_cpu", **{"train.learning_rate": 0.01})
    first, second = nets_of(square)
    assert scale_runs.training_options(square, first).learning_rate == 0.01
    changed = second._replace(changes={"learning_rate": 0.2})
    assert scale_runs.training_options(square, changed).learning_rate == 0.2


@pytest.mark.parametrize("variant", ["task1_cpu", "task2_cpu", "task2d_cpu"])
def test_images_are_those_of_the_pairs(variant, tmp_path):
    config = small(variant)
    context = scale_runs.open_data(config, tmp_path)
    train, test = scale_runs.list_pairs(config)
    render = tasks.render_2d if variant == "task2d_cpu" else tasks.render_1d
    for source, pairs in ((context.train, train), (context.test, test)):
        images, labels = source.read(np.arange(source.num_images))
        expected = np.asarray(render(pairs.sites, 16))
        np.testing.assert_array_equal(images, expected.reshape(images.shape))
        np.testing.assert_array_equal(labels, pairs.labels == 1)
    assert context.train.label_names == ("far", "near")
    assert len(context.probes.images) == 20
    expected = np.asarray(render(test.sites[:20], 16))
    np.testing.assert_array_equal(context.probes.images, expected)
    if variant == "task2_cpu":  # no pixel leaves its block
        blocks = [
            np.asarray(images).reshape(20, 2, 8).sum(-1)
            for images in (context.probes.images, context.probes.deformed)
        ]
        np.testing.assert_allclose(*blocks, rtol=1e-6)


def test_measures_are_those_of_the_layers(tmp_path):
    context = scale_runs.open_data(small("task1_cpu"), tmp_path)
    (net,) = nets_of(context.config)
    model = scale_runs.make_net(context.config, net)
    variables = jax.jit(model.init)(jax.random.key(0), context.probes.images)
    found = scale_measures.measure_states(context, model, [("trained", variables)])
    assert set(found) == {"trained", "trained, channel mean"}
    apply = jax.jit(lambda x: model.apply(variables, x, mutable=["intermediates"])[1])
    parts = [apply(x)["intermediates"]["conv2"]["output"] for x in context.probes]
    for name, rows in (
        ("trained", parts),
        ("trained, channel mean", [part.mean(-1) for part in parts]),
    ):
        expected = diffeo.sensitivities(*rows)
        np.testing.assert_allclose(found[name][:, 1], expected, rtol=1e-4)


def test_the_constant_mode_of_filters():
    rng = np.random.default_rng(0)
    params = {
        "conv1": {"kernel": np.ones((5, 3, 2)) * rng.standard_normal((1, 3, 2))},
        "conv2": {"kernel": np.array([1.0, -1.0])[:, None, None] * np.ones((1, 4, 4))},
        "deep": {"conv": {"kernel": rng.standard_normal((3, 3, 60, 60)), "bias": np.ones(60)}},
        "point": {"conv": {"kernel": np.ones((1, 1, 4, 4))}},
        "head": {"kernel": np.ones((4, 4))},
    }
    found = scale_measures.constant_fractions(params)
    assert list(found) == ["conv1", "conv2", "deep"]
    assert found["conv1"] == pytest.approx(1, abs=1e-6)
    assert found["conv2"] == pytest.approx(0, abs=1e-6)
    assert found["deep"] == pytest.approx(1 / 9, rel=0.1)


def test_predictions_are_the_laws_of_constant_filters():
    config = small("task2_cpu")
    (net,) = nets_of(config)
    found = scale_detection.predict(scale_runs.make_net(config, net))
    expected = depth_laws.exact(3, 2, 2, rectified=True)
    np.testing.assert_array_equal(found.curves, np.stack(expected))
    assert (found.filter_size, found.stride) == (2, 2)
    odd = net._replace(options={**net.options, "filter_size": 4})
    assert scale_detection.predict(scale_runs.make_net(config, odd)) is None
    square = small("task2d_cpu")
    lenet = scale_runs.make_net(square, nets_of(square)[0])
    assert scale_detection.predict(lenet) is None


LINE_NET = ("circular CNN", "circular_cnn", {"width": 8}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.name": "task3"}, "task.name must be one of task1, task2, task2d, got 'task3'"),
        ({"task.size": 3}, "size=3 must be an integer"),
        ({"task.scale": 12}, r"scale=12 must be an integer in 2 .. 8"),
        ({"task.name": "task2", "task.scale": 5}, "scale=5 does not divide size=16"),
        ({"task.gap": 3}, "leaves 0 near and 24 far pairs"),
        ({"task.train_pairs": 200}, "the smaller one has 48; ask for at most 96"),
        ({"task.test_pairs": 7, "measure.pairs": 4}, "num_test=7 must be an even number"),
        ({"measure.pairs": 50}, "measure.pairs=50 are some of the task.test_pairs=40"),
        ({"measure.pairs": 2}, "measure.pairs must be at least 4"),
        ({"measure.seed": -1}, "measure.seed must be at least 0"),
        ({"ridge": -0.1}, "ridge must be at least 0"),
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"nets": ()}, r"nets must be one or more with different names, got \[\]"),
        ({"nets": (LINE_NET, LINE_NET)}, "nets must be one or more with different names"),
        (
            {"nets": (("a", "circular_cnn", {"breadth": 3}, {}),)},
            "net 'a': .* unexpected keyword argument 'breadth'",
        ),
        (
            {"nets": (("a", "circular_cnn", {"width": 0}, {}),)},
            "width=0 must be an integer of at least 1",
        ),
        ({"nets": (("a", "vgg11", {}, {}),)}, "model 'vgg11' of net 'a' does not fit task.name="),
        (
            {"nets": (("a", "circular_cnn", {}, {"rate": 1}),)},
            "nets: a changes rate, which train has not; choose from ",
        ),
        (
            {"nets": (("a", "circular_cnn", {}, {"optimizer": "newton"}),)},
            "net 'a': train.optimizer must be one of",
        ),
        ({"train.batch_size": 64}, "batch_size=64 is more than the 40 training images"),
        (
            {"nets": (("a", "circular_cnn", {"depth": 6}, {}),)},
            "layer 5 sees 1 site",
        ),
    ],
)
def test_bad_config_is_refused_before_training(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("trained in spite of a bad config")

    monkeypatch.setattr(scale_measures, "run_net", forbidden)
    with pytest.raises(ValueError, match=message):
        scale_detection.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    scale_runs.validate(config)
    scale_runs.list_pairs(config)
    scale_runs.validate(scale_detection.smoke(config))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of task1_cpu, task2_cpu, task2d_cpu, task1"):
        recipe.get_config("task3")


def results_without_times(workdir):
    results = json.loads((workdir / "results.json").read_text())
    return {key: results[key] for key in ("summary", "runs")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "killed"), [("task2_cpu", "circular-cnn-seed1"), ("task2d_cpu", "vgg11bn-seed1")]
)
def test_a_run_and_its_resumption(variant, killed, tmp_path):
    first, copy = tmp_path / "first", tmp_path / "copy"
    config = small(variant)
    scale_detection.run(config, first, [0, 1])
    for name in ("report.html", "tables/claims.md", "tables/layers.csv", "figures/depth.png"):
        assert (first / name).stat().st_size > 100
    shutil.copytree(first, copy)
    # As if killed in the middle of a training.
    for cached in (copy / "cache").glob(f"{killed}-*.npz"):
        cached.unlink()
    steps = (copy / "runs" / killed / "checkpoints").glob("[0-9]*")
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    scale_detection.run(config, copy, [0, 1])
    assert results_without_times(copy) == results_without_times(first)
    assert (copy / "metrics.jsonl").read_bytes() == (first / "metrics.jsonl").read_bytes()
