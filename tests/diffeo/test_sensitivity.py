import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax import diffeo
from recon_jax.diffeo.sensitivity import REDUCTIONS


def features(count=7, shape=(2, 3, 2), dtype=np.float64, seed=0, offset=0.0):
    """f(x), f(tau x), f(x + eta), with tails over the images that tell means from medians."""
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal((count, *shape)) + offset
    tails = np.exp(rng.standard_normal((2, count))).reshape(2, count, *[1] * len(shape))
    changes = [0.3, 0.5] * tails.T.reshape(count, 2, *[1] * len(shape)).swapaxes(0, 1).T
    changes = changes.T * rng.standard_normal((2, count, *shape))
    return tuple(part.astype(dtype) for part in (plain, plain + changes[0], plain + changes[1]))


def by_definition(plain, deformed, noisy, reduce):
    """D, G, R from all pairs, in float64."""
    plain, deformed, noisy = (
        np.asarray(part, np.float64).reshape(len(part), -1) for part in (plain, deformed, noisy)
    )
    pairs = ((plain[:, None] - plain[None, :]) ** 2).sum(-1)
    changes = [(part - plain) ** 2 for part in (deformed, noisy)]
    if reduce == "mean":
        D, G = (change.sum(1).mean() / pairs.mean() for change in changes)
    else:
        D, G = (np.median(change, axis=0).sum() / np.median(pairs) for change in changes)
    return D, G, D / G


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("count", [7, 8])
def test_the_definition_over_all_pairs(reduce, count):
    parts = features(count)
    found = diffeo.sensitivities(*parts, reduce=reduce)
    np.testing.assert_allclose(found, by_definition(*parts, reduce), rtol=1e-12)
    assert {part.dtype for part in found} == {np.dtype(np.float64)}
    traced = jax.jit(functools.partial(diffeo.sensitivities, reduce=reduce))
    np.testing.assert_allclose(traced(*parts), found, rtol=1e-12)


def test_both_reductions_of_numbers_done_by_hand():
    # Distances of all pairs: 0 four times, then 4, 16, 36, 4, 16, 4 twice each.
    plain = np.array([[0.0], [2.0], [4.0], [6.0]])
    deformed = plain + np.array([[1.0], [2.0], [3.0], [20.0]])
    noisy = plain + np.array([[1.0], [1.0], [-1.0], [1.0]])
    mean = diffeo.sensitivities(plain, deformed, noisy)
    np.testing.assert_allclose(mean, (414 / 4 / 10, 1 / 10, 414 / 4), rtol=1e-12)
    median = diffeo.sensitivities(plain, deformed, noisy, "median")
    np.testing.assert_allclose(median, (6.5 / 4, 1 / 4, 6.5), rtol=1e-12)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_common_offset_costs_float32_nothing(reduce):
    parts = features(40, dtype=np.float32, offset=1e3)
    found = diffeo.sensitivities(*parts, reduce=reduce)
    assert {part.dtype for part in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found, by_definition(*parts, reduce), rtol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_added_up_in_float32(dtype):
    parts = [jnp.asarray(part, dtype) for part in features(300, (20,))]
    found = diffeo.sensitivities(*parts)
    assert found.D.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(*parts, "mean"), rtol=1e-6)


@settings(max_examples=15)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 9), reduce=st.sampled_from(REDUCTIONS))
def test_rescaling_and_shifting_change_nothing(scale, seed, reduce):
    parts = features(seed=seed)
    shift = np.random.default_rng(seed).standard_normal(parts[0].shape[1:])
    moved = [scale * (part + shift) for part in parts]
    expected = diffeo.sensitivities(*parts, reduce=reduce)
    np.testing.assert_allclose(diffeo.sensitivities(*moved, reduce=reduce), expected, rtol=1e-9)


def test_rotating_changes_no_means():
    parts = features(shape=(6,))
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    turned = [part @ rotation for part in parts]
    expected = diffeo.sensitivities(*parts)
    np.testing.assert_allclose(diffeo.sensitivities(*turned), expected, rtol=1e-12)
    # A median of components is not that of other ones.
    medians = [diffeo.sensitivities(*part, reduce="median").D for part in (parts, turned)]
    assert abs(medians[0] / medians[1] - 1) > 1e-3


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_what_does_not_move_has_no_sensitivity(reduce):
    plain, deformed, noisy = features()
    still = diffeo.sensitivities(plain, plain, noisy, reduce)
    assert (still.D, still.R) == (0, 0)
    assert still.G > 0
    deaf = diffeo.sensitivities(plain, deformed, plain, reduce)
    assert (0, np.inf) == (deaf.G, deaf.R)
    neither = diffeo.sensitivities(plain, plain, plain, reduce)
    assert np.isnan(neither.R)


