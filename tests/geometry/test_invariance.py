import inspect

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.geometry import non_invariance


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def expected_ratio(a, b):
    """All pairs, one by one."""
    centre = np.concatenate([a, b]).mean(0)
    a, b = ((x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True) for x in (a, b))
    squares = ((a[:, None] - b[None]) ** 2).sum(-1)
    strangers = squares[~np.eye(len(a), dtype=bool)]
    return np.diag(squares).mean() / strangers.mean()


@pytest.mark.parametrize("shape", [(2, 5), (30, 4), (7, 50)])
def test_matches_all_pairs(shape):
    a = draw(*shape) + 2
    b = a + 0.7 * draw(*shape, seed=1)
    expected = expected_ratio(a, b)
    np.testing.assert_allclose(non_invariance(a, b), expected, rtol=1e-12)
    single = jax.jit(non_invariance)(a.astype(np.float32), b.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5)


def test_identical_views_are_invariant():
    assert non_invariance(draw(10, 3), draw(10, 3)) < 1e-30


def test_pairs_no_closer_than_strangers_have_one_on_average():
    a, b = draw(40, 6), draw(40, 6, seed=1)
    # Over all pairings by cyclic shifts, twins are on average what all ordered pairs are.
    shifted = np.array([non_invariance(a, np.roll(b, shift, axis=0)) for shift in range(40)])
    # r = t / s with (N - 1) s + t = c, the same for every pairing: t = c r / (N - 1 + r).
    twins = shifted / (39 + shifted)
    np.testing.assert_allclose(twins.mean(), 1 / 40, rtol=1e-12)
    assert 0.95 < non_invariance(draw(1000, 6), draw(1000, 6, seed=1)) < 1.05


@given(st.floats(0.1, 10), st.integers(0, 10**6))
def test_scale_shift_rotation_and_order_do_not_matter(scale, seed):
    a, b = draw(12, 5, seed=seed), draw(12, 5, seed=seed + 1)
    b = a + 0.5 * b
    rotation, order = np.linalg.qr(draw(5, 5))[0], np.random.default_rng(seed).permutation(12)
    moved = [(scale * x @ rotation + 3)[order] for x in (a, b)]
    expected = non_invariance(a, b)
    np.testing.assert_allclose(non_invariance(*moved), expected, rtol=1e-10)
    np.testing.assert_allclose(non_invariance(b, a), expected, rtol=1e-10)


def test_dead_features_and_rows_at_the_mean_change_nothing():
    a = np.array([[1.0, 0, 7], [-1, 0, 7], [0, 0, 7]])
    # Twins agree but for the last image, at the mean in one view and of length 1 in the other.
    b = np.array([[1.0, 0, 7], [-1, 0, 7], [0, 0, 7]])
    assert non_invariance(a, b) == 0
    b[:, 1] = [3, 3, -6]
    a[:, 1] = [3, 3, -6]
    np.testing.assert_allclose(non_invariance(a, b), 0, atol=1e-15)
    # Unit rows: (1), (-1), (0) against (1), (-1), (0) in another order.
    line = np.array([[5.0], [-5.0], [0.0]])
    np.testing.assert_allclose(non_invariance(line, np.roll(line, 1, axis=0)), 2, rtol=1e-14)


def test_all_strangers_the_same_is_infinite():
    line = np.array([[1.0], [-1.0]])
    assert non_invariance(line, -line) == np.inf


def test_float32_far_from_the_origin():
    a = draw(50, 8)
    b = a + 0.3 * draw(50, 8, seed=1)
    far = [(0.003 * x + 1000).astype(np.float32) for x in (a, b)]
    expected = non_invariance(*(x.astype(float) for x in far))
    np.testing.assert_allclose(non_invariance(*far), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.full((4, 3), 0.1), np.full((4, 3), 0.1), "features are constant"),
        (draw(1, 3), draw(1, 3), "1 image has no strangers"),
        (draw(4, 3), draw(5, 3), r"float64\[4, 3\] and view_b float64\[5, 3\] must be features of"),
        (draw(4, 3), draw(4, 3).astype(np.float32), "view_b float32"),
        (draw(4, 3), np.full((4, 3), np.nan), r"4 row\(s\) of view_b hold NaN"),
    ],
)
def test_bad_input_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        # Without the type checker of the tests, which would speak first.
        inspect.unwrap(non_invariance)(a, b)
