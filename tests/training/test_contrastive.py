"""Contrastive training, against views and losses computed by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recon_jax import data, losses, models, training

ROWS, COUNTED = 6, 5
SHAPE = (2, 2, 1)
KEY = jax.random.key(3)


def noisy(keys, images, strength):
    """A policy that can be followed by hand: as much noise as the strength of each image says."""
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return images + strength[:, None, None, None] * noise


class Linear(nn.Module):
    """Projects images linearly; in evaluation mode twice as far, so that modes can be told."""

    @nn.compact
    def __call__(self, images, *, train):
        features = images.reshape(len(images), -1)
        offset = self.param("offset", nn.initializers.zeros, (3,))
        if not train:
            features = 2 * features
        projection = nn.Dense(3, use_bias=False)(features) + offset[None, :]
        return models.Projection(features, projection)


MODEL = Linear()


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    kernel, offset = rng.standard_normal((4, 3)), rng.standard_normal(3)
    return jax.tree.map(jnp.float32, {"Dense_0": {"kernel": kernel}, "offset": offset})


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, *SHAPE), np.uint8)
    return data.Batch(images, np.zeros(ROWS, np.int32), np.arange(ROWS) < COUNTED)


def views_by_hand(pixels, strength, key=KEY):
    views = []
    for index, image in enumerate(pixels):
        pair = jax.random.split(jax.random.fold_in(key, index))
        views.append([
            image + strength * np.asarray(jax.random.normal(half, SHAPE, jnp.float32))
            for half in pair
        ])  # fmt: skip
    return np.array(views, np.float64).transpose(1, 0, 2, 3, 4)


def projected(params, views, factor=1):
    kernel, offset = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params))
    return factor * views.reshape(2, ROWS, 4) @ kernel + offset


def cosine(pair):
    units = pair / np.linalg.norm(pair, axis=2, keepdims=True)
    return (units[0] * units[1]).sum(1)[:COUNTED].mean()


@pytest.mark.parametrize(
    ("name", "options"),
    [("nt_xent", {"temperature": 0.2}), ("vicreg", {"variance": 3.0}), ("barlow_twins", {})],
)
def test_the_loss_of_two_views_of_the_images_that_count(name, options, params, batch):
    views = views_by_hand(batch.images / 255.0, 0.3)
    pair = projected(params, views)
    expected = losses.CONTRASTIVE_LOSSES[name](*pair[:, :COUNTED], **options)
    loss_fn = training.contrastive_loss(MODEL, policy=noisy, loss=name, options=options)
    loss, (stats, metrics) = jax.jit(loss_fn)(params, {}, training.with_strength(batch, 0.3), KEY)
    assert stats == {}
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    assert set(metrics) == {name, "positive_similarity"}
    np.testing.assert_allclose(metrics[name][0], COUNTED * expected, rtol=2e-5)
    similarity = metrics["positive_similarity"]
    np.testing.assert_allclose(similarity[0] / similarity[1], cosine(pair), rtol=1e-5)
    assert metrics[name][1] == similarity[1] == COUNTED


def test_views_by_the_halves_of_a_key(batch):
    pixels = jnp.asarray(batch.images, jnp.float32) / 255
    keys = training.example_keys(KEY, ROWS)
    for strength in (0.5, jnp.linspace(0, 1, ROWS, dtype=jnp.float32)):
        found = training.two_views(noisy, keys, pixels, strength)
        column = np.broadcast_to(strength, (ROWS,))
        noise = views_by_hand(np.zeros((ROWS, *SHAPE)), 1.0)
        expected = np.asarray(pixels)[None] + column[None, :, None, None, None] * noise
        np.testing.assert_allclose(np.stack(found), expected, atol=1e-6)
    assert np.abs(found[0] - found[1])[-1].min() > 1e-3


def test_metrics_in_evaluation_mode_by_fixed_draws(params, batch):
    state = training.init_state(params, optax.sgd(0.1), key=jax.random.key(0))
    measure = jax.jit(
        training.contrastive_metrics(MODEL, policy=noisy, options={"temperature": 1.0})
    )
    strong = training.with_strength(batch, 0.8)
    metrics = measure(state, strong)
    views = views_by_hand(batch.images / 255.0, 0.8, jax.random.key(0))
    pair = projected(params, views, factor=2)
    expected = losses.nt_xent(*pair[:, :COUNTED], 1.0)
    np.testing.assert_allclose(metrics["nt_xent"][0] / COUNTED, expected, rtol=2e-5)
    similarity = metrics["positive_similarity"]
    np.testing.assert_allclose(similarity[0] / similarity[1], cosine(pair), rtol=1e-5)
    later = state._replace(step=state.step + 5, key=jax.random.key(9))
    np.testing.assert_array_equal(measure(later, strong)["nt_xent"][0], metrics["nt_xent"][0])


def test_strengths_share_one_compiled_step(params, batch):
    traced = []

    def policy(keys, images, strength):
        traced.append(1)
        return noisy(keys, images, strength)

    optimizer = optax.sgd(0.1)
    step = training.make_train_step(training.contrastive_loss(MODEL, policy=policy), optimizer)
    state, step = training.init_state(params, optimizer, key=KEY), jax.jit(step)
    found = []
    for strength in (0.0, 0.3, 1):
        _, metrics = step(state, training.with_strength(batch, strength))
        found.append(training.compute_metrics(metrics))
    assert len(traced) == 1
    assert found[0]["positive_similarity"] == pytest.approx(1)
    similarities = [means["positive_similarity"] for means in found]
    assert similarities == sorted(similarities, reverse=True)
    assert len(set(similarities)) == 3


def test_a_strength_for_each_image(params, batch):
    """Images of strength 0 keep equal views, whatever the others have."""
    mixed = training.with_strength(batch, 0.0)
    mixed = mixed._replace(strength=np.float32([0, 0, 0, 0, 0.9, 0]))
    measure = jax.jit(training.contrastive_metrics(MODEL, policy=noisy))
    state = training.init_state(params, optax.sgd(0.1), key=KEY)
    total, count = measure(state, mixed)["positive_similarity"]
    views = views_by_hand(batch.images / 255.0, 0.9, jax.random.key(0))
    pair = projected(params, views, factor=2)[:, 4]
    last = pair[0] @ pair[1] / np.prod(np.linalg.norm(pair, axis=1))
    assert float(count) == COUNTED
    assert float(total) == pytest.approx(COUNTED - 1 + last, rel=1e-5)


def test_training_pulls_views_together(params, batch):
    optimizer = optax.adam(0.05)
    loss_fn = training.contrastive_loss(MODEL, policy=noisy, options={"temperature": 0.2})
    step = jax.jit(training.make_train_step(loss_fn, optimizer))
    state, found = training.init_state(params, optimizer, key=KEY), []
    for _ in range(60):
        state, metrics = step(state, training.with_strength(batch, 0.1))
        found.append(training.compute_metrics(metrics)["nt_xent"])
    assert np.mean(found[-10:]) < np.mean(found[:10]) - 0.2


def test_strengths_of_a_batch(batch):
    strong = training.with_strength(batch, 0.25)
    assert strong.images is batch.images
    assert strong.mask is batch.mask
    assert strong.strength.dtype == np.float32
    np.testing.assert_array_equal(strong.strength, np.full(ROWS, 0.25))
    assert float(training.batch_weight(strong)) == COUNTED


@pytest.mark.parametrize("strength", [-0.1, 1.5, np.nan])
def test_strengths_out_of_range_are_refused(strength, batch):
    with pytest.raises(ValueError, match=r"strength=.* must lie in \[0, 1\]; 0 leaves images"):
        training.with_strength(batch, strength)


@pytest.mark.parametrize("make", [training.contrastive_loss, training.contrastive_metrics])
def test_losses_that_cannot_be_are_refused(make):
    with pytest.raises(ValueError, match="unknown loss 'simclr'; choose one of nt_xent, vicreg"):
        make(MODEL, policy=noisy, loss="simclr")
    with pytest.raises(
        ValueError, match="unknown options of vicreg: temperature; choose from invariance, var"
    ):
        make(MODEL, policy=noisy, loss="vicreg", options={"temperature": 0.5})
    with pytest.raises(ValueError, match=r"temperature=-1\.0 must be"):
        make(MODEL, policy=noisy, options={"temperature": -1.0})
    with pytest.raises(ValueError, match="unknown options of nt_xent: mask"):
        make(MODEL, policy=noisy, options={"mask": None})


def test_a_batch_of_one_is_refused(params, batch):
    one = training.with_strength(jax.tree.map(lambda leaf: leaf[:1], batch), 0.5)
    with pytest.raises(ValueError, match=r"1 pair\(s\) of views have no other image"):
        training.contrastive_loss(MODEL, policy=noisy)(params, {}, one, KEY)
