import math

import jax
import numpy as np
import pytest
import scipy.stats

from recon_jax.audit import Estimate
from recon_jax.audit.intervals import bootstrap, over_seeds, resamples, undefined

RNG = np.random.default_rng(0)


def mean(total, count):
    return total / count


def columns_of(values):
    return np.stack([values, np.ones_like(values)], axis=1)


def test_resamples_draw_as_many_images_with_replacement():
    counts = resamples(jax.random.key(0), 40, 500)
    assert counts.shape == (500, 40)
    assert (counts.sum(1) == 40).all()
    assert counts.min() == 0
    # Binomial with N draws at 1 / N: mean 1, variance 1 - 1 / N.
    np.testing.assert_allclose(counts.mean(0), 1, atol=5 / np.sqrt(500))
    np.testing.assert_allclose(counts.var(), 1 - 1 / 40, rtol=0.03)
    np.testing.assert_array_equal(counts, resamples(jax.random.key(0), 40, 500))
    assert (counts != resamples(jax.random.key(1), 40, 500)).any()


def test_interval_is_the_percentiles_of_resampled_statistics():
    values, counts = RNG.standard_normal(50), resamples(jax.random.key(0), 50, 300)
    found = bootstrap(mean, columns_of(values), counts, "a note")
    means = [np.repeat(values, row).mean() for row in counts]
    expected = np.percentile(means, [2.5, 97.5])
    assert found.kind == "bootstrap"
    assert found.note == "a note"
    np.testing.assert_allclose(found[:3], [values.mean(), *expected], rtol=1e-12)


def test_interval_of_a_mean_is_that_of_the_central_limit():
    values, counts = RNG.standard_normal(300), resamples(jax.random.key(0), 300, 2000)
    found = bootstrap(mean, columns_of(values), counts)
    half = scipy.stats.norm.ppf(0.975) * values.std() / math.sqrt(300)
    np.testing.assert_allclose(
        [found.low, found.high], values.mean() + half * np.array([-1, 1]), atol=0.12 * half
    )


def test_the_same_resamples_pair_two_statistics():
    a = RNG.standard_normal(50)
    columns = np.stack([a, a + 3 * np.arange(50) / 50], axis=1)
    counts = resamples(jax.random.key(0), 50, 100)
    apart = [bootstrap(lambda x, y, i=i: (x, y)[i], columns, counts) for i in range(2)]
    paired = bootstrap(lambda x, y: y - x, columns, counts)
    assert paired.high - paired.low < 0.7 * max(one.high - one.low for one in apart)


def test_statistics_without_a_value_have_no_interval():
    counts = resamples(jax.random.key(0), 3, 50)
    found = bootstrap(mean, np.zeros((3, 2)), counts)
    assert math.isnan(found.value)
    assert found.kind == "none"
    assert found.note
    # Where some resamples have none, the others make the interval.
    rare = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert bootstrap(mean, rare, counts) == Estimate(1.0, 1.0, 1.0, "bootstrap")


def test_spread_over_seeds():
    found = over_seeds([1.0, 2.0, 6.0], "a note")
    deviation = math.sqrt(7)
    np.testing.assert_allclose(found[:3], [3, 3 - deviation, 3 + deviation], rtol=1e-14)
    assert found[3:] == ("seeds", "a note")


def test_seeds_without_a_value_are_left_out_and_counted():
    found = over_seeds([1.0, math.nan, 3.0], "why")
    assert found.value == 2
    assert found.note == "1 of 3 seeds have no value: why"
    single = over_seeds([math.nan, 4.0])
    assert single.value == 4
    assert single.kind == "none"
    assert math.isnan(single.low)
    nothing = over_seeds([math.nan], "why")
    assert math.isnan(nothing.value)
    assert "why" in nothing.note
    assert over_seeds([math.inf, math.inf]) == Estimate(math.inf, *over_seeds([math.inf])[1:])
    assert math.isnan(undefined("why").value)
    assert undefined("why").note == "why"


@pytest.mark.parametrize(("count", "number"), [(0, 10), (5, 1)])
def test_too_few(count, number):
    with pytest.raises(ValueError, match="2 or more"):
        resamples(jax.random.key(0), count, number)
