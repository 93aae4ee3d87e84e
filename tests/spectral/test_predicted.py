import numpy as np
import pytest

from recon_jax.spectral import predicted_directions


def draw(count=60, size=3, targets=5, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2, count, size)) + 4
    scores = features @ rng.normal(size=(size, targets)) + rng.normal(size=(2, count, targets)) - 7
    return features[0], scores[0], features[1], scores[1]


def test_agrees_with_the_normal_equations():
    features, scores, test_features, test_scores = draw()
    design = np.column_stack([features, np.ones(60)])
    weights = np.linalg.solve(design.T @ design, design.T @ scores)
    error = test_scores - np.column_stack([test_features, np.ones(60)]) @ weights
    total = test_scores - scores.mean(0)
    expected = 1 - (error**2).sum(0) / (total**2).sum(0)
    assert expected.min() > 0
    found = predicted_directions(features, scores, test_features, test_scores)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_components_predict_themselves_and_nothing_else():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(2000, 6))
    found = predicted_directions(scores[:1000, :2], scores[:1000], scores[1000:, :2], scores[1000:])
    np.testing.assert_allclose(found[:2], 1, atol=1e-12)
    assert found[2:].max() < 0.01


def test_any_invertible_map_of_the_features_gives_the_same():
    features, scores, test_features, test_scores = draw()
    turn = np.random.default_rng(2).normal(size=(3, 3)) + 2 * np.eye(3)
    plain = predicted_directions(features, scores, test_features, test_scores)
    turned = predicted_directions(
        features @ turn + 1, scores, test_features @ turn + 1, test_scores
    )
    np.testing.assert_allclose(turned, plain, rtol=1e-8)


def test_collapsed_and_copied_features_and_still_directions():
    features, scores, test_features, test_scores = draw()
    constant = predicted_directions(np.ones((60, 2)), scores, np.ones((60, 2)), test_scores)
    np.testing.assert_allclose(constant, 0, atol=1e-12)
    twice = predicted_directions(
        np.hstack([features] * 2), scores, np.hstack([test_features] * 2), test_scores
    )
    once = predicted_directions(features, scores, test_features, test_scores)
    np.testing.assert_allclose(twice, once, rtol=1e-8)
    scores[:, 0], test_scores[:, 0] = 3, 3
    assert predicted_directions(features, scores, test_features, test_scores)[0] == 0


def test_bad_input():
    features, scores, test_features, test_scores = draw(count=4)
    with pytest.raises(ValueError, match=r"4 training images cannot fit 3 features .* give 5"):
        predicted_directions(features, scores, test_features, test_scores)
    features, scores, test_features, test_scores = draw()
    for wrong in (
        (features, scores[:50], test_features, test_scores),
        (features, scores, test_features[:, :2], test_scores),
        (features, scores, test_features, test_scores[:, :4]),
        (features, scores, test_features[:30], test_scores),
    ):
        with pytest.raises(ValueError, match=r"must be \(N, K\), \(N, P\), \(M, K\), \(M, P\)"):
            predicted_directions.__wrapped__(*wrong)
