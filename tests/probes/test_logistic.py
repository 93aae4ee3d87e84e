import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax.probes import accuracy, logistic_probe, predict

from . import reference

RAW = {"standardize_features": False, "tolerance": 1e-8}


def softmax(scores):
    p = np.exp(scores - np.max(scores, 1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("shape", "classes", "regularization"),
    [
        ((150, 6), 4, 0.01),
        ((150, 6), 4, 0.3),
        ((150, 6), 2, 0.01),
        ((8, 30), 3, 0.01),
        ((4, 3), 4, 0.01),
        ((4001, 40), 3, 0.3),  # two blocks, the last one padded
    ],
)
def test_matches_bfgs_on_the_written_out_objective(shape, classes, regularization):
    x, y = reference.blobs(*shape, classes)
    probe, report = logistic_probe(x, y, classes, regularization=regularization, **RAW)
    weights, bias = reference.logistic(x, y, classes, regularization)
    assert report.converged
    np.testing.assert_allclose(probe.weights, weights, atol=2e-6)
    # The objective does not change when all biases move together.
    np.testing.assert_allclose(probe.bias - probe.bias.mean(), bias - bias.mean(), atol=3e-5)
    expected = reference.logistic_loss(weights, bias, x, y, regularization)
    np.testing.assert_allclose(report.loss, expected, rtol=1e-10)


@pytest.mark.parametrize("classes", [2, 5])
def test_matches_scikit_learn(classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = reference.blobs(700, 12, classes)
    probe, report = logistic_probe(x, y, classes, regularization=0.02, **RAW)
    c = (2 if classes == 2 else 1) / (len(x) * 0.02)
    other = linear_model.LogisticRegression(C=c, tol=1e-8, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(softmax(probe.logits(x)), other.predict_proba(x), atol=1e-6)
    weights = np.asarray(probe.weights)
    coefficients = (weights[:, 1:] - weights[:, :1]) if classes == 2 else weights
    np.testing.assert_allclose(coefficients, other.coef_.T, atol=1e-6)
    assert report.converged


def numerical_gradient(loss, theta):
    steps = 1e-5 * np.eye(theta.size).reshape(-1, *theta.shape)
    return np.array([(loss(theta + s) - loss(theta - s)) / 2e-5 for s in steps])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_the_reported_gradient_norm_is_that_of_the_objective(tolerance):
    x, y = reference.blobs(90, 4)
    options = {"standardize_features": False, "tolerance": tolerance}
    probe, report = logistic_probe(x, y, 3, regularization=0.05, **options)
    theta = np.vstack([probe.weights, probe.bias[None, :]])

    def loss(t):
        return reference.logistic_loss(t[:-1], t[-1], x, y, 0.05)

    assert report.converged
    assert report.gradient_norm <= tolerance
    norm = np.abs(numerical_gradient(loss, theta)).max()
    np.testing.assert_allclose(report.gradient_norm, norm, atol=1e-9)
    np.testing.assert_allclose(report.loss, loss(theta), rtol=1e-12)


def test_too_few_iterations_are_reported():
    x, y = reference.blobs(90, 4)
    _, report = logistic_probe(x, y, 3, regularization=1e-3, tolerance=1e-9, max_iterations=2)
    assert report.iterations == 2
    assert not report.converged
    assert report.gradient_norm > 1e-9


def test_standardized_fit_is_the_fit_of_standardized_features():
    x, y = reference.blobs(200, 5)
    x[:, 1] = 1e4 * x[:, 1] + 1e5
    x[:, 4] = 7.0
    std = np.where(x.std(0) > 1e-9, x.std(0), 1)
    rows = (x - x.mean(0)) / std
    probe, report = logistic_probe(x, y, 3, regularization=0.01, tolerance=1e-8)
    by_hand, _ = logistic_probe(rows, y, 3, regularization=0.01, **RAW)
    assert report.converged
    np.testing.assert_allclose(probe.logits(x), by_hand.logits(rows), atol=1e-6)
    np.testing.assert_array_equal(probe.weights[4], 0)


def test_float32_agrees_with_float64():
    x, y = reference.blobs(1500, 20)
    double, best = logistic_probe(x, y, 3, regularization=0.01, tolerance=1e-7)
    single, report = logistic_probe(x.astype(np.float32), y, 3, regularization=0.01, tolerance=2e-5)
    assert report.converged
    assert single.weights.dtype == jnp.float32
    np.testing.assert_allclose(report.loss, best.loss, rtol=1e-6)
    np.testing.assert_allclose(single.weights, double.weights, atol=2e-3)


@settings(max_examples=3)
@given(st.integers(0, 10**6))
def test_order_of_images_does_not_matter(seed):
    x, y = reference.blobs(900, 600)
    order = np.random.default_rng(seed).permutation(len(x))
    probe, _ = logistic_probe(x, y, 3, regularization=0.1, tolerance=1e-7)
    other, _ = logistic_probe(x[order], y[order], 3, regularization=0.1, tolerance=1e-7)
    np.testing.assert_allclose(other.weights, probe.weights, atol=1e-5)


def test_huge_regularization_predicts_the_class_priors():
    x, y = reference.blobs()
    probe, _ = logistic_probe(x, y, 3, regularization=1e8, tolerance=1e-7)
    p = softmax(probe.logits(x))
    np.testing.assert_allclose(p, np.broadcast_to(np.bincount(y) / len(y), p.shape), atol=1e-5)


def test_separable_classes_without_penalty_are_read_exactly():
    x, _ = reference.blobs(4, 9)
    probe, report = logistic_probe(x, np.arange(4), 4, regularization=0.0, tolerance=1e-3)
    assert report.converged
    assert accuracy(predict(probe, x), np.arange(4)) == 1


def test_an_absent_class_is_refused():
    x, y = reference.blobs()
    with pytest.raises(ValueError, match="1 of 4 classes have no example, the first is class 3"):
        logistic_probe(x, y, 4, regularization=0.1)


@pytest.mark.parametrize(
    "bad", [{"tolerance": 0.0}, {"max_iterations": 0}, {"tolerance": float("nan")}]
)
def test_bad_settings_are_refused(bad):
    x, y = reference.blobs()
    with pytest.raises(
        ValueError, match=rf"{next(iter(bad))}=.* must be an? (finite number|integer)"
    ):
        logistic_probe(x, y, 3, **{"regularization": 0.1, **bad})
