from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.losses.posterior import (
    Posterior,
    free_bits,
    gaussian_kl,
    importance_weighted_bound,
    log_normal,
    sample_posterior,
)


def draw(count=5, size=3, seed=0):
    rng = np.random.default_rng(seed)
    return Posterior(
        jnp.asarray(rng.standard_normal((count, size))),
        jnp.asarray(np.exp(0.7 * rng.standard_normal((count, size)))),
    )


def test_kl_is_the_integral_it_stands_for():
    posterior = draw(2, 2)
    found = gaussian_kl(posterior)
    for index in np.ndindex(2, 2):
        q = scipy.stats.norm(float(posterior.mean[index]), float(posterior.scale[index]))

        def integrand(z, q=q):
            return q.pdf(z) * (q.logpdf(z) - scipy.stats.norm.logpdf(z))

        expected, _ = scipy.integrate.quad(integrand, q.ppf(1e-15), q.isf(1e-15))
        np.testing.assert_allclose(found[index], expected, rtol=1e-8)


def test_kl_is_the_mean_log_ratio_of_draws():
    posterior = draw()
    noise = np.random.default_rng(1).standard_normal((40_000, 5, 3))
    z = sample_posterior(posterior, noise)
    np.testing.assert_allclose(z[7], posterior.mean + posterior.scale * noise[7], rtol=1e-14)
    ratios = log_normal(z, *posterior) - log_normal(z, 0.0, 1.0)
    error = np.asarray(ratios.std(0)) / np.sqrt(40_000)
    np.testing.assert_array_less(np.abs(ratios.mean(0) - gaussian_kl(posterior)), 4.5 * error)


@given(st.floats(-3, 3), st.floats(-14, 3))
def test_kl_is_never_negative(mean, exponent):
    for sign in (-1, 1):
        scale = 1 + sign * np.exp(exponent)
        if scale <= 0:
            continue
        pair = (jnp.full((1, 1), value, jnp.float32) for value in (mean, scale))
        assert gaussian_kl(Posterior(*pair))[0, 0] >= 0


