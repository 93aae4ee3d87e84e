import jax
import numpy as np
import pytest

from recon_jax import probes
from recon_jax.audit import probing
from recon_jax.audit.intervals import resamples
from recon_jax.audit.probing import measure_probes, undefined_probes, validation_rows

RNG = np.random.default_rng(0)
CENTRES = 2.0 * RNG.standard_normal((4, 6))


def draw(count, classes=3):
    labels = np.arange(count) % classes
    return CENTRES[labels] + RNG.standard_normal((count, 6)), labels


def measured(train, test, **options):
    counts = resamples(jax.random.key(0), len(test[1]), 50)
    return measure_probes(*train, *test, counts, **{"seeds": (0, 1)} | options)


@pytest.fixture(scope="module")
def sets():
    return draw(90), draw(60)


def test_accuracies_are_those_of_the_probes(sets):
    (x, y), (test_x, test_y) = sets
    found = measured(*sets)
    votes = probes.knn_classify(test_x, x, y, 3)
    assert found.knn.value == pytest.approx(100 * np.mean(np.asarray(votes) == test_y))
    assert found.knn.low <= found.knn.value <= found.knn.high
    held_out = validation_rows(y, 0)
    rights, probe = [], None
    for penalty in probing.PENALTIES:
        probe = probes.logistic_probe(
            x[~held_out], y[~held_out], 3, regularization=penalty, tolerance=1e-5
        )[0]
        rights.append(np.sum(probes.predict(probe, x[held_out]) == y[held_out]))
    penalty = probing.PENALTIES[int(np.argmax(rights))]
    probe = probes.logistic_probe(x, y, 3, regularization=penalty)[0]
    expected = 100 * float(probes.accuracy(probes.predict(probe, test_x), test_y))
    assert found.linear.value == pytest.approx(expected, abs=100 / 60 + 1e-9)
    assert found.linear.kind == "bootstrap"
    few = []
    for seed in (0, 1):
        rows = probes.few_shot_split(jax.random.key(seed), y, 5, 3)
        probe = probes.logistic_probe(x[rows], y[rows], 3, regularization=1e-2)[0]
        few.append(100 * float(probes.accuracy(probes.predict(probe, test_x), test_y)))
    assert found.few_shot.value == pytest.approx(np.mean(few), abs=100 / 60)
    assert found.few_shot.kind == "seeds"


def test_rotation_and_scale_change_no_prediction_of_knn(sets):
    rotation = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
    moved = [(100 * x @ rotation, y) for x, y in sets]
    assert measured(*moved).knn == measured(*sets).knn


def test_a_fifth_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2], [11, 4, 20])
    chosen = validation_rows(labels, 0)
    np.testing.assert_array_equal(np.bincount(labels[chosen], minlength=3), [2, 0, 4])
    np.testing.assert_array_equal(chosen, validation_rows(labels, 0))
    assert (chosen != validation_rows(labels, 1)).any()


def test_the_penalty_is_chosen_on_held_out_images(monkeypatch):
    tried = []

    def fit(features, labels, penalty):
        assert len(features) == len(labels) == 4  # none of those held out
        tried.append(penalty)
        return penalty, None

    right = {1e-1: 3, 1e-2: 5, 1e-3: 5, 1e-4: 4}
    monkeypatch.setattr(probing, "_fit", fit)
    monkeypatch.setattr(
        probing.probes, "predict", lambda probe, x: np.arange(len(x)) >= right[probe]
    )
    held_out = np.arange(12) < 8
    zeros = np.zeros(12, int)
    assert probing._best_penalty(np.zeros((12, 2)), zeros, held_out) == 1e-2
    assert tried == list(probing.PENALTIES)
    right[1e-3] = 2
    tried.clear()
    assert probing._best_penalty(np.zeros((12, 2)), zeros, held_out) == 1e-2
    assert tried == [1e-1, 1e-2, 1e-3]


def test_unknown_classes_are_missed_and_gaps_in_labels_are_closed():
    x, y = draw(60)
    test_x, test_y = draw(40, 4)
    labels = np.array([2, 5, 9])
    known = measured((x, labels[y]), (test_x, np.array([2, 5, 9, 7])[test_y]))
    expected = measured((x, y), (test_x, np.where(test_y == 3, -1, test_y)))
    assert known == expected
    assert known.knn.value <= 75


def test_few_images_of_a_class():
    x, y = draw(9)
    found = measured((x, y), draw(12), neighbors=50)
    assert found.few_shot.note == "3 images a class, not 5"
    assert "penalty not validated" in found.linear.note
    assert np.isfinite(found.knn.value)


def test_constant_features_guess_one_class():
    (_, y), (_, test_y) = draw(30), draw(30)
    found = measured((np.ones((30, 2)), y), (np.ones((30, 2)), test_y))
    assert found.linear.value == pytest.approx(100 / 3)
    assert found.knn.value == pytest.approx(100 / 3)
    assert undefined_probes("why").knn.note == "why"
