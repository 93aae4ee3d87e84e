import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import multiview

CLEAN = {"feature_noise": 0.0, "patch_noise": 0.0}
SPEC = multiview.MultiViewSpec(3, 8, 7, **CLEAN)
COUNT = 3000


def features_of(spec, dtype=jnp.float64):
    return multiview.sample_features(jax.random.key(5), spec, dtype)


def sample(spec, count, fraction, seed=0, dtype=jnp.float64):
    features = features_of(spec, dtype)
    drawn = jax.jit(
        lambda key: multiview.sample_multiview(key, spec, features, count, fraction),
    )(jax.random.key(seed))
    return jax.tree.map(np.asarray, drawn), np.asarray(features)


@pytest.fixture(scope="module")
def clean():
    """Images without noise, half of them single-view, and the coefficients of their features."""
    batch, features = sample(SPEC, COUNT, 0.5)
    return batch, batch.patches @ features.T


@pytest.mark.parametrize(("dtype", "accuracy"), [(jnp.float32, 1e-6), (jnp.float64, 1e-14)])
def test_features_are_orthonormal(dtype, accuracy):
    features = features_of(multiview.MultiViewSpec(4, 8, 8), dtype)
    assert features.shape == (8, 8)
    assert features.dtype == dtype
    np.testing.assert_allclose(features @ features.T, np.eye(8), atol=accuracy)


def test_features_are_uniform():
    spec = multiview.MultiViewSpec(1, 8, 2, 1)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.jit(jax.vmap(lambda key: multiview.sample_features(key, spec)))(keys)
    # With the signs of LAPACK, the first feature would fill half a circle only.
    np.testing.assert_allclose(draws.mean(0), 0, atol=5 * np.sqrt(0.5 / 4000))


def test_a_feature_has_its_own_patches_and_its_weight_in_equal_parts(clean):
    _, coefficients = clean
    shown = np.abs(coefficients) > 1e-12
    assert shown.sum(2).max() == 1  # disjoint
    assert set(np.unique(shown.sum(1))) == {0, SPEC.patches_per_feature}
    least, largest = np.where(shown, coefficients, np.inf).min(1), coefficients.max(1)
    np.testing.assert_allclose(np.where(shown.any(1), least, 0), largest, atol=1e-12)


def test_weights_lie_in_their_ranges(clean):
    batch, coefficients = clean
    weights = coefficients.sum(1).reshape(COUNT, 3, 2)
    rows = np.arange(COUNT)
    own = weights[rows, batch.labels]
    others = weights.copy()
    others[rows, batch.labels] = 0
    multi = batch.views == multiview.BOTH_VIEWS
    assert set(np.unique(batch.views)) == {0, 1, 2}
    view = np.where(multi, 0, batch.views)
    hidden = own[rows, 1 - view][~multi] / SPEC.weak_factor
    for found, (low, high) in [
        (own[multi], SPEC.own_weight),
        (own[rows, view][~multi], SPEC.own_weight),
        (hidden, SPEC.own_weight),
        (others[multi], SPEC.other_weight),
        (others[~multi], SPEC.single_other_weight),
    ]:
        found = found[found > 1e-9]
        assert found.min() >= low - 1e-9
        assert found.max() <= high + 1e-9
        # Uniform: mean within 5 standard errors, and the ends are reached.
        width = high - low
        assert abs(found.mean() - (low + high) / 2) < 5 * width / np.sqrt(12 * len(found))
        assert found.min() < low + 0.02 * width
        assert found.max() > high - 0.02 * width


def test_frequencies(clean):
    batch, coefficients = clean
    error = 5 / np.sqrt(COUNT)
    np.testing.assert_allclose(np.bincount(batch.labels) / COUNT, 1 / 3, atol=error / 2)
    np.testing.assert_allclose(np.bincount(batch.views) / COUNT, [0.25, 0.25, 0.5], atol=error / 2)
    shown = coefficients.sum(1) > 1e-12
    other = np.arange(6)[None, :] // 2 != batch.labels[:, None]
    # Room for 4 features: own 2, and 2 of the 4 others, each drawn with probability 1/3.
    drawn = np.random.default_rng(0).binomial(4, 1 / 3, 10**6)
    expected = np.minimum(drawn, 2).mean() / 4
    np.testing.assert_allclose(shown[other].mean(), expected, atol=error / 2)
    places = (np.abs(coefficients) > 1e-12).any(2).mean(0)
    np.testing.assert_allclose(places, places.mean(), atol=error / 2)


def test_what_does_not_fit_is_dropped_at_random():
    spec = dataclasses.replace(SPEC, num_others=3.0)
    batch, features = sample(spec, COUNT, 0.0)
    shown = (batch.patches @ features.T).sum(1) > 1e-12
    assert set(shown.sum(1)) == {spec.capacity} == {4}
    own = np.arange(6)[None, :] // 2 == batch.labels[:, None]
    assert shown[own].all()
    for other in range(6):
        assert shown[~own[:, other], other].mean() == pytest.approx(0.5, abs=0.06)


