import json
import shutil

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from configs import diffeo_stability as recipe
from experiments import diffeo_stability, stability_runs, trained
from experiments.nets import nets_of, train_options
from recon_jax import augment, data, diffeo


def small(variant="", **changes):
    config = diffeo_stability.smoke(recipe.get_config(variant))
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return stability_runs.open_data(small(), tmp_path_factory.mktemp("run"))


def all_of(source):
    return source.read(np.arange(source.num_images))


def test_pixels_are_normalised_by_channel(context):
    images = all_of(context.train)[0]
    assert images.dtype == np.float32
    assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
    assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)
    # Test images by the same numbers: the same map takes both back to their pixels.
    config = small()
    train, test = trained.open_splits(config)
    pixels, normalised = all_of(train)[0] / 255, all_of(context.train)[0]
    slope, shift = np.polyfit(normalised.ravel(), pixels.ravel(), 1)
    assert_allclose(all_of(context.test)[0] * slope + shift, all_of(test)[0] / 255, atol=1e-5)


def test_channels_have_numbers_of_their_own():
    images = np.random.default_rng(0).normal((1, 2, 3), (0.1, 0.2, 0.5), (50, 4, 5, 3))
    source = data.from_arrays(images, np.zeros(50, np.int32))
    found = stability_runs.by_channel(source)
    assert_allclose(found.mean[2, 3], images.mean((0, 1, 2)), rtol=1e-6)
    assert_allclose(found.scale, images.std((0, 1, 2)), rtol=1e-6)
    flat = data.from_arrays(images * np.array([1, 0, 1]), np.zeros(50, np.int32))
    with pytest.raises(ValueError, match="has one value in all training images"):
        stability_runs.by_channel(flat)


def test_probes_are_test_images_and_changes_of_one_norm(context):
    images, deformed, noisy = map(np.asarray, context.probes)
    assert len(images) == 40
    rows = {image.tobytes() for image in all_of(context.test)[0]}
    assert {image.tobytes() for image in images} < rows
    norms = [np.linalg.norm((part - images).reshape(40, -1), axis=1) for part in (deformed, noisy)]
    assert_allclose(*norms, rtol=1e-4)
    assert min(norms[0]) > 0
    again = stability_runs.draw_probes(context.config, context.test)
    assert_array_equal(again.noisy, noisy)


def test_noise_has_the_norm_of_its_name(context):
    keys = jax.random.split(jax.random.key(3), 80)
    images = all_of(context.train)[0][:80]
    policy = stability_runs.with_noise(augment.no_augmentation(), 10.0)
    noise = np.asarray(policy(keys, images)) - images
    norms = np.linalg.norm(noise.reshape(80, -1), axis=1)
    assert_allclose(norms.mean(), 10, rtol=0.02)
    assert np.unique(norms).size == 80
    assert_array_equal(policy(keys[:3], images[:3]), images[:3] + noise[:3])
    plain = augment.no_augmentation()
    assert stability_runs.with_noise(plain, 0.0) is plain


def test_noise_comes_after_the_augmentation_and_from_keys_of_its_own(context):
    keys, images = jax.random.split(jax.random.key(0), 9), all_of(context.train)[0][:9]
    crop = augment.crop_flip(context.train.image_shape)
    first, second = np.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    noise = [jax.random.normal(key, images.shape[1:], np.float32) for key in second]
    expected = crop(first, images) + 10 / images[0].size ** 0.5 * np.stack(noise)
    found = stability_runs.with_noise(crop, 10.0)(keys, images)
    assert_allclose(found, expected, atol=1e-4)


def test_noisy_test_images_are_the_same_whatever_is_read(context):
    source = stability_runs.noisy_source(context.test, 10.0)
    whole, labels = all_of(source)
    assert_array_equal(labels, all_of(context.test)[1])
    assert_array_equal(source.read(np.array([7, 3]))[0], whole[[7, 3]])
    norms = np.linalg.norm((whole - all_of(context.test)[0]).reshape(80, -1), axis=1)
    assert_allclose(norms.mean(), 10, rtol=0.02)


