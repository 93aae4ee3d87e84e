import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax import multiview

MANY = multiview.MultiViewSpec(num_classes=10, dim=32)
FEW = multiview.MultiViewSpec(num_classes=5, dim=32)


def draw(seed, overlap, pretraining=MANY, downstream=FEW, dtype=jnp.float64):
    return multiview.sample_transfer_features(
        jax.random.key(seed), pretraining, downstream, overlap, dtype
    )


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 1.0])
def test_as_many_features_are_shared_as_stated(overlap):
    for seed in range(5):
        old, new, shared = map(np.asarray, draw(seed, overlap))
        assert shared.sum() == round(10 * overlap)
        assert_allclose(old @ old.T, np.eye(20), atol=1e-12)
        assert_allclose(new @ new.T, np.eye(10), atol=1e-12)
        # The same feature, or orthogonal.
        same = np.round(new @ old.T)
        assert_allclose(new @ old.T, same, atol=1e-12)
        assert_array_equal(same.sum(1), shared)
        # No two from one pretraining class.
        assert same.reshape(10, 10, 2).sum((0, 2)).max() <= 1


def test_views_classes_and_places_are_random():
    draws = [draw(seed, 0.3) for seed in range(40)]
    same = np.stack([np.asarray(d.downstream @ d.pretraining.T).round() for d in draws])
    # Three of ten places, and each of twenty features in 3 of 20 draws: within four deviations.
    assert_allclose(same.sum(2).mean(0), 0.3, atol=4 * (0.3 * 0.7 / 40) ** 0.5)
    assert_allclose(same.sum(1).mean(0), 0.15, atol=4 * (0.15 * 0.85 / 40) ** 0.5)
    first = same.sum((0, 1))[::2].sum()
    assert abs(first / 120 - 0.5) < 4 * (0.25 / 120) ** 0.5


def test_a_larger_overlap_adds_to_a_smaller_one():
    few, many = draw(0, 0.3), draw(0, 0.8)
    assert_array_equal(few.pretraining, many.pretraining)
    assert (few.shared <= many.shared).all()
    kept = np.asarray(few.shared | ~many.shared)
    assert_array_equal(few.downstream[kept], many.downstream[kept])


def test_overlap_may_be_traced_and_features_keep_their_dtype():
    overlaps = jnp.array([0.0, 0.5, 1.0])
    found = jax.jit(jax.vmap(lambda overlap: draw(3, overlap, dtype=jnp.float32)))(overlaps)
    assert_array_equal(found.shared.sum(1), [0, 5, 10])
    assert found.downstream.dtype == found.pretraining.dtype == jnp.float32
    assert_allclose(found.downstream[1], draw(3, 0.5, dtype=jnp.float32).downstream, atol=1e-6)


def test_as_many_classes_as_shared_features_are_enough():
    five = dataclasses.replace(FEW, num_classes=5)
    assert draw(0, 0.5, five).shared.sum() == 5
    with pytest.raises(ValueError, match=r"overlap=0\.6 shares 6 of 10 .* take overlap <= 0\.5 or"):
        draw(0, 0.6, five)


def test_bad_input():
    with pytest.raises(ValueError, match=r"overlap=1\.5 must lie in \[0, 1\]"):
        draw(0, 1.5)
    with pytest.raises(ValueError, match=r"dim=32 and downstream of 40; one encoder sees both"):
        draw(0, 0.5, downstream=dataclasses.replace(FEW, dim=40))
    small = {"dim": 29}
    with pytest.raises(ValueError, match=r"dim=29 cannot hold 20 .* and 10 .*; take dim >= 30"):
        draw(0, 0.5, dataclasses.replace(MANY, **small), dataclasses.replace(FEW, **small))
