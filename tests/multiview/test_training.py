"""Pretraining, supervised training and fine-tuning against plain NumPy, and what they learn."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import multiview

SPEC = multiview.MultiViewSpec(2, 6, 6)
# Tests compile much and compute little.


@functools.cache
def problem(scale=0.3, dtype=np.float64):
    """Kernels (4, 6), patches (20, 6, 6) and labels of two classes."""
    rng = np.random.default_rng(0)
    kernels = scale * rng.standard_normal((4, 6))
    labels = rng.integers(0, 2, 20)
    patches = 0.4 * rng.standard_normal((20, 6, 6))
    patches[np.arange(20), 0, labels] += 1
    return kernels.astype(dtype), patches.astype(dtype), labels


def curve(z):
    return np.where(z <= 1, np.clip(z, 0, None) ** 4 / 4, z - 0.75)


def slope(z):
    return np.clip(z, 0, 1) ** 3


def responses(kernels, patches):
    return np.einsum("rd,npd->npr", kernels, patches)


def supervised_gradients(kernels, head, patches, labels, activation=1.0):
    """Loss, slope of the kernels and of the head, for logits head h / activation."""
    found = responses(kernels, patches)
    hidden = curve(found).sum(1) / activation
    scores = hidden @ head.T
    odds = np.exp(scores - scores.max(1, keepdims=True))
    odds /= odds.sum(1, keepdims=True)
    loss = -np.log(odds[np.arange(len(labels)), labels]).mean()
    error = (odds - np.eye(len(head))[labels]) / len(labels)
    back = (error @ head)[:, None] * slope(found) / activation
    return loss, np.einsum("npr,npd->rd", back, patches), error.T @ hidden


def test_pretraining_steps_are_the_rule():
    kernels, patches, _ = problem()
    keep, scale = 0.6, 1.1
    expected, largest, losses = kernels.copy(), np.zeros(4), []
    norms = []
    for _ in range(5):
        found = responses(expected, patches)
        seen, teacher = curve(found), curve(scale * found).sum(1)
        error = teacher - seen.sum(1)
        weight = (1 - keep) / keep
        losses.append((error**2 + weight * (seen**2).sum(1)).sum() / 40)
        norms.append(np.linalg.norm(expected))
        back = (weight * seen - error[:, None]) * slope(found)
        gradient = np.einsum("npr,npd->rd", back, patches) / 20
        norm = np.linalg.norm(gradient, axis=1)
        largest = np.maximum(largest, norm)
        expected = expected - 0.05 * gradient / largest[:, None]
    trained = multiview.pretrain(kernels, patches, keep, scale, step_size=0.05, steps=5)
    np.testing.assert_allclose(trained.kernels, expected, atol=1e-12)
    np.testing.assert_allclose(trained.history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(trained.history.norm, norms, rtol=1e-12)
    assert trained.head is None
    assert trained.history.steps == 5


def test_sampled_masks():
    kernels, patches, _ = problem()
    exact = multiview.pretrain(kernels, patches, 0.6, 1.1, step_size=0.05, steps=5)
    keys = jax.random.split(jax.random.key(0), 2)

    @functools.partial(jax.jit)
    def losses(keep, step_size):
        def train(key):
            return multiview.pretrain(
                kernels, patches, keep, 1.1, step_size=step_size, steps=5, mask_key=key
            )

        return jax.vmap(lambda key: train(key).history.loss)(keys)

    # Kernels that hardly move: the masks alone make the loss differ, with the key and every step.
    found = np.asarray(losses(0.6, 1e-9)).reshape(-1)
    assert np.diff(np.sort(found)).min() > 1e-6
    assert found.mean() == pytest.approx(exact.history.loss[0], rel=0.5)
    unmasked = losses(1.0, 0.05)
    np.testing.assert_allclose(unmasked[0], unmasked[1], rtol=1e-12)


def test_each_kernel_has_a_race_of_its_own():
    kernels, patches, _ = problem()
    together, same = multiview.pretrain(kernels, patches, steps=5).kernels, np.asarray([0, 1, 3])
    # The scale of one kernel changes how fast it goes, not where the others do.
    changed = kernels * np.asarray([1, 1, 0.1, 1])[:, None]
    others = multiview.pretrain(changed, patches, steps=5).kernels
    np.testing.assert_allclose(others[same], together[same], atol=1e-13)
    # Its gradient is 10^-7 of what it was, its step is not.
    assert 0.01 <= np.linalg.norm(others[2] - changed[2]) <= 0.05


def test_masked_autoencoding_learns_to_reconstruct():
    kernels, patches, _ = problem()
    trained = multiview.pretrain_mae(
        jax.random.key(0), kernels, patches, 0.9, learning_rate=0.03, steps=100
    )
    assert trained.head.shape == (4, 6)
    key = jax.random.key(1)
    losses = [
        float(multiview.mae_loss(trained.kernels, decoder, patches, key, 1.0))
        for decoder in (np.zeros((4, 6)), trained.head)
    ]
    assert losses[1] < 0.7 * losses[0]
    assert trained.history.loss[-10:].mean() < 0.8 * trained.history.loss[0]
    assert len(np.unique(trained.history.loss)) == 100


@pytest.mark.parametrize("train_head", [False, True])
def test_supervised_steps_are_the_rule(train_head):
    kernels, patches, labels = problem()
    max_rate, max_length = 5.0, 0.5
    expected, head = kernels.copy(), np.repeat(np.eye(2), 2, axis=1)
    losses, capped = [], []
    for _ in range(12):
        loss, kernel_slope, head_slope = supervised_gradients(expected, head, patches, labels)
        losses.append(loss)
        norm = np.sqrt((kernel_slope**2).sum() + train_head * (head_slope**2).sum())
        capped.append(max_length / norm < max_rate)
        rate = min(max_rate, max_length / norm)
        expected = expected - rate * kernel_slope
        head = head - train_head * rate * head_slope
    assert len(set(capped)) == 2  # both sides of the minimum
    trained = multiview.train_supervised(
        kernels,
        patches,
        labels,
        2,
        train_head=train_head,
        max_rate=max_rate,
        max_length=max_length,
        stop_loss=0.0,
        max_steps=12,
    )
    np.testing.assert_allclose(trained.kernels, expected, atol=1e-10)
    np.testing.assert_allclose(trained.head, head, atol=1e-10)
    np.testing.assert_allclose(trained.history.loss, losses, rtol=1e-10)
    assert trained.history.steps == 12


def test_supervised_training_stops():
    kernels, patches, labels = problem()
    trained = multiview.train_supervised(kernels, patches, labels, 2, stop_loss=0.3, max_steps=100)
    steps, losses = int(trained.history.steps), np.asarray(trained.history.loss)
    assert 1 < steps < 99
    assert (losses[:steps] > 0.3).all()
    assert losses[steps] <= 0.3
    np.testing.assert_array_equal(losses[steps:], losses[steps])
    # The network returned is the one with this loss, and one step fewer is not enough.
    reached, *_ = supervised_gradients(*map(np.asarray, trained[:2]), patches, labels)
    assert reached == pytest.approx(losses[steps])
    shorter = multiview.train_supervised(
        kernels, patches, labels, 2, stop_loss=0.3, max_steps=steps
    )
    np.testing.assert_allclose(shorter.kernels, trained.kernels, atol=1e-12)
    assert shorter.history.steps == steps


def test_fine_tuning_steps_are_the_rule():
    kernels, patches, labels = problem()
    start = np.sort(curve(responses(kernels, patches)).sum(1), axis=1)[:, -3:].mean()
    expected, head, losses = kernels.copy(), np.zeros((2, 4)), []
    for _ in range(4):
        loss, kernel_slope, head_slope = supervised_gradients(
            expected, head, patches, labels, start
        )
        losses.append(loss)
        expected, head = expected - 0.2 * kernel_slope, head - 0.5 * head_slope
    trained = multiview.finetune(
        kernels, patches, labels, 2, head_rate=0.5, encoder_rate=0.2, steps=4
    )
    np.testing.assert_allclose(trained.kernels, expected, atol=1e-12)
    np.testing.assert_allclose(trained.head, head / start, rtol=1e-10)
    np.testing.assert_allclose(trained.history.loss, losses, rtol=1e-12)
    assert trained.history.norm[0] == pytest.approx(np.linalg.norm(kernels))
    assert trained.history.norm[-1] != trained.history.norm[0]


def test_a_head_alone_is_fine_tuning_of_frozen_kernels():
    kernels, patches, labels = problem()
    alone = multiview.train_head(kernels, patches, labels, 2, steps=4)
    frozen = multiview.finetune(kernels, patches, labels, 2, encoder_rate=1e-14, steps=4)
    np.testing.assert_array_equal(alone.kernels, kernels)
    np.testing.assert_allclose(alone.head, frozen.head, rtol=1e-9)
    np.testing.assert_allclose(alone.history.loss, frozen.history.loss, rtol=1e-12)
    assert alone.history.loss[-1] < alone.history.loss[0] == pytest.approx(math.log(2))
    # Tiny activations, of which float32 has no squares, are no obstacle.
    tiny = multiview.train_head(1e-6 * kernels, patches, labels, 2, steps=4)
    np.testing.assert_allclose(tiny.history.loss, alone.history.loss, atol=0.02)


def test_dead_kernels_stay_and_are_not_divided_by():
    _, patches, labels = problem()
    dead, patches = -np.eye(4, 6), np.abs(patches)
    for trained in (
        multiview.pretrain(dead, patches, steps=5),
        multiview.finetune(dead, patches, labels, 2, steps=4),
        multiview.train_head(dead, patches, labels, 2, steps=4),
    ):
        np.testing.assert_array_equal(trained.kernels, dead)
        np.testing.assert_array_equal(trained.history.norm, 2)
    np.testing.assert_array_equal(trained.head, 0)
    np.testing.assert_allclose(trained.history.loss, math.log(2))
    nothing = multiview.pretrain(np.zeros((4, 6)), patches, steps=5)
    np.testing.assert_array_equal(nothing.kernels, 0)
    np.testing.assert_array_equal(nothing.history.loss, 0)


def test_seeds_can_be_vmapped():
    kernels, patches, labels = problem(dtype=np.float32)
    starts = jnp.stack([kernels, 0.1 * kernels])

    def both(start):
        pretrained = multiview.pretrain(start, patches, steps=5)
        trained = multiview.train_supervised(start, patches, labels, 2, stop_loss=0.4)
        return pretrained, trained

    together = jax.jit(jax.vmap(both))(starts)
    assert len(set(map(int, together[1].history.steps))) == 2
    for i in range(2):
        alone = jax.jit(both)(starts[i])
        for found, expected in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            assert found.dtype in (jnp.float32, jnp.int32)
            np.testing.assert_allclose(found, expected[i], rtol=2e-3, atol=1e-5)


def test_teacher_scales_outside_the_window():
    kernels, patches, _ = problem()
    with pytest.warns(UserWarning, match=r"teacher_scale=1\.05 lies outside .* features shrink"):
        multiview.pretrain(kernels, patches, 0.5, 1.05, steps=5)
    with pytest.warns(UserWarning, match=r"teacher_scale=1\.12\d* lies outside .* grows too"):
        multiview.pretrain(kernels, patches, 0.8, steps=5)


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (multiview.pretrain, {"keep": 0.0}, r"keep=0\.0 must lie in \(0, 1\]"),
        (multiview.pretrain, {"teacher_scale": -1.0}, r"teacher_scale=-1\.0 must be a finite"),
        (multiview.pretrain, {"step_size": 0.0}, r"step_size=0\.0 must be a finite number > 0"),
        (multiview.pretrain, {"steps": 0}, "steps=0 must be an integer of at least 1"),
        (multiview.pretrain, {"patches_per_feature": 0}, "patches_per_feature=0 must be"),
        (multiview.train_supervised, {"num_classes": 3}, "num_kernels=4 is not a multiple of"),
        (multiview.train_supervised, {"num_classes": 1}, "labels run from 0 to 1; with num_cla"),
        (multiview.train_supervised, {"max_rate": 0.0}, r"max_rate=0\.0 must be a finite"),
        (multiview.train_supervised, {"max_length": -1.0}, r"max_length=-1\.0 must be a finite"),
        (multiview.train_supervised, {"stop_loss": -0.1}, r"stop_loss=-0\.1 must lie in \[0, 1\]"),
        (multiview.train_supervised, {"max_steps": 0}, "max_steps=0 must be an integer"),
        (
            multiview.finetune,
            {"labels": np.zeros(20)},
            "labels must be integer class",
        ),
        (multiview.finetune, {"encoder_rate": 0.0}, r"encoder_rate=0\.0 .* train_head freezes"),
        (multiview.train_head, {"head_rate": 0.0}, r"head_rate=0\.0 must be a finite number > 0"),
        (multiview.train_head, {"num_classes": 0}, "num_classes=0 must be an integer"),
    ],
)
def test_bad_input(train, options, message):
    kernels, patches, labels = problem()
    arguments = {"kernels": kernels, "patches": patches}
    if train is not multiview.pretrain:
        arguments |= {"labels": labels, "num_classes": 2}
    if "labels" in options:
        train = train.__wrapped__
    with pytest.raises(ValueError, match=message):
        train(**{**arguments, **options})
