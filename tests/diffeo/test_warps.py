import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax import diffeo
from recon_jax.diffeo import warps

from .test_fields import ORACLES, fixed_tables

NAMES = {"bilinear": "linear", "gaussian": "gaussian", "nearest": "nearest"}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def fixed_fields():
    """Fields and deformed images of the released code; see tests/oracles/diffeo/README.md."""
    with np.load(Path(ORACLES) / "fixed_fields.npz") as file:
        return dict(file)


def drawn(count=3, height=5, width=7, channels=2, strength=2.0, seed=0):
    """Images and fields, float64, most places within the image and some beyond its border."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, height, width, channels))
    dx, dy = rng.normal(0, strength, (2, count, height, width))
    return images, dx, dy


def read(image, y, x, interpolation):
    """A place of one image, by the definition."""
    height, width, _ = image.shape
    if interpolation == "nearest":
        return image[int(np.round(y)), int(np.round(x))]
    if interpolation == "gaussian":
        v, u = np.mgrid[:height, :width]
        weights = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 0.4715**2))
        return np.tensordot(weights / weights.sum(), image, 2)
    top, left = int(np.floor(y)), int(np.floor(x))
    bottom, right = int(np.ceil(y)), int(np.ceil(x))
    a, b = y - top, x - left
    above = (1 - b) * image[top, left] + b * image[top, right]
    return (1 - a) * above + a * ((1 - b) * image[bottom, left] + b * image[bottom, right])


def defined(images, dx, dy, interpolation):
    out = np.zeros_like(images)
    count, height, width, _ = images.shape
    for n, y, x in itertools.product(range(count), range(height), range(width)):
        row = np.clip(y - dy[n, y, x], 0, height - 1)
        column = np.clip(x - dx[n, y, x], 0, width - 1)
        out[n, y, x] = read(images[n], row, column, interpolation)
    return out


@pytest.mark.parametrize("interpolation", diffeo.INTERPOLATIONS)
def test_deformed_images_are_those_of_the_released_code(fixed_fields, interpolation):
    dx, dy = diffeo.displacement_field(*fixed_tables(5), 32, float(fixed_fields["Tstrong"]))
    image = fixed_fields["image"][None, :, :, None]
    found = diffeo.warp(image, dx[None], dy[None], interpolation)[0, :, :, 0]
    expected = fixed_fields[f"strong_{NAMES[interpolation]}"]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for k in (3, 4):
        fields = (np.full((1, 16, 16), part) for part in fixed_fields[f"constant_{k}"])
        image = fixed_fields["image16"][None, :, :, None]
        found = diffeo.warp(image, *fields, interpolation)[0, :, :, 0]
        expected = fixed_fields[f"constant_{k}_{NAMES[interpolation]}"]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_reference_of_gaussian_reading_is_that_of_the_released_code(fixed_fields):
    found = diffeo.reference(fixed_fields["image16"][None, :, :, None], "gaussian")
    expected = fixed_fields["gaussian_identity16"]
    np.testing.assert_allclose(found[0, :, :, 0], expected, atol=1e-12)


@pytest.mark.parametrize("interpolation", diffeo.INTERPOLATIONS)
def test_warps_of_unequal_sides_are_the_definition(interpolation):
    images, dx, dy = drawn()
    # Halves and whole numbers: ties of "nearest", places on pixels and on the last of them.
    dx[0], dy[0] = np.round(2 * dx[0]) / 2, np.round(2 * dy[0]) / 2
    expected = defined(images, dx, dy, interpolation)
    found = diffeo.warp(images, dx, dy, interpolation)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    single = diffeo.warp(*(part.astype(np.float32) for part in (images, dx, dy)), interpolation)
    assert (found.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(single, expected, atol=2e-5)


def test_reading_row_by_row_is_reading_at_once(monkeypatch):
    images, dx, dy = drawn()
    y, x = np.mgrid[:5, :7]
    places = np.clip(x - dx, 0, 6), np.clip(y - dy, 0, 4)
    at_once = warps._gaussian(images, *places)
    for numbers in (1, 2 * 7 * (7 + 5 + 10)):  # one row, two of five rows
        monkeypatch.setattr(warps, "_GAUSSIAN_CHUNK", numbers)
        np.testing.assert_allclose(warps._gaussian(images, *places), at_once, atol=1e-14)


def test_where_nothing_moves_nothing_changes():
    images, dx, dy = drawn()
    for interpolation in ("bilinear", "nearest"):
        found = diffeo.warp(images, 0 * dx, 0 * dy, interpolation)
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(diffeo.reference(images, interpolation), images)
    np.testing.assert_array_equal(diffeo.deform(KEY, images, 3, np.zeros(3)), images)
    smoothed = diffeo.reference(images, "gaussian")
    found = diffeo.warp(images, 0 * dx, 0 * dy, "gaussian")
    np.testing.assert_allclose(found, smoothed, atol=1e-14)
    assert np.abs(smoothed - images).max() > 0.01


@settings(max_examples=8)
@given(
    seed=st.integers(0, 1000),
    value=st.floats(-1e3, 1e3),
    interpolation=st.sampled_from(diffeo.INTERPOLATIONS),
)
def test_constant_images_stay_and_warps_are_linear(seed, value, interpolation):
    images, dx, dy = drawn(seed=seed)
    flat = np.full_like(images, value)
    moved = diffeo.warp(images, dx, dy, interpolation)
    np.testing.assert_allclose(diffeo.warp(flat, dx, dy, interpolation), flat, rtol=1e-12)
    found = diffeo.warp(2 * images + flat, dx, dy, interpolation)
    np.testing.assert_allclose(found, 2 * moved + flat, rtol=1e-12, atol=1e-10)
    # Nothing is invented: means of pixels lie within their range, each channel and image alone.
    assert (moved <= images.max((1, 2), keepdims=True) + 1e-12).all()
    assert (moved >= images.min((1, 2), keepdims=True) - 1e-12).all()
    order = np.random.default_rng(seed).permutation(len(images))
    shuffled = diffeo.warp(images[order], dx[order], dy[order], interpolation)
    np.testing.assert_allclose(shuffled, moved[order], atol=1e-13)


def test_no_other_pixels_are_read_than_those_around():
    # 0 NaN = NaN shows also what is read with weight 0: here the corner of the second row.
    images, dx, dy = drawn()
    images[:, 1, 0] = np.nan
    found = np.isnan(diffeo.warp(images, 0 * dx, 0 * dy)).any((0, 3))
    assert found[1, 0]
    assert np.argwhere(found).max() <= 1


def test_an_image_in_a_batch_is_warped_as_alone():
    images, dx, dy = drawn(4)
    for interpolation in diffeo.INTERPOLATIONS:
        together = diffeo.warp(images, dx, dy, interpolation)
        alone = diffeo.warp(images[2:3], dx[2:3], dy[2:3], interpolation)
        np.testing.assert_allclose(alone[0], together[2], atol=1e-14)


@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
def test_gradients_are_those_of_finite_differences(interpolation):
    images, dx, dy = drawn(1, 4, 5, 2, 0.8)
    # Away from whole places, where the bilinear slope jumps, and from the clamp.
    dx, dy = (np.where(np.abs(part - np.round(part)) < 0.05, 0.3, part) for part in (dx, dy))
    weights = np.random.default_rng(1).standard_normal(images.shape)

    def value(images, dx, dy):
        return jnp.sum(weights * diffeo.warp(images, dx, dy, interpolation))

    point = (images, dx, dy)
    slopes = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*point)
    value, step = jax.jit(value), 1e-6
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal
        along = [direction(part.shape) for part in point]
        ends = (value(*(p + s * step * a for p, a in zip(point, along, strict=True)))
                for s in (1, -1))  # fmt: skip
        found = sum(np.sum(s * a) for s, a in zip(slopes, along, strict=True))
        assert (next(ends) - next(ends)) / (2 * step) == pytest.approx(float(found), rel=1e-6)


def test_gradients_at_whole_and_clamped_places_are_finite():
    images, dx, dy = drawn(1)
    dx, dy = np.round(dx), 50 * dy

    def value(dx, dy):
        return jnp.square(diffeo.warp(images, dx, dy)).sum()

    slopes = jax.grad(value, argnums=(0, 1))(dx, dy)
    assert np.isfinite(slopes).all()
    beyond = np.abs(np.mgrid[:5, :7][0] - dy[0] - 2) > 2
    assert beyond.sum() > 20
    np.testing.assert_array_equal(np.asarray(slopes[1])[0][beyond], 0)


def test_each_image_has_a_field_of_its_own_key():
    images, _, _ = drawn()
    temperature = np.array([0.0, 0.01, 0.05])
    found = diffeo.deform(KEY, images, 3, temperature)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(3))
    A, B = jax.vmap(lambda key: diffeo.sample_coefficients(key, 3, jnp.float64))(keys)
    expected = diffeo.warp(images, *diffeo.displacement_field(A, B, (5, 7), temperature))
    np.testing.assert_allclose(found, expected, atol=1e-13)
    assert (np.abs(found - images).max((1, 2, 3))[1:] > 0.01).all()
    for form in (keys, jax.random.key_data(keys), jax.random.key_data(KEY)):
        again = diffeo.deform(form, images, 3, temperature)
        np.testing.assert_allclose(again, found, atol=1e-13)


def test_deformations_of_the_first_images_do_not_depend_on_how_many_follow():
    images, _, _ = drawn()
    together = diffeo.deform(KEY, images, 3, np.full(3, 0.01))
    some = diffeo.deform(KEY, images[:2], 3, 0.01)
    np.testing.assert_allclose(some, together[:2], atol=1e-13)


def test_borders_of_deformed_images_stay():
    images, _, _ = drawn()
    found = np.array(diffeo.deform(KEY, images, 3, np.full(3, 0.01)))
    assert (found[:, 1:-1, 1:-1] != images[:, 1:-1, 1:-1]).all()
    found[:, 1:-1, 1:-1] = images[:, 1:-1, 1:-1]
    np.testing.assert_array_equal(found, images)


def test_integers_keep_their_values_and_half_precision_becomes_single():
    whole = np.arange(70, dtype=np.uint8).reshape(1, 5, 7, 2)
    for images in (whole, jnp.asarray(whole, jnp.bfloat16)):
        found = diffeo.deform(KEY, images, 3, 0.02)
        expected = diffeo.deform(KEY, whole.astype(np.float32), 3, 0.02)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)


def test_deformations_can_be_jitted_and_mapped():
    images, _, _ = drawn()
    temperatures = jnp.asarray([[0.01] * 3, [0.03] * 3])

    def deformed(temperature):
        return diffeo.deform(KEY, images, 3, temperature)

    found = jax.jit(jax.vmap(deformed))(temperatures)
    for i in range(2):
        np.testing.assert_allclose(found[i], deformed(temperatures[i]), atol=1e-13)


IMAGES, FIELD = np.ones((2, 4, 5, 1)), np.zeros((2, 4, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: diffeo.warp(IMAGES, FIELD, FIELD, "cubic"),
            "interpolation='cubic' is unknown; choose one of 'bilinear', 'gaussian', 'nearest'",
        ),
        (lambda: diffeo.deform(KEY, IMAGES, 3, 0.1, "linear"), "interpolation='linear' is unknown"),
        (lambda: diffeo.reference(IMAGES, "none"), "interpolation='none' is unknown"),
        (
            lambda: diffeo.warp(IMAGES, FIELD[:1], FIELD[:1]),
            r"shape \(2, 4, 5\), one field an image, got \(1, 4, 5\) and \(1, 4, 5\)",
        ),
        (lambda: diffeo.warp(IMAGES, FIELD, FIELD[0]), r"got \(2, 4, 5\) and \(4, 5\)"),
        (
            lambda: diffeo.warp(IMAGES[0], FIELD, FIELD),
            r"got \(4, 5, 1\); a single image needs a leading axis: images\[None\]",
        ),
        (lambda: diffeo.warp(IMAGES[:, :1], FIELD[:, :1], FIELD[:, :1]), r"size=\(1, 5\) must be"),
        (lambda: diffeo.reference(IMAGES[:, :, :1]), r"size=\(4, 1\) must be"),
        (lambda: diffeo.deform(KEY, IMAGES, 1, 0.1), "cutoff=1 must be an integer of at least 2"),
        (lambda: diffeo.deform(KEY, IMAGES, 3, -0.1), "temperature=-0.1 must be a finite number"),
        (lambda: diffeo.deform(KEY, IMAGES, 3, np.array([0, np.nan])), "temperature=nan must be"),
        (
            lambda: diffeo.deform(KEY, IMAGES, 3, np.ones(3)),
            r"temperature has shape \(3,\); one number or one for each of the 2 images is needed",
        ),
        (
            lambda: diffeo.deform(jax.random.split(KEY, 3), IMAGES, 3, 0.1),
            r"2 images need one key or 2 keys, got keys of shape \(3,\)",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
