"""On the one device of this process; test_devices.py has several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import parallel


def test_split_leading_reshapes_every_leaf():
    tree = {"a": jnp.arange(12).reshape(6, 2), "b": np.arange(6)}
    split = parallel.split_leading(tree, 3)
    assert split["a"].shape == (3, 2, 2)
    assert split["b"].shape == (3, 2)
    np.testing.assert_array_equal(split["a"].reshape(6, 2), tree["a"])


def test_split_leading_refuses_a_remainder():
    message = (
        "a leading axis of 7 cannot be split over 3 devices; choose a multiple of 3, such as 9, "
        "and mask the padding"
    )
    with pytest.raises(ValueError, match=message):
        parallel.split_leading({"a": np.ones(6), "b": np.ones(7)}, 3)


@pytest.mark.parametrize("in_axes", [0, (0, None), [0, None]])
def test_device_map_on_one_device_is_the_function(in_axes):
    x, w = jnp.arange(6.0).reshape(3, 2), jnp.arange(4.0).reshape(2, 2)
    if in_axes == 0:
        np.testing.assert_allclose(parallel.device_map(jnp.tanh)(x), jnp.tanh(x), rtol=1e-12)
    else:
        out = parallel.device_map(lambda a, b: a @ b, in_axes=in_axes)(x, w)
        np.testing.assert_allclose(out, x @ w)


def test_device_map_without_out_axis_returns_one_copy():
    total = parallel.device_map(lambda x: jax.lax.psum(x.sum(), parallel.AXIS), out_axes=None)
    assert float(total(jnp.arange(5.0))) == 10


@pytest.mark.parametrize(
    ("axes", "bad"), [({"in_axes": 1}, 1), ({"in_axes": (0, -1)}, -1), ({"out_axes": 2}, 2)]
)
def test_device_map_refuses_other_axes(axes, bad):
    message = rf"an axis must be 0 \(split by rows\) or None \(whole\), got {bad}"
    with pytest.raises(ValueError, match=message):
        parallel.device_map(lambda x: x, **axes)


def test_device_map_counts_arguments():
    with pytest.raises(ValueError, match="in_axes names 2 arguments, the call has 1"):
        parallel.device_map(lambda x, y: x, in_axes=(0, None))(jnp.ones(2))


def test_device_map_binds_its_axis_on_one_device():
    def share(scale, rows):
        return scale * rows / jax.lax.psum(rows.sum(), parallel.AXIS)

    rows = jnp.arange(4.0).reshape(4, 1)
    found = parallel.device_map(share, (None, 0))(2.0, rows)
    np.testing.assert_allclose(found, 2 * rows / 6)
    total = parallel.device_map(lambda x: jax.lax.psum(x.sum(0), parallel.AXIS), 0, None)(rows)
    np.testing.assert_array_equal(total, [6])


def test_the_state_outlives_a_call_that_does_not_donate():
    def step(state, batch):
        return state + batch.sum()

    state = jnp.zeros(2)
    for donate in (False, True):
        mapped = parallel.data_parallel(step, donate=donate)
        placed = mapped(state, jnp.ones((2, 1)))
        mapped(placed, jnp.ones((2, 1)))
        assert placed.is_deleted() == donate


def test_device_fold_on_one_device():
    out = parallel.device_fold(
        lambda state, rows: state + rows.sum(0),
        jnp.zeros(2),
        [(jnp.full((4, 2), i),) for i in range(20)],
        jax.lax.psum,
    )
    np.testing.assert_array_equal(out, [4 * sum(range(20))] * 2)