def test_noise():
    spec = multiview.MultiViewSpec(3, 8, 30, feature_noise=0.1)
    batch, features = sample(spec, 800, 0.0)
    exact, _ = sample(dataclasses.replace(spec, **CLEAN), 800, 0.0)
    clutter, _ = sample(dataclasses.replace(spec, patch_noise=0.0), 800, 0.0)
    used = np.abs(exact.patches).max(2) > 0
    extra = (clutter.patches - exact.patches) @ features.T
    np.testing.assert_array_equal(np.abs(extra[~used]).max(initial=0), 0)
    main = (exact.patches @ features.T)[used] > 1e-12
    np.testing.assert_allclose(extra[used][main], 0, atol=1e-12)
    uniform = extra[used][~main]
    assert uniform.min() >= -1e-12
    assert 0.099 < uniform.max() <= 0.1 + 1e-12
    assert uniform.mean() == pytest.approx(0.05, abs=5 * 0.1 / np.sqrt(12 * uniform.size))
    white = (batch.patches - clutter.patches).reshape(-1)
    assert white.std() == pytest.approx(spec.patch_noise, rel=5 / np.sqrt(2 * white.size))
    assert abs(white.mean()) < 5 * spec.patch_noise / np.sqrt(white.size)


def test_an_image_depends_on_its_number_alone():
    spec = multiview.MultiViewSpec(3, 8, 7)
    several, _ = sample(spec, 12, 0.4)
    few, _ = sample(spec, 5, 0.4)
    again, _ = sample(spec, 5, 0.4, seed=1)
    for found, other in zip(few, several, strict=True):
        np.testing.assert_allclose(found, other[:5], atol=1e-12)
    assert np.abs(again.patches - few.patches).max() > 0.1


def test_seeds_can_be_vmapped_and_float32_stays():
    spec = multiview.MultiViewSpec(3, 8, 7)
    keys = jax.random.split(jax.random.key(0), 2)
    features = features_of(spec, jnp.float32)

    def draw(key, fraction):
        return multiview.sample_multiview(key, spec, features, 4, fraction)

    together = jax.jit(jax.vmap(draw))(keys, jnp.asarray([0.0, 1.0]))
    assert together.patches.dtype == jnp.float32
    assert together.labels.dtype == together.views.dtype == jnp.int32
    assert (np.asarray(together.views[0]) == 2).all()
    assert (np.asarray(together.views[1]) < 2).all()
    alone = jax.jit(draw)(keys[1], jnp.asarray(1.0))
    np.testing.assert_allclose(alone.patches, together.patches[1], atol=1e-6)


def test_the_spec_is_hashable():
    assert hash(multiview.MultiViewSpec()) == hash(multiview.MultiViewSpec())
    assert multiview.MultiViewSpec(dim=40) != multiview.MultiViewSpec()
    assert (SPEC.num_features, SPEC.capacity) == (6, 4)
    assert multiview.MultiViewSpec(2, 100, 4).capacity == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0 must be an integer of at least 1"),
        ({"patches_per_feature": 0}, "patches_per_feature=0 must be an integer"),
        ({"num_patches": 3}, "num_patches=3 have no room .* at least 4 are needed"),
        ({"num_classes": 17}, "dim=32 cannot hold 34 orthonormal features, .* dim >= 34"),
        ({"num_others": 5.1}, r"num_others=5.1 must lie in \[0, num_classes=5\]"),
        ({"own_weight": (1.5, 1.0)}, r"own_weight=\(1.5, 1.0\) must be a finite range"),
        ({"other_weight": (-0.1, 1.0)}, "other_weight=.* must be a finite range"),
        ({"single_other_weight": (0.0, float("inf"))}, "single_other_weight=.* finite range"),
        ({"weak_factor": 1.5}, r"weak_factor=1.5 must lie in \[0, 1\]"),
        ({"feature_noise": -0.1}, "feature_noise=-0.1 must be a finite number >= 0"),
        ({"patch_noise": float("nan")}, "patch_noise=nan must be a finite number >= 0"),
    ],
)
def test_specs_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        multiview.MultiViewSpec(**options)


def test_bad_input_of_the_sampler():
    key, features = jax.random.key(0), features_of(SPEC)
    with pytest.raises(ValueError, match=r"single_view_fraction=1.2 must lie in \[0, 1\]"):
        multiview.sample_multiview(key, SPEC, features, 3, 1.2)
    with pytest.raises(ValueError, match="num_images=0 must be an integer of at least 1"):
        multiview.sample_multiview(key, SPEC, features, 0)
    with pytest.raises(ValueError, match=r"shape \(5, 7\), the spec asks for \(6, 7\); draw them"):
        multiview.sample_multiview(key, SPEC, features[:5], 3)
    with pytest.raises(ValueError, match="features holds 1 NaN"):
        multiview.sample_multiview(key, SPEC, features.at[0, 0].set(jnp.nan), 3)
