"""Checks on 8 simulated devices, in a process of its own; prints one JSON line a check."""

import re
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from recon_jax import parallel  # noqa: E402
from recon_jax.spectral import (  # noqa: E402
    alignment_curve,
    eigendecompose,
    init_moments,
    stream_moments,
    update_moments,
)
from tests.checks import run_checks  # noqa: E402


def batches(count=5, size=16, dtype=None):
    rng = np.random.default_rng(0)
    for _ in range(count):
        images = 2 + rng.standard_normal((size, 3, 2, 1))
        if dtype is not None:
            images = rng.integers(0, 256, images.shape).astype(dtype)
        yield images, rng.integers(0, 3, size), rng.random(size) < 0.8


def one_device(stream):
    moments = init_moments(6, 3)
    for batch in stream:
        moments = update_moments(moments, *batch)
    return moments


def assert_close(tree, expected, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(b).max()))


def raises(message, call):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def check_there_are_8_devices():
    assert jax.local_device_count() == 8
    assert parallel.process_count() == 1
    assert parallel.process_index() == 0
    assert not parallel.is_single_cpu()


def check_stream_equals_one_device():
    assert_close(stream_moments(batches(), 3), one_device(batches()))
    assert_close(stream_moments(batches(dtype=np.uint8), 3), one_device(batches(dtype=np.uint8)))


def check_a_long_stream():
    # More batches than steps that may be in flight.
    assert_close(stream_moments(batches(70, 8), 3), one_device(batches(70, 8)))


def check_streamed_moments_pass_through_ordinary_jit():
    moments = stream_moments(batches(), 3)
    assert_close(eigendecompose(moments).values, eigendecompose(one_device(batches())).values)
    jitted = jax.jit(alignment_curve)(moments)
    assert_close(jitted, alignment_curve(one_device(batches())), 1e-9)


def check_an_empty_device_does_no_harm():
    # All images of the batch masked but two: most devices see none.
    images, labels, _ = next(batches())
    keep = np.zeros(16, bool)
    keep[[1, 9]] = True
    ours = stream_moments([(images, labels, keep)], 3)
    assert_close(ours, one_device([(images[keep], labels[keep], keep[keep])]))


def check_batch_that_does_not_divide_is_refused():
    message = (
        "a leading axis of 7 cannot be split over 8 devices; choose a multiple of 8, such as 8"
    )
    raises(message, lambda: stream_moments(batches(1, 7), 3))
    double = parallel.device_map(lambda x: 2 * x)
    raises(message, lambda: double(jnp.ones((7, 2))))
    raises("a leading axis of 12 cannot be split over 8", lambda: double(jnp.ones(12)))
    raises("such as 16", lambda: double(jnp.ones(12)))


def check_wholly_masked_stream_is_refused():
    images, labels, mask = next(batches())
    raises("no images were given", lambda: stream_moments([(images, labels, mask & False)], 3))
    raises("no images were given", lambda: stream_moments([], 3))


def check_device_map_splits_rows_and_gives_the_rest_whole():
    x, w = jnp.arange(48.0).reshape(16, 3), jnp.arange(6.0).reshape(3, 2)
    seen = []

    def fn(rows, weights):
        seen.append((rows.shape, weights["w"].shape))
        return {"y": rows @ weights["w"]}

    out = parallel.device_map(fn, in_axes=(0, None))(x, {"w": w})
    assert seen[0] == ((2, 3), (3, 2)), seen
    assert_close(out["y"], x @ w)


def check_device_map_uses_the_devices_it_is_given():
    out = parallel.device_map(
        lambda rows: jnp.full((1,), rows.shape[0]), devices=jax.local_devices()[:4]
    )(jnp.ones((12, 1)))
    np.testing.assert_array_equal(out, [3, 3, 3, 3])


def check_device_map_with_collectives_returns_one_copy():
    total = parallel.device_map(
        lambda rows: jax.lax.psum(rows.sum(0), parallel.AXIS), out_axes=None
    )
    x = jnp.arange(48.0).reshape(16, 3)
    out = total(x)
    assert out.shape == (3,)
    assert_close(out, x.sum(0))
    index = parallel.device_map(
        lambda rows: jax.lax.axis_index("d")[None] + 0 * rows[:1, 0], axis_name="d"
    )
    np.testing.assert_array_equal(index(x), np.arange(8))


def check_gradients_are_those_of_one_device():
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.standard_normal((32, 5))), jnp.asarray(rng.standard_normal(32))
    w = jnp.asarray(rng.standard_normal(5))

    def loss(w, x, y):
        return jnp.mean((jnp.tanh(x @ w) - y) ** 2)

    def step(w, x, y):
        value, grad = jax.value_and_grad(loss)(w, x, y)
        return jax.lax.pmean((value, grad), parallel.AXIS)

    ours = parallel.device_map(step, in_axes=(None, 0, 0), out_axes=None)(w, x, y)
    assert_close(ours, jax.value_and_grad(loss)(w, x, y))


def check_device_fold_reduces_once():
    calls = []

    def reduce(state, axis_name):
        calls.append(axis_name)
        return jax.lax.psum(state, axis_name)

    stream = [(jnp.ones((8, 2)) * i,) for i in range(40)]
    out = parallel.device_fold(
        lambda state, rows: state + rows.sum(0), jnp.zeros(2), stream, reduce, axis_name="spam"
    )
    np.testing.assert_array_equal(out, [8 * sum(range(40))] * 2)
    assert calls == ["spam"]


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1])
