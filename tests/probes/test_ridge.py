from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.probes import accuracy, predict, ridge_probe

from . import reference

SHAPES = [(120, 7), (6, 7), (7, 7), (5, 40), (3, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("regularization", [0.0, 1e-6, 0.1, 100.0])
def test_matches_augmented_least_squares(shape, regularization):
    x, y = reference.blobs(*shape)
    probe = ridge_probe(x, y, 3, regularization)
    if regularization == 0 and shape[0] <= shape[1]:
        # The augmented problem shrinks the bias as well here; compare the fits, and the norms with
        # those of the centred problem.
        centred, targets = x - x.mean(0), np.eye(3)[y]
        expected = np.linalg.pinv(centred) @ (targets - targets.mean(0))
        np.testing.assert_allclose(probe.weights, expected, atol=1e-8)
        np.testing.assert_allclose(probe.logits(x), targets, atol=1e-8)
        return
    weights, bias = reference.ridge(x, y, 3, regularization)
    np.testing.assert_allclose(probe.weights, weights, atol=1e-9)
    np.testing.assert_allclose(probe.bias, bias, atol=1e-9)


def test_matches_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    for shape in SHAPES[:4]:
        x, y = reference.blobs(*shape)
        other = linear_model.Ridge(alpha=0.03 * len(x), solver="svd").fit(x, np.eye(3)[y])
        probe = ridge_probe(x, y, 3, 0.03)
        np.testing.assert_allclose(probe.weights, other.coef_.T, atol=1e-10)
        np.testing.assert_allclose(probe.bias, other.intercept_, atol=1e-10)


def test_refinement_gives_back_what_normal_equations_lose():
    x, y = reference.blobs(200, 10)
    x[:, 1] = x[:, 0] + 3e-6 * x[:, 1]
    weights, _ = reference.ridge(x, y, 3, 0.0)
    error = np.abs(ridge_probe(x, y, 3, 0.0).weights - weights).max() / np.abs(weights).max()
    centred = x - x.mean(0)
    plain = np.linalg.solve(centred.T @ centred, centred.T @ np.eye(3)[y])
    plain_error = np.abs(plain - weights).max() / np.abs(weights).max()
    assert error < 1e-7
    assert error < plain_error / 10


@pytest.mark.parametrize("shape", SHAPES)
def test_huge_regularization_predicts_the_class_priors(shape):
    x, y = reference.blobs(*shape)
    logits = ridge_probe(x, y, 3, 1e12).logits(x)
    np.testing.assert_allclose(
        logits, np.broadcast_to(np.bincount(y) / len(y), logits.shape), atol=1e-9
    )


@given(st.integers(0, 10**6), st.sampled_from(SHAPES[:4]))
def test_logits_sum_to_one_and_do_not_depend_on_order_or_shift(seed, shape):
    x, y = reference.blobs(*shape, seed=seed)
    probe = ridge_probe(x, y, 3, 0.01)
    logits = probe.logits(x)
    np.testing.assert_allclose(logits.sum(1), 1, atol=1e-9)
    order = np.random.default_rng(seed).permutation(len(x))
    np.testing.assert_allclose(
        ridge_probe(x[order], y[order], 3, 0.01).logits(x), logits, atol=1e-9
    )
    shifted = x + 5.0
    np.testing.assert_allclose(ridge_probe(shifted, y, 3, 0.01).logits(shifted), logits, atol=1e-9)


@pytest.mark.parametrize("shape", [(120, 7), (5, 40)])
def test_float32_agrees_with_float64(shape):
    x, y = reference.blobs(*shape)
    single = ridge_probe(x.astype(np.float32), y, 3, 1e-3)
    assert single.weights.dtype == np.float32
    np.testing.assert_allclose(
        single.logits(x.astype(np.float32)), ridge_probe(x, y, 3, 1e-3).logits(x), atol=2e-5
    )


def test_under_jit():
    x, y = reference.blobs()
    jitted = jax.jit(partial(ridge_probe, num_classes=3))(x, y, regularization=0.1)
    np.testing.assert_allclose(jitted.weights, ridge_probe(x, y, 3, 0.1).weights, rtol=1e-10)


def test_a_constant_feature_and_an_absent_class_get_no_weight():
    x, y = reference.blobs()
    x[:, 3] = 4.0
    probe = ridge_probe(x, y, 5, 0.0)
    np.testing.assert_allclose(probe.weights[3], 0, atol=1e-12)
    np.testing.assert_allclose(probe.logits(x)[:, 3:], 0, atol=1e-12)
    rest = reference.ridge(np.delete(x, 3, 1), y, 5, 0.0)
    np.testing.assert_allclose(np.delete(probe.weights, 3, 0), rest[0], atol=1e-9)


def test_one_image_a_class_is_read_exactly():
    x, _ = reference.blobs(4, 9)
    probe = ridge_probe(x, np.arange(4), 4, 0.0)
    assert accuracy(predict(probe, x), np.arange(4)) == 1
