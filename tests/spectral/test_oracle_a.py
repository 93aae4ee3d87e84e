"""Every number of oracle set A, to half a unit of its last printed digit."""

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.linalg import principal_angles
from recon_jax.spectral import (
    alignment_curve,
    compose,
    correlated_gaussian,
    denoising_encoders,
    eigendecompose,
    gaussian,
    identity,
    joint_encoders,
    learned_fraction,
    learning_times,
    neutrality,
    patch_mask,
    pixel_mask,
    solve_denoising,
    solve_joint,
    stream_moments,
)

from . import reference

SHAPE = (6, 1, 1)
JOINT = [(k, w) for k in (1, 2, 4) for w in (0, 0.1, 1, 10)]


def assert_printed(actual, printed, decimals=10):
    np.testing.assert_allclose(actual, printed, rtol=1e-11, atol=0.51 * 10.0**-decimals)


def test_the_data_is_the_oracle_data(set_a, set_a_data, set_a_moments):
    assert_printed(set_a_data[0][:3, 0], set_a["first_pixel"])
    assert_printed(jnp.trace(set_a_moments.scatter), set_a["energy"])
    # Printed to 9 decimals, the fifth one unit too high.
    np.testing.assert_allclose(eigendecompose(set_a_moments).values, set_a["spectrum"], rtol=1e-9)


@pytest.mark.parametrize(("rank", "weight"), JOINT)
def test_joint_optimum(set_a, set_a_moments, rank, weight):
    (row,) = (r for r in set_a["joint"] if (r["rank"], r["weight"]) == (rank, weight))
    solved = solve_joint(set_a_moments, rank, weight)
    assert_printed(solved.loss, row["loss"])
    assert_printed(solved.supervised_loss, row["sup"])
    if row["rec"] is not None:
        assert_printed(solved.reconstruction_loss, row["rec"])


def test_the_joint_table_is_complete(set_a):
    assert [(row["rank"], row["weight"]) for row in set_a["joint"]] == JOINT


def test_joint_values(set_a, set_a_moments):
    assert_printed(joint_encoders(set_a_moments, 1).values, set_a["joint_values_weight_1"], 11)


@pytest.mark.parametrize("rank", [1, 2, 3, 6])
def test_supervised_loss_of_pca_latents(set_a, set_a_moments, rank):
    solved = solve_denoising(set_a_moments, identity(SHAPE), rank)
    assert_printed(solved.supervised_loss, set_a["pca_supervised_loss"][str(rank)])
    # A huge reconstruction weight tends to the same.
    solved = solve_joint(set_a_moments, rank, 1e9)
    np.testing.assert_allclose(
        solved.supervised_loss, set_a["pca_supervised_loss"][str(rank)], rtol=1e-6
    )


def test_clean_alignment(set_a, set_a_moments):
    assert_printed(100 * alignment_curve(set_a_moments), set_a["alignment_clean"])
    curve = alignment_curve(set_a_moments, identity(SHAPE))
    assert_printed(100 * curve, set_a["alignment_clean"])


def test_alignment_of_balanced_classes(set_a, set_a_data):
    images, labels = (part[:18] for part in set_a_data)
    moments = stream_moments([(images, labels)], 3)
    curve = alignment_curve(moments)
    assert_printed(100 * curve, set_a["alignment_first_18"])
    # Balanced: its square is the share of the supervised loss that K latents remove.
    losses = np.array(
        [solve_denoising(moments, identity(SHAPE), k).supervised_loss for k in range(1, 7)]
    )
    np.testing.assert_allclose(curve**2, (18 - losses) / (18 - losses[-1]), atol=1e-12)


def test_gaussian_noise(set_a, set_a_moments):
    wanted = set_a["gaussian"]
    noise = gaussian(wanted["stddev"], SHAPE)
    assert_printed(solve_denoising(set_a_moments, noise, 2).loss, wanted["loss_rank_2"])
    assert_printed(denoising_encoders(set_a_moments, noise).values[:3], wanted["values"])
    assert_printed(100 * alignment_curve(set_a_moments, noise), set_a["alignment_clean"])
    assert neutrality(set_a_moments, noise).is_neutral


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("scalar_mask_half", pixel_mask(0.5, SHAPE)),
        ("scalar_mask_nine_tenths", pixel_mask(0.9, SHAPE)),
        ("two_patches_half", patch_mask(0.5, (3, 1), SHAPE)),
    ],
)
def test_masks(set_a, set_a_moments, name, mask):
    wanted = set_a[name]
    assert_printed(solve_denoising(set_a_moments, mask, 2).loss, wanted["loss_rank_2"])
    values = wanted.get("values", [])
    assert_printed(denoising_encoders(set_a_moments, mask).values[: len(values)], values)
    curve = 100 * alignment_curve(set_a_moments, mask)
    assert_printed(curve[: len(wanted["alignment"])], wanted["alignment"])


