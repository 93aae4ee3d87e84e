"""The evidence lower bound, against NumPy on what the model gives for the same noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm

from recon_jax import data, losses, models, training

SHAPE, LATENT = (8, 8, 1), 3
ROWS, COUNTED = 6, 4
KEY = jax.random.key(7)
LIKELIHOOD = losses.discretized_logistic(1)
BITS = np.log(2) * 64


@functools.cache
def small(norm="none", **options):
    widths = {"widths": (8,), "decoder_features": 2, "head_width": 8, "num_blocks": 1}
    return models.VAE(SHAPE, LATENT, 2, 1, norm=norm, **widths, **options)


@functools.cache
def variables(norm="none"):
    rng, shapes = np.random.default_rng(1), models.variable_shapes(small(norm), SHAPE)
    # Positive, since some are variances.
    draw = lambda leaf: np.asarray(np.exp(0.3 * rng.standard_normal(leaf.shape)), leaf.dtype)  # noqa: E731
    signed = lambda leaf: np.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype)  # noqa: E731
    stats = jax.tree.map(draw, shapes.get("batch_stats", {}))
    return {"params": jax.tree.map(signed, shapes["params"]), "batch_stats": stats}


@pytest.fixture(scope="module")
def batch():
    """8-bit images, of which the last do not count."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS, *SHAPE), np.uint8)
    return data.Batch(images, np.zeros(ROWS, np.int32), np.arange(ROWS) < COUNTED)


@functools.cache
def compiled(norm="none", **options):
    return jax.jit(training.vae_loss(small(norm), LIKELIHOOD, **options))


def value_of(loss_fn, batch, norm="none", key=KEY):
    """Loss, new statistics and the metrics' means, all of which count the right images."""
    loss, (stats, metrics) = loss_fn(*variables(norm).values(), batch, key)
    assert set(metrics) == {"nll", "kl", "bits_per_dimension"}
    assert {float(count) for _, count in metrics.values()} == {COUNTED}
    return (
        float(loss),
        stats,
        {name: float(total) / COUNTED for name, (total, _) in metrics.items()},
    )


def noise_of(samples=1, key=None):
    """That of a step: numbered by image, from the second half of the step's key."""
    own = jax.random.split(KEY)[1] if key is None else key
    draws = [
        jax.random.normal(jax.random.fold_in(own, i), (samples, LATENT), jnp.float32)
        for i in range(ROWS)
    ]
    return np.stack(draws, axis=1)


@functools.cache
def applied(norm, train):
    mutable = {"mutable": ["batch_stats"]} if train else {}
    return jax.jit(functools.partial(small(norm).apply, train=train, **mutable))


def outputs(images, noise, norm="none", train=False):
    """What the model gives for 8-bit images, in float64, and the new statistics."""
    pixels = jnp.asarray(2 * (images / 255) - 1, jnp.float32)
    found = applied(norm, train)(variables(norm), pixels, noise)
    output, stats = found if train else (found, {})
    return models.VAEOutput(*(np.asarray(part, np.float64) for part in output)), stats


def log_likelihood(params, images):
    """Nats of each image, the logistic law of the bin of each level."""
    mean, scale = params[..., 0], np.exp(np.maximum(params[..., 1], -7))
    x = 2 * (images[..., 0] / 255) - 1
    above = np.where(images[..., 0] == 255, 1, expit((x - mean + 1 / 255) / scale))
    below = np.where(images[..., 0] == 0, 0, expit((x - mean - 1 / 255) / scale))
    return np.log(above - below).sum((1, 2))


def divergence(output):
    variance = output.scale**2
    return 0.5 * (output.mean**2 + variance - np.log(variance) - 1)


def log_weight(output, images):
    prior = norm.logpdf(output.latent).sum(1)
    posterior = norm.logpdf(output.latent, output.mean, output.scale).sum(1)
    return log_likelihood(output.params, images) + prior - posterior


