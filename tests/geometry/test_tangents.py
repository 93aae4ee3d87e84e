from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.geometry import (
    displacement_basis,
    neighbor_differences,
    row_space,
    subspace_alignment,
    tangent_bases,
)
from recon_jax.linalg import fix_signs


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def expected_differences(features, count):
    """Whole distance matrix, stable sort, without the point itself."""
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    index = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return features[index] - features[:, None]


def planes(bases):
    return bases @ np.swapaxes(bases, -1, -2)


def expected_planes(rows, rank):
    right = np.linalg.svd(rows.astype(float), full_matrices=False)[2][..., :rank, :]
    return np.swapaxes(right, -1, -2) @ right


def test_differences_lead_to_the_nearest_others():
    features = draw(50, 4) + 3
    expected = expected_differences(features, 5)
    np.testing.assert_array_equal(neighbor_differences(features, 5), expected)
    queries = np.array([7, 0, 7])
    found = neighbor_differences(features, 5, queries=queries)
    np.testing.assert_array_equal(found, expected[queries])


def test_a_point_is_not_its_own_neighbour_but_its_duplicates_are():
    features = np.array([[0.0], [5.0], [0.0], [0.0], [1.0]])
    # Three are at distance 0 of each other: at most two of them are another one.
    found = np.asarray(neighbor_differences(features, 3))[:, :, 0]
    np.testing.assert_array_equal(
        found, [[0, 0, 1], [-4, -5, -5], [0, 0, 1], [0, 0, 1], [-1, -1, -1]]
    )
    np.testing.assert_array_equal(neighbor_differences(features, 1)[:, :, 0], found[:, :1])


@pytest.mark.parametrize(("neighbors", "size"), [(9, 30), (20, 5)])
@pytest.mark.parametrize(("dtype", "accuracy"), [(np.float64, 1e-12), (np.float32, 3e-5)])
def test_tangent_bases_span_the_leading_singular_vectors(neighbors, size, dtype, accuracy):
    # Singular values that fall off, and features far from the origin.
    features = (draw(60, size) * 0.8 ** np.arange(size) + 10).astype(dtype)
    expected = expected_planes(expected_differences(features, neighbors), 3)
    bases = np.asarray(tangent_bases(features, neighbors, 3))
    assert bases.shape == (60, size, 3)
    assert bases.dtype == dtype
    np.testing.assert_allclose(planes(bases), expected, atol=accuracy)
    np.testing.assert_allclose(
        np.swapaxes(bases, 1, 2) @ bases, np.tile(np.eye(3), (60, 1, 1)), atol=accuracy
    )
    largest = np.abs(bases).argmax(1)[:, None]
    assert (np.take_along_axis(bases, largest, 1) > 0).all()


@given(st.integers(1, 25), st.integers(0, 10**6))
def test_any_block_size_and_choice_of_queries_gives_the_same(block_size, seed):
    features = draw(20, 6)
    queries = np.random.default_rng(seed).integers(0, 20, 7)
    found = tangent_bases(features, 5, 2, queries=queries, block_size=block_size)
    np.testing.assert_allclose(found, tangent_bases(features, 5, 2)[queries], atol=1e-12)


def test_strongest_directions_come_first_and_differences_are_not_centred():
    axes = np.linalg.qr(draw(7, 3))[0]
    rows = np.array([[5, 0, 0], [5, 2, 0], [5, -2, 0.1]]) @ axes.T
    basis = displacement_basis(rows, 2)
    # The mean displacement counts: it is the strongest direction.
    np.testing.assert_allclose(np.abs(basis.T @ axes[:, :2]), np.eye(2), atol=0.03)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_features_does_not_matter(scale):
    features = draw(12, 4).astype(np.float32)
    scaled = features * np.float32(scale)
    expected = tangent_bases(features, 4, 2)
    np.testing.assert_allclose(tangent_bases(scaled, 4, 2), expected, atol=1e-5)


def test_manifolds_have_their_tangent_planes():
    # Points on a sphere: the plane at x is what is orthogonal to x.
    points = draw(3000, 3)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    embedded = points @ np.linalg.qr(draw(20, 3))[0].T
    queries = np.arange(10)
    bases = tangent_bases(embedded, 16, 2, queries=queries)
    normals = np.einsum("qdk,qd->qk", bases, embedded[queries])
    assert np.abs(normals).max() < 0.1


