import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax import augment


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def ramp(count=64, height=8, width=6, channels=1):
    """Images in which every pixel is another number."""
    one = np.arange(height * width * channels, dtype=np.float32).reshape(height, width, channels)
    return jnp.asarray(np.broadcast_to(one, (count, *one.shape)))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_crops_are_windows_of_the_reflected_image(padding):
    images = ramp(200)
    found = np.asarray(augment.crop_flip((8, 6, 1), padding)(keys(200), images))
    padded = np.pad(np.asarray(images[0]), ((padding,) * 2, (padding,) * 2, (0, 0)), "reflect")
    windows = {}
    for i in range(2 * padding + 1):
        for j in range(2 * padding + 1):
            window = padded[i : i + 8, j : j + 6]
            windows[window.tobytes()] = (i, j, False)
            windows[window[:, ::-1].tobytes()] = (i, j, True)
    drawn = [windows[image.tobytes()] for image in found]
    rows, columns, flips = (set(values) for values in zip(*drawn, strict=True))
    assert rows == columns == set(range(2 * padding + 1))
    assert flips == {True, False}


def test_half_of_the_images_are_flipped():
    images = ramp(2000, 2, 2)
    found = augment.crop_flip((2, 2, 1), 0)(keys(2000), images)
    flipped = np.asarray((found != images).any((1, 2, 3)))
    assert abs(flipped.mean() - 0.5) < 0.05


@pytest.mark.parametrize(("side", "padding"), [(32, 4), (64, 8), (28, 3)])
def test_default_padding_is_the_papers(side, padding):
    images = jax.random.uniform(jax.random.key(1), (3, side, side, 2))
    shape = images.shape[1:]
    found = augment.crop_flip(shape)(keys(3), images)
    expected = augment.crop_flip(shape, padding)(keys(3), images)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", augment.POLICIES)
def test_an_image_depends_on_its_own_key_alone(name):
    images = jax.random.uniform(jax.random.key(0), (6, 8, 8, 3))
    policy = jax.jit(augment.make_policy(name, (8, 8, 3)))
    together = policy(keys(6), images)
    assert together.shape == images.shape
    assert together.dtype == images.dtype
    for i in range(6):
        alone = policy(keys(6)[i : i + 1], images[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-12)


def test_no_augmentation_changes_nothing():
    images = ramp(2)
    assert augment.make_policy("none", (8, 6, 1))(keys(2), images) is images


def test_resized_crops_of_the_whole_area_are_flips():
    images = jax.random.uniform(jax.random.key(0), (200, 6, 6, 1))
    # Area 1 leaves ratio 1 alone: any other would not fit into the image.
    found = augment.resized_crop_flip((6, 6, 1), (1.0, 1.0), 0.0)(keys(200), images)
    square = np.asarray([min(np.abs(f - i).max(), np.abs(f[:, ::-1] - i).max())
                         for f, i in zip(found, images, strict=True)])  # fmt: skip
    # The longer side is clipped to the image, so one side of the crop is whole.
    assert np.all(np.asarray(found).min((1, 2, 3)) >= np.asarray(images).min((1, 2, 3)) - 1e-6)
    assert square.min() < 0.2


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), least=st.floats(0.2, 1.0))
def test_resized_crops_are_affine_samples_within_the_image(seed, least):
    # On a linear ramp bilinear samples are exact: the crop is a ramp of the crop's extent.
    height, width = 16, 12
    y, x = np.mgrid[:height, :width] + 0.5
    image = np.stack([y, x], axis=-1)[None]
    policy = augment.resized_crop_flip((height, width, 2), (least, 1.0), 0.0)
    found = np.asarray(policy(keys(1, seed), jnp.asarray(image)))[0]
    # Samples at the border are clamped to the outermost pixels, so look inside.
    rows, columns = found[2:-2, 2:-2, 0], found[2:-2, 2:-2, 1]
    np.testing.assert_allclose(rows, np.broadcast_to(rows[:, :1], rows.shape), atol=1e-6)
    np.testing.assert_allclose(columns, np.broadcast_to(columns[:1], columns.shape), atol=1e-6)
    down, across = np.diff(rows[:, 0]), np.abs(np.diff(columns[0]))
    np.testing.assert_allclose(down, down[0], atol=1e-5)
    np.testing.assert_allclose(across, across[0], atol=1e-5)
    assert down[0] * across[0] <= 1 + 1e-5
    # Where both ratios fit, the area is that drawn; clipping can only lose area.
    assert down[0] * across[0] >= least * 3 / 4 - 1e-5
    assert found.min() >= 0.5 - 1e-5
    assert found[..., 0].max() <= height - 0.5 + 1e-5


def test_a_fifth_of_the_images_lose_colour():
    images = jax.random.uniform(jax.random.key(0), (2000, 4, 4, 3))
    found = np.asarray(augment.resized_crop_flip((4, 4, 3))(keys(2000), images))
    grey = np.ptp(found, axis=-1).max((1, 2)) < 1e-6
    assert abs(grey.mean() - 0.2) < 0.03


@pytest.mark.parametrize(("name", "least"), [("mae_crop_flip", 0.2), ("imagenet_crop_flip", 0.08)])
def test_crops_of_masked_autoencoders_keep_their_colour_and_least_area(name, least):
    # On ramps down and across, the extent of a crop is that of its values.
    y, x = np.mgrid[:16, :16] + 0.5
    image = jnp.asarray(np.stack([y, x, y + x], axis=-1)[None])
    found = np.asarray(
        augment.make_policy(name, (16, 16, 3))(keys(500), jnp.tile(image, (500, 1, 1, 1)))
    )
    extent = np.ptp(found[:, 4:12, 8, 0], axis=1) * np.ptp(found[:, 8, 4:12, 1], axis=1) / 49
    assert least - 1e-3 <= extent.min() < least + 0.05
    assert extent.max() > 0.95
    np.testing.assert_allclose(found[..., 2], found[..., 0] + found[..., 1], atol=1e-4)
    assert 0.4 < np.mean(found[:, 8, 4, 1] > found[:, 8, 12, 1]) < 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.make_policy("mixup", (8, 8, 3)), "unknown augmentation 'mixup'; choose"),
        (lambda: augment.crop_flip((8, 6, 1), 6), r"padding=6 must be in 0\.\.5"),
        (lambda: augment.crop_flip((8, 6, 1), -1), r"padding=-1 must be in"),
        (lambda: augment.resized_crop_flip((8, 8, 3), (0.0, 1.0)), "two fractions"),
        (lambda: augment.resized_crop_flip((8, 8, 3), (0.8, 0.5)), "two fractions"),
        (lambda: augment.resized_crop_flip((8, 8, 3), grayscale=1.5), "probability"),
    ],
)
def test_bad_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
