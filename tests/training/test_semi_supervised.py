"""The objective of M2, against labels enumerated one at a time in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, log_softmax, logsumexp

from recon_jax import data, losses, models, training

SHAPE, LATENT, CLASSES = (8, 8, 1), 3, 3
KNOWN, UNKNOWN = (4, 3), (6, 5)  # rows, and those that count
PARENT = jax.random.key(7)
KEY = jax.random.fold_in(PARENT, 0)  # of the first step
LIKELIHOOD = losses.bernoulli(1)


@functools.cache
def small(norm="none", axis_name=None):
    vae = models.VAE(
        SHAPE,
        LATENT,
        1,
        1,
        widths=(8,),
        norm=norm,
        decoder_features=2,
        num_classes=CLASSES,
        head_width=4,
        num_blocks=0,
        axis_name=axis_name,
    )
    return models.SemiSupervisedVAE(vae, models.MLP(CLASSES, 3, axis_name=axis_name))


@functools.cache
def variables(norm="none"):
    rng, shapes = np.random.default_rng(1), models.variable_shapes(small(norm), SHAPE)
    # Positive, since some are variances.
    draw = lambda leaf: np.asarray(np.exp(0.3 * rng.standard_normal(leaf.shape)), leaf.dtype)  # noqa: E731
    signed = lambda leaf: np.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype)  # noqa: E731
    return {
        "params": jax.tree.map(signed, shapes["params"]),
        "batch_stats": jax.tree.map(draw, shapes["batch_stats"]),
    }


def rows_of(rows, counted, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, *SHAPE), np.uint8)
    labels = rng.integers(0, CLASSES, rows).astype(np.int32)
    return data.Batch(images, labels, np.arange(rows) < counted)


@pytest.fixture(scope="module")
def batch():
    return data.PairedBatch(rows_of(*KNOWN, 0), rows_of(*UNKNOWN, 1))


@functools.cache
def compiled(norm="none", weight=2.0, **options):
    return jax.jit(training.semi_supervised_loss(small(norm), LIKELIHOOD, weight=weight, **options))


def value_of(loss_fn, batch, norm="none"):
    loss, (stats, metrics) = loss_fn(*variables(norm).values(), batch, KEY)
    means = {name: float(total / count) for name, (total, count) in metrics.items()}
    return float(loss), stats, means, {name: float(m[1]) for name, m in metrics.items()}


def binary(images):
    return (images >= 128).astype(np.int32)


def noise_of(part, rows, samples):
    """Numbered by image, from the second half of the key of its part of the batch."""
    own = jax.random.split(jax.random.split(KEY)[part])[1]
    return draws(own, rows, samples)


def draws(key, rows, samples):
    found = [
        jax.random.normal(jax.random.fold_in(key, i), (samples, LATENT), jnp.float32)
        for i in range(rows)
    ]
    return np.stack(found, axis=1)


@functools.cache
def vae_alone():
    return jax.jit(small().vae.apply)


def bounds(images, noise, labels):
    """-log p(x|y, z) + KL + log C in float64, of a VAE without batch norm."""
    own = {"params": variables()["params"]["vae"]}
    pixels = jnp.asarray(2 * binary(images) - 1, jnp.float32)
    output = vae_alone()(own, pixels, noise, jnp.asarray(labels))
    mean, scale, _, logits = (np.asarray(part, np.float64) for part in output)
    log_prob = np.log(expit(np.where(binary(images) == 1, logits, -logits))).sum((1, 2, 3))
    kl = 0.5 * (mean**2 + scale**2 - 2 * np.log(scale) - 1).sum(1)
    return kl - log_prob + np.log(CLASSES)


def every_bound(images, noise):
    """(N, C): label by label, each with its own noise."""
    labels = (np.full(len(images), c, np.int32) for c in range(CLASSES))
    return np.stack([bounds(images, noise[c], y) for c, y in enumerate(labels)], axis=1)


@functools.cache
def classifier_alone(train):
    options = {"mutable": ["batch_stats"]} if train else {}
    return jax.jit(functools.partial(small().classifier.apply, train=train, **options))


def log_q_of(images, train):
    """log q(y|x) in float64, and the classifier's new statistics."""
    own = {kind: tree["classifier"] for kind, tree in variables().items()}
    pixels = jnp.asarray(2 * binary(images) - 1, jnp.float32)
    found = classifier_alone(train)(own, pixels)
    logits, stats = found if train else (found, {})
    return log_softmax(np.asarray(logits, np.float64), axis=1), stats


