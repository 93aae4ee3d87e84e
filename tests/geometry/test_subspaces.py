import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.geometry import gain_ratio, subspace_alignment
from recon_jax.linalg import principal_angles


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def basis(size, rank, seed=0):
    return np.linalg.qr(draw(size, rank, seed=seed))[0]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 3), (2, 5), (5, 1)])
def test_is_the_mean_squared_cosine_of_principal_angles(first, second):
    a, b = basis(7, first), basis(7, second, seed=1)
    cosines = np.cos(principal_angles(jnp.asarray(a), jnp.asarray(b)))
    np.testing.assert_allclose(subspace_alignment(a, b), np.mean(cosines**2), rtol=1e-10)


def test_nested_equal_and_orthogonal_subspaces():
    a = basis(9, 6)
    inside = a @ basis(6, 2, seed=1)
    np.testing.assert_allclose(subspace_alignment(a, inside), 1, rtol=1e-14)
    np.testing.assert_allclose(subspace_alignment(inside, a), 1, rtol=1e-14)
    np.testing.assert_allclose(subspace_alignment(a, a @ basis(6, 6, seed=2)), 1, rtol=1e-14)
    np.testing.assert_allclose(subspace_alignment(a[:, :3], a[:, 3:]), 0, atol=1e-28)
    half = np.stack([a[:, 0], 0.6 * a[:, 1] + 0.8 * a[:, 2]], 1)
    np.testing.assert_allclose(subspace_alignment(a[:, :2], half), (1 + 0.36) / 2, rtol=1e-14)


@pytest.mark.parametrize(("first", "second", "chance"), [(4, 4, 4 / 20), (2, 5, 5 / 20)])
def test_random_subspaces_have_the_chance_level(first, second, chance):
    a = np.stack([basis(20, first, seed) for seed in range(300)])
    found = np.asarray(subspace_alignment(a, basis(20, second, 1000)))
    assert found.shape == (300,)
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - chance) < 4 * error
    assert error < 0.1 * chance


def test_zero_columns_are_directions_that_do_not_overlap():
    a = basis(5, 2)
    missing = np.concatenate([a[:, :1], np.zeros((5, 1))], 1)
    np.testing.assert_allclose(subspace_alignment(missing, a), 0.5, rtol=1e-14)


def test_alignment_in_float32_and_under_jit_and_vmap():
    a, b = basis(30, 4).astype(np.float32), basis(30, 4, 1).astype(np.float32)
    found = jax.jit(subspace_alignment)(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, subspace_alignment(a.astype(float), b), rtol=1e-5)
    stack = jnp.stack([a, b])
    np.testing.assert_allclose(
        jax.vmap(subspace_alignment, (0, None))(stack, jnp.asarray(b)), [found, 1], rtol=1e-6
    )


def test_gain_matches_norms_of_single_vectors():
    a, t, delta = draw(3, 4, 6), draw(3, 5, 6, seed=1), draw(3, 2, 6, seed=2)

    def gain(matrix, rows):
        images = [np.linalg.norm(matrix @ row) ** 2 for row in rows]
        return np.sqrt(np.sum(images) / np.sum([np.linalg.norm(row) ** 2 for row in rows]))

    expected = [gain(*both) / gain(a[i], delta[i]) for i, both in enumerate(zip(a, t, strict=True))]
    np.testing.assert_allclose(gain_ratio(a, t, delta), expected, rtol=1e-13)
    np.testing.assert_allclose(gain_ratio(a[0], t[0], delta[0]), expected[0], rtol=1e-13)
    single = gain_ratio(*(x.astype(np.float32) for x in (a, t, delta)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_isometries_prefer_nothing_and_lengths_do_not_matter(scale):
    t, delta = scale * draw(8, 5), draw(3, 5, seed=1) / scale
    np.testing.assert_allclose(gain_ratio(7 * basis(9, 5), t, delta), 1, rtol=1e-12)


def test_what_a_map_drops_has_no_gain():
    a, axes = np.diag([1.0, 1, 0]), np.eye(3)
    # The moves that stay have half of the squared length of all.
    np.testing.assert_allclose(gain_ratio(a, axes[:2], axes[1:]), np.sqrt(2), rtol=1e-14)
    assert gain_ratio(a, axes[:2], axes[2:]) == np.inf
    assert gain_ratio(a, axes[2:], axes[:2]) == 0


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("function", "arrays", "message"),
    [
        (subspace_alignment, (EYE, np.eye(4)), "different spaces: 3 and 4 rows"),
        (subspace_alignment, (EYE, 2 * EYE), r"basis_b must be orthonormal, but Q\^T Q is off by"),
        (subspace_alignment, (np.ones((3, 2)), EYE), "basis_a must be orthonormal"),
        (subspace_alignment, (EYE[0], EYE), r"basis_a must have shape \(..., D, K\)"),
        (subspace_alignment, (np.stack([EYE] * 2), np.stack([EYE] * 3)), "do not fit"),
        (subspace_alignment, (EYE * np.nan, EYE), "9 NaN"),
        (gain_ratio, (EYE, EYE, np.zeros((2, 3))), "1 of 1 displacements are zero throughout"),
        (
            gain_ratio,
            (np.stack([EYE] * 2), np.stack([EYE, 0 * EYE]), np.stack([EYE] * 2)),
            "1 of 2",
        ),
        (gain_ratio, (EYE, np.eye(4), EYE), r"tangents \(4, 4\) must have the leading axes"),
        (gain_ratio, (np.stack([EYE] * 2), EYE, EYE), "tangents .* vectors are rows"),
    ],
)
def test_bad_input_is_refused(function, arrays, message):
    with pytest.raises(ValueError, match=message):
        # Without the type checker of the tests, which would speak first.
        inspect.unwrap(function)(*arrays)
