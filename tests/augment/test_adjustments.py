import colorsys
import itertools

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from recon_jax.augment import adjustments

COUNT, SIZE = 5, (7, 9)


def planes(channels=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((channels, COUNT, *SIZE)))


def numbers(least, most, seed=1):
    return jnp.asarray(np.random.default_rng(seed).uniform(least, most, COUNT))


def images_of(planes):
    return np.moveaxis(np.asarray(planes), 0, -1)


def tied_colours():
    """Colours of which some channels are equal, (3, 1, 3, 9)."""
    colours = np.asarray(list(itertools.product((0.0, 0.4, 1.0), repeat=3)))
    return jnp.asarray(colours.T.reshape(3, 1, 3, 9))


def test_brightness_is_multiplied_and_contrast_is_dm_pixs():
    brightness = jnp.asarray([0.2, 0.9, 1.0, 1.4, 1.8])
    contrast = jnp.asarray([0.7, 1.0, 1.8, 1.6, 0.2])
    found = jax.jit(adjustments.brightness_contrast)(planes(2), brightness, contrast)
    bright = np.clip(images_of(planes(2)) * np.asarray(brightness)[:, None, None, None], 0, 1)
    expected = np.asarray(jax.jit(jax.vmap(dm_pix.adjust_contrast))(bright, contrast))
    assert expected.max() > 1 == bright.max()
    np.testing.assert_allclose(images_of(found), np.clip(expected, 0, 1), atol=1e-12)


@pytest.mark.parametrize("colours", [planes(), tied_colours()], ids=["random", "tied"])
def test_hue_and_saturation_are_dm_pixs(colours):
    turn, factor = (part[: colours.shape[1]] for part in (numbers(-0.5, 0.5), numbers(0, 2.5, 2)))
    found = images_of(jax.jit(adjustments.hue_saturation)(colours, turn, factor))

    def theirs(image, turn, factor):
        return dm_pix.adjust_saturation(dm_pix.adjust_hue(image, turn), factor)

    expected = jax.jit(jax.vmap(theirs))(images_of(colours), turn, factor)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    turn, factor = float(turn[0]), float(factor[0])
    for pixel, old in zip(*(part[0].reshape(-1, 3) for part in (found, images_of(colours))),
                          strict=True):  # fmt: skip
        hue, saturation, value = colorsys.rgb_to_hsv(*old)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, min(saturation * factor, 1), value)
        np.testing.assert_allclose(pixel, expected, atol=1e-12)


def test_luma_is_dm_pixs():
    expected = dm_pix.rgb_to_grayscale(images_of(planes()))[..., 0]
    np.testing.assert_allclose(adjustments.luma(planes()), expected, atol=1e-12)


@jax.jit
def blurred(planes, width):
    return [adjustments.blur(planes, adjustments.gaussian_weights(width, r)) for r in (1, 3)]


def test_blur_is_a_truncated_gaussian_of_the_reflected_image():
    width = numbers(0.3, 2.0)
    for radius, found in zip((1, 3), blurred(planes(2), width), strict=True):
        for image, old, s in zip(*map(images_of, (found, planes(2))), width, strict=True):
            expected = old
            for axis in (0, 1):
                expected = scipy.ndimage.gaussian_filter1d(
                    expected, float(s), axis, mode="mirror", radius=radius
                )
            np.testing.assert_allclose(image, expected, atol=1e-12)
        # dm-pix, whose weights are float32, on the image reflected for it.
        border = ((radius, radius), (radius, radius), (0, 0))
        padded = np.pad(images_of(planes(2))[0], border, "reflect")
        theirs = jax.jit(
            lambda x, s, r=radius: dm_pix.gaussian_blur(x, s, 2 * r + 1, padding="VALID")
        )(padded, width[0])
        np.testing.assert_allclose(images_of(found)[0], theirs, atol=1e-6)


def test_blur_without_width_changes_nothing_and_no_blur_changes_a_constant():
    width = jnp.asarray([0.0, 1e-30, 0.05, 0.7, 1e6])
    found = np.asarray(blurred(planes(2), width)[1])
    old = np.asarray(planes(2))
    np.testing.assert_array_equal(found[:, :3], old[:, :3])
    assert (np.abs(found - old)[:, 3:].max((0, 2, 3)) > 0.1).all()
    constant = jnp.full((2, COUNT, *SIZE), 0.3)
    np.testing.assert_allclose(blurred(constant, width)[1], constant, atol=1e-12)
    # A very wide one is the mean of the pixels within reach.
    np.testing.assert_allclose(adjustments.gaussian_weights(width, 2)[4], 0.2, atol=1e-9)
