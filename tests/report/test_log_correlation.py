import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from recon_jax.report.log_correlation import correlate_logs


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    x = 10 ** rng.uniform(-3, 0, 9)
    return x, 0.2 * x**0.5 * np.exp(0.3 * rng.standard_normal(9))


def test_against_scipy(points):
    x, y = points
    found, line = correlate_logs(x, y), stats.linregress(np.log(x), np.log(y))
    assert_allclose([found.r, found.slope], [line.rvalue, line.slope], rtol=1e-12)
    assert_allclose(found.factor, np.exp(line.intercept), rtol=1e-12)
    assert correlate_logs(x, 1 / y).r == pytest.approx(-line.rvalue)


def test_intervals_are_the_jackknifes(points):
    x, y = points
    found = correlate_logs(x, y)
    lines = [
        stats.linregress(np.log(np.delete(x, i)), np.log(np.delete(y, i))) for i in range(len(x))
    ]
    t = stats.t.ppf(0.975, 8)
    for values, centre, low, high in (
        ([line.slope for line in lines], found.slope, found.slope_low, found.slope_high),
        (
            np.arctanh([line.rvalue for line in lines]),
            np.arctanh(found.r),
            *np.arctanh([found.low, found.high]),
        ),
    ):
        half = t * np.sqrt(8 / 9 * np.sum((values - np.mean(values)) ** 2))
        assert_allclose([low, high], [centre - half, centre + half], rtol=1e-9)


def test_a_line_has_correlation_one():
    x = np.array([0.1, 0.2, 0.5, 3.0, 7.0])
    found = correlate_logs(x, 0.2 * x**0.5)
    assert_allclose([found.r, found.slope, found.factor], [1, 0.5, 0.2], rtol=1e-9)
    assert_allclose([found.slope_low, found.slope_high], 0.5, rtol=1e-9)
    assert found.describe().startswith("+1.00 (+1.00")


@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0], [2.0]), ([1, 2, 3], [0.1, 0.0, 0.2]), ([1, 2, np.inf], [1, 2, 3]), ([2, 2], [1, 3])],
)
def test_what_has_no_correlation_is_nan(x, y):
    found = correlate_logs(np.array(x, float), np.array(y, float))
    assert np.isnan(found.r)
    assert np.isnan(found.low)


def test_intervals_need_four_points_that_differ():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert not np.isnan(correlate_logs(x, np.array([1.0, 3.0, 2.0, 5.0])).low)
    three = correlate_logs(x[:3], np.array([1.0, 3.0, 2.0]))
    assert not np.isnan(three.r)
    assert np.isnan(three.low)
    assert three.describe() == f"{three.r:+.2f}"
    one_apart = correlate_logs(np.array([1.0, 1.0, 1.0, 4.0]), x)
    assert not np.isnan(one_apart.slope)
    assert np.isnan(one_apart.high)
    assert np.isnan(one_apart.slope_low)
