import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from recon_jax.losses import likelihoods
from recon_jax.losses.likelihoods import LIKELIHOODS, make_likelihood

from .compiled import compiled

LAWS = {"discretized_gaussian": scipy.stats.norm, "discretized_logistic": scipy.stats.logistic}
EVERY = [(name, 2 if name == "bernoulli" else 16) for name in LIKELIHOODS]


def draw(shape, size, dtype=np.float64, seed=0):
    """Means in [-1.3, 1.3], log-scales in [-9, 2], so that some are cut off."""
    rng = np.random.default_rng(seed)
    means, log_scales = rng.uniform(-1.3, 1.3, (*shape, size)), rng.uniform(-9, 2, (*shape, size))
    return np.concatenate([means, log_scales], -1).astype(dtype)


def table(likelihood, params):
    """log p (L, ...) of every level of a pixel with one channel."""
    levels = likelihood.levels
    repeated = jnp.broadcast_to(params, (levels, *params.shape))
    values = np.arange(levels).reshape(levels, *[1] * params.ndim)
    values = np.broadcast_to(values, (*repeated.shape[:-1], 1))
    return likelihood.log_prob(repeated, values)


def test_bernoulli_is_the_cross_entropy_of_its_logits():
    rng = np.random.default_rng(0)
    logits, values = 3 * rng.standard_normal((4, 5, 3)), rng.integers(0, 2, (4, 5, 3))
    logits[0, 0] = [800.0, -800.0, 0.0]
    expected = (values * logits - np.logaddexp(0, logits)).sum(-1)
    likelihood = likelihoods.bernoulli(3)
    np.testing.assert_allclose(likelihood.log_prob(logits, values), expected, rtol=1e-12)
    np.testing.assert_allclose(likelihood.mean(logits), scipy.special.expit(logits), rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_inner_and_open_bins_are_differences_of_the_distribution_function(name, levels):
    channels, law = 2, LAWS[name]
    params = draw((300,), channels)
    # Scales and levels at which SciPy's differences keep their digits.
    params[..., 2:] = np.clip(params[..., 2:], -1, None)
    params[0, 2:] = 3.0
    values = np.random.default_rng(1).integers(0, levels, (300, channels))
    x, scale = 2 * values / (levels - 1) - 1, np.exp(params[..., 2:])
    upper = (x - params[..., :2] + 1 / (levels - 1)) / scale
    lower = (x - params[..., :2] - 1 / (levels - 1)) / scale
    mirror = upper + lower > 0
    upper, lower = np.where(mirror, -lower, upper), np.where(mirror, -upper, lower)
    lowest, highest = values == 0, values == levels - 1
    lower = np.where(np.where(mirror, highest, lowest), -np.inf, lower)
    upper = np.where(np.where(mirror, lowest, highest), np.inf, upper)
    expected = np.log(law.cdf(upper) - law.cdf(lower)).sum(-1)
    found = compiled(name, channels, levels).log_prob(params, values)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["discretized_gaussian", "discretized_logistic"])
@pytest.mark.parametrize("levels", [2, 3, 17, 64, 256])
def test_probabilities_of_all_levels_add_up_to_one_in_float32(name, levels):
    params = draw((200,), 1, np.float32, seed=levels)
    log_probs = table(compiled(name, 1, levels), params)
    assert log_probs.dtype == np.float32
    total = np.exp(np.asarray(log_probs, float)).sum(0)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_float32_agrees_with_float64(name):
    params = draw((2000,), 1, np.float32)
    values = np.random.default_rng(2).integers(0, 256, (2000, 1))
    likelihood = compiled(name, 1, 256)
    expected = np.asarray(likelihood.log_prob(params.astype(float), values))
    found = likelihood.log_prob(params, values)
    # Distance from the mean is known to half a unit in the last place of a mean of 1.3.
    slope = 1 if name == "discretized_logistic" else np.sqrt(-2 * expected) + 1
    rounding = 1.2e-7 * np.exp(-np.maximum(params[:, 1], -7)) * slope
    np.testing.assert_array_less(np.abs(found - expected), 1e-5 * (1 - expected) + rounding)
    wide = params[:, 1] > -3
    np.testing.assert_allclose(found[wide], expected[wide], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_log_scales_are_cut_off(name):
    params, values = np.array([[0.015, -7.0], [0.015, -20.0]]), np.array([[130], [130]])
    found = compiled(name, 1, 256).log_prob(params, values)
    assert found[0] == found[1]
    lower = compiled(name, 1, 256, min_log_scale=-20.0).log_prob(params, values)
    assert lower[0] == found[0]
    assert lower[1] < found[1] - 1
    slope = jax.jit(jax.grad(lambda p: make_likelihood(name, 1, 256).log_prob(p, values).sum()))
    assert slope(jnp.asarray(params))[1, 1] == 0


@pytest.mark.parametrize(("name", "levels"), EVERY)
def test_gradients_of_extreme_parameters_are_finite_in_float32(name, levels):
    likelihood = make_likelihood(name, 3, levels)
    rng = np.random.default_rng(0)
    extremes = np.array([-50.0, -20.0, -7.0, -1.0, 0.0, 1.0, 10.0, 50.0], np.float32)
    params = jnp.asarray(rng.choice(extremes, (500, likelihood.num_params)))
    values = rng.integers(0, levels, (500, 3))
    run = jax.jit(jax.value_and_grad(lambda p: likelihood.log_prob(p, values).sum()))
    value, gradient = run(params)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert gradient.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "levels"), [("bernoulli", 2), *[(n, v) for n in LAWS for v in (2, 9)]]
)
def test_samples_follow_the_exact_probabilities(name, levels):
    likelihood = compiled(name, 1, levels)
    params = jnp.asarray([0.4, math.log(0.5)])[: likelihood.num_params]
    count = 20_000
    values = likelihood.sample(
        jax.random.key(0), jnp.broadcast_to(params, (count, likelihood.num_params))
    )
    assert values.shape == (count, 1)
    assert values.dtype == jnp.int32
    expected = count * np.exp(table(likelihood, params))
    observed = np.bincount(np.asarray(values).ravel(), minlength=levels)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < scipy.stats.chi2.ppf(0.999, levels - 1)


