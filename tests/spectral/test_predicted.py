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


def test_ridge_agrees_with_the_normal_equations():
    features, scores, test_features, test_scores = draw()
    centred = features - features.mean(0)
    penalty = 0.3 * np.trace(centred.T @ centred) / 3
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(3), centred.T @ scores)
    error = test_scores - scores.mean(0) - (test_features - features.mean(0)) @ weights
    expected = 1 - (error**2).sum(0) / ((test_scores - scores.mean(0)) ** 2).sum(0)
    found = predicted_directions(features, scores, test_features, test_scores, ridge=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    scaled = predicted_directions(
        1e-4 * features, scores, 1e-4 * test_features, test_scores, ridge=0.3
    )
    np.testing.assert_allclose(scaled, found, rtol=1e-9)


def test_ridge_stands_a_feature_that_hardly_varied():
    features, scores, test_features, test_scores = draw()
    rare, test_rare = np.zeros((60, 1)), np.zeros((60, 1))
    rare[5], test_rare[7] = 1e-3, 1.0
    more = np.hstack([features, rare]), scores, np.hstack([test_features, test_rare]), test_scores
    assert predicted_directions(*more).max() == 0
    without = predicted_directions(features, scores, test_features, test_scores)
    np.testing.assert_allclose(predicted_directions(*more, ridge=1e-3), without, atol=5e-3)


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


def test_negative_ridge_is_refused():
    with pytest.raises(ValueError, match=r"ridge=-1\.0 must be a finite number >= 0"):
        predicted_directions(*draw(), ridge=-1.0)
