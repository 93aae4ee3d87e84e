import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from recon_jax.spectral import (
    alignment_curve,
    correlated_gaussian,
    corruption_impact,
    denoising_encoders,
    eigendecompose,
    gaussian,
    grayscale,
    neutrality,
    patch_mask,
    pixel_mask,
    pixel_std,
    scale_moments,
    survey,
)

from . import cases, reference

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def data(image_like):
    return image_like(120, SHAPE, 3, seed=8)


@pytest.fixture(scope="module")
def moments(data):
    return reference.moments_of(*data, 3)


def in_eigenbasis(moments, variances):
    """Gaussian noise that commutes with the scatter: C = U diag(variances) U^T."""
    basis = eigendecompose(moments).vectors
    return correlated_gaussian(basis @ jnp.diag(variances) @ basis.T, SHAPE)


def spaces(data, moments, corruption, rank):
    rows = reference.centred_rows(data[0])
    vectors = np.asarray(denoising_encoders(moments, corruption).vectors[:, :rank])
    clean = np.asarray(eigendecompose(moments).vectors[:, :rank])
    return reference.row_space(rows, vectors), reference.row_space(rows, clean)


@pytest.mark.parametrize("stddev", [0.0, 1e-12, 1e-3, 1.0, 30.0, 1e6, 1e12])
def test_isotropic_gaussian_noise_is_neutral(moments, stddev):
    verdict = neutrality(moments, gaussian(stddev, SHAPE))
    assert verdict.is_neutral
    assert verdict.commutes
    np.testing.assert_allclose(verdict.max_sine, 0, atol=1e-12)
    np.testing.assert_allclose(verdict.overlap, 1, atol=1e-12)
    np.testing.assert_allclose(
        alignment_curve(moments, gaussian(stddev, SHAPE)), alignment_curve(moments), rtol=1e-10
    )


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.95])
def test_scalar_masks_are_neutral_on_standardised_pixels_only(moments, ratio):
    mask = pixel_mask(ratio, SHAPE)
    standardised = scale_moments(moments, 1 / pixel_std(moments))
    verdict = neutrality(standardised, mask)
    assert verdict.is_neutral
    assert verdict.commutes
    np.testing.assert_allclose(verdict.max_sine, 0, atol=1e-9)
    verdict = neutrality(moments, mask)
    assert not verdict.is_neutral
    assert not verdict.commutes
    assert float(verdict.max_sine.max()) > 0.01


def test_pixel_masks_over_several_channels_are_not_neutral(image_like):
    moments = reference.moments_of(*image_like(120, (2, 2, 3), 3), 3)
    standardised = scale_moments(moments, 1 / pixel_std(moments))
    assert not neutrality(standardised, pixel_mask(0.5, (2, 2, 3))).is_neutral
    assert neutrality(standardised, pixel_mask(0.5, (2, 2, 3), per_channel=True)).is_neutral


@pytest.mark.parametrize("patch", [2, (4, 2), (1, 4)])
def test_patch_masks_are_not_neutral(moments, patch):
    for given in (moments, scale_moments(moments, 1 / pixel_std(moments))):
        verdict = neutrality(given, patch_mask(0.5, patch, SHAPE))
        assert not verdict.is_neutral
        assert not verdict.commutes


def test_commuting_noise_is_neutral_unless_it_reorders(moments):
    values = eigendecompose(moments).values
    keeps = neutrality(moments, in_eigenbasis(moments, 0.3 * values / 120))
    assert keeps.commutes
    assert keeps.is_neutral
    np.testing.assert_allclose(keeps.max_sine, 0, atol=1e-9)
    # Noise on the first component alone moves it behind the second: K = 1 turns, K = 2 does not.
    target = float(values[0] ** 2 / ((values[1] + values[2]) / 2) - values[0]) / 120
    swaps = neutrality(moments, in_eigenbasis(moments, jnp.zeros(16).at[0].set(target)))
    assert swaps.commutes
    assert not swaps.is_neutral
    np.testing.assert_allclose(swaps.max_sine[0], 1, rtol=1e-9)
    np.testing.assert_allclose(swaps.max_sine[1:], 0, atol=1e-9)
    np.testing.assert_allclose(swaps.overlap[:2], [0, 1], atol=1e-9)