def test_kl_of_the_prior_is_zero_and_small_ones_keep_their_digits():
    prior = Posterior(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    np.testing.assert_array_equal(gaussian_kl(prior), 0)
    slope = jax.jit(jax.grad(lambda p: gaussian_kl(p).sum()))(prior)
    np.testing.assert_array_equal(slope.scale, 0)
    excess = np.float32(2**-9)
    near = Posterior(jnp.zeros((1, 1), jnp.float32), jnp.full((1, 1), 1 + excess, jnp.float32))
    expected = ((1 + float(excess)) ** 2 - 1) / 2 - np.log1p(float(excess))
    np.testing.assert_allclose(gaussian_kl(near), expected, rtol=1e-4)


def test_log_normal_is_scipys():
    posterior = draw()
    z = np.random.default_rng(2).standard_normal((4, 5, 3))
    expected = scipy.stats.norm.logpdf(z, *posterior)
    np.testing.assert_allclose(log_normal(z, *posterior), expected, rtol=1e-12)
    np.testing.assert_allclose(log_normal(z, 0.5, 2.0), scipy.stats.norm.logpdf(z, 0.5, 2.0))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_must_be_positive(scale):
    bad = Posterior(jnp.zeros((1, 2)), jnp.asarray([[1.0, scale]]))
    with pytest.raises(ValueError, match="scale must be positive everywhere"):
        gaussian_kl(bad)
    with pytest.raises(ValueError, match="scale must be positive everywhere"):
        log_normal(jnp.zeros((1, 2)), *bad)


KL = jnp.asarray([[0.0, 1.0, 0.3], [0.2, 3.0, 0.1], [0.1, 0.5, 0.5]])


def test_free_bits_put_a_floor_under_the_mean_of_each_dimension():
    found = free_bits(KL, 0.25)
    assert found.shape == (3,)
    np.testing.assert_allclose(found.mean(), 0.25 + 1.5 + 0.3, rtol=1e-12)
    slope = jax.jit(jax.grad(lambda kl: free_bits(kl, 0.25).mean()))(KL)
    np.testing.assert_allclose(slope, np.tile([0, 1 / 3, 1 / 3], (3, 1)), rtol=1e-12)
    np.testing.assert_allclose(free_bits(KL, 0.0), KL.sum(1), rtol=1e-12)


def test_free_bits_leave_padding_out_of_the_mean():
    padded = jnp.concatenate([KL, jnp.full((2, 3), jnp.nan)])
    found = free_bits(padded, 0.25, np.array([1, 1, 1, 0, 0]))
    np.testing.assert_allclose(found[:3], free_bits(KL, 0.25), rtol=1e-12)


def test_free_bits_of_a_batch_that_is_spread_are_those_of_the_whole():
    spread = KL.reshape(3, 1, 3)
    found = jax.vmap(partial(free_bits, axis_name="batch"), (0, None), axis_name="batch")
    np.testing.assert_allclose(found(spread, 0.25).ravel(), free_bits(KL, 0.25), rtol=1e-12)


@pytest.mark.parametrize("nats", [-0.1, float("inf"), float("nan")])
def test_free_bits_need_a_floor(nats):
    with pytest.raises(ValueError, match=r"nats_per_dimension=.* must be a finite number >= 0"):
        free_bits(KL, nats)


@pytest.fixture(scope="module")
def linear_gaussian():
    """log w (4096, 40) of p(z) = N(0, 1), p(x | z) = N(z, 1) with a rough posterior; log p(x)."""
    rng = np.random.default_rng(0)
    x = 1.5 * rng.standard_normal(40)
    rough = Posterior(jnp.asarray(0.3 * x[:, None]), jnp.full((40, 1), 0.9))
    z = sample_posterior(rough, rng.standard_normal((4096, 40, 1)))
    log_weights = log_normal(x[None, :, None], z, 1.0) + log_normal(z, 0.0, 1.0)
    log_weights = (log_weights - log_normal(z, *rough))[..., 0]
    elbo = scipy.stats.norm.logpdf(x, 0.3 * x) - 0.9**2 / 2 - gaussian_kl(rough)[:, 0]
    return log_weights, elbo, scipy.stats.norm.logpdf(x, 0, np.sqrt(2))


def test_one_weight_gives_the_elbo(linear_gaussian):
    log_weights, elbo, _ = linear_gaussian
    np.testing.assert_array_equal(importance_weighted_bound(log_weights[:1]), log_weights[0])
    error = np.asarray(log_weights.std(0)) / 64
    np.testing.assert_array_less(np.abs(log_weights.mean(0) - elbo), 4.5 * error)


def test_the_bound_rises_with_the_number_of_weights_to_the_log_likelihood(linear_gaussian):
    log_weights, elbo, exact = linear_gaussian
    bounds = []
    for k in (1, 2, 8, 64, 4096):
        groups = np.asarray(log_weights).reshape(-1, k, 40).swapaxes(0, 1).reshape(k, -1)
        bounds.append(float(jax.jit(importance_weighted_bound)(groups).mean()))
    assert bounds == sorted(bounds)
    np.testing.assert_allclose(bounds[0], elbo.mean(), atol=0.01)
    assert bounds[-1] - bounds[0] > 0.1
    np.testing.assert_allclose(bounds[-1], exact.mean(), atol=2e-3)


def test_with_the_true_posterior_every_weight_is_the_likelihood():
    x = np.array([0.3, -2.0])
    true = Posterior(jnp.asarray(x[:, None] / 2), jnp.full((2, 1), np.sqrt(0.5)))
    z = sample_posterior(true, np.random.default_rng(0).standard_normal((3, 2, 1)))
    weights = log_normal(x[None, :, None], z, 1.0) + log_normal(z, 0.0, 1.0)
    found = importance_weighted_bound((weights - log_normal(z, *true))[..., 0])
    np.testing.assert_allclose(found, scipy.stats.norm.logpdf(x, 0, np.sqrt(2)), rtol=1e-12)


def test_tiny_weights_do_not_underflow():
    found = importance_weighted_bound(jnp.asarray([[-5000.0], [-5000.0 + np.log(3)]]))
    np.testing.assert_allclose(found, -5000 + np.log(2), rtol=1e-14)


def test_no_weight_is_refused():
    with pytest.raises(ValueError, match="no draw"):
        importance_weighted_bound(jnp.zeros((0, 4)))
