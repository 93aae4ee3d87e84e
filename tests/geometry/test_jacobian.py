import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.geometry import local_jacobian


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def network(sizes):
    """ReLU network x -> relu(x A) B, and its exact Jacobian at one point."""
    a, b = draw(sizes[0], sizes[1]), draw(sizes[1], sizes[2], seed=1)

    def exact(x):
        return (a * (x @ a > 0) @ b).T

    return (lambda x: jax.nn.relu(x @ a) @ b), exact


# Three outputs are pulled back, nine are not.
@pytest.mark.parametrize("outputs", [3, 9])
@pytest.mark.parametrize("batch_size", [None, 4, 100])
def test_piecewise_affine_networks_give_the_matrix_of_the_region(outputs, batch_size):
    fn, exact = network((5, 11, outputs))
    points = draw(10, 5, seed=2)
    found = local_jacobian(fn, points, batch_size=batch_size)
    assert found.shape == (10, outputs, 5)
    np.testing.assert_allclose(found, [exact(x) for x in points], atol=1e-13)


@pytest.mark.parametrize("outputs", [2, 6])
def test_matches_differences(outputs):
    a = draw(4, outputs)
    fn = lambda x: jnp.tanh(x @ a) * (x**2).sum(1, keepdims=True)  # noqa: E731
    points, step = draw(3, 4, seed=2), 1e-6
    moves = step * np.eye(4)
    columns = [(fn(points + move[None]) - fn(points - move[None])) / (2 * step) for move in moves]
    found = local_jacobian(fn, points, batch_size=2)
    np.testing.assert_allclose(found, np.stack(columns, -1), atol=1e-8)


def test_a_batch_is_all_that_is_linearised_at_once():
    seen = set()

    def fn(x):
        seen.add(x.shape)
        return x * 2

    np.testing.assert_array_equal(
        local_jacobian(fn, np.ones((7, 3)), batch_size=2), np.tile(2 * np.eye(3), (7, 1, 1))
    )
    assert seen == {(2, 3)}


def test_the_cheaper_direction_is_taken():
    # The number of steps depends on the values, so this loop cannot be run backwards.
    def doubled(x):
        step = lambda state: (state[0] + 1, 2 * state[1])  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < x.max() * 0 + 3, step, (0, x))[1]

    np.testing.assert_array_equal(
        local_jacobian(lambda x: doubled(jnp.concatenate([x, x], 1)), np.ones((2, 3))),
        np.tile(8 * np.concatenate([np.eye(3), np.eye(3)]), (2, 1, 1)),
    )
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        local_jacobian(doubled, np.ones((2, 3)))


def test_under_jit_with_parameters_and_in_float32():
    points = draw(4, 3).astype(np.float32)
    jacobians = jax.jit(lambda a, x: local_jacobian(lambda h: h @ a, x, batch_size=3))
    a = draw(3, 2, seed=1).astype(np.float32)
    found = jacobians(a, points)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tile(a.T, (4, 1, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("fn", "options", "message"),
    [
        (lambda x: x[:2], {}, r"one row each \(4, P\), got \(2, 3\)"),
        (lambda x: x.sum(1), {}, r"got \(4,\)"),
        (lambda x: x.reshape(-1, 3, 1), {}, r"got \(4, 3, 1\); flatten"),
        (lambda x: (x, x), {}, "got tuple"),
        (lambda x: x > 0, {}, "must return floats, got bool"),
        (lambda x: x, {"batch_size": 0}, "batch_size=0 must be an integer of at least 1"),
        (lambda x: x, {"points": np.ones((2, 3, 4))}, "images are flattened"),
        (lambda x: x, {"points": np.ones((2, 0))}, "must not be empty"),
        (lambda x: x, {"points": np.full((2, 2), np.inf)}, "4 NaN or infinite entries of 4"),
    ],
)
def test_bad_input_is_refused(fn, options, message):
    # Without the type checker of the tests, which would speak first.
    local = inspect.unwrap(local_jacobian)
    with pytest.raises(ValueError, match=message):
        local(fn, options.pop("points", np.ones((4, 3))), **options)
