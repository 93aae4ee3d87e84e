import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import masked_autoencoder as recipe
from configs.training import train_fields
from experiments import (
    masked_autoencoder,
    masked_finetuning,
    masked_pictures,
    masked_weights,
    trained,
)
from recon_jax import data, models, spectral, training

NORMALIZATION = data.Normalization("global", np.full((8, 8, 3), 0.4), 0.25)


def small(variant="", **changes):
    config = masked_autoencoder.smoke(recipe.get_config(variant))
    config.update_from_flattened_dict(changes)
    return config


def images(count=3, seed=0):
    return np.random.default_rng(seed).random((count, 8, 8, 3)).astype(np.float32)


class Knowing:
    """A masked autoencoder that knows the images, up to mean and variance of each patch."""

    patch_size, image_shape = 2, (8, 8, 3)

    def __init__(self, pixels, normalize, wrong=0.0):
        patches = models.patchify(jnp.asarray((pixels - 0.4) / 0.25), 2)
        if normalize:
            centred = patches - patches.mean(-1, keepdims=True)
            patches = centred / jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
        self.patches, self.wrong = patches, wrong

    def apply(self, variables, seen, kept):
        self.seen = np.asarray(seen)
        mask = np.zeros(self.patches.shape[:2], bool)
        if kept is not None:
            mask[:] = True
            np.put_along_axis(mask, np.asarray(kept), False, axis=1)
        return models.masked_autoencoder.MaskedAutoencoding(
            self.patches + self.wrong, jnp.asarray(mask), None
        )


@pytest.mark.parametrize("normalize", [True, False])
def test_a_perfect_prediction_is_drawn_as_the_image(normalize):
    pixels = images()
    model = Knowing(pixels, normalize)
    mask = spectral.make_corruption(("patch_subset", 0.75, 2), (8, 8, 3))
    found = masked_pictures.reconstruct(
        model, None, mask, NORMALIZATION, pixels, normalize=normalize
    )
    np.testing.assert_allclose(found["original"], pixels, atol=1e-6)
    np.testing.assert_allclose(found["reconstruction"], pixels, atol=1e-5)
    grey = (found["masked"] == 0.5).all(-1)
    assert (grey.reshape(3, 4, 2, 4, 2).mean((2, 4)) % 1 == 0).all()  # whole patches
    assert (grey.sum((1, 2)) == 48).all()
    np.testing.assert_allclose(found["masked"][~grey], pixels[~grey], atol=1e-6)


def test_visible_patches_are_kept_and_hidden_ones_predicted():
    pixels = images()
    mask = spectral.make_corruption(("patch_subset", 0.5, 2), (8, 8, 3))
    model = Knowing(pixels, False, wrong=1.0)
    found = masked_pictures.reconstruct(model, None, mask, NORMALIZATION, pixels, normalize=False)
    grey = (found["masked"] == 0.5).all(-1)
    # One unit of the normalisation is 0.25 of a pixel.
    expected = pixels + 0.25 * grey[..., None]
    np.testing.assert_allclose(found["reconstruction"], expected, atol=1e-5)


def test_noise_hides_no_patches_and_all_is_predicted():
    pixels = images()
    noise = spectral.make_corruption(("gaussian", 0.5), (8, 8, 3))
    model = Knowing(pixels, False, wrong=1.0)
    found = masked_pictures.reconstruct(model, None, noise, NORMALIZATION, pixels, normalize=False)
    np.testing.assert_allclose(found["reconstruction"], pixels + 0.25, atol=1e-5)
    np.testing.assert_allclose(found["masked"], 0.4 + 0.25 * model.seen, atol=1e-6)
    assert 0.1 < np.std(found["masked"] - pixels) / 0.25 < 1


def test_fields_that_few_have_change_no_other_config():
    plain, fields = train_fields(), train_fields(b2=0.95, warmup_epochs=2, layer_decay=0.5)
    assert set(trained.OPTIONAL) & set(plain) == set()
    assert trained.decisive(plain) == {
        k: v for k, v in plain.to_dict().items() if k not in trained.WATCHING
    }
    assert set(trained.decisive(fields)) - set(trained.decisive(plain)) == {
        "b2", "warmup_epochs", "layer_decay"
    }  # fmt: skip
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = jax.tree.map(lambda leaf: 0.1 * leaf, params)

    def second_update(optimizer):
        _, state = optimizer.update(grads, optimizer.init(params), params)
        return optimizer.update(grads, state, params)[0]

    ours = second_update(trained._optimizer(plain, 0.1))
    theirs = second_update(optax.adamw(0.1, weight_decay=1e-3, mask=training.decay_mask))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, theirs)


