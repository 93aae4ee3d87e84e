import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.geometry import effective_rank, embedding_rank, numerical_rank


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def expected_rank(values):
    p = values**2 / np.sum(values**2)
    p = p[p > 0]
    return np.exp(-np.sum(p * np.log(p)))


def test_matches_the_entropy_of_numpy_singular_values():
    stack = draw(2, 3, 5, 8)
    expected = [[expected_rank(np.linalg.svd(a)[1]) for a in row] for row in stack]
    np.testing.assert_allclose(effective_rank(stack), expected, rtol=1e-12)
    values = np.array([3.0, 1, 1, 0.1, 0])
    np.testing.assert_allclose(effective_rank(values), expected_rank(values), rtol=1e-14)


@given(st.integers(1, 6), st.integers(0, 4), st.sampled_from([1e-200, 1.0, 1e200]))
def test_equal_singular_values_are_counted(equal, zero, scale):
    values = scale * np.concatenate([np.ones(equal), np.zeros(zero)])
    np.testing.assert_allclose(effective_rank(values), equal, rtol=1e-14)


@given(st.integers(0, 10**6))
def test_scale_and_rotations_do_not_matter(seed):
    a = draw(4, 6, seed=seed)
    left, right = np.linalg.qr(draw(4, 4, seed=seed + 1))[0], np.linalg.qr(draw(6, 6))[0]
    rank = effective_rank(a)
    assert 1 <= rank <= 4
    np.testing.assert_allclose(effective_rank(-7e5 * left @ a @ right), rank, rtol=1e-12)
    np.testing.assert_allclose(effective_rank(a.T), rank, rtol=1e-12)


def test_gradient_is_that_of_differences_and_finite_at_equal_and_zero_values():
    values, direction = np.array([2.0, 1.0, 0.5]), np.array([0.3, -0.2, 0.1])
    step = 1e-6
    ahead, behind = (effective_rank(values + sign * step * direction) for sign in (1, -1))
    slope = jax.grad(effective_rank)(values) @ direction
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-7)
    # The rank is largest where all singular values are equal.
    for fn, at in ((effective_rank, jnp.eye(3)), (embedding_rank, jnp.eye(4))):
        np.testing.assert_allclose(jax.grad(fn)(at), 0, atol=1e-12)
    assert np.isfinite(jax.grad(effective_rank)(jnp.zeros((3, 4)).at[0, 0].set(1.0))).all()


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_embedding_rank_is_of_centred_points(shape):
    rows = draw(*shape) * np.arange(1, shape[1] + 1) + 5
    expected = expected_rank(np.linalg.svd(rows - rows.mean(0))[1])
    np.testing.assert_allclose(embedding_rank(rows), expected, rtol=1e-12)
    np.testing.assert_allclose(embedding_rank(1e160 * rows), expected, rtol=1e-12)
    single = embedding_rank((rows + 100).astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-3)


def test_embedding_rank_counts_no_more_directions_than_there_are():
    assert 1 <= embedding_rank(draw(5, 30)) <= 4
    np.testing.assert_allclose(embedding_rank(draw(20, 1) * np.ones((1, 9))), 1, rtol=1e-12)


def test_numerical_rank_counts_above_a_share_of_the_largest():
    values = np.array([100, 5, 1.001, 0.999, 0])
    assert numerical_rank(values) == 3
    assert numerical_rank(values, 0.05) == 1
    assert numerical_rank(values, 0.0) == 4
    left, right = np.linalg.qr(draw(6, 5))[0], np.linalg.qr(draw(7, 5, seed=1))[0]
    found = numerical_rank(np.stack([left * values @ right.T, np.zeros((6, 7))]))
    np.testing.assert_array_equal(found, [3, 0])
    assert found.dtype == np.int32


def test_float32_and_jit():
    a = draw(3, 8, 5)
    found = jax.jit(effective_rank)(a.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, effective_rank(a), rtol=1e-5)
    assert np.isnan(jax.jit(effective_rank)(jnp.zeros((2, 2))))
    # Closed over, the array has values, but nothing computed from it has.
    np.testing.assert_allclose(jax.jit(lambda: effective_rank(jnp.ones(3)))(), 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effective_rank(np.zeros((2, 3, 4))), "zero throughout"),
        (lambda: effective_rank(np.stack([np.eye(2), np.zeros((2, 2))])), "zero throughout"),
        (lambda: effective_rank(np.array([1.0, np.nan])), "holds 1 NaN or infinite entries of 2"),
        (lambda: effective_rank(np.array([1.0, -2.0])), r"not negative; the least is -2\. Give"),
        (lambda: effective_rank(np.float64(1.0)), "got a scalar"),
        (lambda: numerical_rank(np.zeros((2, 0))), r"must not be empty, got shape \(2, 0\)"),
        (lambda: numerical_rank(np.eye(2), 1.0), r"rtol=1.0 must lie in \[0, 1\)"),
        (lambda: numerical_rank(np.eye(2), -0.1), r"rtol=-0.1 must lie in"),
        (lambda: embedding_rank(np.ones((5, 3))), "constant: all 5 rows are the same point"),
        (lambda: embedding_rank(np.ones((1, 3))), "constant"),
        (lambda: embedding_rank(np.ones((2, 0))), "non-empty matrix"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
