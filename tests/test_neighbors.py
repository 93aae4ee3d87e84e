from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import reference

from recon_jax.neighbors import nearest_neighbors

METRICS = ["cosine", "euclidean"]


def draw(queries, references, size, seed=0):
    rng = np.random.default_rng(seed)
    offset = 3 * rng.standard_normal(size)
    return tuple(rng.standard_normal((n, size)) + offset for n in (queries, references))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("queries", "references", "size", "k"),
    [(40, 500, 8, 20), (3, 1, 2, 1), (5, 9, 3, 9), (7, 1009, 5, 3), (1, 30, 60, 12)],
)
def test_matches_the_sorted_distance_matrix(metric, queries, references, size, k):
    q, r = draw(queries, references, size)
    scores, index = nearest_neighbors(q, r, k, metric)
    expected_scores, expected_index = reference.neighbors(q, r, k, metric)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_matches_scikit_learn(metric):
    neighbors = pytest.importorskip("sklearn.neighbors")
    q, r = draw(50, 700, 12)
    other = neighbors.NearestNeighbors(n_neighbors=15, algorithm="brute", metric=metric).fit(r)
    distances, expected = other.kneighbors(q)
    scores, index = nearest_neighbors(q, r, 15, metric)
    np.testing.assert_array_equal(index, expected)
    distance = 1 - np.asarray(scores) if metric == "cosine" else scores
    np.testing.assert_allclose(distance, distances, atol=1e-10)


@given(
    st.sampled_from(METRICS),
    st.sampled_from([1, 7, 40]),
    st.integers(0, 10**6),
)
def test_any_block_size_and_order_of_queries_gives_the_same(metric, block, seed):
    q, r = draw(23, 60, 4, seed)
    scores, index = nearest_neighbors(q, r, 5, metric)
    order = np.random.default_rng(seed).permutation(23)
    blocked = nearest_neighbors(q[order], r, 5, metric, block_size=block)
    np.testing.assert_array_equal(blocked[1], index[order])
    np.testing.assert_allclose(blocked[0], scores[order], rtol=1e-12)


@given(st.sampled_from(METRICS), st.integers(0, 10**6))
def test_order_of_references_only_renames_them(metric, seed):
    q, r = draw(10, 70, 4, seed)
    order = np.random.default_rng(seed).permutation(70)
    scores, index = nearest_neighbors(q, r, 6, metric)
    other_scores, other = nearest_neighbors(q, r[order], 6, metric)
    np.testing.assert_array_equal(order[np.asarray(other)], index)
    np.testing.assert_allclose(other_scores, scores, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_reference_finds_itself(metric, dtype):
    _, r = draw(1, 300, 6)
    r = r.astype(dtype)
    scores, index = nearest_neighbors(r, r, 1, metric)
    np.testing.assert_array_equal(index[:, 0], np.arange(300))
    assert scores.dtype == dtype
    if metric == "euclidean":
        np.testing.assert_array_equal(scores, 0)
    else:
        np.testing.assert_allclose(scores, 1, rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_references_come_in_the_order_of_their_index(metric):
    _, r = draw(1, 40, 5)
    repeated = np.concatenate([r, r, r])
    _, index = nearest_neighbors(r, repeated, 4, metric)
    expected = np.arange(40)[:, None] + np.array([0, 40, 80])
    np.testing.assert_array_equal(index[:, :3], expected)
    # The cut falls inside a triple: the lowest of the next three is taken.
    assert (np.asarray(index[:, 3]) < 40).all()


def test_ties_between_different_references_go_to_the_lowest_index():
    r = np.array([[2.0, 0], [0, 1], [-1, 0], [0, -1], [1, 0]])
    distances, index = nearest_neighbors(np.zeros((1, 2)), r, 5, "euclidean")
    np.testing.assert_array_equal(index[0], [1, 2, 3, 4, 0])
    np.testing.assert_array_equal(distances[0], [1, 1, 1, 1, 2])
    similarities, index = nearest_neighbors(np.array([[3.0, 0]]), r, 5, "cosine")
    np.testing.assert_array_equal(index[0], [0, 4, 1, 3, 2])
    np.testing.assert_array_equal(similarities[0], [1, 1, 0, 0, -1])


def test_a_zero_vector_has_cosine_similarity_zero():
    q = np.array([[0.0, 0], [1, 0]])
    r = np.array([[-1.0, 0], [0, 0], [1, 1]])
    similarities, index = nearest_neighbors(q, r, 3, "cosine")
    np.testing.assert_array_equal(index, [[0, 1, 2], [2, 1, 0]])
    np.testing.assert_allclose(similarities, [[0, 0, 0], [0.5**0.5, 0, -1]], rtol=1e-14)


def test_cosine_of_very_long_and_very_short_vectors():
    q, r = (rows.astype(np.float32) for rows in draw(5, 30, 4))
    expected = nearest_neighbors(q, r, 5, "cosine")
    for scale in (1e30, 1e-30):
        scores, index = nearest_neighbors(q * np.float32(scale), r, 5, "cosine")
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_allclose(scores, expected[0], rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_float32_far_from_the_origin(metric):
    # All activations positive and large, as after a ReLU: squared norms dwarf the distances.
    q, r = draw(30, 400, 16, seed=3)
    q, r = ((rows + 100).astype(np.float32) for rows in (q, r))
    scores, index = nearest_neighbors(q, r, 5, metric)
    expected_scores, expected = reference.neighbors(q.astype(float), r.astype(float), 5, metric)
    np.testing.assert_allclose(scores, expected_scores, rtol=3e-6)
    if metric == "euclidean":
        np.testing.assert_array_equal(index, expected)


def test_under_jit():
    q, r = draw(6, 50, 4)
    search = jax.jit(partial(nearest_neighbors, num_neighbors=3, metric="euclidean"))
    np.testing.assert_array_equal(search(q, r)[1], nearest_neighbors(q, r, 3, "euclidean")[1])


@pytest.mark.parametrize("k", [0, -1, 6])
def test_a_number_of_neighbors_out_of_range_is_refused(k):
    q, r = draw(2, 5, 3)
    with pytest.raises(ValueError, match=rf"num_neighbors={k} must lie in 1 .. 5"):
        nearest_neighbors(q, r, k)


def test_other_bad_input_is_refused():
    q, r = draw(2, 5, 3)
    with pytest.raises(ValueError, match="unknown metric 'manhattan'; choose one of cosine, eucl"):
        nearest_neighbors(q, r, 1, "manhattan")
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        nearest_neighbors(q, r, 1, block_size=0)
    with pytest.raises(ValueError, match="non-empty matrix"):
        nearest_neighbors(q[:0], r, 1)
    with pytest.raises(ValueError, match="references must be a non-empty matrix"):
        nearest_neighbors(q, r[:0], 1)
    with pytest.raises(ValueError, match="same number of columns and dtype"):
        nearest_neighbors(q.astype(np.float32), r, 1)
    with pytest.raises(ValueError, match=r"row\(s\) of references hold NaN"):
        nearest_neighbors(q, np.where(r == r[3], np.inf, r), 1)
