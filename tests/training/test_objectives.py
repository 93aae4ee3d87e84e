import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recon_jax import augment, data, losses, models, training
from recon_jax.training.keys import example_keys
from recon_jax.training.objectives import unit_pixels

SHAPE = (8, 8, 1)


def make_batch(rows=12, padded=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, *SHAPE), np.uint8)
    return data.Batch(
        images, rng.integers(0, 3, rows).astype(np.int32), np.arange(rows) < 12 - padded
    )


def state_of(model, optimizer=None, ema=False):
    variables = model.init(jax.random.key(1), np.zeros((1, *SHAPE), np.float32))
    return training.init_state(
        variables["params"],
        optimizer or optax.sgd(0.1),
        key=jax.random.key(0),
        batch_stats=variables.get("batch_stats"),
        ema=ema,
    )


@pytest.fixture(scope="module")
def classifier():
    return models.make_model("mlp", num_classes=3)


@pytest.fixture(scope="module")
def autoencoder():
    return models.make_model("mlp_autoencoder", image_shape=SHAPE, latent_size=4)


@pytest.mark.parametrize("label_loss", losses.LABEL_LOSSES)
def test_classification_loss_is_the_mean_over_images_that_count(classifier, label_loss):
    state, batch = state_of(classifier), make_batch()
    loss_fn = training.classification_loss(classifier, label_loss=label_loss)
    loss, (stats, metrics) = loss_fn(state.params, state.batch_stats, batch, state.key)
    logits, new = classifier.apply(
        training.variables_of(state), batch.images / 255.0, train=True, mutable=["batch_stats"]
    )
    values = losses.LABEL_LOSSES[label_loss](logits, jnp.asarray(batch.labels))[:9]
    np.testing.assert_allclose(loss, values.mean(), rtol=1e-5)
    assert float(metrics["accuracy"][1]) == 9
    correct = (logits.argmax(1) == batch.labels)[:9].sum()
    assert float(metrics["accuracy"][0]) == correct
    for found, expected in zip(
        jax.tree.leaves(stats), jax.tree.leaves(new["batch_stats"]), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_evaluation_uses_running_statistics(classifier):
    state, batch = state_of(classifier), make_batch()
    metrics = training.classification_metrics(classifier)(state, batch)
    logits = classifier.apply(training.variables_of(state), batch.images / 255.0, train=False)
    expected = losses.cross_entropy(logits, jnp.asarray(batch.labels))[:9].sum()
    np.testing.assert_allclose(metrics["cross_entropy"][0], expected, rtol=1e-5)


def test_every_image_has_its_own_augmentation_of_the_step(classifier):
    state, batch = state_of(classifier), make_batch()
    policy = augment.crop_flip(SHAPE)
    loss_fn = training.classification_loss(classifier, policy=policy)
    images = policy(example_keys(state.key, 12), unit_pixels(batch.images))
    plain = training.classification_loss(classifier)
    found = loss_fn(state.params, state.batch_stats, batch, state.key)[0]
    expected = plain(state.params, state.batch_stats, batch._replace(images=images), state.key)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    other = loss_fn(state.params, state.batch_stats, batch, jax.random.key(9))[0]
    assert abs(float(other - found)) > 1e-6


def test_autoencoder_loss_is_the_mean_squared_error(autoencoder):
    state, batch = state_of(autoencoder), make_batch()
    loss, (_, metrics) = training.autoencoder_loss(autoencoder)(
        state.params, state.batch_stats, batch, state.key
    )
    x = batch.images / 255.0
    output, _ = autoencoder.apply(
        training.variables_of(state), x, train=True, mutable=["batch_stats"]
    )
    errors = np.mean((np.asarray(output.reconstruction) - x) ** 2, axis=(1, 2, 3))[:9]
    np.testing.assert_allclose(loss, errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["squared_error"][0], errors.sum(), rtol=1e-5)
    measured = training.autoencoder_metrics(autoencoder)(state, batch)
    assert float(measured["squared_error"][1]) == 9


def test_the_target_is_augmented_with_the_input(autoencoder):
    state, batch = state_of(autoencoder), make_batch(padded=0)
    policy = augment.crop_flip(SHAPE)
    found = training.autoencoder_loss(autoencoder, policy=policy)(
        state.params, state.batch_stats, batch, state.key
    )[0]
    images = policy(example_keys(state.key, 12), unit_pixels(batch.images))
    expected = training.autoencoder_loss(autoencoder)(
        state.params, state.batch_stats, batch._replace(images=images), state.key
    )[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_averaged_parameters_are_the_ones_evaluated(classifier):
    state = state_of(classifier, ema=True)
    moved = state._replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    assert training.variables_of(moved)["params"] is state.ema_params
    assert training.variables_of(state._replace(ema_params=None))["params"] is state.params


def test_pixels_of_8_bits_are_divided():
    np.testing.assert_allclose(unit_pixels(np.asarray([0, 51, 255], np.uint8)), [0, 0.2, 1])
    x = jnp.asarray([-3.0, 7.0])
    assert unit_pixels(x) is x


def test_unknown_losses_are_refused(classifier):
    for make in (training.classification_loss, training.classification_metrics):
        with pytest.raises(ValueError, match="unknown loss 'hinge'; choose one of cross_entropy"):
            make(classifier, label_loss="hinge")


@pytest.mark.parametrize("batch_size", [5, 12, 30])
def test_any_split_into_batches_gives_the_same_means(classifier, batch_size):
    state = state_of(classifier)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (30, *SHAPE), np.uint8)
    source = data.from_arrays(images, rng.integers(0, 3, 30))
    evaluate = training.make_evaluate(training.classification_metrics(classifier))
    found = evaluate(state, data.epoch_batches(source, batch_size, shuffle=False))
    expected = evaluate(state, data.epoch_batches(source, 1, shuffle=False))
    assert found == pytest.approx(expected, rel=1e-5)


def test_extraction_keeps_order_and_drops_padding():
    images = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    source = data.from_arrays(images, np.arange(10) % 4)

    def fn(scale, images):
        return {"rows": scale * images[:, 0, 0, 0], "images": images}

    found, labels = training.extract(fn, 2.0, data.epoch_batches(source, 4, shuffle=False))
    np.testing.assert_array_equal(found["rows"], 2 * np.arange(10))
    assert found["images"].shape == (10, 1, 1, 1)
    np.testing.assert_array_equal(labels, np.arange(10) % 4)