def test_networks_with_noise_come_after_all_others():
    config = small(noise_nets=("lenet", "fc2"), noise_stds=(10.0, 0.1))
    names = [cell.name for cell in stability_runs.cells_of(config)]
    assert names == [
        "fc2", "lenet", "alexnet",
        "lenet-noise10", "lenet-noise0.1", "fc2-noise10", "fc2-noise0.1",
    ]  # fmt: skip


def test_networks_change_fields_of_training():
    config = recipe.get_config()
    nets = {net.name: net for net in nets_of(config)}
    assert train_options(config, nets["vgg11_bn"]).optimizer == "sgd"
    dense = train_options(config, nets["fc4"])
    assert (dense.optimizer, dense.schedule, dense.weight_decay) == ("adam", "constant", 0)
    assert dense.epochs == config.train.epochs
    assert config.train.optimizer == "sgd"


def test_kernels_come_in_the_order_of_the_computation():
    params = {
        name: {"conv": {"kernel": np.full((side, side, 1, 2), value, np.float32)}}
        for name, side, value in (("a", 3, 1.0), ("b", 3, 2.0), ("c", 5, 1.0), ("z", 3, 3.0))
    }
    found = stability_runs.spectra_of(params, ["z", "b", "pool", "c", "a", "logits"])
    assert list(found["kernels"]) == ["z/conv", "b/conv", "a/conv"]
    # A constant filter w has energy 9 w^2 in the constant mode alone.
    assert_allclose(found["spectra"], np.outer([81, 36, 9], np.eye(9)[0]), atol=1e-4)
    assert_allclose(found["modes"], [0, 1, 1, 2, 3, 3, 4, 4, 6], atol=1e-12)


