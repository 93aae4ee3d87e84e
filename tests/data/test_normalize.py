import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax.data import (
    NORMALIZATIONS,
    Batch,
    epoch_batches,
    fit_normalization,
    from_arrays,
    normalize,
    per_image_standardize,
)

FITTED = [name for name in NORMALIZATIONS if name != "unit"]


def images(n=50, shape=(5, 4, 3), seed=0):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(20, 255, (n, 1, 1, 1))
    return (rng.uniform(0, 1, (n, *shape)) * scale).astype(np.uint8)


def batches(x, batch_size=16, **options):
    return epoch_batches(from_arrays(x, np.zeros(len(x), int)), batch_size, **options)


def standardized(x):
    x = x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
    return x / (1e-6 + x.std(axis=(1, 2, 3), keepdims=True))


def expected(name, train, x):
    unit = lambda y: y.astype(np.float64) / (255 if y.dtype == np.uint8 else 1)  # noqa: E731
    if name == "unit":
        return unit(x)
    if name == "per_image":
        return standardized(x) - standardized(train).mean(axis=0)
    mean = unit(train).mean(axis=0)
    return (unit(x) - mean) / np.sqrt(np.mean((unit(train) - mean) ** 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_train_and_test_images_follow_the_formula(name, dtype):
    train, test = images().astype(dtype), images(9, seed=1).astype(dtype)
    fitted = fit_normalization(name, batches(train))
    for x in (train, test):
        result = normalize(fitted, x)
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected(name, train, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_jax_agrees_with_numpy(name, jit):
    train = images()
    fitted = fit_normalization(name, batches(train))
    function = lambda x: normalize(fitted, x)  # noqa: E731
    result = (jax.jit(function) if jit else function)(jnp.asarray(train))
    assert isinstance(result, jax.Array)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, normalize(fitted, train), rtol=1e-5, atol=3e-6)


def test_what_each_normalization_is_for():
    train = images()
    assert fit_normalization("unit", batches(train)).scale == 1
    unit = normalize(fit_normalization("unit", []), train)
    assert (unit.min(), unit.max()) == (train.min() / 255, np.float32(train.max() / 255))
    whole = normalize(fit_normalization("global", batches(train)), train)
    np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-6)
    assert abs(whole.std() - 1) < 1e-6
    each = normalize(fit_normalization("per_image", batches(train)), train)
    np.testing.assert_allclose(each.mean(axis=0), 0, atol=1e-5)
    # Contrast is gone: a fainter copy of an image is the same image.
    pixels = train / np.float32(255)
    fitted = fit_normalization("per_image", batches(pixels))
    np.testing.assert_allclose(normalize(fitted, pixels), normalize(fitted, pixels / 3), atol=3e-4)


def test_the_fields():
    train = images()
    fitted = fit_normalization("global", batches(train))
    assert fitted.name == "global"
    assert (fitted.mean.shape, fitted.mean.dtype) == ((5, 4, 3), np.float64)
    np.testing.assert_allclose(fitted.mean, (train / 255).mean(axis=0), rtol=1e-14)
    centred = train / 255 - (train / 255).mean(axis=0)
    assert isinstance(fitted.scale, float)
    np.testing.assert_allclose(fitted.scale, np.sqrt((centred**2).mean()), rtol=1e-13)


@settings(max_examples=25)
@given(st.sampled_from(FITTED), st.integers(1, 60), st.integers(1, 40), st.integers(0, 5))
def test_the_fit_does_not_depend_on_batches_order_or_padding(name, batch_size, n, seed):
    train = images(n + 1)
    once = fit_normalization(name, batches(train, n + 1, shuffle=False))
    streamed = fit_normalization(name, batches(train, batch_size, seed=seed))
    np.testing.assert_allclose(streamed.mean, once.mean, rtol=1e-12)
    np.testing.assert_allclose(streamed.scale, once.scale, rtol=1e-12)


@pytest.mark.parametrize("name", FITTED)
def test_what_lies_in_masked_rows_does_not_count(name):
    x, mask = images(6).astype(np.float32), np.array([1, 1, 0, 1, 0, 1], bool)
    x[~mask] = np.nan
    labels = np.zeros(6, np.int32)
    empty = Batch(x, labels, np.zeros(6, bool))
    fitted = fit_normalization(name, [empty, Batch(x, labels, mask), empty])
    direct = fit_normalization(name, batches(x[mask], 4))
    np.testing.assert_allclose(fitted.mean, direct.mean, rtol=1e-14)
    np.testing.assert_allclose(fitted.scale, direct.scale, rtol=1e-13)


def test_a_large_mean_does_not_cancel():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((500, 3, 3, 1))
    fitted = fit_normalization("global", batches(noise + 1e8, 7))
    reference = fit_normalization("global", batches(noise, 500))
    np.testing.assert_allclose(fitted.scale, reference.scale, rtol=1e-7)


def test_batches_may_be_on_the_device():
    train = images(8)
    moved = [jax.device_put(batch) for batch in batches(train, 4)]
    np.testing.assert_array_equal(
        fit_normalization("global", moved).mean, fit_normalization("global", batches(train, 4)).mean
    )


@pytest.mark.parametrize("value", [0, 1, 100, 255])
def test_constant_images_are_zero_once_centred(value):
    train = np.full((10, 8, 8, 3), value, np.uint8)
    scaled = per_image_standardize(train)
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled, value / 255 * 1e6, rtol=1e-6)
    fitted = fit_normalization("per_image", batches(train, 3))
    np.testing.assert_array_equal(normalize(fitted, train), 0)
    on_device = jax.jit(lambda x: normalize(fitted, x))(jnp.asarray(train))
    # float32: the scaled values are up to a million.
    np.testing.assert_allclose(on_device, 0, atol=0.2)