def test_directions_that_do_not_exist_are_zero_columns():
    line = np.arange(10.0)[:, None] * np.array([[3.0, 0, 4]])
    bases = tangent_bases(line, 4, 2)
    np.testing.assert_allclose(bases, np.tile([[0.6, 0], [0, 0], [0.8, 0]], (10, 1, 1)), atol=1e-14)
    # The neighbours of duplicates are all at the same place.
    repeated = np.concatenate([np.zeros((5, 3)), line[5:]])
    assert not np.asarray(tangent_bases(repeated, 4, 2))[:5].any()
    matrix = np.outer(draw(4), draw(6)) + np.outer(draw(4, seed=1), draw(6, seed=2))
    for bases in (displacement_basis(matrix, 3), row_space(matrix, 3)):
        norms = np.linalg.norm(bases, axis=0)
        np.testing.assert_allclose(norms, [1, 1, 0], atol=1e-14)
    np.testing.assert_allclose(subspace_alignment(bases, row_space(matrix, 2)), 1, rtol=1e-12)
    np.testing.assert_array_equal(row_space(np.zeros((4, 6)), 2), 0)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (2, 3, 6, 6)])
@pytest.mark.parametrize("function", [displacement_basis, row_space])
def test_top_right_singular_vectors_of_stacks(shape, function):
    rows = draw(*shape)
    basis = np.asarray(function(rows, 3))
    assert basis.shape == (*shape[:-2], shape[-1], 3)
    np.testing.assert_allclose(planes(basis), expected_planes(rows, 3), atol=1e-12)
    single = function(rows.astype(np.float32), 3)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, basis, atol=1e-4)
    flat = basis.reshape(-1, *basis.shape[-2:])
    np.testing.assert_array_equal(flat, [fix_signs(jnp.asarray(each)) for each in flat])


def test_under_jit():
    features = draw(15, 5)
    bases = jax.jit(partial(tangent_bases, num_neighbors=4, rank=2))
    np.testing.assert_allclose(bases(features), tangent_bases(features, 4, 2), atol=1e-13)
    # No values, no refusal: constant features have no directions.
    assert not np.asarray(bases(jnp.ones((6, 3)))).any()


FEATURES = draw(10, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tangent_bases(FEATURES, 10, 2),
            r"num_neighbors=10 must be an integer in 1 \.\. 9",
        ),
        (lambda: tangent_bases(FEATURES, 0, 1), "num_neighbors=0"),
        (lambda: neighbor_differences(FEATURES, 10), "num_neighbors=10"),
        (lambda: tangent_bases(FEATURES, 9, 5), r"rank=5 must be an integer in 1 \.\. 4: 9 vec"),
        (lambda: tangent_bases(FEATURES, 3, 4), r"rank=4 must be an integer in 1 \.\. 3"),
        (lambda: tangent_bases(FEATURES, 3, 0), "rank=0"),
        (lambda: tangent_bases(FEATURES, 3, 2, block_size=0), "block_size=0"),
        (lambda: tangent_bases(np.ones((9, 4)), 3, 2), "constant: all 9 rows are the same point"),
        (lambda: tangent_bases(FEATURES * np.inf, 3, 2), r"10 row\(s\) of features hold NaN"),
        (lambda: tangent_bases(FEATURES, 3, 2, queries=np.array([0, 10])), "run from 0 to 10"),
        (lambda: tangent_bases(FEATURES, 3, 2, queries=np.array([-1])), "run from -1 to -1"),
        (lambda: tangent_bases(FEATURES, 3, 2, queries=np.array([], int)), r"non-empty.*\[0\]"),
        (lambda: displacement_basis(np.zeros((3, 4)), 2), "displacements are all zero"),
        (lambda: displacement_basis(FEATURES, 5), "rank=5"),
        (lambda: row_space(FEATURES, 0), "rank=0"),
        (lambda: row_space(FEATURES * np.nan, 2), "40 NaN or infinite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
