import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from recon_jax import augment
from recon_jax.augment.grey_views import grey_views, transformed

SHAPE = (7, 10, 1)
OFF = dict.fromkeys(("rotation", "translation", "zoom", "contrast", "brightness", "noise"), 0.0)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def random_images(count, shape=SHAPE, seed=1):
    return np.random.default_rng(seed).random((count, *shape))


def view(image, a, numbers, noise):
    """The view of one image by the docstring, from its draws."""
    angle, zoom, contrast, brightness, *shift = a * numbers
    angle *= np.radians(90)
    size = np.asarray(image.shape[:2])
    centre = (size - 1)[:, None, None] / 2
    places = (
        np.indices(image.shape[:2]) - centre - (np.asarray(shift) * 2.5 / 8 * size)[:, None, None]
    )
    turn = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = centre + np.einsum("ij,jyx->iyx", turn, places) / np.exp(0.5 * zoom)
    moved = np.stack(
        [
            scipy.ndimage.map_coordinates(channel, places, order=1, mode="grid-constant")
            for channel in np.moveaxis(image, -1, 0)
        ],
        -1,
    )
    mean = moved.mean((0, 1))
    return mean + np.exp(0.8 * contrast) * (moved - mean) + 0.4 * brightness + a * noise


# The noise is drawn in float32, the last bit of which depends on how it is compiled.
@pytest.mark.parametrize(
    ("shape", "noise", "accuracy"), [(SHAPE, 0.0, 1e-12), ((8, 8, 3), 0.2, 1e-6)]
)
def test_views_are_those_of_the_docstring(shape, noise, accuracy):
    images, strengths = random_images(20, shape), np.linspace(0, 1, 20)
    policy = jax.jit(grey_views(shape, noise=noise))
    found = policy(keys(20), jnp.asarray(images), strengths)
    for i, key in enumerate(keys(20)):
        first, second = jax.random.split(key)
        numbers = 2 * np.asarray(jax.random.uniform(first, (6,), jnp.float32), np.float64) - 1
        white = noise * np.asarray(jax.random.normal(second, shape, jnp.float32))
        expected = view(images[i], strengths[i], numbers, white)
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=accuracy)


def test_quarter_turns_and_whole_shifts_move_pixels():
    image = random_images(1, (6, 6, 2))
    zero, one = jnp.zeros(1), jnp.ones(1)
    images = jnp.asarray(image)
    turned = transformed(images, one * np.pi / 2, zero, zero, zero)
    # From right to down, which is clockwise as images are shown.
    np.testing.assert_allclose(turned[0], np.rot90(image[0], -1), atol=1e-12)
    moved = transformed(images, zero, zero, one / 3, -one / 6)
    np.testing.assert_allclose(moved[0, 2:, :-1], image[0, :-2, 1:], atol=1e-12)
    assert (np.abs(moved[0, :2]).max(), np.abs(moved[0, :, -1]).max()) == (0, 0)


def test_magnified_twice_a_ramp_is_half_as_steep():
    y, x = np.mgrid[:9, :9] - 4.0
    ramps = jnp.asarray(np.stack([y, x], -1)[None])
    zero = jnp.zeros(1)
    found = transformed(ramps, zero, jnp.full(1, np.log(2)), zero, zero)
    np.testing.assert_allclose(found, ramps / 2, atol=1e-12)
    # Half as large, black is all around.
    smaller = np.asarray(transformed(ramps + 10, zero, jnp.full(1, -np.log(2)), zero, zero))
    np.testing.assert_allclose(smaller[0, 2:7, 2:7], 2 * ramps[0, 2:7, 2:7] + 10, atol=1e-12)
    assert smaller[0, [0, 1, 7, 8]].max() == smaller[0, :, [0, 1, 7, 8]].max() == 0


def uniform(values, least, most):
    return scipy.stats.kstest(np.ravel(values), "uniform", (least, most - least)).pvalue > 0.01


def test_brightness_and_noise_have_their_distributions():
    count = 1000
    images = jnp.full((count, *SHAPE), 0.5)
    bright = jax.jit(grey_views(SHAPE, **{**OFF, "brightness": 0.4}))
    found = np.asarray(bright(keys(count), images, 0.6)) - 0.5
    np.testing.assert_allclose(np.ptp(found, axis=(1, 2, 3)), 0, atol=1e-12)
    assert uniform(found[:, 0, 0], -0.24, 0.24)
    noisy = jax.jit(grey_views(SHAPE, **{**OFF, "noise": 0.2}))
    found = np.asarray(noisy(keys(count), images, 0.6)) - 0.5
    assert scipy.stats.kstest(np.ravel(found), "norm", (0, 0.12)).pvalue > 0.01
    rows = found.reshape(count, -1)
    np.testing.assert_allclose(np.corrcoef(rows.T), np.eye(rows.shape[1]), atol=5 / np.sqrt(count))


def test_contrast_keeps_the_mean_and_is_uniform_in_logarithm():
    count = 1000
    images = random_images(count)
    policy = jax.jit(grey_views(SHAPE, **{**OFF, "contrast": 0.8}))
    found = np.asarray(policy(keys(count), jnp.asarray(images), 0.5))
    np.testing.assert_allclose(found.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-12)
    gain = found.std((1, 2, 3)) / images.std((1, 2, 3))
    assert uniform(np.log(gain), -0.4, 0.4)


def test_what_is_off_changes_nothing():
    images = random_images(3)
    found = jax.jit(grey_views(SHAPE, **OFF))(keys(3), jnp.asarray(images), 1.0)
    np.testing.assert_allclose(found, images, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": 181.0}, r"rotation=181.0 must lie in \[0, 180\]: degrees"),
        ({"rotation": -1.0}, "rotation=-1.0 must lie in"),
        ({"translation": 1.1}, r"translation=1.1 must lie in \[0, 1\]: a part of"),
        ({"zoom": -0.5}, "zoom=-0.5 must be a finite number >= 0"),
        ({"contrast": float("inf")}, "contrast=inf must be a finite number >= 0"),
        ({"brightness": float("nan")}, "brightness=nan must be a finite number >= 0"),
        ({"noise": -0.2}, "noise=-0.2 must be a finite number >= 0: the standard deviation"),
    ],
)
def test_ranges_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        augment.grey_views(SHAPE, **options)
