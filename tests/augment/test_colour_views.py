import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from recon_jax import augment

SHAPE = (9, 12, 3)
OFF = {"least_area": 1.0, "ratio": 1.0, "flip": 0.0, "jitter": 0.0, "grey": 0.0, "blur": 0.0}


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def smooth(count, shape=SHAPE, seed=1):
    """Images with something to see at every size, within 0 .. 1."""
    white = np.random.default_rng(seed).random((count, *shape))
    images = scipy.ndimage.gaussian_filter(white, (0, 1.0, 1.0, 0), mode="wrap")
    low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
    return (images - low) / (high - low)


def blurred(image, width, radius):
    for axis in (0, 1):
        image = scipy.ndimage.gaussian_filter1d(image, width, axis, mode="mirror", radius=radius)
    return image


def other_hue(image, turn, factor):
    pixels = []
    for pixel in image.reshape(-1, 3):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        pixels.append(colorsys.hsv_to_rgb((hue + turn) % 1, min(factor * saturation, 1), value))
    return np.reshape(pixels, image.shape)


def view(image, a, u):
    """The view of one image by the docstring, from its 13 uniform numbers."""
    signed = 2 * u - 1
    height, width, channels = image.shape
    area, log_ratio = 1 - a * 0.92 * u[0], a * np.log(4 / 3) * signed[1]
    shape = np.minimum(np.sqrt(area * np.exp([log_ratio, -log_ratio])), 1)
    first = u[2:4] * (1 - shape)
    rows, columns = (
        (first[axis] + shape[axis] * (np.arange(side) + 0.5) / side) * side - 0.5
        for axis, side in enumerate((height, width))
    )
    columns = columns[::-1] if u[4] < a * 0.5 else columns
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    image = np.stack(
        [
            scipy.ndimage.map_coordinates(image[..., c], places, order=1, mode="nearest")
            for c in range(channels)
        ],
        -1,
    )
    if u[5] < 0.8:
        image = np.clip(image * (1 + a * 0.8 * signed[6]), 0, 1)
        mean = image.mean((0, 1))
        image = np.clip(mean + (1 + a * 0.8 * signed[7]) * (image - mean), 0, 1)
        if channels == 3:
            image = other_hue(image, a * 0.2 * signed[8], 1 + a * 0.8 * signed[9])
    if u[10] < a * 0.2 and channels == 3:
        image = np.repeat(image @ np.asarray([0.2989, 0.5870, 0.1140])[:, None], 3, -1)
    if u[11] < 0.5:
        image = blurred(image, a * (0.1 + 1.9 * u[12]), max(1, height // 20))
    return image


@pytest.mark.parametrize("shape", [SHAPE, (41, 8, 1)])
def test_views_are_those_of_the_docstring(shape):
    count = 40
    images = smooth(count, shape)
    strengths = np.linspace(0.05, 1, count)[np.random.default_rng(0).permutation(count)]
    found = jax.jit(augment.colour_views(shape))(keys(count), jnp.asarray(images), strengths)
    numbers = jax.vmap(lambda key: jax.random.uniform(key, (13,), jnp.float32))(keys(count))
    numbers = np.asarray(numbers, np.float64)
    for i in range(count):
        expected = view(images[i], strengths[i], numbers[i])
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-12)
    # Everything that happens now and then did, and did not.
    for column, probability in ((4, 0.5 * strengths), (5, 0.8), (10, 0.2 * strengths), (11, 0.5)):
        assert len(set(numbers[:, column] < probability)) == 2


@functools.cache
def policy_of(**on):
    return jax.jit(augment.colour_views(SHAPE, **{**OFF, **on}))


def uniform(values, least, most):
    return scipy.stats.kstest(np.ravel(values), "uniform", (least, most - least)).pvalue > 0.01


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_crops_and_flips_have_their_distributions(strength):
    count = 2000
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    ramps = np.broadcast_to(np.stack([y / 9, x / 12, 0 * x], -1), (count, *SHAPE))
    policy = policy_of(least_area=0.08, flip=0.5)
    found = np.asarray(policy(keys(count), jnp.asarray(ramps), strength))
    # The slope of a ramp is the side of the crop, away from the border.
    down = (found[:, 5, 6, 0] - found[:, 4, 6, 0]) * 9
    across = (found[:, 4, 6, 1] - found[:, 4, 5, 1]) * 12
    np.testing.assert_allclose(down, np.abs(across), atol=1e-12)
    assert uniform(down * np.abs(across), 1 - 0.92 * strength, 1)
    assert np.mean(across < 0) == pytest.approx(0.5 * strength, abs=0.04)
    # Uniform over the places where the crop fits.
    centre = found[:, 4, 6, 0]
    assert uniform((centre - down / 2) / (1 - down), 0, 1)


def test_ratios_of_the_sides_are_uniform_in_logarithm():
    count = 2000
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    ramps = np.broadcast_to(np.stack([y / 9, x / 12, 0 * x], -1), (count, *SHAPE))
    found = np.asarray(policy_of(least_area=0.3, ratio=1.3)(keys(count), jnp.asarray(ramps), 0.5))
    down = (found[:, 5, 6, 0] - found[:, 4, 6, 0]) * 9
    across = (found[:, 4, 6, 1] - found[:, 4, 5, 1]) * 12
    fits = down * across < 0.85  # whatever the ratio
    assert fits.mean() > 0.3
    assert uniform(np.log(down / across)[fits], -0.5 * np.log(1.3), 0.5 * np.log(1.3))


def test_brightness_of_constant_images_is_uniform_in_most_of_them():
    count = 2000
    grey = jnp.full((count, *SHAPE), 0.4)
    found = np.asarray(policy_of(jitter=0.8)(keys(count), grey, 0.5))
    np.testing.assert_allclose(np.ptp(found, axis=(1, 2, 3)), 0, atol=1e-12)
    factor = found[:, 0, 0, 0] / 0.4
    changed = np.abs(factor - 1) > 1e-9
    assert changed.mean() == pytest.approx(0.8, abs=0.04)
    assert uniform(factor[changed], 1 - 0.5 * 0.8, 1 + 0.5 * 0.8)


def test_operations_that_are_off_change_nothing():
    images = jnp.asarray(smooth(4))
    np.testing.assert_allclose(policy_of()(keys(4), images, 1.0), images, atol=1e-12)


def test_pixels_stay_within_0_and_1():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 2, (50, *SHAPE)).astype(np.float32))
    found = policy_of(jitter=1.0, brightness=1.0, contrast=1.0, hue=0.5)(keys(50), images, 1.0)
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_area": 0.0}, r"least_area=0.0 must lie in \[1e-6, 1\]: part of the area"),
        ({"least_area": 1.5}, "least_area=1.5 must lie in"),
        ({"ratio": 0.9}, "ratio=0.9 must be a finite number >= 1"),
        ({"flip": -0.1}, r"flip=-0.1 must lie in \[0, 1\]: a probability"),
        ({"jitter": float("nan")}, "jitter=nan must lie in"),
        ({"grey": 2}, "grey=2 must lie in"),
        ({"blur": 1.1}, "blur=1.1 must lie in"),
        ({"brightness": 1.2}, r"brightness=1.2 must lie in \[0, 1\]: how far the factor"),
        ({"contrast": -1.0}, "contrast=-1.0 must lie in"),
        ({"saturation": 1.01}, "saturation=1.01 must lie in"),
        ({"hue": 0.6}, r"hue=0.6 must lie in \[0, 0.5\]: part of the colour circle"),
        ({"blur_width": (-1.0, 2.0)}, r"blur_width\[0\]=-1.0 must be a finite number >= 0"),
        ({"blur_width": (2.0, 1.0)}, r"blur_width\[1\]=1.0 must be a finite number >= 2"),
        ({"blur_width": (0.0, float("inf"))}, r"blur_width\[1\]=inf must be"),
    ],
)
def test_ranges_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        augment.colour_views(SHAPE, **options)