OPTIONS = [{}, {"kl_weight": 0.3}, {"kl_weight": 2, "free_bits": 0.4}, {"free_bits": 50.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_loss_is_nll_and_weighted_kl_of_images_that_count(options, batch):
    found, stats, means = value_of(compiled("batch", **options), batch, "batch")
    output, new = outputs(batch.images, noise_of()[0], "batch", train=True)
    nll = -log_likelihood(output.params, batch.images)[:COUNTED].mean()
    kl = divergence(output)[:COUNTED]
    expected = {"nll": nll, "kl": kl.sum(1).mean(), "bits_per_dimension": 0}
    expected["bits_per_dimension"] = (nll + expected["kl"]) / BITS
    assert means == pytest.approx(expected, rel=1e-5)
    rate = np.maximum(kl.mean(0), options.get("free_bits", 0)).sum()
    loss = nll + options.get("kl_weight", 1) * rate
    assert found == pytest.approx(loss, rel=1e-5)
    # Encoder and decoder have both moved, and nothing is lost.
    old = variables("batch")["batch_stats"]
    assert jax.tree.structure(stats) == jax.tree.structure(old)
    for leaf, known, before in zip(*map(jax.tree.leaves, (stats, new, old)), strict=True):
        np.testing.assert_allclose(leaf, known, rtol=1e-4, atol=1e-5)
        assert np.abs(leaf - before).max() > 1e-3


def test_free_bits_part_the_dimensions(batch):
    """The case above is no case of none or all dimensions below the floor."""
    kl = divergence(outputs(batch.images, noise_of()[0], "batch", train=True)[0])
    below = kl[:COUNTED].mean(0) < 0.4
    assert 0 < below.sum() < LATENT


def test_bound_of_importance_weights_by_hand(batch):
    found, stats, means = value_of(compiled(num_samples=3), batch)
    drawn = [outputs(batch.images, noise)[0] for noise in noise_of(3)]
    weights = np.stack([log_weight(output, batch.images) for output in drawn])[:, :COUNTED]
    assert found == pytest.approx(-(logsumexp(weights, axis=0) - np.log(3)).mean(), rel=1e-5)
    assert np.abs(weights[0] - weights[1]).min() > 1e-3
    nll = [-log_likelihood(output.params, batch.images)[:COUNTED].mean() for output in drawn]
    assert means["nll"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert means["kl"] == pytest.approx(divergence(drawn[0])[:COUNTED].sum(1).mean(), rel=1e-5)
    assert stats == {}


@pytest.mark.parametrize("options", [{"free_bits": 0.4}, {"num_samples": 3}])
def test_gradient_is_that_of_finite_differences(options, batch):
    double = {"dtype": jnp.float64}
    loss_fn = training.vae_loss(small(**double), LIKELIHOOD, **options)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables()["params"])
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), params)

    def along(t):
        moved = jax.tree.map(lambda leaf, step: leaf + t * step, params, direction)
        return loss_fn(moved, {}, batch, KEY)[0]

    value = jax.jit(jax.value_and_grad(along))
    # Steps so small that they cross no corner of a ReLU.
    slope = (value(1e-7)[0] - value(-1e-7)[0]) / 2e-7
    assert abs(slope) > 1
    np.testing.assert_allclose(value(0.0)[1], slope, rtol=1e-4)


def state_of(params, optimizer, step=0):
    state = training.init_state(params, optimizer, key=jax.random.key(0))
    return state._replace(step=jnp.int32(step))


def test_the_weight_of_the_kl_warms_up_by_step(batch):
    schedule, optimizer = optax.linear_schedule(0.0, 1.0, 4), optax.sgd(0.0)
    loss_fn = training.vae_loss(small(), LIKELIHOOD, kl_weight=schedule)
    step = jax.jit(training.make_train_step(loss_fn, optimizer, takes_step=True))
    for done, weight in ((0, 0.0), (1, 0.25), (3, 0.75), (9, 1.0)):
        _, metrics = step(state_of(variables()["params"], optimizer, done), batch)
        means = training.compute_metrics(metrics)
        assert means["kl"] > 0.1
        assert means["loss"] == pytest.approx(means["nll"] + weight * means["kl"], rel=1e-6)


