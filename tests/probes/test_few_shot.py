import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.probes import few_shot_split

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [7, 20, 12, 30]))


@given(st.sampled_from([1, 3, 7]), st.integers(0, 10**6))
def test_balanced_distinct_and_grouped(shots, seed):
    index = np.asarray(few_shot_split(jax.random.key(seed), LABELS, shots, 4))
    assert len(set(index)) == len(index)
    np.testing.assert_array_equal(LABELS[index], np.repeat(np.arange(4), shots))


@given(st.integers(0, 10**6))
def test_more_shots_only_add(seed):
    key = jax.random.key(seed)
    few, many = (set(few_shot_split(key, LABELS, shots, 4).tolist()) for shots in (3, 6))
    assert few < many


def test_is_a_function_of_its_key():
    draws = [few_shot_split(jax.random.key(seed), LABELS, 5, 4).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_every_example_is_drawn_equally_often():
    keys = jax.random.split(jax.random.key(0), 2000)
    index = jax.vmap(lambda key: few_shot_split(key, LABELS, 3, 4))(keys)
    share = np.bincount(np.asarray(index).ravel(), minlength=len(LABELS)) / 2000
    expected = 3 / np.bincount(LABELS)[LABELS]
    # Five standard errors of a binomial share over 2,000 draws.
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000)).all()


def test_too_small_a_class_is_refused():
    with pytest.raises(ValueError, match=r"class 0 has 7 example\(s\), fewer than shots=8"):
        few_shot_split(jax.random.key(0), LABELS, 8, 4)
    with pytest.raises(ValueError, match=r"class 4 has 0 example\(s\)"):
        few_shot_split(jax.random.key(0), LABELS, 1, 5)
    with pytest.raises(ValueError, match="shots=0 must be an integer of at least 1"):
        few_shot_split(jax.random.key(0), LABELS, 0, 4)
    with pytest.raises(ValueError, match=r"they must lie in 0 \.\. 2"):
        few_shot_split(jax.random.key(0), LABELS, 1, 3)