@pytest.mark.parametrize("xp", [np, jnp])
def test_the_deviation_of_a_constant_float_image_is_exactly_zero(xp):
    x = xp.full((1, 28, 28, 3), 0.1, xp.float32)
    np.testing.assert_allclose(per_image_standardize(x), 1e5, rtol=1e-6)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_per_image_standardize(convert):
    x = images(7)
    result = per_image_standardize(convert(x))
    assert result.dtype == np.float32
    assert isinstance(result, type(convert(x)))
    np.testing.assert_allclose(result, standardized(x), rtol=2e-6)
    # Nothing is subtracted, and the deviation is the population's.
    np.testing.assert_allclose(np.asarray(result).std(axis=(1, 2, 3)), 1, rtol=1e-4)
    assert result.min() >= 0
    # One image alone, or more leading axes.
    np.testing.assert_allclose(per_image_standardize(convert(x[0])), result[0], rtol=1e-6)
    np.testing.assert_allclose(per_image_standardize(convert(x[None])), result[None], rtol=1e-6)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'imagenet' is unknown.*unit.*global.*per_image"):
        fit_normalization("imagenet", [])


@pytest.mark.parametrize("name", FITTED)
def test_there_must_be_images(name):
    with pytest.raises(ValueError, match="no images"):
        fit_normalization(name, [])


@pytest.mark.parametrize("name", FITTED)
def test_bad_pixels_are_refused(name):
    bad = images(4).astype(np.float32)
    bad[2, 0, 0, 0] = np.inf
    batch = Batch(bad, np.zeros(4, np.int32), np.ones(4, bool))
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_normalization(name, [batch])


def test_shapes_must_agree():
    mixed = [*batches(images(4)), *batches(images(4, (6, 6, 3)))]
    with pytest.raises(ValueError, match=r"\(5, 4, 3\) and \(6, 6, 3\)"):
        fit_normalization("global", mixed)
    fitted = fit_normalization("global", batches(images(4)))
    with pytest.raises(ValueError, match=r"\(5, 4, 1\) do not fit .* \(5, 4, 3\)"):
        normalize(fitted, images(2, (5, 4, 1)))


def test_a_dataset_without_variation_has_no_global_scale():
    with pytest.raises(ValueError, match="all 4 images are the same"):
        fit_normalization("global", batches(np.repeat(images(1), 4, axis=0)))


@pytest.mark.parametrize("function", [per_image_standardize, None])
def test_other_dtypes_are_refused(function):
    function = function or (lambda x: normalize(fit_normalization("unit", []), x))
    with pytest.raises(ValueError, match="dtype int32; pass uint8"):
        function(np.zeros((1, 2, 2, 1), np.int32))
