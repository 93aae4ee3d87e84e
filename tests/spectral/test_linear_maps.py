import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import blur, downsample, grayscale

from . import reference

SHAPE = (4, 6, 3)


def images(seed=0):
    return np.random.default_rng(seed).standard_normal((5, *SHAPE))


def test_blur_keeps_constant_images_and_acts_channel_by_channel():
    soft = blur(1.2, SHAPE)
    np.testing.assert_allclose(soft.gain(jnp.full((2, *SHAPE), 3.0)), 3.0, rtol=1e-13)
    one_channel = jnp.asarray(images()).at[..., 1:].set(0)
    assert float(jnp.abs(soft.gain(one_channel)[..., 1:]).max()) == 0
    expected = images().reshape(5, -1) @ reference.blur_matrix(1.2, SHAPE).T
    np.testing.assert_allclose(
        soft.gain(jnp.asarray(images())).reshape(5, -1), expected, atol=1e-13
    )


def test_a_wide_blur_averages_and_a_narrow_one_does_nothing():
    drawn = jnp.asarray(images())
    wide = blur(1e4, SHAPE).gain(drawn)
    np.testing.assert_allclose(
        wide, jnp.broadcast_to(drawn.mean((1, 2), keepdims=True), drawn.shape), atol=1e-6
    )
    np.testing.assert_allclose(blur(0.05, SHAPE).gain(drawn), drawn, atol=1e-12)


def test_downsample_copies_block_means():
    drawn = images()
    expected = drawn.reshape(5, 2, 2, 3, 2, 3).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(downsample(2, SHAPE).gain(jnp.asarray(drawn)), expected, atol=1e-14)
    np.testing.assert_array_equal(downsample(1, SHAPE).gain(jnp.asarray(drawn)), drawn)


def test_grayscale_copies_the_luminance():
    drawn = images()
    grey = np.asarray(grayscale(SHAPE).gain(jnp.asarray(drawn)))
    luminance = 0.299 * drawn[..., 0] + 0.587 * drawn[..., 1] + 0.114 * drawn[..., 2]
    np.testing.assert_allclose(grey, np.repeat(luminance[..., None], 3, -1), atol=1e-14)
    # Images that are grey already do not change.
    np.testing.assert_allclose(grayscale(SHAPE).gain(jnp.asarray(grey)), grey, atol=1e-14)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: blur(1.0, SHAPE, noise=n),
        lambda n: downsample(2, SHAPE, noise=n),
        lambda n: grayscale(SHAPE, noise=n),
    ],
    ids=["blur", "downsample", "gray"],
)
def test_noise_adds_to_the_diagonal(make):
    scatter = jnp.asarray(images().reshape(5, -1).T @ images().reshape(5, -1))
    clean, noisy = make(0.0), make(0.5)
    difference = noisy.second_moment(scatter, 5) - clean.second_moment(scatter, 5)
    np.testing.assert_allclose(difference, 5 * 0.25 * np.eye(72), atol=1e-12)
    assert noisy.name == f"{clean.name} + gaussian(0.5)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: blur(0.0, SHAPE), "stddev must be positive, got 0.0; use identity for no blur"),
        (lambda: blur(float("nan"), SHAPE), "stddev must be positive, got nan"),
        (lambda: blur(1.0, SHAPE, noise=-1.0), r"stddev must lie in \[0, inf\), got -1.0"),
        (lambda: downsample(4, SHAPE), "patch_size=4 does not divide image width 6"),
        (lambda: grayscale((4, 6, 1)), "grayscale needs 3 channels, the images have 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