def test_warm_up_counts_epochs_beside_steps():
    options = train_fields(schedule="cosine", warmup_epochs=2, warmup_steps=5, learning_rate=1.0)
    schedule = trained._schedule(options, trained.Plan(10, 100))
    np.testing.assert_allclose([schedule(5), schedule(20), schedule(25)], [0.2, 0.8, 1.0])


def test_optional_fields_reach_the_optimizer():
    params = {
        "encoder": {"embed": {"kernel": jnp.ones((2, 2))}, "class_token": jnp.ones((1, 1, 2)),
                    "blocks": {"block": {"kernel": jnp.ones((2, 2, 2))}}},
        "head": {"kernel": jnp.ones((2, 2))},
    }  # fmt: skip
    options = train_fields(layer_decay=0.5, optimizer="sgd", momentum=0.5, weight_decay=1.0)
    optimizer = trained._optimizer(options, 1.0)
    zero, state = jax.tree.map(jnp.zeros_like, params), optimizer.init(params)
    _, state = optimizer.update(zero, state, params)
    update, _ = optimizer.update(zero, state, params)
    # Decay alone: 1 + 0.5 of the momentum, times 0.5^(3 - id); the class token is spared.
    assert update["head"]["kernel"][0, 0] == -1.5
    np.testing.assert_allclose(
        update["encoder"]["blocks"]["block"]["kernel"][:, 0, 0], [-0.375, -0.75]
    )
    assert update["encoder"]["embed"]["kernel"][0, 0] == -0.1875
    assert (update["encoder"]["class_token"] == 0).all()


def test_classifiers_start_from_copies_of_the_encoder():
    encoder = {"kernel": jnp.arange(4.0)}
    params = {"encoder": {"kernel": jnp.zeros(4)}, "head": {"bias": jnp.ones(2)}}
    state = training.init_state(params, optax.sgd(0.1), key=jax.random.key(0), ema=True)
    found = masked_finetuning.with_encoder(state, encoder)
    for tree in (found.params, found.ema_params):
        np.testing.assert_array_equal(tree["encoder"]["kernel"], np.arange(4.0))
        np.testing.assert_array_equal(tree["head"]["bias"], 1)
        pointer = tree["encoder"]["kernel"].unsafe_buffer_pointer()
        assert pointer != encoder["kernel"].unsafe_buffer_pointer()
    assert found.params["encoder"]["kernel"] is not found.ema_params["encoder"]["kernel"]


