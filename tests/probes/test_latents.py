import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from recon_jax.probes import latents
from recon_jax.probes.latents import (
    active_units,
    describe_collapse,
    mutual_information,
    posterior_entropy,
)

ONES = np.ones((3, 2))


def test_units_are_active_if_their_means_vary():
    rng = np.random.default_rng(0)
    means = np.zeros((200, 4))
    means[:, 1] = rng.standard_normal(200)
    means[:, 2] = 5.0 + 1e-3 * rng.standard_normal(200)
    means[::2, 3] = 0.4
    np.testing.assert_array_equal(active_units(means), [False, True, False, True])
    np.testing.assert_array_equal(active_units(means, 0.041), [False, True, False, False])
    np.testing.assert_array_equal(active_units(means, 0.0399), [False, True, False, True])


def test_entropy_is_scipys():
    scales = np.exp(np.random.default_rng(0).standard_normal((4, 3)))
    expected = scipy.stats.norm(0, scales).entropy().sum(1)
    np.testing.assert_allclose(posterior_entropy(scales), expected, rtol=1e-12)


def test_posteriors_that_are_all_equal_hold_no_information():
    means, scales = np.full((150, 3), 0.7), np.full((150, 3), 0.2)
    np.testing.assert_allclose(mutual_information(jax.random.key(0), means, scales), 0, atol=1e-12)


@pytest.mark.parametrize(("count", "dtype"), [(1, float), (64, float), (150, np.float32)])
def test_posteriors_that_do_not_overlap_tell_the_image(count, dtype):
    means = np.stack([10 * np.arange(count), np.zeros(count)], 1).astype(dtype)
    found = mutual_information(jax.random.key(0), means, np.full((count, 2), 0.01, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.log(count), atol=3e-6)


def test_two_overlapping_posteriors_match_quadrature():
    gap, count = 1.5, 2000

    def integrand(z):
        p, q = scipy.stats.norm.pdf(z), scipy.stats.norm.pdf(z, gap)
        mixture = (p + q) / 2
        return (scipy.special.xlogy(p, p / mixture) + scipy.special.xlogy(q, q / mixture)) / 2

    exact, _ = scipy.integrate.quad(integrand, -10, 12)
    means = np.zeros((count, 1), np.float32)
    means[::2] = gap
    found = mutual_information(jax.random.key(1), means, np.ones_like(means))
    # Standard deviation of a term is 0.5.
    np.testing.assert_allclose(found, exact, atol=4 * 0.5 / np.sqrt(count))
    assert exact > 10 * 0.5 / np.sqrt(count) / 2


def test_it_is_the_rate_less_the_divergence_of_the_aggregate(monkeypatch):
    rng = np.random.default_rng(0)
    means, scales = rng.standard_normal((23, 4)), np.exp(0.5 * rng.standard_normal((23, 4)))
    key = jax.random.key(3)
    z = means + scales * np.asarray(jax.random.normal(key, means.shape))
    log_q = scipy.stats.norm.logpdf(z[:, None], means[None], scales[None]).sum(-1)
    aggregate = scipy.special.logsumexp(log_q, axis=1) - np.log(23)
    log_prior = scipy.stats.norm.logpdf(z).sum(1)
    rate, marginal = (np.diag(log_q) - log_prior).mean(), (aggregate - log_prior).mean()
    expected = rate - marginal
    np.testing.assert_allclose(mutual_information(key, means, scales), expected, rtol=1e-12)
    monkeypatch.setattr(latents, "_BLOCK", 7)  # 23 rows in four blocks, the last one padded
    np.testing.assert_allclose(mutual_information(key, means, scales), expected, rtol=1e-12)


def test_the_matrix_of_densities_is_never_in_memory():
    count, size = 10_000, 32
    shape = jax.ShapeDtypeStruct((count, size), np.float32)
    program = latents._mutual_information.lower(jax.random.key(0), shape, shape, latents._BLOCK)
    used = program.compile().memory_analysis().temp_size_in_bytes
    assert used < 0.1 * 4 * count**2


def test_collapse_is_put_in_words_with_its_numbers():
    kl = np.array([0.004, 2.0, 0.006, 1.0])
    assert describe_collapse(kl, np.ones(4, bool)) == ""
    whole = describe_collapse(kl / 100, np.zeros(4, bool))
    assert "none of the 4 latent units is active" in whole
    assert "0.0301 nats" in whole
    part = describe_collapse(kl, np.array([False, True, False, True]))
    assert "2 of 4 latent units are inactive, with 0.01 of 3.01 nats" in part
    assert "other 2" in part


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: active_units(np.ones((1, 3))), "holds 1 image"),
        (lambda: active_units(np.full((3, 2), np.nan)), "NaN or infinite"),
        (lambda: active_units(np.ones((3, 2)), -1.0), "threshold=.* must be a finite number >= 0"),
        (lambda: posterior_entropy(np.zeros((3, 2))), "scales must be positive, the least is 0.0"),
        (
            lambda: mutual_information(jax.random.key(0), ONES, np.full((3, 2), -1.0)),
            "scales must be positive, the least is -1.0",
        ),
        (
            lambda: mutual_information.__wrapped__(jax.random.key(0), np.ones((3, 2), int), ONES),
            "means must be floats",
        ),
        (lambda: describe_collapse.__wrapped__(np.ones(3), np.ones(4)), "must be vectors"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
