import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.losses import make_likelihood
from recon_jax.losses.levels import bits_per_dimension, check_values, from_levels, to_levels

BYTES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def test_256_levels_of_bytes_are_the_bytes():
    for images in (BYTES, BYTES / 255, (BYTES / 255).astype(np.float32)):
        found = to_levels(images, 256)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, BYTES)


@given(st.integers(2, 65536))
def test_bytes_go_to_the_nearest_level(levels):
    # Fractions in whole numbers; no byte lies half-way between two levels.
    expected = [(2 * b * (levels - 1) + 255) // 510 for b in range(256)]
    distance = [abs(e * 255 - b * (levels - 1)) for b, e in enumerate(expected)]
    assert max(distance) <= 127
    np.testing.assert_array_equal(to_levels(BYTES, levels).ravel(), expected)
    np.testing.assert_array_equal(to_levels(BYTES / 255, levels).ravel(), expected)


def test_binary_images_are_rounded_at_one_half():
    pixels = np.array([0.0, 0.49, 0.5, 0.51, 1.0])
    np.testing.assert_array_equal(to_levels(pixels, 2), [0, 0, 0, 1, 1])


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_stand_at_equal_distances_in_minus_one_to_one(levels):
    values = np.arange(levels)
    found = from_levels(values, levels, jnp.float64)
    np.testing.assert_allclose(found, np.linspace(-1, 1, levels), atol=1e-15)
    assert from_levels(values, levels).dtype == jnp.float32
    np.testing.assert_array_equal(to_levels((found + 1) / 2, levels), values)


def test_unsigned_levels_do_not_wrap():
    np.testing.assert_allclose(from_levels(BYTES, 256).ravel(), np.linspace(-1, 1, 256), atol=1e-7)


def test_under_jit_nothing_is_checked_and_levels_stay_in_range():
    found = jax.jit(lambda x: to_levels(x, 4))(jnp.asarray([-0.5, 0.4, 1.5]))
    np.testing.assert_array_equal(found, [0, 1, 3])


def test_rounding_beyond_one_is_forgiven():
    np.testing.assert_array_equal(to_levels(np.float32([1 + 1e-7, -1e-7]), 256), [255, 0])


@pytest.mark.parametrize("levels", [1, 0, -3, 2.0, True, 65537, None])
def test_a_number_of_levels_out_of_range_is_refused(levels):
    with pytest.raises(ValueError, match=r"levels=.* must be an integer in 2 \.\. 65536.*256"):
        to_levels.__wrapped__(BYTES, levels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.array([0.2, 1.5]), r"run from 0\.2 to 1\.5 but must lie in \[0, 1\]; undo the normal"),
        (np.array([-0.1, 0.5]), r"run from -0\.1 to 0\.5"),
        (np.array([0.1, np.nan]), "nan"),
        (np.array([0, 1]), r"uint8 or floats in \[0, 1\], got int"),
    ],
)
def test_pixels_out_of_range_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        to_levels(images, 256)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, 4]), r"run from 0 to 4; with levels=4 they must lie in 0 \.\. 3: .*to_lev"),
        (np.array([-1, 3]), "run from -1 to 3"),
        (np.array([0.0, 0.5]), r"whole numbers of an integer dtype, got float64; to_levels\(im"),
    ],
)
def test_levels_of_pixels_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_values(values, 4)


def test_bits_per_dimension():
    nats = 2 * 3 * 1 * np.log(256.0)
    np.testing.assert_allclose(bits_per_dimension(nats, (2, 3, 1)), 8, rtol=1e-14)
    many = np.array([[1.0, 2.0]]) * np.log(2) * 12
    np.testing.assert_allclose(bits_per_dimension(many, (2, 2, 3)), [[1.0, 2.0]], rtol=1e-14)


@pytest.mark.parametrize("shape", [(28, 28), (28, 0, 1), (1.0, 2, 3)])
def test_bits_need_the_shape_of_an_image(shape):
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\)"):
        bits_per_dimension.__wrapped__(1.0, shape)


def test_constants_of_jax_are_checked_inside_jit():
    levels = jnp.asarray([[0], [63]])
    likelihood = make_likelihood("discretized_logistic", 1, 64)

    def log_prob(params):
        return likelihood.log_prob(params, levels)

    params = jnp.zeros((2, 2))
    np.testing.assert_allclose(jax.jit(log_prob)(params), log_prob(params), rtol=1e-6)
    fewer = make_likelihood("discretized_logistic", 1, 32)
    with pytest.raises(ValueError, match="run from 0 to 63"):
        jax.jit(lambda params: fewer.log_prob(params, levels))(params)
    assert jax.jit(lambda: to_levels(jnp.asarray([0.0, 1.0]), 4))().tolist() == [0, 3]