@pytest.mark.parametrize("name", ["patch_mask", "pixel_mask", "correlated_gaussian", "blur_noise"])
def test_sines_and_overlap_match_scipy(data, moments, name):
    corruption, _ = cases.build(name, SHAPE)
    verdict = neutrality(moments, corruption)
    assert verdict.max_sine.shape == verdict.overlap.shape == (16,)
    for rank in range(1, 17):
        ours, clean = spaces(data, moments, corruption, rank)
        angles = scipy.linalg.subspace_angles(ours, clean)
        np.testing.assert_allclose(verdict.max_sine[rank - 1], np.sin(angles[0]), atol=1e-9)
        overlap = ((ours.T @ clean) ** 2).sum() / rank
        np.testing.assert_allclose(verdict.overlap[rank - 1], overlap, atol=1e-10)
    np.testing.assert_array_equal(verdict.best_gain, verdict.max_sine)
    np.testing.assert_array_equal(verdict.worst_gain, -verdict.max_sine)


def test_the_best_gain_is_attained_and_never_exceeded(data, moments):
    mask = patch_mask(0.6, 2, SHAPE)
    verdict = neutrality(moments, mask)
    rng = np.random.default_rng(0)
    for rank in (1, 2, 7):
        ours, clean = spaces(data, moments, mask, rank)
        change = ours @ ours.T - clean @ clean.T
        _, tasks = np.linalg.eigh(change)
        best = float(verdict.best_gain[rank - 1])
        assert best > 0.02
        for task, gain in ((tasks[:, -1], best), (tasks[:, 0], -best)):
            assert np.linalg.norm(task) == pytest.approx(1)
            np.testing.assert_allclose(task @ change @ task, gain, atol=1e-9)
        # Tasks within the two spaces come closer to the best than arbitrary ones.
        both = np.concatenate([ours, clean], 1)
        for _ in range(300):
            task = both @ rng.standard_normal(2 * rank)
            task /= np.linalg.norm(task)
            assert abs(task @ change @ task) <= best + 1e-9
            several = rng.standard_normal((120, 3))
            several /= np.linalg.norm(several)
            assert abs(np.trace(several.T @ change @ several)) <= best + 1e-9


def test_small_sines_keep_their_digits(data, moments):
    # Noise of relative size e turns the spaces by an angle proportional to e, down to tiny ones.
    covariance = cases.covariance_of(SHAPE)
    size = {
        e: neutrality(moments, correlated_gaussian(e * covariance, SHAPE)) for e in (1e-4, 1e-8)
    }
    ratio = np.asarray(size[1e-4].max_sine[:15] / size[1e-8].max_sine[:15])
    np.testing.assert_allclose(ratio, 1e4, rtol=1e-2)
    assert size[1e-8].is_neutral


