import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from recon_jax.losses.likelihoods import logistic_mixture

from .compiled import compiled


def mixture(channels, levels, size, coupling="autoregressive"):
    return compiled("logistic_mixture", channels, levels, num_components=size, coupling=coupling)


def draw(likelihood, shape, seed=0, dtype=np.float64, scale=0.7):
    rng = np.random.default_rng(seed)
    params = scale * rng.standard_normal((*shape, likelihood.num_params))
    return params.astype(dtype), rng.integers(0, likelihood.levels, (*shape, likelihood.channels))


def reference(params, values, channels, levels, size, coupled):
    """log p of one pixel, bin by bin and component by component."""
    blocks = params.reshape(-1, size)
    x = 2 * values / (levels - 1) - 1
    joint = np.log(scipy.special.softmax(blocks[0]))
    for m in range(size):
        coefficients = iter(np.tanh(blocks[1 + 2 * channels :, m]))
        for c in range(channels):
            mean = blocks[1 + c, m]
            if coupled:
                mean = mean + sum(next(coefficients) * x[j] for j in range(c))
            law = scipy.stats.logistic(mean, np.exp(max(blocks[1 + channels + c, m], -7)))
            low, high = x[c] - 1 / (levels - 1), x[c] + 1 / (levels - 1)
            below = 0.0 if values[c] == 0 else law.cdf(low)
            joint[m] += np.log((1.0 if values[c] == levels - 1 else law.cdf(high)) - below)
    return scipy.special.logsumexp(joint)


@pytest.mark.parametrize("coupling", ["autoregressive", "independent"])
@pytest.mark.parametrize(
    ("channels", "levels", "size"), [(1, 256, 3), (2, 5, 1), (3, 17, 4), (4, 2, 2)]
)
def test_matches_a_loop_over_components_and_channels(coupling, channels, levels, size):
    likelihood = mixture(channels, levels, size, coupling)
    params, values = draw(likelihood, (2, 5))
    coupled = coupling == "autoregressive"
    expected = [
        [reference(p, v, channels, levels, size, coupled) for p, v in zip(*row, strict=True)]
        for row in zip(params, values, strict=True)
    ]
    np.testing.assert_allclose(likelihood.log_prob(params, values), expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("channels", "coupling", "num_params"),
    [(1, "autoregressive", 30), (3, "independent", 70), (3, "autoregressive", 100)],
)
def test_numbers_of_parameters_are_the_papers(channels, coupling, num_params):
    assert logistic_mixture(channels, 256, 10, coupling).num_params == num_params


@pytest.mark.parametrize("levels", [2, 17, 64, 256])
def test_probabilities_of_all_levels_add_up_to_one_in_float32(levels):
    likelihood = mixture(1, levels, 4)
    params, _ = draw(likelihood, (50,), seed=levels, dtype=np.float32)
    params[:, 8:] = np.random.default_rng(0).uniform(-9, 2, params[:, 8:].shape)
    repeated = jnp.broadcast_to(params, (levels, *params.shape))
    values = np.broadcast_to(np.arange(levels)[:, None, None], (levels, 50, 1))
    total = np.exp(np.asarray(likelihood.log_prob(repeated, values), float)).sum(0)
    np.testing.assert_allclose(total, 1, atol=1e-5)


def every_pixel(levels, channels):
    return np.array(list(itertools.product(range(levels), repeat=channels)))


@pytest.mark.parametrize("coupling", ["autoregressive", "independent"])
def test_joint_probabilities_of_coupled_channels_add_up_to_one(coupling):
    likelihood = mixture(3, 3, 2, coupling)
    params, _ = draw(likelihood, ())
    values = every_pixel(3, 3)
    log_probs = likelihood.log_prob(jnp.broadcast_to(params, (27, params.size)), values)
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("channels", "levels", "coupling"),
    [(1, 9, "independent"), (2, 5, "autoregressive"), (3, 3, "autoregressive")],
)
def test_samples_follow_the_exact_joint_probabilities(channels, levels, coupling):
    likelihood = mixture(channels, levels, 2, coupling)
    params, _ = draw(likelihood, (), seed=3)
    params[:2] = [0.3, -0.2]
    params[2 : 2 + 2 * channels] = np.tile([-0.8, 0.8], channels)
    params[2 + 2 * channels : 2 + 4 * channels] = -1.0
    count, cells = 30_000, levels**channels
    draws = likelihood.sample(jax.random.key(0), jnp.broadcast_to(params, (count, params.size)))
    assert draws.dtype == jnp.int32
    values = every_pixel(levels, channels)
    log_probs = likelihood.log_prob(jnp.broadcast_to(params, (cells, params.size)), values)
    expected = count * np.exp(log_probs)
    place = levels ** np.arange(channels)[::-1]
    observed = np.bincount(np.asarray(draws) @ place, minlength=cells)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < scipy.stats.chi2.ppf(0.999, cells - 1)