def unlabelled_bound(every, log_q):
    return (np.exp(log_q) * (every + log_q)).sum(1)


def expectation(batch):
    """What the metrics should be, from the parts of the model alone."""
    known, unknown = batch
    log_q, stats = log_q_of(np.concatenate([known.images, unknown.images]), train=True)
    guesses, others = log_q[: KNOWN[1]], log_q[KNOWN[0] :][: UNKNOWN[1]]
    labelled = bounds(known.images, noise_of(0, KNOWN[0], 1)[0], known.labels)[: KNOWN[1]]
    every = every_bound(unknown.images, noise_of(1, UNKNOWN[0], CLASSES))[: UNKNOWN[1]]
    true = known.labels[: KNOWN[1]]
    means = {
        "labelled_bound": labelled.mean(),
        "unlabelled_bound": unlabelled_bound(every, others).mean(),
        "cross_entropy": -guesses[np.arange(KNOWN[1]), true].mean(),
        "accuracy": (guesses.argmax(1) == true).mean(),
    }
    return means, stats, every, others


@pytest.mark.parametrize("weight", [0, 2.0])
def test_labels_are_enumerated_for_images_without(weight, batch):
    loss, stats, means, counts = value_of(compiled(weight=weight), batch)
    expected, known_stats, every, _ = expectation(batch)
    assert means == pytest.approx(expected, rel=1e-5)
    assert np.ptp(every, axis=1).min() > 0.1
    total = expected["labelled_bound"] + expected["unlabelled_bound"]
    assert loss == pytest.approx(total + weight * expected["cross_entropy"], rel=1e-5)
    assert counts.pop("unlabelled_bound") == UNKNOWN[1]
    assert set(counts.values()) == {KNOWN[1]}
    # Batch norm of the classifier has seen all rows at once.
    assert set(stats) == {"classifier"}
    found, known = stats["classifier"], known_stats["batch_stats"]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, known)


def test_labels_of_unlabelled_images_are_not_looked_at(batch):
    labels = (batch.unlabelled.labels + 1) % CLASSES
    other = batch._replace(unlabelled=batch.unlabelled._replace(labels=labels))
    loss, _, means, _ = value_of(compiled(weight=2.0), other)
    assert (loss, means) == value_of(compiled(weight=2.0), batch)[::2]


def test_a_step_teaches_the_classifier_from_unlabelled_images(batch):
    """Without a weight nothing else does: dU/dlogit_k = q_k (L_k + log q_k - U)."""
    params, stats = variables().values()
    loss_fn = training.semi_supervised_loss(small(), LIKELIHOOD, weight=0)
    optimizer = optax.sgd(1.0)
    step = jax.jit(training.make_train_step(loss_fn, optimizer))
    state = training.init_state(params, optimizer, key=jax.random.key(0), batch_stats=stats)
    _, _, every, log_q = expectation(batch)
    # The key of the first step, so that it draws what is expected.
    after, metrics = step(state._replace(key=PARENT), batch)
    parts = np.exp(log_q) * (every + log_q - unlabelled_bound(every, log_q)[:, None])
    assert np.abs(parts.mean(0)).max() > 1e-3
    gradient = jax.tree.map(lambda old, new: np.asarray(old - new), params, after.params)
    found = gradient["classifier"]["head"]["bias"]
    np.testing.assert_allclose(found, parts.mean(0), rtol=1e-3, atol=1e-5)
    for leaf in jax.tree.leaves(gradient):
        assert np.abs(leaf).max() > 1e-4
    means = training.compute_metrics(metrics)
    bound = means["labelled_bound"] + means["unlabelled_bound"]
    assert means["loss"] == pytest.approx(bound, rel=1e-5)
    assert means["finite"] == 1


def shifted(keys, images):
    """Moves about half of the pixels across 1/2, by a number of each image's own."""
    amounts = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)
    return jnp.abs(images - amounts[:, None, None, None])