def test_angle_tolerance_decides(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    assert not neutrality(moments, mask).is_neutral
    assert neutrality(moments, mask, angle_tolerance=10.0).is_neutral
    noise = correlated_gaussian(1e-8 * cases.covariance_of(SHAPE), SHAPE)
    assert neutrality(moments, noise).is_neutral
    assert not neutrality(moments, noise, angle_tolerance=1e-12).is_neutral


def test_ranks_without_a_gap_are_left_out():
    # S has a double eigenvalue: at K = 1 the space is arbitrary, and only K = 2, 3 decide.
    moments = reference.moments_of(np.eye(4)[:, :3], np.array([0, 1, 0, 1]), 2)
    scatter = jnp.diag(jnp.array([5.0, 5.0, 1.0]))
    moments = moments._replace(scatter=scatter)
    shape = (3, 1, 1)
    verdict = neutrality(moments, correlated_gaussian(np.diag([0.1, 0.2, 0.0]), shape))
    np.testing.assert_array_equal(verdict.resolved, [False, True, True])
    assert verdict.is_neutral
    # Whichever of the two the noise prefers, K = 1 has no say.
    other = neutrality(moments, correlated_gaussian(np.diag([0.2, 0.1, 0.0]), shape))
    assert other.is_neutral
    np.testing.assert_allclose(sorted([verdict.overlap[0], other.overlap[0]]), [0, 1], atol=1e-9)
    swapped = neutrality(moments, correlated_gaussian(np.diag([100.0, 0.0, 0.0]), shape))
    np.testing.assert_array_equal(swapped.resolved, [False, True, True])
    assert not swapped.is_neutral
    blurred = neutrality(moments, correlated_gaussian(np.diag([0.1, 0.2, 0.0]), shape), tolerance=1)
    assert not blurred.resolved.any()


def test_lost_directions_count_as_turned(image_like):
    shape = (2, 2, 3)
    moments = reference.moments_of(*image_like(60, shape, 2), 2)
    verdict = neutrality(moments, grayscale(shape))
    assert not verdict.is_neutral
    np.testing.assert_array_equal(verdict.max_sine[4:], 1)
    np.testing.assert_allclose(verdict.overlap[-1], 4 / 12, atol=1e-9)


def test_labels_are_not_used(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    blind = moments._replace(
        cross=jnp.zeros_like(moments.cross), class_counts=jnp.zeros_like(moments.class_counts)
    )
    np.testing.assert_array_equal(
        neutrality(blind, mask).max_sine, neutrality(moments, mask).max_sine
    )


def test_constant_pixels_do_not_disturb_the_verdict(data):
    images = data[0].copy()
    images[:, 0, :2] = 1.5
    moments = reference.moments_of(images, data[1], 3)
    assert neutrality(moments, gaussian(0.5, SHAPE)).is_neutral
    verdict = neutrality(moments, patch_mask(0.5, 2, SHAPE))
    assert not verdict.is_neutral
    np.testing.assert_array_equal(verdict.resolved[14:], False)


def test_max_rank_cuts_the_sines_only(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    full, cut = neutrality(moments, mask), neutrality(moments, mask, max_rank=5)
    assert cut.max_sine.shape == cut.best_gain.shape == cut.worst_gain.shape == (5,)
    np.testing.assert_allclose(cut.max_sine, full.max_sine[:5], rtol=1e-9)
    np.testing.assert_allclose(cut.overlap, full.overlap, rtol=1e-12)


def test_jit_equals_eager(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    jitted = jax.jit(lambda m: neutrality(m, mask))(moments)
    for ours, expected in zip(jitted, neutrality(moments, mask), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-10)


def test_survey_is_the_three_measures_at_once(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    found = survey(moments, mask, max_rank=7)
    np.testing.assert_allclose(found.alignment, alignment_curve(moments, mask), rtol=1e-12)
    np.testing.assert_allclose(found.impact, corruption_impact(moments, mask), atol=1e-12)
    for ours, expected in zip(found.neutrality, neutrality(moments, mask, max_rank=7), strict=True):
        np.testing.assert_array_equal(ours, expected)
    shared = survey(moments, mask, spectrum=eigendecompose(moments), max_rank=7)
    np.testing.assert_array_equal(shared.alignment, found.alignment)


@pytest.mark.parametrize("max_rank", [0, 17])
def test_max_rank_out_of_range_is_refused(moments, max_rank):
    with pytest.raises(ValueError, match=rf"max_rank must lie in 1 .. 16, got {max_rank}"):
        neutrality(moments, gaussian(1.0, SHAPE), max_rank=max_rank)


def test_constant_images_are_refused(moments):
    with pytest.raises(ValueError, match="images are the same"):
        neutrality(moments._replace(scatter=jnp.zeros((16, 16))), gaussian(1.0, SHAPE))
