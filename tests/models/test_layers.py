from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models.layers import (
    ConvBlock,
    DenseBlock,
    MaxPool,
    adaptive_avg_pool,
    at_least_float32,
    he_normal,
    linear_widths,
    pad_to_side,
    torch_uniform,
)


@partial(jax.jit, static_argnums=0)
def train_step(module, variables, x):
    return module.apply(variables, x, train=True, mutable=["batch_stats"])


def test_kernels_have_the_stated_spread():
    key, shape = jax.random.key(0), (3, 3, 20, 40)
    assert_allclose(jnp.std(he_normal(key, shape)), (2 / (9 * 40)) ** 0.5, rtol=0.02)
    uniform = torch_uniform(key, shape)
    bound = (9 * 20) ** -0.5
    assert 0.99 * bound < float(jnp.abs(uniform).max()) <= bound
    assert_allclose(jnp.std(uniform), bound / 3**0.5, rtol=0.02)


def test_batch_norm_normalises_the_batch_and_updates_running_statistics(draw):
    block = ConvBlock(3, use_relu=False)
    x = draw(6, (5, 4, 2))
    variables = jax.jit(block.init)(jax.random.key(0), x)
    y, updated = train_step(block, variables, x)
    assert_allclose(y.mean((0, 1, 2)), np.zeros(3), atol=1e-5)
    plain = ConvBlock(3, use_norm=False, use_relu=False)
    raw = plain.apply({"params": {"conv": variables["params"]["conv"]}}, x)
    assert_allclose(y.std((0, 1, 2)), (1 + 1e-5 / raw.var((0, 1, 2))) ** -0.5, rtol=1e-4)
    stats = updated["batch_stats"]["norm"]
    assert_allclose(stats["mean"], 0.1 * raw.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert_allclose(stats["var"], 0.9 + 0.1 * raw.var((0, 1, 2)), rtol=1e-5)


def test_evaluation_uses_running_statistics_and_leaves_them(draw):
    block = DenseBlock(3)
    x = draw(6, (4,))
    variables = jax.jit(block.init)(jax.random.key(0), x)
    y, updated = block.apply(variables, x, train=False, mutable=["batch_stats"])
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated), strict=True
    ):
        assert_array_equal(before, after)
    # At mean 0 and variance 1 images do not depend on each other.
    assert_allclose(block.apply(variables, x[:1]), y[:1], rtol=1e-6)


@pytest.mark.parametrize("shards", [2, 4])
def test_statistics_of_shards_are_those_of_the_whole_batch(draw, shards):
    alone, together = ConvBlock(3), ConvBlock(3, axis_name="shards")
    x = draw(8, (4, 4, 2))
    variables = jax.jit(alone.init)(jax.random.key(0), x)
    y, updated = train_step(alone, variables, x)
    mapped = jax.vmap(lambda part: train_step(together, variables, part), axis_name="shards")
    parts, stats = mapped(x.reshape(shards, -1, 4, 4, 2))
    assert_allclose(parts.reshape(y.shape), y, atol=1e-5)
    for whole, each in zip(jax.tree.leaves(updated), jax.tree.leaves(stats), strict=True):
        assert each.shape == (shards, *whole.shape)
        assert_allclose(each, np.broadcast_to(whole, each.shape), rtol=1e-5, atol=1e-7)


def test_without_axis_name_shards_differ(draw):
    block = ConvBlock(3)
    x = draw(8, (4, 4, 2))
    variables = jax.jit(block.init)(jax.random.key(0), x)
    _, stats = jax.vmap(lambda part: train_step(block, variables, part))(x.reshape(2, 4, 4, 4, 2))
    mean = stats["batch_stats"]["norm"]["mean"]
    assert float(jnp.abs(mean[0] - mean[1]).max()) > 1e-4


@pytest.mark.parametrize(("side", "stride"), [(1, 1), (1, 2), (6, 1), (6, 2), (7, 2)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_convolution_keeps_or_halves_the_side(side, stride, kernel_size):
    block = ConvBlock(2, kernel_size, stride)
    x = jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
    y, _ = jax.eval_shape(lambda x: block.init_with_output(jax.random.key(0), x), x)
    assert y.shape == (1, *(-(-side // stride),) * 2, 2)


def test_padding_never_wins_the_maximum():
    x = -jnp.ones((1, 3, 3, 1))
    pooled = MaxPool(3, 2, 1).apply({}, x)
    assert_array_equal(pooled, -np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (31, 33), (40, 1)])
def test_borders_are_zero_and_balanced(height, width):
    padded = pad_to_side(jnp.ones((1, height, width, 2)), 32)
    assert padded.shape == (1, max(height, 32), max(width, 32), 2)
    assert padded.sum() == height * width * 2
    inside = np.nonzero(np.asarray(padded[0, :, :, 0]).any(1))[0]
    assert abs(inside[0] - (padded.shape[1] - 1 - inside[-1])) <= 1


def test_adaptive_pool_of_its_own_size_is_the_identity_and_of_one_the_mean(draw):
    x = draw(2, (7, 7, 3))
    assert_allclose(adaptive_avg_pool(x, 7), x, rtol=1e-6)
    assert_allclose(adaptive_avg_pool(x, 1)[:, 0, 0], x.mean((1, 2)), rtol=1e-6)
    one = draw(2, (1, 1, 3))
    assert_allclose(adaptive_avg_pool(one, 7), np.broadcast_to(one, (2, 7, 7, 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_outputs_are_float32_or_wider(dtype, expected):
    assert at_least_float32(jnp.zeros(2, dtype)).dtype == expected


@pytest.mark.parametrize(
    ("start", "stop", "count", "expected"),
    [
        (3072, 10, 4, [3072, 2051, 1030, 10]),
        (3072, 512, 3, [3072, 1792, 512]),
        (32, 512, 3, [32, 272, 512]),
        (32, 512, 5, [32, 152, 272, 392, 512]),
        (5, 5, 3, [5, 5, 5]),
        (10, 7, 2, [10, 7]),
    ],
)
def test_widths(start, stop, count, expected):
    assert linear_widths(start, stop, count) == expected
    assert linear_widths(stop, start, count) == expected[::-1]
