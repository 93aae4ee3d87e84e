import numpy as np
import pytest

from recon_jax.probes import accuracy, knn_classify, knn_votes

from . import reference


def brute_votes(q, r, y, classes, k, metric, temperature):
    scores, index = reference.neighbors(q, r, k, metric)
    votes = np.zeros((len(q), classes))
    for i in range(len(q)):
        for s, j in zip(scores[i], index[i], strict=True):
            votes[i, y[j]] += 1 if temperature is None else np.exp(s / temperature)
    return votes


@pytest.mark.parametrize(
    ("metric", "vote", "temperature"),
    [
        ("cosine", "majority", None),
        ("euclidean", "majority", None),
        ("cosine", "weighted", 0.07),
        ("cosine", "weighted", 0.5),
    ],
)
@pytest.mark.parametrize("k", [1, 7])
def test_matches_a_loop_over_neighbors(metric, vote, temperature, k):
    x, y = reference.blobs(160, 5)
    q, r, labels = x[100:], x[:100], y[:100]
    options = {} if temperature is None else {"temperature": temperature}
    got = knn_classify(q, r, labels, 3, num_neighbors=k, metric=metric, vote=vote, **options)
    expected = brute_votes(q, r, labels, 3, k, metric, temperature).argmax(1)
    np.testing.assert_array_equal(got, expected)


def test_the_default_is_the_weighted_vote_of_20_at_temperature_007():
    x, y = reference.blobs(160, 5)
    expected = brute_votes(x[100:], x[:100], y[:100], 3, 20, "cosine", 0.07).argmax(1)
    np.testing.assert_array_equal(knn_classify(x[100:], x[:100], y[:100], 3), expected)


def test_matches_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    x, y = reference.blobs(400, 6, 4)
    other = neighbors.KNeighborsClassifier(5, algorithm="brute").fit(x[:300], y[:300])
    got = knn_classify(
        x[300:], x[:300], y[:300], 4, num_neighbors=5, metric="euclidean", vote="majority"
    )
    np.testing.assert_array_equal(got, other.predict(x[300:]))


def test_one_neighbor_recalls_the_training_set():
    x, y = reference.blobs()
    for options in ({"metric": "euclidean", "vote": "majority"}, {"vote": "weighted"}):
        assert accuracy(knn_classify(x, x, y, 3, num_neighbors=1, **options), y) == 1


def test_tied_votes_go_to_the_lowest_class():
    r = np.array([[1.0, 0.1], [1, -0.1], [1, 0.2], [1, -0.2]])
    labels = np.array([2, 1, 2, 1])
    for k, expected in ((1, 2), (2, 1)):
        got = knn_classify(np.array([[1.0, 0]]), r, labels, 3, num_neighbors=k, vote="majority")
        assert got[0] == expected


def test_a_near_minority_outweighs_a_far_majority():
    r = np.array([[1.0, 0.0], [1, 1], [1, -1]])
    labels = np.array([1, 0, 0])
    q = np.array([[1.0, 0.0]])
    assert knn_classify(q, r, labels, 2, num_neighbors=3, vote="majority")[0] == 0
    assert knn_classify(q, r, labels, 2, num_neighbors=3, vote="weighted")[0] == 1
    # A hot vote is a majority vote again.
    assert knn_classify(q, r, labels, 2, num_neighbors=3, temperature=10.0)[0] == 0


def test_votes_are_normalized_weights_and_do_not_overflow():
    labels, s = np.array([[0, 1, 1]]), np.array([[0.9, 0.5, -0.2]])
    weights = np.exp(s[0] / 0.07)
    expected = np.array([weights[0], weights[1] + weights[2], 0]) / weights.sum()
    np.testing.assert_allclose(knn_votes(labels, 3, s)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(knn_votes(labels, 3)[0], [1 / 3, 2 / 3, 0], rtol=1e-12)
    np.testing.assert_allclose(knn_votes(labels, 3, s, temperature=1e-5)[0], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vote": "loud"}, "unknown vote 'loud'; choose one of majority, weighted"),
        ({"metric": "euclidean"}, "a weighted vote needs cosine similarities"),
        ({"temperature": 0.0}, "temperature=.* must be a finite number > 0"),
        ({"num_neighbors": 121}, "num_neighbors=121 must lie in 1 .. 120"),
        ({"metric": "x"}, "unknown metric"),
    ],
)
def test_bad_settings_are_refused(options, message):
    x, y = reference.blobs()
    with pytest.raises(ValueError, match=message):
        knn_classify(x, x, y, 3, **options)


def test_bad_labels_are_refused():
    x, y = reference.blobs()
    with pytest.raises(ValueError, match="labels run from 0 to 2; with num_classes=2"):
        knn_classify(x, x, y, 2)