def test_gradients_are_those_of_the_formula():
    plain, deformed, noisy = features(4, (3,))
    slope = jax.grad(lambda moved: diffeo.sensitivities(plain, moved, noisy).D)(deformed)
    pairs = ((plain[:, None] - plain[None, :]) ** 2).sum(-1).mean()
    np.testing.assert_allclose(slope, 2 * (deformed - plain) / 4 / pairs, rtol=1e-12)


def spoiled(which, value):
    parts = [part.copy() for part in features()]
    parts[which][3, 0, 0] = value
    return parts


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ([p[:1] for p in features()], {}, r"1 image\(s\) have no distances .* at least two"),
        ([p[:0] for p in features()], {}, r"0 image\(s\) have no distances"),
        ([*features()[:2], features(8)[2]], {}, r"one shape.*features_noisy \(8, 2, 3, 2\)"),
        ([np.float64(1)] * 3, {}, r"leading axis of images, \(N, ...\), got features \(\)"),
        (spoiled(0, np.nan), {}, "^features holds 2 NaN or infinite entries out of 84"),
        (spoiled(1, np.inf), {}, "^features_deformed holds 2 NaN or infinite"),
        (spoiled(2, -np.inf), {}, "^features_noisy holds 2 NaN or infinite"),
        (features(), {"reduce": "max"}, "reduce='max' is unknown; choose one of 'mean', 'median'"),
    ],
)
def test_bad_input(parts, options, message):
    with pytest.raises(ValueError, match=message):
        diffeo.sensitivities(*parts, **options)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_features_are_refused(reduce, dtype):
    # The mean of these numbers is not exactly the number.
    plain = np.full((7, 5), 0.1, dtype) * np.arange(1, 6, dtype=dtype)
    noisy = plain + features(7, (5,), dtype)[0]
    with pytest.raises(ValueError, match=r"the same for all 7 images|coincide .* 7 images"):
        diffeo.sensitivities(plain, noisy, noisy, reduce)


@pytest.mark.parametrize("rounding", [0, 1e-7])
def test_a_median_distance_of_zero_is_refused(rounding):
    plain, deformed, noisy = features(61, (777,), np.float32)
    # The product that gives the distances is not exact to the last bit of the features.
    plain[:54] = plain[0] * (1 + rounding * features(54, (777,))[0])
    with pytest.raises(ValueError, match=r'more than half of the pairs of 61 images.*"mean"'):
        diffeo.sensitivities(plain, deformed, noisy, "median")
    assert diffeo.sensitivities(plain, deformed, noisy).D > 0


def test_features_too_large_to_square_are_refused():
    parts = [part * np.float32(1e30) for part in features(dtype=np.float32)]
    with pytest.raises(ValueError, match="overflow when they are squared: divide"):
        diffeo.sensitivities(*parts)


def test_values_inside_jit_are_not_checked():
    plain = jnp.ones((3, 2))
    found = jax.jit(lambda part: diffeo.sensitivities(part, part + plain, part))(plain)
    assert np.isinf(found.D)
    assert np.isnan(found.G)
    with pytest.raises(ValueError, match=r"1 image\(s\)"):
        jax.eval_shape(diffeo.sensitivities, plain[:1], plain[:1], plain[:1])


@pytest.mark.parametrize("interpolation", diffeo.INTERPOLATIONS)
def test_probes_are_the_images_deformed_and_with_noise_of_that_norm(interpolation):
    images = np.random.default_rng(0).random((5, 8, 6, 2))
    probes = diffeo.probe_images(jax.random.key(3), images, 2, 0.8, interpolation)
    plain, deformed, noisy = (np.asarray(part).reshape(5, -1) for part in probes)
    expected = diffeo.reference(images, interpolation).reshape(5, -1)
    np.testing.assert_allclose(plain, expected, atol=1e-14)
    moved = np.linalg.norm(deformed - plain, axis=1)
    np.testing.assert_allclose(np.linalg.norm(noisy - plain, axis=1), moved, rtol=1e-12)
    assert moved.min() > 0.1
    # Both changes alone would also be found if noise and fields shared their numbers.
    assert np.abs(np.corrcoef((noisy - plain).ravel(), (deformed - plain).ravel())[0, 1]) < 0.3


def test_probes_follow_their_key_and_their_displacement():
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    probes = diffeo.probe_images(jax.random.key(0), images)
    assert {part.dtype for part in probes} == {np.dtype(np.float32)}
    first = diffeo.probe_images(jax.random.key(0), images[:2])
    other = diffeo.probe_images(jax.random.key(1), images)
    for part, of_two, of_another in zip(probes[1:], first[1:], other[1:], strict=True):
        np.testing.assert_allclose(part[:2], of_two, atol=1e-6)
        assert np.abs(part - of_another).max() > 0.05
    little = diffeo.probe_images(jax.random.key(0), images, displacement=1e-3)
    ratio = np.linalg.norm(probes.deformed - images) / np.linalg.norm(little.deformed - images)
    assert 200 < ratio < 1200
    at_three = diffeo.temperature_for(1.0, 8, 3)
    keys = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(probes.deformed, diffeo.deform(keys[0], images, 3, at_three))
