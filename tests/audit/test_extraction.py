import functools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.audit import as_encoder
from recon_jax.audit.extraction import constant_features, extract, prepare, unit_images

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 4, 3, 2)).astype(np.uint8)


def flatten(images):
    return images.reshape(len(images), -1)


def scaled(weights, images):
    return flatten(images) @ weights


def prepared(encode, size=5, **options):
    return prepare(as_encoder(encode, **options), IMAGES[:size])


def test_encoders_see_unit_float32_pixels():
    seen = []

    def encode(images):
        seen.append(np.asarray(images))
        return flatten(np.asarray(images))

    found = extract(prepared(encode), IMAGES, 5)
    assert all(images.dtype == np.float32 for images in seen)
    np.testing.assert_allclose(found, flatten(IMAGES) / 255, rtol=1e-6)
    floats = IMAGES.astype(np.float64) / 300 - 0.5
    np.testing.assert_array_equal(unit_images(floats), floats.astype(np.float32))


@pytest.mark.parametrize("size", [1, 5, 7, 23])
@pytest.mark.parametrize("jit", [True, False])
def test_batches_do_not_matter(size, jit):
    encode = (
        (lambda images: jnp.tanh(flatten(images)))
        if jit
        else lambda images: np.tanh(flatten(np.asarray(images)))
    )
    runner = prepared(encode, size)
    assert runner.compiled is jit
    assert runner.dimension == 24
    found = extract(runner, IMAGES, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tanh(flatten(IMAGES) / 255), rtol=1e-5)


def test_compiled_functions_get_full_batches_and_others_what_is_there():
    sizes = []

    def encode(images):
        sizes.append(len(images))
        return flatten(images)

    extract(prepared(encode, 5, jit=True), IMAGES, 5)
    assert set(sizes) == {5}
    sizes.clear()
    extract(prepared(encode, 5, jit=False), IMAGES, 5)
    assert sizes[-1] == 3


def test_numpy_functions_and_those_that_draw_numbers_are_not_compiled():
    assert prepared(flatten).compiled
    assert not prepared(lambda images: flatten(np.sin(images))).compiled
    draws = np.random.default_rng(1)
    # Traced without complaint, but then its numbers would be the same for ever.
    noisy = lambda images: flatten(images) + draws.normal(size=(len(images), 24))  # noqa: E731
    assert not prepared(noisy).compiled
    assert not prepared(flatten, layers=lambda images: {"a": np.sin(images)}).compiled
    scalar = lambda images: flatten(images) * draws.normal()  # noqa: E731
    assert not prepared(scalar).compiled
    assert prepared(lambda images: jax.nn.relu(flatten(images))).compiled


def test_functions_that_are_not_deterministic_are_seen():
    draws = np.random.default_rng(1)
    noisy = lambda images: flatten(images) + draws.normal(size=(len(images), 24))  # noqa: E731
    (warning,) = prepared(noisy).warnings
    assert warning.startswith("not deterministic: features of the same 5 images differ")
    (warning,) = prepared(lambda images: 0 * flatten(images) + draws.normal()).warnings
    assert "infinitely many times" in warning
    rounding = lambda images: flatten(images) * (1 + 1e-7 * draws.normal())  # noqa: E731
    assert prepared(rounding).warnings == ()
    assert prepared(flatten).warnings == ()


def test_equal_options_of_other_types_do_not_share_a_program():
    weights = np.eye(2, dtype=np.float32)

    def encode(weights, both, images):
        rows = images.mean((1, 2))
        return jnp.concatenate([rows @ weights] * (2 if both is True else 1), axis=1)

    sizes = [
        prepare(as_encoder(functools.partial(encode, weights, both), jit=True), IMAGES).dimension
        for both in (True, 1, True)
    ]
    assert sizes == [4, 2, 4]


def test_partials_of_arrays_share_a_program():
    traces = []

    def encode(weights, images):
        traces.append(1)
        return scaled(weights, images)

    weights = [RNG.standard_normal((24, 3)).astype(np.float32) for _ in range(3)]
    for own in weights:
        runner = prepare(as_encoder(functools.partial(encode, jnp.asarray(own)), jit=True), IMAGES)
        expected = flatten(IMAGES) / 255 @ own
        np.testing.assert_allclose(extract(runner, IMAGES, 23), expected, rtol=1e-4, atol=1e-6)
    assert len(traces) == 3 + 1  # by shapes alone for each, and one program
    # Something without a hash is no obstacle.
    odd = functools.partial(lambda w, unused, images: scaled(w, images), weights[0], {"a": {1, 2}})
    assert prepared(odd, jit=True).dimension == 3


