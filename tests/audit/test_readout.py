import numpy as np
import pytest

from recon_jax.audit import readout
from recon_jax.audit.readout import PENALTIES, fit_read_out, read_out

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape)


def ridge(features, targets, penalty):
    """(weights, offset) by the normal equations."""
    x, y = features - features.mean(0), targets - targets.mean(0)
    if np.isinf(penalty):
        return np.zeros((x.shape[1], y.shape[1])), targets.mean(0)
    scaled = penalty * np.linalg.norm(x, 2) ** 2
    weights = np.linalg.solve(x.T @ x + scaled * np.eye(x.shape[1]), x.T @ y)
    return weights, targets.mean(0) - features.mean(0) @ weights


def expected_predictions(features, targets, test_features):
    """Ridge by five-fold cross-validation, written out."""
    fold = np.arange(len(features)) % 5
    errors = []
    for penalty in PENALTIES:
        squares = 0
        for number in range(5):
            inside = fold == number
            weights, offset = ridge(features[~inside], targets[~inside], penalty)
            squares += np.square(features[inside] @ weights + offset - targets[inside]).sum(0)
        errors.append(squares)
    chosen = np.argmin(errors, 0)
    found = [ridge(features, targets, penalty) for penalty in PENALTIES]
    return np.stack(
        [test_features @ found[c][0][:, i] + found[c][1][i] for i, c in enumerate(chosen)], 1
    ), chosen


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)])
def test_matches_cross_validated_normal_equations(shape):
    features = draw(*shape) @ np.diag(np.geomspace(1, 0.01, shape[1])) + 3
    test = draw(9, shape[1]) + 3
    # From what features hold to what they know nothing about.
    targets = np.concatenate(
        [features @ draw(shape[1], 4) + np.array([0, 0.1, 1, 10]) * draw(shape[0], 4) - 5], 1
    )
    expected, chosen = expected_predictions(features, targets, test)
    assert len(set(chosen)) > 1
    found = read_out(fit_read_out(features, test), targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_penalties_differ_with_what_targets_can_be_read():
    features, test = draw(300, 20), draw(2000, 20)
    weights = draw(20, 1)
    known, unknown = features @ weights, draw(300, 1)
    found = read_out(fit_read_out(features, test), np.concatenate([known, unknown], 1))
    np.testing.assert_allclose(found[:, 0], (test @ weights)[:, 0], atol=1e-7)
    # Unpenalised least squares would have a variance of 20 / 300.
    assert np.square(found[:, 1] - unknown.mean()).mean() < 0.03


def test_scale_shift_rotation_and_idle_features_do_not_matter():
    features, test, targets = draw(50, 5), draw(10, 5), draw(50, 3)
    targets[:, 0] += 3 * features[:, 1]
    expected = read_out(fit_read_out(features, test), targets)
    rotation = np.linalg.qr(draw(8, 5))[0].T  # into 8 dimensions, of which 3 stay empty
    moved = [1e3 * rows @ rotation - 7 for rows in (features, test)]
    np.testing.assert_allclose(read_out(fit_read_out(*moved), targets), expected, atol=1e-8)
    copies = [np.concatenate([rows, np.full((len(rows), 2), 4.0)], 1) for rows in (features, test)]
    np.testing.assert_allclose(read_out(fit_read_out(*copies), targets), expected, atol=1e-8)


def test_features_that_outnumber_images_are_those_of_the_span():
    features, test, targets = draw(10, 300), draw(4, 300), draw(10, 2)
    fitted = fit_read_out(features, test)
    assert len(fitted.whole.values) == 9
    # In any basis of the span.
    basis = np.linalg.svd(features - features.mean(0), full_matrices=False)[2][:9].T
    inside = read_out(fit_read_out(features @ basis, test @ basis), targets)
    np.testing.assert_allclose(read_out(fitted, targets), inside, atol=1e-8)


def test_near_interpolation_is_not_mistaken_for_knowledge():
    """As many features as images fit anything in training, which only held-out images show."""
    features, test = draw(48, 47), draw(500, 47)
    targets = draw(48, 30)
    found = read_out(fit_read_out(features, test), targets)
    assert np.square(found - targets.mean(0)).mean() < 0.3


def test_one_large_fold_is_enough(monkeypatch):
    features, test, targets = draw(60, 3), draw(5, 3), draw(60, 2)
    assert len(fit_read_out(features, test).folds) == 5
    monkeypatch.setattr(readout, "ENOUGH", 24)
    fitted = fit_read_out(features, test)
    assert [len(scores) for _, scores in fitted.folds] == [12, 12]
    monkeypatch.setattr(readout, "ENOUGH", 10)
    fitted = fit_read_out(features, test)
    assert [len(scores) for _, scores in fitted.folds] == [10]
    assert len(fitted.folds[0][0].features) == 48
    assert read_out(fitted, targets).shape == (5, 2)


def test_constant_features_predict_the_mean():
    fitted = fit_read_out(np.full((6, 3), 2.0), draw(4, 3))
    targets = draw(6, 2)
    np.testing.assert_allclose(read_out(fitted, targets), np.tile(targets.mean(0), (4, 1)))
    np.testing.assert_allclose(read_out(fit_read_out(draw(6, 2), draw(4, 2)), targets * 0 + 3), 3)


def test_blocks_and_float32_change_nothing(monkeypatch):
    features, test, targets = draw(30, 4), draw(5, 4), draw(30, 2)
    # A common offset, in which float32 sums would drown everything.
    features[:, 0], test[:, 0] = features[:, 0] + 1e4, test[:, 0] + 1e4
    expected = read_out(fit_read_out(features, test), targets)
    monkeypatch.setattr(readout, "_BLOCK", 7)
    np.testing.assert_allclose(
        read_out(fit_read_out(features, test), targets), expected, atol=1e-10
    )
    single = [part.astype(np.float32) for part in (features, test, targets)]
    found = read_out(fit_read_out(*single[:2]), single[2])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-2)
