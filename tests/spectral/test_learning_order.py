import numpy as np
import pytest

from recon_jax import spectral


def brute_crossing(times, curve, level):
    """Scan a fine grid of the interpolated curve."""
    grid = np.linspace(times[0], times[-1], 200_001)
    above = np.interp(grid, times, curve) >= level
    return grid[np.argmax(above)] if above.any() else np.inf


def test_crossing_times_equal_a_fine_scan():
    times = np.array([0.0, 1, 2, 5, 9])
    curves = np.random.default_rng(0).random((5, 40))
    found = spectral.crossing_times(times, curves, 0.7)
    expected = [brute_crossing(times, curve, 0.7) for curve in curves.T]
    assert np.isinf(found).any()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0, 1, 2], 0.5),
        ([0, 0.5, 0], 1),
        ([0.7, 0, 1], 0),  # above it from the start
        ([0, 1, 0], 0.5),  # the first of several
        ([0, 0.4, 0.6], 2),
        ([-1, 0, 1], 2),
        ([0, 0, 0.4], np.inf),
        ([np.nan, np.nan, np.nan], np.inf),
    ],
)
def test_crossing_time_by_hand(curve, expected):
    found = spectral.crossing_times(np.array([0.0, 1, 3]), np.array(curve, float), 0.5)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("times", [[0.0, 0.0, 1.0], [0.0, 1.0], [1.0, 0.5, 2.0]])
def test_times_that_do_not_ascend_are_refused(times):
    with pytest.raises(ValueError, match="times must ascend, one for each of 3 rows"):
        spectral.crossing_times(np.array(times), np.zeros(3), 0.5)


def mean_ranks(values):
    """Ranks, the mean of their places among equals."""
    values = np.asarray(values)
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def test_rank_correlations_equal_those_of_ranks_by_hand():
    rng = np.random.default_rng(0)
    predicted = rng.random(30) + 0.1
    observed = predicted + 0.3 * rng.random(30)
    observed[::4] = np.inf
    found = spectral.order_agreement(predicted, observed)
    learned = np.isfinite(observed)

    def by_hand(x, y):
        return np.corrcoef(mean_ranks(x), mean_ranks(y))[0, 1]

    assert (found.num_modes, found.num_learned) == (30, learned.sum())
    np.testing.assert_allclose(
        found.rank_correlation, by_hand(predicted[learned], observed[learned])
    )
    np.testing.assert_allclose(found.rank_correlation_all, by_hand(predicted, observed))
    order = np.argsort(predicted)
    best = np.full(30, np.inf)
    best[order[: learned.sum()]] = np.arange(learned.sum())
    np.testing.assert_allclose(found.attainable, by_hand(predicted, best))
    assert found.rank_correlation_all < found.attainable < 1
    np.testing.assert_allclose(found.scale, np.median((observed / predicted)[learned]))
    logs = np.log(predicted[learned]), np.log(observed[learned])
    first, second = np.triu_indices(learned.sum(), 1)
    slopes = (logs[1][first] - logs[1][second]) / (logs[0][first] - logs[0][second])
    np.testing.assert_allclose(found.exponent, np.median(slopes))


def test_gradient_flow_agrees_with_itself(set_a_moments):
    spectrum = spectral.eigendecompose(set_a_moments)
    predicted = np.asarray(spectral.learning_times(spectrum))
    times = np.linspace(0, 2 * predicted.max(), 40_001)
    curves = np.stack([np.asarray(spectral.learned_fraction(spectrum, t)) for t in times[::100]])
    observed = spectral.crossing_times(times[::100], curves, 0.5)
    found = spectral.order_agreement(predicted, 7 * observed)
    assert found.num_learned == 6
    assert found.rank_correlation == found.rank_correlation_all == 1
    np.testing.assert_allclose(found.scale, 7, rtol=0.02)
    np.testing.assert_allclose(found.exponent, 1, rtol=0.05)


def test_exponent_and_modes_without_variance():
    predicted = np.array([1.0, 10, 100, 1000, np.inf])
    found = spectral.order_agreement(predicted, np.append(3 * predicted[:4] ** 0.5, np.inf))
    assert found.num_modes == 4
    np.testing.assert_allclose(found.exponent, 0.5)
    np.testing.assert_allclose(found.rank_correlation_all, 1)


def test_too_few_modes_have_no_order():
    never = spectral.order_agreement(np.array([1.0, 2, 3]), np.full(3, np.inf))
    assert never.num_learned == 0
    assert np.isnan(
        [never.rank_correlation, never.rank_correlation_all, never.scale, never.exponent]
    ).all()
    with pytest.raises(ValueError, match="3 predicted and 2 observed times"):
        spectral.order_agreement(np.ones(3), np.ones(2))