def test_two_halves_draw_what_the_whole_batch_draws():
    batch = data.PairedBatch(rows_of(4, 4, 0), rows_of(6, 6, 1))
    loss_fn = training.semi_supervised_loss(
        small("batch", "devices"), LIKELIHOOD, weight=2.0, policy=shifted, axis_name="devices"
    )
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, len(leaf) // 2, *leaf.shape[1:]), batch)
    of_half = jax.vmap(
        lambda batch: loss_fn(*variables("batch").values(), batch, KEY), axis_name="devices"
    )
    values, (stats, metrics) = jax.jit(of_half)(halves)
    loss, known, means, _ = value_of(compiled("batch", policy=shifted), batch, "batch")
    assert float(values.mean()) == pytest.approx(loss, rel=1e-4)
    for name, (totals, counts) in metrics.items():
        assert float(totals.sum() / counts.sum()) == pytest.approx(means[name], rel=1e-4)
    # The statistics of both parts have moved, and are the same on both halves.
    old = variables("batch")["batch_stats"]
    assert set(old) == {"classifier", "vae"}
    assert jax.tree.structure(known) == jax.tree.structure(old) == jax.tree.structure(stats)
    for leaf, whole, before in zip(*map(jax.tree.leaves, (stats, known, old)), strict=True):
        np.testing.assert_allclose(leaf, np.stack([whole] * 2), rtol=1e-4, atol=1e-5)
        assert np.abs(whole - before).max() > 1e-4


@pytest.fixture(scope="module")
def measured():
    return jax.jit(training.semi_supervised_metrics(small(), LIKELIHOOD))


def measure(measured, batch, bias=None):
    """Metrics, where the classifier's bias may be another."""
    params, stats = variables().values()
    if bias is not None:
        last = params["classifier"]["head"] | {"bias": jnp.asarray(bias, jnp.float32)}
        params = params | {"classifier": params["classifier"] | {"head": last}}
    state = training.init_state(params, optax.sgd(0.1), key=KEY, batch_stats=stats)
    return training.compute_metrics(measured(state, batch))


def test_metrics_are_of_fixed_draws(measured):
    batch = rows_of(*UNKNOWN, 1)
    counted, nats = slice(UNKNOWN[1]), np.log(2) * 64
    every = every_bound(batch.images, draws(jax.random.key(0), UNKNOWN[0], CLASSES))[counted]
    log_q = log_q_of(batch.images, train=False)[0][counted]
    labels = batch.labels[counted]
    expected = {
        "bits_per_dimension": unlabelled_bound(every, log_q).mean() / nats,
        "cross_entropy": -log_q[np.arange(len(labels)), labels].mean(),
        "accuracy": (log_q.argmax(1) == labels).mean(),
    }
    found = measure(measured, batch)
    assert found == pytest.approx(expected, rel=1e-5)
    # No classifier gets below the marginal over the labels ...
    least = -logsumexp(-every, axis=1)
    assert found["bits_per_dimension"] * nats > least.mean() + 1e-3
    for c in range(CLASSES):
        # ... and one that is sure of a label pays its bound: U = L(x, c).
        sure = measure(measured, batch, 1e4 * np.eye(CLASSES)[c])
        assert sure["bits_per_dimension"] * nats == pytest.approx(every[:, c].mean(), rel=1e-5)
        assert sure["accuracy"] == pytest.approx((labels == c).mean())


def test_the_classifier_that_knows_the_bounds_pays_the_marginal(measured):
    """U = -log sum exp(-L) where q(y|x) is the softmax of -L, for one image."""
    batch = rows_of(UNKNOWN[0], 1, 1)
    every = every_bound(batch.images, draws(jax.random.key(0), UNKNOWN[0], CLASSES))[0]
    logits = log_q_of(batch.images, train=False)[0][0]
    bias = np.asarray(variables()["params"]["classifier"]["head"]["bias"]) - logits - every
    found = measure(measured, batch, bias)["bits_per_dimension"] * np.log(2) * 64
    assert found == pytest.approx(-logsumexp(-every), rel=1e-5)
    assert found < every.min()


def test_weight_of_the_classifier_is_the_papers():
    """Batches of 32, the last one too if it is not full; all images are the unlabelled ones."""
    batches = functools.partial(data.num_steps, batch_size=32)
    mnist = training.classification_weight(batches(100), batches(60_000))
    svhn = training.classification_weight(batches(1000), batches(73_257))
    assert (mnist, svhn) == (pytest.approx(46.975), pytest.approx(7.25625))
    assert training.classification_weight(5, 0) == pytest.approx(0.1)


@pytest.mark.parametrize("counts", [(0, 3), (-1, 3), (3, -1)])
def test_numbers_of_batches_out_of_range(counts):
    message = f"labelled_batches={counts[0]} must be .* unlabelled_batches={counts[1]} at least 0"
    with pytest.raises(ValueError, match=message):
        training.classification_weight(*counts)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weight_out_of_range(weight):
    with pytest.raises(ValueError, match=f"weight={weight} of the classifier's loss must be"):
        training.semi_supervised_loss(small(), LIKELIHOOD, weight=weight)