def test_what_follows_the_first_axis_is_flattened_and_integers_are_cast():
    maps = lambda images: (255 * images).astype(jnp.int32)  # noqa: E731
    found = extract(prepared(maps), IMAGES, 5)
    assert found.dtype == np.float32
    assert abs(found - flatten(IMAGES)).max() <= 1
    assert extract(prepared(lambda images: images[:, 0, 0, 0] > 0.5), IMAGES, 5).shape == (23, 1)
    assert (
        prepared(lambda images: flatten(images).astype(jnp.bfloat16))
        .features(unit_images(IMAGES))
        .dtype
        == np.float32
    )
    doubles = extract(prepared(lambda images: np.asarray(flatten(images), np.float64)), IMAGES, 5)
    assert doubles.dtype == np.float64


@pytest.mark.parametrize("jit", [True, False])
def test_layers_keep_their_order_and_end_with_the_output(jit):
    def layers(images):
        return {"z": images, "output": images[:, 0], "a": images[:, :, 0]}

    found = prepared(flatten, layers=layers, jit=jit).layers(unit_images(IMAGES[:5]))
    assert list(found) == ["z", "a", "output"]
    np.testing.assert_array_equal(found["output"], flatten(unit_images(IMAGES[:5])))
    pair = lambda images: (images, OrderedDict(b=images, a=images))  # noqa: E731
    found = prepared(flatten, layers=pair, jit=jit).layers(unit_images(IMAGES[:5]))
    assert list(found) == ["b", "a", "output"]
    assert list(prepared(flatten, jit=jit).layers(unit_images(IMAGES[:5]))) == ["output"]


def test_constant_features_are_counted():
    rows = RNG.standard_normal((9, 4)).astype(np.float32)
    assert constant_features(rows) == 0
    rows[:, 1], rows[:, 3] = 0, 5 + 1e-7 * rows[:, 3]
    assert constant_features(rows) == 2


BAD = [
    (lambda images: (images, images), "returned a tuple .2 entries.*encode.images..0"),
    (lambda images: [images], "returned a list"),
    (lambda images: {"mean": images}, "returned a dict .'mean'.*encode.images..'mean'"),
    (lambda images: images[:-1], "for 5 images; the first axis"),
    (lambda images: images.mean(), "shape .. for 5 images"),
    (lambda images: images[:, :, :0], "hold no number"),
    (lambda images: 1j * images, "dtype complex"),
    (lambda images: images / 0 * 0, r"NaN .* for 5 of 5 images .*number 0, 1, 2, 3, 4"),
    (lambda images: np.array(["a"] * len(images)), "dtype <U1"),
    (lambda images: "features", "returned str"),
    (lambda images: None, "returned NoneType"),
]


@pytest.mark.parametrize("jit", [None, False])
@pytest.mark.parametrize(("encode", "message"), BAD)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_cannot_be_features_is_refused(encode, message, jit):
    with pytest.raises(ValueError, match=message):
        prepared(encode, jit=jit)


@pytest.mark.parametrize("jit", [None, False])
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (flatten, "return {name: features}"),
        (lambda images: {}, "at least one entry"),
        (lambda images: {"a": images[:2]}, "layer 'a' of flatten returned features of shape"),
        (lambda images: {"a": images, "b": images / 0}, "layer 'b' of flatten returned NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_cannot_be_layers_is_refused(layers, message, jit):
    with pytest.raises(ValueError, match=message):
        prepared(flatten, layers=layers, jit=jit)
    assert prepare(as_encoder(flatten, layers=layers), IMAGES[:5], with_layers=False).dimension


def test_faults_of_later_images_name_them():
    images = IMAGES.astype(np.float32) / 255
    images[[11, 13]] = 2
    log = lambda images: jnp.log(1 - flatten(images) / 2)  # noqa: E731
    runner = prepare(as_encoder(log), images[:5])
    message = r"for 2 of 5 test images \(number 111, 113\)"
    with pytest.raises(ValueError, match=message):
        extract(runner, images, 5, what="test images", numbers=np.arange(100, 123))
    growing = as_encoder(lambda images: flatten(images)[:, : 3 + int(images.max() > 1)], jit=False)
    with pytest.raises(ValueError, match="returned 4 features an image where it had returned 3"):
        extract(prepare(growing, images[:5]), images, 5)


def test_errors_of_the_function_itself_come_through():
    def broken(images):
        raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        prepared(broken)