def test_a_weight_that_changes_needs_the_step(batch):
    schedule = optax.linear_schedule(0.0, 1.0, 4)
    loss_fn = training.vae_loss(small(), LIKELIHOOD, kl_weight=schedule)
    step = training.make_train_step(loss_fn, optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"kl_weight that changes needs .*takes_step=True"):
        jax.eval_shape(step, state_of(variables()["params"], optax.sgd(0.1)), batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_weight": -0.1}, "kl_weight=-0.1 must be at least 0"),
        ({"kl_weight": float("nan")}, "kl_weight=nan must be at least 0"),
        ({"free_bits": -1.0}, "free_bits=-1.0 must be at least 0"),
        ({"num_samples": 0}, "num_samples=0 must be at least 1"),
        ({"num_samples": 2, "kl_weight": 0.5}, "num_samples=2 trains .* neither kl_weight=0.5"),
        ({"num_samples": 2, "kl_weight": lambda step: 1.0}, "neither kl_weight=.* leave them at 1"),
        ({"num_samples": 2, "free_bits": 0.1}, "nor free_bits=0.1; leave them at 1 and 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        training.vae_loss(small(), LIKELIHOOD, **options)


def test_what_is_in_rows_that_do_not_count_changes_nothing(batch):
    other = batch.images.copy()
    other[COUNTED:] = 255 - other[COUNTED:]
    loss_fn = compiled(free_bits=0.4)
    assert value_of(loss_fn, batch) == value_of(loss_fn, batch._replace(images=other))
    other[0] = 255 - other[0]
    assert value_of(loss_fn, batch)[0] != value_of(loss_fn, batch._replace(images=other))[0]


def test_8_bit_images_and_pixels_are_the_same(batch):
    pixels = batch._replace(images=batch.images.astype(np.float32) / 255)
    assert value_of(compiled(), batch) == value_of(compiled(), pixels)


def brighter(keys, images):
    """Pixels that lie between levels, each image's by a number of its own."""
    amounts = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)
    return 0.7 * images + 0.3 * amounts[:, None, None, None]


def test_images_are_augmented_before_they_become_levels(batch):
    augment_key = jax.random.split(KEY)[0]
    keys = jnp.stack([jax.random.fold_in(augment_key, i) for i in range(ROWS)])
    images = brighter(keys, jnp.asarray(batch.images / 255, jnp.float32))
    levels = np.round(255 * np.asarray(images)).astype(np.uint8)
    assert len(np.unique(levels - np.round(0.7 * batch.images))) > 2
    expected = value_of(compiled(), batch._replace(images=levels))
    assert value_of(compiled(policy=brighter), batch) == expected
    assert expected[0] != value_of(compiled(), batch)[0]


@pytest.mark.parametrize("options", [{"free_bits": 0.4, "policy": brighter}, {"num_samples": 3}])
def test_two_halves_draw_what_the_whole_batch_draws(options, batch):
    loss_fn = training.vae_loss(small(), LIKELIHOOD, axis_name="devices", **options)
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, ROWS // 2, *leaf.shape[1:]), batch)
    of_half = jax.vmap(
        lambda batch: loss_fn(variables()["params"], {}, batch, KEY), axis_name="devices"
    )
    values, (_, metrics) = jax.jit(of_half)(halves)
    counts = metrics["nll"][1]
    np.testing.assert_array_equal(counts, [3, 1])
    loss, _, means = value_of(compiled(**options), batch)
    assert float((values * counts).sum()) / COUNTED == pytest.approx(loss, rel=1e-5)
    for name, (totals, _) in metrics.items():
        assert float(totals.sum()) / COUNTED == pytest.approx(means[name], rel=1e-5)


def test_latents_are_standard_normal_numbers_of_their_own_key():
    keys = jax.random.split(KEY, 4000)
    noise = np.asarray(training.latent_noise(keys, 2, LATENT), np.float64)
    assert noise.shape == (2, 4000, LATENT)
    np.testing.assert_array_equal(training.latent_noise(keys[5:8], 2, LATENT), noise[:, 5:8])
    np.testing.assert_allclose(noise.mean(1), 0, atol=5 / np.sqrt(4000))
    rows = noise.transpose(0, 2, 1).reshape(2 * LATENT, -1)
    np.testing.assert_allclose(np.cov(rows), np.eye(2 * LATENT), atol=5 * np.sqrt(2 / 4000))


def test_metrics_are_of_fixed_draws(batch):
    optimizer, samples = optax.sgd(0.1), 8
    state = training.init_state(
        variables("batch")["params"],
        optimizer,
        key=jax.random.key(3),
        batch_stats=variables("batch")["batch_stats"],
    )
    measure = jax.jit(training.vae_metrics(small("batch"), LIKELIHOOD, num_samples=samples))
    found = measure(state, batch)
    again = measure(state._replace(step=state.step + 5, key=jax.random.key(9)), batch)
    assert found == again
    assert {float(count) for _, count in found.values()} == {COUNTED}
    means = training.compute_metrics(found)
    noise = noise_of(samples, jax.random.key(0))
    drawn = [outputs(batch.images, part, "batch")[0] for part in noise]
    weights = np.stack([log_weight(output, batch.images) for output in drawn])[:, :COUNTED]
    nll = -np.mean([log_likelihood(o.params, batch.images)[:COUNTED] for o in drawn])
    kl = divergence(drawn[0])[:COUNTED].sum(1).mean()
    bound = (logsumexp(weights, axis=0) - np.log(samples)).mean()
    expected = {"nll": nll, "kl": kl, "bits_per_dimension": (nll + kl) / BITS}
    assert means == pytest.approx(expected | {"importance_weighted_bits": -bound / BITS}, rel=1e-5)
    # The bound of many latents is the tighter one, by more than the draws differ.
    gap = -weights.mean() / BITS - means["importance_weighted_bits"]
    assert gap > 1e-3
    assert means["importance_weighted_bits"] < means["bits_per_dimension"]


def test_one_draw_has_no_bound_of_importance_weights(batch):
    measure = training.vae_metrics(small(), LIKELIHOOD)
    state = state_of(variables()["params"], optax.sgd(0.1))
    found = jax.eval_shape(measure, state, batch)
    assert set(found) == {"nll", "kl", "bits_per_dimension"}
    with pytest.raises(ValueError, match="num_samples=0 must be at least 1"):
        training.vae_metrics(small(), LIKELIHOOD, num_samples=0)


def test_codes_are_means_and_scales_side_by_side(batch):
    encode = jax.jit(training.make_encode(small("batch"), 256))
    found = encode(variables("batch"), batch.images)
    output, _ = outputs(batch.images, np.zeros((ROWS, LATENT), np.float32), "batch")
    np.testing.assert_allclose(found, np.hstack([output.mean, output.scale]), rtol=1e-5, atol=1e-6)
    pixels = jnp.asarray(batch.images / 255, jnp.float32)
    np.testing.assert_array_equal(encode(variables("batch"), pixels), found)
    # With fewer levels the encoder sees what the likelihood sees.
    coarse = np.round(batch.images / 255.0) * 255
    two = jax.jit(training.make_encode(small("batch"), 2))(variables("batch"), batch.images)
    np.testing.assert_allclose(two, encode(variables("batch"), coarse.astype(np.uint8)), rtol=1e-5)
