import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.probes import LinearProbe, accuracy, predict, top_k_accuracy


def test_accuracy_of_predictions_and_of_logits():
    logits = np.array([[0.1, 0.9, 0.0], [2.0, 1.0, 3.0], [0.0, -1.0, -2.0], [5.0, 6.0, 7.0]])
    labels = np.array([1, 2, 1, 0])
    assert accuracy(logits, labels) == 0.5
    assert accuracy(logits.argmax(1), labels) == 0.5


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_accuracy_matches_a_stable_sort(k):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 5)).astype(float)  # many ties
    labels = rng.integers(0, 5, 200)
    best = np.argsort(-scores, 1, kind="stable")[:, :k]
    expected = (best == labels[:, None]).any(1).mean()
    np.testing.assert_allclose(top_k_accuracy(scores, labels, k), expected)
    np.testing.assert_allclose(
        jax.jit(top_k_accuracy, static_argnums=2)(scores, labels, k), expected
    )


def test_predict_takes_the_lowest_of_equal_classes():
    probe = LinearProbe(jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), jnp.array([0.0, 0.5, 0.0]))
    np.testing.assert_array_equal(predict(probe, np.array([[2.0, 0], [0, 1], [0.5, 0]])), [0, 1, 0])


def test_bad_input_is_refused():
    probe = LinearProbe(jnp.ones((2, 3)), jnp.zeros(3))
    with pytest.raises(ValueError, match="4 features, but the probe was fitted on 2"):
        predict(probe, np.ones((5, 4)))
    with pytest.raises(ValueError, match="hold NaN"):
        predict(probe, np.array([[0, np.nan]]))
    with pytest.raises(ValueError, match="scores hold NaN"):
        accuracy(np.array([[0, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="integer predictions"):
        accuracy(np.array([0.5]), np.array([0]))
    with pytest.raises(ValueError, match="k=4 must lie in"):
        top_k_accuracy(np.ones((2, 3)), np.array([0, 1]), 4)
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        accuracy(np.ones((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match="one entry an example"):
        accuracy(np.zeros(0, int), np.zeros(0, int))
