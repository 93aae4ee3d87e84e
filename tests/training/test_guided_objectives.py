import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax import parallel, training
from recon_jax.data import Batch
from recon_jax.models import GuidedAutoencoder, MLPAutoencoder

SHAPE = (4, 4, 1)
CLASSES = 3


def make_model(guidance):
    return GuidedAutoencoder(MLPAutoencoder(SHAPE, 3), CLASSES, (8, 8), detach=guidance == 0)


def make_batch(step=0, rows=16, padded=0):
    rng = np.random.default_rng([5, step])
    labels = rng.integers(0, CLASSES, rows).astype(np.int32)
    images = rng.integers(0, 200, (rows, *SHAPE)).astype(np.uint8)
    images[:, 0, 0, 0] = 20 + 60 * labels
    mask = np.arange(rows) < rows - padded
    images[~mask], labels[~mask] = 0, 0
    return Batch(images, labels, mask)


@functools.cache
def variables():
    return jax.jit(make_model(0.01).init)(jax.random.key(1), jnp.zeros((1, *SHAPE), jnp.float32))


def make_state(optimizer, params, stats):
    return training.init_state(params, optimizer, key=jax.random.key(0), batch_stats=stats)


def train(loss, params, stats, steps=12, optimizer="adam"):
    optimizer = training.make_optimizer(optimizer, 1e-2)
    step = parallel.data_parallel(training.make_train_step(loss, optimizer))
    state = make_state(optimizer, params, stats)
    for index in range(steps):
        state, _ = step(state, make_batch(index))
    return state


def trained(guidance, **options):
    loss = training.guided_loss(make_model(guidance), guidance=guidance)
    return train(loss, variables()["params"], variables()["batch_stats"], **options)


@pytest.fixture(scope="module")
def unguided():
    return trained(0.0)


def test_without_guidance_the_autoencoder_is_the_unguided_one():
    # Two programs may round differently, and Adam makes steps of rounding, SGD does not.
    options = {"steps": 4, "optimizer": "sgd"}
    model, unguided = make_model(0.0).autoencoder, trained(0.0, **options)
    own = {group: tree["autoencoder"] for group, tree in variables().items()}
    loss = training.autoencoder_loss(model)
    plain = train(loss, own["params"], own["batch_stats"], **options)
    same = functools.partial(assert_allclose, rtol=1e-4, atol=1e-7)
    jax.tree.map(same, unguided.params["autoencoder"], plain.params)
    jax.tree.map(same, unguided.batch_stats["autoencoder"], plain.batch_stats)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), plain.params, own["params"])
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_without_guidance_the_heads_learn(unguided):
    evaluate = training.make_evaluate(training.guided_metrics(make_model(0.0)))
    batches = [make_batch(step) for step in range(4)]
    optimizer = training.make_optimizer("adam", 1e-2)
    start = make_state(optimizer, variables()["params"], variables()["batch_stats"])
    before, after = evaluate(start, batches), evaluate(unguided, batches)
    for head in ("linear", "mlp"):
        assert after[f"{head}_cross_entropy"] < before[f"{head}_cross_entropy"]


def test_guidance_moves_the_autoencoder(unguided):
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()),
        trained(0.5).params["autoencoder"]["encoder"],
        unguided.params["autoencoder"]["encoder"],
    )
    assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize("guidance", [0.0, 0.01, 2.0])
def test_loss_is_the_weighted_sum_over_images_that_count(guidance):
    model, batch = make_model(guidance), make_batch(rows=12, padded=5)
    loss_fn = training.guided_loss(model, guidance=guidance)
    params, stats = variables()["params"], variables()["batch_stats"]
    loss, (_, sums) = loss_fn(params, stats, batch, jax.random.key(0))
    images = batch.images / 255
    output, _ = model.apply(variables(), images, train=True, mutable=["batch_stats"])
    squared = np.mean((np.asarray(output.reconstruction, np.float64) - images)[:7] ** 2)
    expected = {}
    for head in ("linear", "mlp"):
        logits = np.asarray(getattr(output, f"{head}_logits"), np.float64)[:7]
        chosen = logits[np.arange(7), batch.labels[:7]]
        expected[head] = np.mean(np.log(np.exp(logits).sum(1)) - chosen)
        right = logits.argmax(1) == batch.labels[:7]
        assert_allclose(sums[f"{head}_accuracy"], (right.sum(), 7))
        assert_allclose(sums[f"{head}_cross_entropy"], (7 * expected[head], 7), rtol=1e-5)
    weight = guidance or 1.0
    assert_allclose(loss, squared + weight * (expected["linear"] + expected["mlp"]), rtol=1e-5)
    assert_allclose(sums["squared_error"], (7 * squared, 7), rtol=1e-5)


def test_gradient_is_that_of_finite_differences():
    double = {"dtype": jnp.float64}
    autoencoder = MLPAutoencoder(SHAPE, 3, **double)
    model = GuidedAutoencoder(autoencoder, CLASSES, (8, 8), **double)
    loss_fn = training.guided_loss(model, guidance=0.3)
    params, stats = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64), (variables()["params"], variables()["batch_stats"])
    )
    direction = np.random.default_rng(0).standard_normal((9, 3))

    @jax.jit
    def along(t):
        moved = jax.tree.map(lambda leaf: leaf, params)
        moved["autoencoder"]["encoder"]["last"]["kernel"] += t * direction
        return loss_fn(moved, stats, make_batch(), jax.random.key(0))[0]

    slope = (along(1e-5) - along(-1e-5)) / 2e-5
    assert_allclose(jax.jit(jax.grad(along))(0.0), slope, rtol=1e-5)


def test_images_are_augmented_as_input_and_as_target():
    model, batch = make_model(0.01), make_batch()
    flip = training.guided_loss(
        model, guidance=0.01, policy=lambda keys, images: images[:, :, ::-1]
    )
    flipped = batch._replace(images=batch.images[:, :, ::-1])
    plain = training.guided_loss(model, guidance=0.01)
    arguments = variables()["params"], variables()["batch_stats"]
    key = jax.random.key(0)
    assert_allclose(flip(*arguments, batch, key)[0], plain(*arguments, flipped, key)[0], rtol=1e-6)


@pytest.mark.parametrize("guidance", [-0.1, float("nan"), float("inf")])
def test_bad_guidance(guidance):
    with pytest.raises(ValueError, match="must be finite and 0 or more"):
        training.guided_loss(make_model(0.01), guidance=guidance)


@pytest.mark.parametrize(("guidance", "other"), [(0.0, 0.01), (0.01, 0.0)])
def test_guidance_and_detach_must_agree(guidance, other):
    with pytest.raises(ValueError, match=f"guidance={guidance:g} needs a model with detach="):
        training.guided_loss(make_model(other), guidance=guidance)