def test_the_digest_sees_names_shapes_and_numbers():
    base = {"a": np.arange(4.0), "b": np.ones(2)}
    others = [{"c": base["a"], "b": base["b"]}, {**base, "a": base["a"].reshape(2, 2)},
              {**base, "b": np.ones(2) + 1e-12}]  # fmt: skip
    digests = [masked_finetuning.digest(tree) for tree in (base, dict(base), *others)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_classifiers_are_those_of_the_paper():
    config = recipe.get_config("imagenet_1600")
    probe = masked_finetuning.make_classifier(config, "linear", (224, 224, 3), 1000)
    tuned = masked_finetuning.make_classifier(config, "finetuning", (224, 224, 3), 1000)
    assert (probe.pooling, probe.head_norm, probe.frozen, probe.drop_path) == (
        "class_token", "batch", True, 0.0
    )  # fmt: skip
    assert (tuned.pooling, tuned.head_norm, tuned.frozen, tuned.drop_path) == (
        "mean", "layer", False, 0.1
    )  # fmt: skip
    assert models.parameter_count(tuned, (224, 224, 3)) == 85_647_360 + 2 * 768 + 769 * 1000
    assert config.train.learning_rate == pytest.approx(2.4e-3)
    assert config.linear.learning_rate == pytest.approx(6.4)
    assert config.finetuning.learning_rate == pytest.approx(2e-3)


def test_weights_of_another_size_are_refused(tmp_path):
    config = small(**{"data.train_limit": 50, "data.test_limit": 20, "train.batch_size": 10})
    context = masked_autoencoder.masked_runs.open_data(config, tmp_path)
    weights = masked_weights.Weights({}, (), (224, 224, 3), "")
    with pytest.raises(ValueError, match=r"16 x 16 x 1 do not fit .* set data.image_size=224"):
        masked_weights.fit_to(context, weights)
    weights = weights._replace(image_shape=(16, 16, 1))
    assert not weights.has_decoder
    assert weights._replace(params={"decoder": 0}).has_decoder


def test_images_for_weights_have_imagenets_channels():
    context = masked_autoencoder.masked_runs.Context(
        None, None, data.from_arrays(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2)), None, None, {}
    )
    weights = masked_weights.Weights({}, (), (4, 4, 3), "")
    normalization = masked_weights.fit_to(context, weights).normalization
    pixels = np.full((1, 4, 4, 3), 255, np.uint8)
    for array in (pixels, jnp.asarray(pixels)):
        found = data.normalize(normalization, array)
        expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-5)
        np.testing.assert_allclose(
            masked_pictures.to_pixels(normalization, jnp.asarray(found)), 1, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.pooling": "max"}, "model.pooling must be one of class_token, mean, got 'max'"),
        ({"targets": "latents"}, "targets must be one of pixels, normalized"),
        ({"published_epochs": 400}, "published_epochs must be one of 1600, 800, got 400"),
        ({"num_pictures": 0}, "num_pictures must be at least 1"),
        ({"linear.epochs": 0}, "linear.epochs must be at least 1"),
        ({"linear.optimizer": "lion"}, "linear.optimizer must be one of adamw"),
        (
            {"linear.warmup_epochs": 2.0},
            "linear.warmup_epochs must be .* below linear.epochs=2, got 2",
        ),
        ({"linear.momentum": 1.0}, "momentum=1.0"),
        ({"finetuning.drop_path": 1.0}, r"finetuning.drop_path must lie in \[0, 1\), got 1.0"),
        ({"finetuning.layer_decay": 1.5}, "layer_decay=1.5 must lie in"),
        ({"finetuning.label_smoothing": 1.0}, "finetuning.label_smoothing must lie in"),
        ({"finetuning.batch_size": 0}, "finetuning.batch_size must be at least 1"),
        ({"train.b2": 1.0}, "b2=1.0"),
        ({"probe.num_neighbors": 0}, "probe.num_neighbors must be at least 1"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        masked_autoencoder.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetuning.batch_size": 256}, "finetuning.batch_size=256 is more than the 120 training"),
        ({"linear.batch_size": 256}, "linear.batch_size=256 is more than the 120 training"),
        ({"model.patch_size": 5}, "patch_size=5 does not divide"),
        ({"corruption": ("patch_subset", 0.75, 5)}, "5"),
        ({"corruption": ("patch_subset", 0.0, 4)}, "a masked autoencoder needs 1 or more of both"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        masked_autoencoder.run(small(**changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    masked_autoencoder.validate(recipe.get_config(variant))
    masked_autoencoder.validate(small(variant))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu"):
        recipe.get_config("imagenet22k")


def results_without_times(workdir):
    results = json.loads((workdir / "results.json").read_text())
    return {key: results[key] for key in ("summary", "readouts", "runs")}


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path, rules_fit):
    config = small(**{"data.train_limit": 80, "data.test_limit": 40})
    first, copy = tmp_path / "first", tmp_path / "copy"
    masked_autoencoder.run(config, first, [0, 1])
    for name in ("report.html", "tables/readouts.md", "figures/reconstructions.png"):
        assert (first / name).stat().st_size > 100
    rules_fit("masked_autoencoder_embedded", first)
    lines = (first / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert "smoke run" in (first / "tables" / "readouts.md").read_text()
    shutil.copytree(first, copy)
    # As if killed in the middle of a fine-tuning, the picture not made yet.
    for name in ("finetuning-seed1", "pictures"):
        (cached,) = (copy / "cache").glob(f"{name}-*.npz")
        cached.unlink()
    steps = sorted((copy / "runs/finetuning-seed1/checkpoints").glob("[0-9]*"), key=str)
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    masked_autoencoder.run(small(**{"data.train_limit": 80, "data.test_limit": 40}), copy, [0, 1])
    assert results_without_times(copy) == results_without_times(first)
    for name in ("metrics.jsonl", "figures/reconstructions.png", "tables/readouts.csv"):
        assert (copy / name).read_bytes() == (first / name).read_bytes()