@pytest.mark.parametrize("name", LAWS)
def test_means_are_clipped_to_the_range_of_pixels(name):
    likelihood = compiled(name, 2, 16)
    params = np.array([[0.5, -3.0, 0.0, 0.0], [-0.2, 1.5, 0.0, 0.0]])
    np.testing.assert_allclose(likelihood.mean(params), [[0.75, 0.0], [0.4, 1.0]])


@pytest.mark.parametrize(("name", "levels"), EVERY)
def test_shapes_dtypes_and_keys(name, levels):
    likelihood = compiled(name, 3, levels)
    assert (likelihood.name, likelihood.levels, likelihood.channels) == (name, levels, 3)
    rng = np.random.default_rng(1)
    params = jnp.asarray(0.1 * rng.standard_normal((2, 4, 5, likelihood.num_params)))
    half = params.astype(jnp.bfloat16)
    values = likelihood.sample(jax.random.key(0), half)
    assert values.shape == (2, 4, 5, 3)
    assert likelihood.log_prob(half, values).shape == (2, 4, 5)
    assert likelihood.log_prob(half, values).dtype == jnp.float32
    mean = likelihood.mean(params)
    assert mean.shape == (2, 4, 5, 3)
    assert (np.asarray(mean) >= 0).all()
    assert (np.asarray(mean) <= 1).all()
    same = likelihood.sample(jax.random.key(0), half)
    np.testing.assert_array_equal(values, same)
    keys = jax.random.split(jax.random.key(2), 6)
    pixels = jax.jit(jax.vmap(make_likelihood(name, 3, levels).sample))(
        keys, params[0, 0, :1].repeat(6, 0)
    )
    assert pixels.shape == (6, 3)
    assert len(np.unique(np.asarray(pixels), axis=0)) > 1


@pytest.mark.parametrize(("name", "levels"), EVERY)
def test_what_does_not_fit_is_refused(name, levels):
    likelihood = make_likelihood(name, 3, levels)
    k = likelihood.num_params
    params, values = jnp.zeros((2, k)), np.zeros((2, 3), int)
    for wrong in (jnp.zeros((2, k + 1)), jnp.zeros(())):
        for use in (likelihood.mean, partial(likelihood.sample, jax.random.key(0))):
            with pytest.raises(ValueError, match=rf"params of shape \(\.\.\., {k}\), got"):
                use(wrong)
    with pytest.raises(ValueError, match=r"do not belong to params.*channels=3 last"):
        likelihood.log_prob(params, values[:, :1])
    with pytest.raises(ValueError, match=r"do not belong"):
        likelihood.log_prob(params, values[:1])
    with pytest.raises(ValueError, match=rf"from 0 to {levels}; with levels={levels} they must"):
        likelihood.log_prob(params, values + np.array([0, 0, levels]))
    with pytest.raises(ValueError, match=r"whole numbers of an integer dtype, got float64"):
        likelihood.log_prob(params, values / 2)
    with pytest.raises(ValueError, match=r"channels=0 must be an integer of at least 1"):
        make_likelihood(name, 0, levels)
    with pytest.raises(ValueError, match=r"levels=1 must be an integer in 2"):
        make_likelihood(name, 3, 1)


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match=r"'gaussian' is unknown; choose one of \['bernoulli'"):
        make_likelihood("gaussian", 1, 256)
    with pytest.raises(ValueError, match=r"no option \['components'\].*'num_components'"):
        make_likelihood("logistic_mixture", 1, 256, components=3)
    with pytest.raises(ValueError, match=r"levels=256, but bernoulli has 2; binarise"):
        make_likelihood("bernoulli", 1, 256)
    with pytest.raises(ValueError, match=r"min_log_scale=-50\.0 must lie in \[-30, 0\]"):
        make_likelihood("discretized_logistic", 1, 256, min_log_scale=-50.0)