def test_one_component_of_one_channel_is_the_discretized_logistic():
    single, mixed = compiled("discretized_logistic", 1, 16), mixture(1, 16, 1)
    params, values = draw(mixed, (20,))
    np.testing.assert_allclose(
        mixed.log_prob(params, values), single.log_prob(params[:, 1:], values), atol=1e-13
    )
    np.testing.assert_allclose(mixed.mean(params), single.mean(params[:, 1:]), atol=1e-14)


def test_float32_and_gradients_agree_with_float64():
    likelihood = logistic_mixture(3, 256, 5)
    params, values = draw(likelihood, (64,), dtype=np.float32)
    params[:, 20:35] -= 2.0
    run = jax.jit(jax.value_and_grad(lambda p, v: likelihood.log_prob(p, v).sum()))
    found, slope = run(params, values)
    expected, exact = run(params.astype(float), values)
    assert slope.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, exact, rtol=1e-3, atol=2e-4)
    step = 1e-5 * np.random.default_rng(5).standard_normal(params.shape)
    change = run(params + step, values)[0] - run(params - step, values)[0]
    np.testing.assert_allclose(change, 2 * (np.asarray(exact) * step).sum(), rtol=1e-6)


def test_improbable_pixels_have_their_exact_probability():
    likelihood = mixture(1, 256, 2)
    scale = np.exp(-7)
    params = np.array([0.0, 0.0, 0.9, 5.0, -7.0, -7.0])
    # Far from both components the nearer one counts: log p ~ -(distance - half a bin) / scale.
    x = 2 * 10 / 255 - 1
    expected = np.log(0.5) - (0.9 - x - 1 / 255) / scale + np.log1p(-np.exp(-2 / 255 / scale))
    found = likelihood.log_prob(params.astype(np.float32), np.array([10]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found < -1000


def test_mean_takes_earlier_channels_at_their_means():
    likelihood = mixture(3, 256, 2)
    weights = scipy.special.softmax([0.0, 1.0])
    red, green, blue = np.array([0.2, 3.0]), np.array([0.1, -0.3]), np.array([0.0, 0.5])
    raw = np.array([[0.4, -0.6], [0.2, 0.3], [-0.5, 0.7]])
    params = np.concatenate([[0.0, 1.0], red, green, blue, np.zeros(6), raw.ravel()])
    c = np.tanh(raw)
    r = weights @ np.clip(red, -1, 1)
    g = weights @ np.clip(green + c[0] * r, -1, 1)
    b = weights @ np.clip(blue + c[1] * r + c[2] * g, -1, 1)
    np.testing.assert_allclose(likelihood.mean(params), (np.array([r, g, b]) + 1) / 2, rtol=1e-12)


@pytest.mark.parametrize(("size", "coupling"), [(1, "autoregressive"), (3, "independent")])
def test_mean_is_the_average_of_samples(size, coupling):
    likelihood = mixture(3, 256, size, coupling)
    params, _ = draw(likelihood, (), scale=0.2)
    params[4 * size : 7 * size] = -4.0
    draws = likelihood.sample(jax.random.key(0), jnp.broadcast_to(params, (4000, params.size)))
    np.testing.assert_allclose(likelihood.mean(params), draws.mean(0) / 255, atol=6e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_components": 0}, "num_components=0 must be an integer of at least 1"),
        ({"coupling": "causal"}, "'causal' is unknown; choose one of 'autoregressive', 'indep"),
        ({"levels": 1}, "levels=1 must be an integer in 2"),
        ({"min_log_scale": 3.0}, r"min_log_scale=3\.0 must lie in \[-30, 0\]"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        logistic_mixture(3, **options)


def test_parameters_of_another_mixture_are_refused():
    with pytest.raises(ValueError, match=r"params of shape \(\.\.\., 100\), got \(2, 70\)"):
        logistic_mixture(3).log_prob(jnp.zeros((2, 70)), np.zeros((2, 3), int))