def test_a_patch_mask_helps_strongly_at_rank_1(set_a, set_a_moments):
    clean = alignment_curve(set_a_moments)
    assert alignment_curve(set_a_moments, patch_mask(0.5, (3, 1), SHAPE))[0] > clean[0] + 0.3


def test_sines_and_label_energy_of_the_scalar_mask(set_a, set_a_data, set_a_moments):
    wanted = set_a["scalar_mask_half"]
    mask = pixel_mask(0.5, SHAPE)
    verdict = neutrality(set_a_moments, mask)
    assert_printed(verdict.max_sine[1], wanted["sines_rank_2"][0], 8)
    assert_printed(verdict.best_gain[1], wanted["sines_rank_2"][0], 8)
    assert_printed(verdict.worst_gain[1], -wanted["sines_rank_2"][0], 8)
    assert_printed(2 * (1 - verdict.overlap[1]), sum(s**2 for s in wanted["sines_rank_2"]), 9)
    assert not verdict.is_neutral
    assert not verdict.commutes

    masked = denoising_encoders(set_a_moments, mask).vectors[:, :2]
    clean = eigendecompose(set_a_moments).vectors[:, :2]
    angles = principal_angles(masked, clean, set_a_moments.scatter)
    assert_printed(np.sin(angles)[::-1], wanted["sines_rank_2"], 8)

    images, labels = set_a_data
    targets = reference.one_hot(labels, 3)
    q_mask, q_clean = (reference.row_space(images, np.asarray(v)) for v in (masked, clean))
    gain = ((targets.T @ q_mask) ** 2).sum() - ((targets.T @ q_clean) ** 2).sum()
    assert_printed(gain, wanted["label_energy_gain_rank_2"])
    # The least-squares heads say the same: the clean loss falls by the gain.
    loss = solve_denoising(set_a_moments, identity(SHAPE), 2).supervised_loss
    assert_printed(20 - ((targets.T @ q_clean) ** 2).sum(), loss)


def test_commuting_gaussian_that_swaps_two_modes(set_a, set_a_moments):
    wanted = set_a["commuting_gaussian"]
    basis = eigendecompose(set_a_moments).vectors
    covariance = basis @ jnp.diag(jnp.array(wanted["variances"], float)) @ basis.T
    noise = correlated_gaussian(covariance, SHAPE)
    assert_printed(denoising_encoders(set_a_moments, noise).values, wanted["values"])
    curve = 100 * alignment_curve(set_a_moments, noise)
    assert_printed(curve[4], wanted["alignment_rank_5"])
    assert_printed(np.delete(curve, 4), np.delete(set_a["alignment_clean"], 4))
    verdict = neutrality(set_a_moments, noise)
    assert verdict.commutes
    assert not verdict.is_neutral
    np.testing.assert_allclose(verdict.max_sine, [0, 0, 0, 0, 1, 0], atol=1e-12)


def test_supervised_denoising(set_a, set_a_moments):
    wanted = set_a["joint_and_mask_half"]
    mask = pixel_mask(0.5, SHAPE)
    solved = solve_denoising(set_a_moments, mask, wanted["rank"], wanted["weight"])
    assert_printed(solved.loss, wanted["loss"])
    composed = compose([identity(SHAPE), mask], SHAPE)
    solved = solve_denoising(set_a_moments, composed, wanted["rank"], wanted["weight"])
    assert_printed(solved.loss, wanted["loss"])


def test_learning_dynamics(set_a, set_a_moments):
    wanted = set_a["dynamics"]
    spectrum = eigendecompose(set_a_moments)
    learned = learned_fraction(spectrum, wanted["time"], initial=wanted["initial"])
    assert_printed(learned, wanted["learned"], 7)
    # The time at which each mode reaches what it has reached at that time is that time.
    for mode in range(6):
        times = learning_times(spectrum, initial=wanted["initial"], fraction=float(learned[mode]))
        np.testing.assert_allclose(times[mode], wanted["time"], rtol=1e-9)
    times = learning_times(spectrum, initial=wanted["initial"])
    assert np.all(np.diff(times) > 0)
    for mode in range(6):
        at = learned_fraction(spectrum, times[mode], initial=wanted["initial"])
        np.testing.assert_allclose(at[mode], 0.5, rtol=1e-9)
