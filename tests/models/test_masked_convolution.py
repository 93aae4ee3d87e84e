import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax import parallel
from recon_jax.models.masked_convolution import MaskedConv, channel_mask, context_mask


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def convolve(x, kernel):
    """Padded correlation, place by place in NumPy."""
    size = kernel.shape[0]
    half = size // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def whole(kernel):
    """The k x k kernel of a stored one; what is not stored is dead, and drawn here."""
    return np.concatenate([kernel, draw(kernel.shape[0] - 1, *kernel.shape[1:], seed=9)])


def raster_mask(size, kind):
    """k x k, by the order of the pixels alone."""
    order = np.arange(size * size).reshape(size, size)
    centre = order[size // 2, size // 2]
    return order <= centre if kind == "B" else order < centre


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize(("size", "shape"), [(3, (4, 5)), (5, (3, 2)), (7, (8, 8)), (3, (1, 1))])
@pytest.mark.parametrize("channels", [1, 6])  # two ways of computing on the CPU
def test_it_is_the_fully_masked_convolution(size, kind, shape, channels):
    conv = MaskedConv(5, size, kind)
    kernel, bias = draw(size // 2 + 1, size, channels, 5), draw(5, seed=1)
    x = draw(2, *shape, channels, seed=2)
    found = conv.apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(x, jnp.float32))
    expected = convolve(x, whole(kernel) * raster_mask(size, kind)[..., None, None]) + bias
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("size", [1, 3])
def test_channels_come_one_after_the_other(kind, size):
    conv = MaskedConv(6, size, kind, image_channels=3, use_bias=False, dtype=jnp.float64)
    x = jnp.asarray(draw(1, 3, 4, 3))
    params = {"params": {"kernel": draw(size // 2 + 1, size, 3, 6)}}
    jacobian = jax.jacobian(lambda x: conv.apply(params, x)[0, 1, 2])(x)[:, 0]
    for output in range(6):
        group = output // 2
        for i, j, channel in np.ndindex(3, 4, 3):
            near = abs(i - 1) <= size // 2 and abs(j - 2) <= size // 2
            before = (i, j) < (1, 2)
            at_centre = channel <= group if kind == "B" else channel < group
            seen = near and (before or ((i, j) == (1, 2) and at_centre))
            assert (jacobian[output, i, j, channel] != 0) == seen


def test_accelerators_compute_the_same(monkeypatch):
    conv, x = MaskedConv(4, 5, "A"), jnp.asarray(draw(2, 6, 5, 3), jnp.float32)
    params = {"params": {"kernel": draw(3, 5, 3, 4), "bias": draw(4)}}
    text = str(jax.make_jaxpr(conv.apply)(params, x))
    assert "conv_general" not in text
    product = conv.apply(params, x)
    monkeypatch.setattr(parallel, "is_cpu", lambda: False)
    assert "conv_general" in str(jax.make_jaxpr(lambda p, x: conv.apply(p, x))(params, x))
    assert_allclose(conv.apply(params, x), product, rtol=1e-4, atol=1e-5)


def test_windows_are_single_pixels():
    conv, x = MaskedConv(4, 3, "A", dtype=jnp.float64), draw(1, 5, 6, 2)
    params = {"params": {"kernel": draw(2, 3, 2, 4), "bias": draw(4)}}
    maps = conv.apply(params, jnp.asarray(x))
    windows = jnp.stack([jnp.asarray(x[0, 1:3, j - 1 : j + 2]) for j in range(1, 5)])
    one_each = conv.apply(params, windows, windows=True)
    assert_allclose(one_each[:, 0, 0], maps[0, 2, 1:5], rtol=1e-12)


@pytest.mark.parametrize(
    ("size", "kind", "channels", "live"),
    [
        (3, "A", None, [4 * 30] * 30),
        (3, "B", None, [5 * 30] * 30),
        (5, "A", 3, [12 * 30] * 10 + [12 * 30 + 10] * 10 + [12 * 30 + 20] * 10),
    ],
)
def test_kernels_begin_with_the_fan_in_of_what_lives(size, kind, channels, live):
    conv = MaskedConv(30, size, kind, image_channels=channels)
    kernel = conv.init(jax.random.key(0), jnp.zeros((1, 4, 4, 30)))["params"]["kernel"]
    assert kernel.shape == (size // 2 + 1, size, 30, 30)
    # U(-b, b) with b = 1 / sqrt(fan-in): the largest of so many is close to its bound.
    bound = 1 / np.sqrt(live)
    largest = np.abs(kernel).max((0, 1, 2))
    assert_array_equal(largest <= bound * (1 + 1e-6), True)
    assert_array_equal(largest >= bound * 0.95, True)


def test_masks():
    assert_array_equal(context_mask(3, "A"), [[1, 1, 1], [1, 0, 0]])
    assert_array_equal(context_mask(3, "B"), [[1, 1, 1], [1, 1, 0]])
    assert_array_equal(context_mask(1, "A"), [[0]])
    assert_array_equal(channel_mask(1, "A", 2, 4, 2)[0, 0], [[0, 0, 1, 1], [0, 0, 0, 0]])
    assert_array_equal(channel_mask(1, "B", 2, 4, 2)[0, 0], [[1, 1, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4 is even.*choose 3 or 5"),
        ({"kernel_size": 0}, "kernel_size=.* must be an integer of at least 1"),
        ({"kind": "C"}, "kind='C' is unknown; choose one of 'A', 'B'"),
        ({"features": 0}, "features=.* must be an integer of at least 1"),
        ({"kernel_size": 1}, "kernel_size=1 of kind 'A' sees no pixel.*kernel_size >= 3"),
        ({"kernel_size": 1, "image_channels": 1}, "sees no pixel"),
        ({"image_channels": 3}, "features=4 cannot be split into image_channels=3"),
        ({"image_channels": 0}, "image_channels=.* must be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedConv(**({"features": 4, "kernel_size": 3, "kind": "A"} | options))


def test_inputs_that_cannot_be_split():
    conv = MaskedConv(4, 3, "A", image_channels=2)
    with pytest.raises(ValueError, match="inputs=3 cannot be split"):
        jax.eval_shape(conv.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
