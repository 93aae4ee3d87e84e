import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from recon_jax import augment, diffeo
from recon_jax.augment.deformation import draw_strength

SHAPE = (9, 12, 2)  # n^2 = (81 + 144) / 2
SIZE = SHAPE[:2]


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def images(count, seed=1):
    return jax.random.uniform(jax.random.key(seed), (count, *SHAPE))


def beta(odds, concentration):
    """A Beta distribution of mean r / (1 + r) whose two parameters sum to s."""
    mean = odds / (1 + odds)
    return scipy.stats.beta(concentration * mean, concentration * (1 - mean))


@functools.cache
def strengths(cutoff_odds, cutoff_concentration, odds, concentration, count=4000):
    """Cutoffs and temperatures of many images, cutoffs 2 .. 6."""
    cuts, heat = beta(cutoff_odds, cutoff_concentration), beta(odds, concentration)
    bounds = np.asarray([diffeo.temperature_bounds(SIZE, cut) for cut in range(2, 7)])
    shapes = np.transpose([cuts.args, heat.args])
    return jax.jit(jax.vmap(lambda key: draw_strength(key, 2, bounds, *shapes)))(keys(count))


@pytest.mark.parametrize("setting", [(1.0, 2.0, 1.0, 2.0), (3.0, 4.0, 0.5, 6.0)])
def test_cutoffs_and_temperatures_have_their_distributions(setting):
    cuts, temperatures = (np.asarray(part, np.float64) for part in strengths(*setting))
    found = np.bincount(cuts.astype(int), minlength=7)
    assert found[:2].sum() == 0
    # The unit interval is cut in five: a cutoff for each part.
    expected = 4000 * np.diff(beta(*setting[:2]).cdf(np.linspace(0, 1, 6)))
    assert scipy.stats.chisquare(found[2:], expected).pvalue > 0.01
    least, most = np.transpose([diffeo.temperature_bounds(SIZE, int(cut)) for cut in cuts])
    up = (temperatures - least) / (most - least)
    assert scipy.stats.kstest(up, beta(*setting[2:]).cdf).pvalue > 0.01
    assert abs(np.corrcoef(cuts, up)[0, 1]) < 4 / np.sqrt(4000)


def test_an_image_is_warped_by_the_field_of_its_strength():
    policy = jax.jit(augment.deformation(SHAPE, (2, 4), 0.5, 3.0, 2.0, 1.0))
    found = policy(keys(6), images(6))
    bounds = np.asarray([diffeo.temperature_bounds(SIZE, cut) for cut in (2, 3, 4)])
    shapes = np.transpose([beta(2.0, 1.0).args, beta(0.5, 3.0).args])
    strength = jax.jit(lambda key: draw_strength(key, 2, bounds, *shapes))
    seen = set()
    for i, key in enumerate(keys(6)):
        first, second = jax.random.split(key)
        cut, temperature = strength(first)
        tables = diffeo.sample_coefficients(second, 4, jnp.float64)
        # Only the waves of the cutoff drawn: its own table is the corner of the larger one.
        tables = (table[: int(cut), : int(cut)] for table in tables)
        dx, dy = diffeo.displacement_field(*tables, SIZE, temperature)
        expected = diffeo.warp(images(6)[i : i + 1], dx[None], dy[None])
        np.testing.assert_allclose(found[i], expected[0], atol=1e-6)
        seen.add(int(cut))
    assert len(seen) > 1


def test_odds_of_the_temperature_are_the_strength():
    # One cutoff and concentrated draws: T is at one of its bounds.
    least, most = diffeo.temperature_bounds(SIZE, 3)
    for odds, temperature in {1e-4: least, 1e4: most}.items():
        policy = augment.deformation(SHAPE, (3, 3), odds, 1e6)
        ramp = np.broadcast_to(np.arange(12.0)[None, None, :, None], (2000, *SHAPE))
        moved = np.asarray(jax.jit(policy)(keys(2000), jnp.asarray(ramp)))[..., 0] - ramp[..., 0]
        # Of a ramp along x, what comes from x - dx is -dx, up to the clamp at the border.
        variance = (diffeo.mode_weights(3) ** 2).sum() * (8 / 18) * (11 / 24)
        expected = 12 * np.sqrt(temperature * variance)
        assert np.sqrt(np.mean(moved**2)) == pytest.approx(expected, rel=0.03)


def test_defaults_are_uniform_over_smooth_fields():
    plain = jax.jit(augment.make_policy("deformation", SHAPE))(keys(3), images(3))
    spelled = augment.deformation(
        SHAPE,
        cutoff=(3, 5),
        temperature_odds=1,
        temperature_concentration=2,
        cutoff_odds=1,
        cutoff_concentration=2,
        interpolation="bilinear",
    )
    np.testing.assert_array_equal(jax.jit(spelled)(keys(3), images(3)), plain)
    assert (np.abs(plain - images(3)).max((1, 2, 3)) > 0.01).all()


def test_gaussian_reading_smooths_too():
    # Temperatures near 0 do not exist, so look at a border, which never moves.
    policy = augment.make_policy("deformation", SHAPE, interpolation="gaussian")
    found = jax.jit(policy)(keys(3), images(3))
    smoothed = diffeo.reference(images(3), "gaussian")
    np.testing.assert_allclose(found[:, 0], smoothed[:, 0], atol=1e-12)
    assert np.abs(found[:, 0] - images(3)[:, 0]).max() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff": (1, 3)}, "cutoff=1 must be an integer of at least 2"),
        (
            {"cutoff": (4, 3)},
            r"cutoff=\(4, 3\) must be the least and the largest, within 2 .. 6 on",
        ),
        ({"cutoff": (3, 7)}, r"cutoff=\(3, 7\) must be .* on images of 9 x 12: beyond, no temp"),
        ({"temperature_odds": 0.0}, "temperature_odds=0.0 must be a finite number > 0"),
        ({"temperature_concentration": -1.0}, "temperature_concentration=-1.0 must be a finite"),
        ({"cutoff_odds": float("inf")}, "cutoff_odds=inf must be a finite number > 0"),
        ({"cutoff_concentration": float("nan")}, "cutoff_concentration=nan must be a finite"),
        ({"interpolation": "cubic"}, "interpolation='cubic' is unknown; choose one of 'bilinear'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        augment.deformation(SHAPE, **options)


def test_the_finest_cutoff_is_where_the_bounds_meet():
    least, most = diffeo.temperature_bounds(SIZE, 6)
    assert least < most
    least, most = diffeo.temperature_bounds(SIZE, 7)
    assert least > most
    augment.deformation(SHAPE, (2, 6))