def net(**changes):
    fields = {"name": "a", "model": "lenet", "options": {}, "changes": {}, **changes}
    return tuple(fields.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nets": ()}, "nets must be one or more of different names"),
        ({"nets": (net(), net())}, r"nets must be one or more of different names, got \['a', 'a'"),
        ({"nets": (net(model="lenet6"),)}, "model of a in nets must be one of mlp, lenet"),
        ({"nets": (net(options={"depth": 3}),)}, "model 'lenet' has no option depth"),
        ({"nets": (net(changes={"rate": 1.0}),)}, "nets: a changes rate, which train has not"),
        ({"nets": (net(changes={"epochs": 0}),)}, "train of a.epochs must be at least 1, got 0"),
        ({"noise_nets": ("resnet18",)}, "noise_nets must be one of fc2, lenet, alexnet"),
        ({"noise_nets": ("lenet", "lenet")}, "noise_nets must differ"),
        ({"noise_stds": (1.0, 1.0)}, "noise_stds must differ"),
        ({"noise_stds": (0.0, 1.0)}, "noise_stds must be above 0 and finite, got 0.0"),
        ({"measure.images": 1}, "measure.images must be at least 2, got 1"),
        ({"measure.cutoff": 1}, "measure.cutoff must be at least 2, got 1"),
        ({"measure.displacement": 0.0}, "measure.displacement must be above 0"),
        ({"measure.interpolation": "cubic"}, "measure.interpolation must be one of bilinear"),
        ({"shuffles": 0}, "shuffles must be at least 1"),
        ({"train.half_period": 0.0}, "half_period=0.0 must lie in"),
        ({"train.epochs": 0}, "train.epochs must be at least 1"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        diffeo_stability.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure.images": 90}, "measure.images=90 is more than the 80 test images"),
        ({"nets": (net(options={"pad_to": 0}),), "data.image_size": 8, "noise_nets": ()}, "small"),
        ({"train.batch_size": 500}, "train.batch_size=500 is more than the 200 training images"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        diffeo_stability.run(small(**changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    diffeo_stability.validate(config)
    diffeo_stability.validate(diffeo_stability.smoke(config))


def test_the_full_recipe_has_fifteen_networks():
    assert len(nets_of(recipe.get_config("cifar10"))) == 15
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu, cifar10"):
        recipe.get_config("svhn")


@pytest.mark.slow
def test_a_network_that_died_has_no_sensitivities(context):
    # Its biases alone decide: all images make the same features.
    [cell] = [cell for cell in stability_runs.cells_of(context.config) if cell.name == "fc2"]
    trainer = stability_runs.make_trainer(context, cell)
    state = trainer.init(0)
    variables = {
        "params": jax.tree.map(lambda leaf: 0 * leaf, state.params),
        "batch_stats": state.batch_stats,
    }
    found = stability_runs.make_measure(context, cell.net)(variables)
    assert list(found["layers"]) == ["hidden1", "hidden2", "logits"]
    assert np.isnan(found["mean"]).all()
    assert found["mean"].shape == (3, 3)
    assert np.isnan(found["median"]).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, diffeo_stability.run(small(), workdir, [0, 1])


@pytest.mark.slow
def test_every_output_is_there(finished):
    workdir, results = finished
    for name in (
        "report.html", "results.json", "tables/claims.md", "tables/networks.csv",
        "figures/error.png", "figures/depth.pdf", "figures/filters.png",
    ):  # fmt: skip
        assert (workdir / name).stat().st_size > 100
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["net"], line["noise"], line["seed"]) for line in lines] == [
        (name, noise, seed)
        for name, noise in (("fc2", 0), ("lenet", 0), ("alexnet", 0), ("lenet", 10))
        for seed in (0, 1)
    ]
    for line in lines:
        assert 0 <= line["error"] <= 100
        assert (line["noisy_error"] is None) == (line["noise"] == 0)
        assert len(line["trained_D"]) == len(line["layers"])
        assert ("shuffled_D" in line) == (line["net"] != "fc2" and not line["noise"])
        assert_allclose(
            line["trained_R"], np.divide(line["trained_D"], line["trained_G"]), rtol=1e-5
        )
    assert len(results["claims"]) == 9


@pytest.mark.slow
def test_the_measured_network_is_the_trained_one(finished):
    workdir, results = finished
    context = stability_runs.open_data(small(), workdir)
    [cell] = [cell for cell in stability_runs.cells_of(context.config) if cell.name == "lenet"]
    trainer, identity = (
        make(context, cell) for make in (stability_runs.make_trainer, stability_runs.identity_of)
    )
    folder = workdir / "runs" / "lenet-seed1"
    state, _ = trained.train(trainer, context.train, 1, folder, identity)

    def logits(params):
        return [np.asarray(trainer.model.apply({"params": params}, x)) for x in context.probes]

    [line] = [
        run for run in results["runs"] if (run["net"], run["noise"], run["seed"]) == ("lenet", 0, 1)
    ]
    for name, params in (("trained", state.params), ("initial", trainer.init(1).params)):
        for reduce, field in (("mean", lambda v: v[-1]), ("median", lambda v: v)):
            suffix = "" if reduce == "mean" else "_median"
            expected = diffeo.sensitivities(*logits(params), reduce=reduce)
            found = [field(line[f"{name}_{letter}{suffix}"]) for letter in "DGR"]
            assert_allclose(found, expected, rtol=1e-3)
    images, labels = all_of(context.test)
    wrong = np.argmax(trainer.model.apply({"params": state.params}, images), 1) != labels
    assert_allclose(line["error"], 100 * wrong.mean(), rtol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_numbers(finished, tmp_path):
    workdir, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    # As if killed in the middle of a training.
    for cached in (copy / "cache").glob("lenet-noise10-seed1-*.npz"):
        cached.unlink()
    steps = (copy / "runs" / "lenet-noise10-seed1" / "checkpoints").glob("[0-9]*")
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    again = diffeo_stability.run(small(), copy, [0, 1])
    assert again["summary"] == first["summary"]
    assert (copy / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()
