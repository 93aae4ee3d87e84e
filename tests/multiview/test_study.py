"""The whole comparison, and the statements about it that must hold at the size of the CPU."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import multiview

TINY = {
    "num_train": 30,
    "num_test": 20,
    "kernels_per_class": 2,
    "members": 2,
    "pretrain_steps": 5,
    "supervised_steps": 5,
    "finetune_steps": 5,
}


def test_pretraining_captures_both_views_and_supervision_one():
    with jax.enable_x64(False):
        spec, keys = multiview.MultiViewSpec(), jax.random.split(jax.random.key(0), 3)
        features = multiview.sample_features(keys[0], spec)
        images = multiview.sample_multiview(keys[1], spec, features, 400)
        start = multiview.init_kernels(keys[2], 50, spec.dim)
        pretrained = multiview.pretrain(start, images.patches)
        supervised = multiview.train_supervised(start, images.patches, images.labels, 5)

        def share(trained):
            correlations = multiview.feature_correlation(trained.kernels, features)
            return float(multiview.captured(correlations).mean())

        assert share(pretrained) >= 0.9
        assert 0.4 <= share(supervised) <= 0.7
        assert multiview.norm_growth(start, pretrained.kernels) > 2
        assert pretrained.history.norm[-1] > 2 * pretrained.history.norm[0]
        assert 20 < supervised.history.steps < 200
        with pytest.warns(UserWarning, match="features shrink"):
            below = multiview.pretrain(start, images.patches, 0.5, 1.05)
        assert multiview.norm_growth(start, below.kernels) < 1


@pytest.mark.slow
def test_the_claims_hold():
    keys = jax.random.split(jax.random.key(7), 3)
    with jax.enable_x64(False):
        found = jax.tree.map(np.asarray, multiview.capture_studies(keys))
    mean = jax.tree.map(lambda values: values.mean(0), found)
    assert mean.finetuned.captured >= 0.93
    assert mean.growth >= 2
    assert 0.4 <= mean.supervised.captured <= 0.75
    assert mean.finetuned.captured - mean.supervised.captured >= 0.25
    assert min(mean.finetuned.multi_view, mean.supervised.multi_view) >= 0.97
    assert mean.finetuned.single_view >= 0.9
    assert mean.finetuned.single_view >= mean.supervised.single_view + 0.15
    assert mean.finetuned.single_view >= mean.random_encoder.single_view + 0.05
    assert mean.frozen.single_view == pytest.approx(mean.finetuned.single_view, abs=0.02)
    assert mean.predicted_winners >= 0.75
    assert mean.ensemble_single_view[-1] >= mean.ensemble_single_view[0] + 0.15
    assert mean.aligned >= 0.93
    expected = multiview.expected_coverage(10, 50)
    assert mean.finetuned.captured == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
def test_seeds_in_one_call_are_the_seeds_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    with jax.enable_x64(False):
        together, side_by_side = (
            jax.jit(functools.partial(multiview.capture_studies, at_once=count, **TINY))(keys)
            for count in (1, 2)
        )
        alone = jax.jit(functools.partial(multiview.capture_study, **TINY))(keys[1])
    leaves = map(jax.tree.leaves, (together, side_by_side, alone))
    for found, other, single in zip(*leaves, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-3)
        np.testing.assert_allclose(found[1], single, atol=1e-3)
    np.testing.assert_allclose(together.ensemble_single_view[:, 0], together.supervised.single_view)
    assert together.ensemble_multi_view.shape == (3, 2)
    # One pair of members, five classes.
    fifths = 5 * together.agreeing_winners
    np.testing.assert_allclose(fifths, np.clip(np.round(fifths), 0, 5), atol=1e-5)


def test_bad_input():
    keys = jax.random.split(jax.random.key(0), 2)
    for options, message in [
        ({"at_once": 0}, "at_once=0 must be an integer of at least 1"),
        ({"keep": 1.5}, r"keep=1\.5 must lie in \(0, 1\]"),
        ({"single_view_fraction": 2.0}, r"single_view_fraction=2\.0 must lie in \[0, 1\]"),
        ({"init_scale": 0.0}, r"init_scale=0\.0 must be a finite number > 0"),
        ({"threshold": -1.0}, r"threshold=-1\.0 must be a finite number > 0"),
        ({"members": 0}, "members=0 must be an integer of at least 1"),
        ({"kernels_per_class": 0}, "kernels_per_class=0 must be an integer"),
    ]:
        with pytest.raises(ValueError, match=message):
            multiview.capture_studies(keys, **options)
    with pytest.raises(ValueError, match=r"keys have shape \(\); give one a seed"):
        inspect.unwrap(multiview.capture_studies)(keys[0])
    # Warned of before the numbers are traced.
    with (
        pytest.warns(UserWarning, match=r"teacher_scale=1\.05 lies outside"),
        pytest.raises(ValueError, match="members=0"),
    ):
        multiview.capture_studies(keys, teacher_scale=jnp.asarray(1.05), members=0)
