import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import parallel
from recon_jax.models.convolution import conv_general_dilated, conv_transpose, shifts
from recon_jax.models.layers import MaxPool

LAYOUT = ("NHWC", "HWIO", "NHWC")


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def agree(ours, xla, x, kernel):
    """Values and both gradients."""
    np.testing.assert_allclose(ours(x, kernel), xla(x, kernel), rtol=1e-10, atol=1e-10)
    weight = draw(*xla(x, kernel).shape, seed=2)
    for argument in (0, 1):
        found, expected = (
            jax.grad(lambda *args, f=f: jnp.vdot(f(*args), weight), argument)(x, kernel)
            for f in (ours, xla)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def products_of(fn, *args):
    text = str(jax.make_jaxpr(fn)(*args))
    return "dot_general" in text and "conv_general" not in text


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides"), [((5, 6), 3, (1, 1)), ((7, 5), 5, (2, 1))]
)
def test_depthwise_kernels_are_sums_of_shifted_maps(size, kernel_size, strides):
    x, kernel = draw(3, *size, 4), draw(kernel_size, kernel_size, 1, 4, seed=1)
    padding = [(kernel_size // 2,) * 2] * 2
    options = {"dimension_numbers": LAYOUT, "feature_group_count": 4}

    def ours(x, kernel):
        return conv_general_dilated(x, kernel, strides, padding, **options)

    def xla(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    assert "conv_general" not in str(jax.make_jaxpr(ours)(x, kernel))
    agree(ours, xla, x, kernel)


def test_groups_of_several_channels_are_left_to_xla():
    x, kernel = draw(2, 5, 5, 4), draw(3, 3, 2, 4, seed=1)
    options = {"dimension_numbers": LAYOUT, "feature_group_count": 2}
    padding = [(1, 1)] * 2
    found = conv_general_dilated(x, kernel, (1, 1), padding, **options)
    expected = jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **options)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "border"),
    [
        ((2, 2), 3, (1, 1), 1),
        ((1, 2), 3, (1, 1), 1),
        ((8, 7), 3, (2, 2), 1),
        ((9, 6), 5, (2, 3), 2),
        ((5, 5), 1, (1, 1), 0),
        ((6, 5), 1, (2, 2), 0),
    ],
)
def test_products_are_the_convolution(size, kernel_size, strides, border):
    x, kernel = draw(3, *size, 4), draw(kernel_size, kernel_size, 4, 5, seed=1)
    padding = [(border, border)] * 2

    def ours(x, kernel):
        return conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)

    def xla(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)

    assert products_of(ours, x, kernel)
    agree(ours, xla, x, kernel)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((8, 8), {}),
        ((2, 2), {"padding": "SAME"}),
        ((2, 2), {"rhs_dilation": (2, 2)}),
        ((2, 2), {"feature_group_count": 2}),
    ],
)
def test_the_rest_is_left_to_xla(size, options):
    groups = options.get("feature_group_count", 1)
    x, kernel = draw(2, *size, 4), draw(3, 3, 4 // groups, 4)
    padding = options.pop("padding", [(2, 2)] * 2)

    def ours(x, kernel):
        return conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT, **options)

    assert not products_of(ours, x, kernel)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding"),
    [
        (3, (2, 2), ((1, 1), (1, 2))),
        (1, (2, 2), ((0, 0), (0, 1))),
        (7, (2, 2), ((3, 4), (3, 3))),
        (4, (3, 1), ((3, 3), (2, 1))),
        (2, (3, 3), ((1, 1), (1, 1))),
    ],
)
def test_transposed_products_are_the_transposed_convolution(size, kernel_size, strides, padding):
    x, kernel = draw(2, *size, 3), draw(kernel_size, kernel_size, 3, 4, seed=1)

    def ours(x, kernel):
        return conv_transpose(x, kernel, strides, padding)

    assert products_of(ours, x, kernel)
    agree(ours, lambda x, k: jax.lax.conv_transpose(x, k, strides, padding), x, kernel)


def test_the_kernel_gradient_has_features_as_rows():
    x, kernel = draw(2, 8, 8, 4), draw(3, 3, 4, 5)

    def loss(kernel):
        padding = [(1, 1)] * 2
        y = conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=LAYOUT)
        return jnp.sum(y**2)

    compiled = jax.jit(jax.grad(loss)).lower(kernel).compile().as_text()
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* dot\(", compiled)
    assert "5,36" in shapes  # its transpose, (36, 5), is the slower product
    assert "36,5" not in shapes


def test_the_transposed_gradient_sums_no_padded_places():
    x, kernel = draw(2, 4, 4, 3), draw(3, 3, 3, 4)

    def loss(x):
        return jnp.sum(conv_transpose(x, kernel, (2, 2), ((1, 2), (1, 2))) ** 2)

    assert "add_any" not in str(jax.make_jaxpr(jax.grad(loss))(x))


def test_accelerators_keep_xla(monkeypatch):
    monkeypatch.setattr(parallel, "is_cpu", lambda: False)
    x, kernel = draw(1, 2, 2, 3), draw(3, 3, 3, 3)
    same = [(1, 1)] * 2
    assert not products_of(
        lambda x, k: conv_general_dilated(x, k, (1, 1), same, dimension_numbers=LAYOUT), x, kernel
    )
    assert not products_of(lambda x, k: conv_transpose(x, k, (2, 2), same), x, kernel)


def test_shifts_fill_their_borders():
    x = jnp.ones((1, 2, 2, 1))
    first, *_, last = shifts(x, (3, 3), (1, 1), [(1, 1)] * 2, fill=-5.0)
    np.testing.assert_array_equal(first[0, :, :, 0], [[-5, -5], [-5, 1]])
    np.testing.assert_array_equal(last[0, :, :, 0], [[1, -5], [-5, -5]])


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [((8, 7), 2, 2, 0), ((9, 9), 3, 2, 1), ((7, 8), 3, 1, 1)],
)
def test_max_pool_is_the_window_reduction(size, window, stride, padding):
    x = draw(2, *size, 3)
    sides = [(0, 0), *[(padding, padding)] * 2, (0, 0)]

    def xla(x):
        windows, strides = (1, window, window, 1), (1, stride, stride, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, windows, strides, sides)

    def ours(x):
        return MaxPool(window, stride, padding).apply({}, x)

    np.testing.assert_array_equal(ours(x), xla(x))
    np.testing.assert_allclose(
        jax.grad(lambda x: jnp.sum(ours(x) ** 2))(x), jax.grad(lambda x: jnp.sum(xla(x) ** 2))(x)
    )
