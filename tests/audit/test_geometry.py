import numpy as np
import pytest

from recon_jax import data, geometry
from recon_jax.audit.geometry import measure_geometry

RNG = np.random.default_rng(0)


def test_measures_are_those_of_random_halves():
    rows = RNG.standard_normal((61, 5)) * np.array([3, 1, 1, 0.5, 0.01])
    found = measure_geometry(rows, [4, 7], False)
    expected = []
    for seed in (4, 7):
        half = rows[data.epoch_order(61, seed=seed, epoch=0)[:30]]
        expected.append(
            [
                geometry.embedding_rank(half),
                geometry.numerical_rank(half - half.mean(0)),
                geometry.intrinsic_dimension(half),
                geometry.intrinsic_dimension(half, "local_pca"),
            ]
        )
    expected = np.array(expected, float)
    np.testing.assert_allclose([one.value for one in found], expected.mean(0), rtol=1e-9)
    deviations = expected.std(0, ddof=1)
    np.testing.assert_allclose([one.high - one.value for one in found], deviations, atol=1e-9)
    assert found.effective_rank.kind == "seeds"
    assert found.numerical_rank.value == 4


def test_wide_features_and_few_rows():
    found = measure_geometry(RNG.standard_normal((10, 40)).astype(np.float32), [0], False)
    assert found.numerical_rank.value == 4  # of 5 centred rows
    assert 3.5 < found.effective_rank.value < 4
    assert found.effective_rank.kind == "none"


def test_duplicates_are_one_point_for_the_nearest_neighbours():
    once = RNG.standard_normal((40, 3))
    found = measure_geometry(np.repeat(once, 3, axis=0), [0], False)
    assert 1 < found.two_nn.value < 9
    pair = np.repeat(once[:2], 20, axis=0)
    found = measure_geometry(pair, [0], False)
    assert np.isnan(found.two_nn.value)
    assert "needs 3 points" in found.two_nn.note
    assert found.effective_rank.value == pytest.approx(1)


def test_constant_features_have_no_geometry():
    found = measure_geometry(np.ones((20, 3)), [0], True)
    assert np.isnan([one.value for one in found]).all()
    assert "the same for all images" in found.two_nn.note
    # Where a draw misses the only image that differs.
    rows = np.ones((40, 3))
    rows[data.epoch_order(40, seed=0, epoch=0)[-1]] = 2
    found = measure_geometry(rows, [0], False)
    assert "of a draw" in found.effective_rank.note
