import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from recon_jax.linalg import principal_angles
from recon_jax.spectral import (
    denoising_encoders,
    eigendecompose,
    gaussian,
    identity,
    joint_encoders,
    patch_mask,
    patch_subset,
    solve_denoising,
    solve_joint,
)

from . import cases, reference

SHAPE = (4, 4, 1)
CLASSES = 3
WEIGHTS = [0.0, 0.3, 4.0]


@pytest.fixture(scope="module")
def data(image_like):
    images, labels = image_like(90, SHAPE, CLASSES, seed=3)
    return reference.centred_rows(images), reference.one_hot(labels, CLASSES)


@pytest.fixture(scope="module")
def moments(image_like):
    return reference.moments_of(*image_like(90, SHAPE, CLASSES, seed=3), CLASSES)


def joint_losses(rows, targets, encoder, decoder, classifier):
    latents = rows @ encoder
    reconstruction = ((latents @ decoder - rows) ** 2).sum()
    return reconstruction, ((latents @ classifier - targets) ** 2).sum()


def denoising_losses(rows, targets, gain, second, encoder, decoder, classifier):
    """E ||B T(x) - t||^2 = ||t||^2 - 2 tr(B M1 t) + tr(B M2 B^T), for both heads."""

    def loss(head, wanted):
        full = encoder @ head
        cross = (rows @ gain.T @ full * wanted).sum()
        return (wanted**2).sum() - 2 * cross + np.trace(full.T @ second @ full)

    return loss(decoder, rows), loss(classifier, targets)


def parts(solved):
    return tuple(np.asarray(part) for part in (solved.encoder, solved.decoder, solved.classifier))


def perturbed(rng, arrays, size):
    return [a + size * np.abs(a).mean() * rng.standard_normal(a.shape) for a in arrays]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_joint_loss_is_that_of_the_returned_maps(data, moments, rank, weight):
    solved = solve_joint(moments, rank, weight)
    reconstruction, supervised = joint_losses(*data, *parts(solved))
    np.testing.assert_allclose(solved.reconstruction_loss, reconstruction, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(solved.supervised_loss, supervised, rtol=1e-9)
    np.testing.assert_allclose(solved.loss, supervised + weight * reconstruction, rtol=1e-9)
    total = len(data[0]) + weight * (data[0] ** 2).sum()
    np.testing.assert_allclose(solved.loss, total - float(solved.values.sum()), rtol=1e-9)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_joint_equals_an_independent_generalised_eigenproblem(data, moments, rank, weight):
    rows, targets = data
    scatter = rows.T @ rows
    wanted = rows.T @ targets @ targets.T @ rows + weight * scatter @ scatter
    values, vectors = scipy.linalg.eigh(wanted, scatter)
    solved = solve_joint(moments, rank, weight)
    np.testing.assert_allclose(solved.values, values[::-1][:rank], rtol=1e-8, atol=1e-8)
    determined = rank if weight else min(rank, CLASSES - 1)
    angles = principal_angles(
        solved.encoder[:, :determined], jnp.asarray(vectors[:, ::-1][:, :determined])
    )
    np.testing.assert_allclose(angles, 0, atol=1e-7)


@pytest.mark.parametrize("weight", [0.3, 4.0])
def test_no_perturbation_lowers_the_joint_loss(data, moments, weight):
    rng = np.random.default_rng(0)
    solved = solve_joint(moments, 3, weight)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(30):
            rec, sup = joint_losses(*data, *perturbed(rng, parts(solved), size))
            assert sup + weight * rec >= float(solved.loss) * (1 - 1e-12)


def test_encoder_is_orthonormal_and_heads_are_least_squares(data, moments):
    rows, targets = data
    solved = solve_joint(moments, 4, 2.0)
    latents = rows @ np.asarray(solved.encoder)
    np.testing.assert_allclose(latents.T @ latents, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(solved.decoder, np.linalg.lstsq(latents, rows)[0], atol=1e-9)
    np.testing.assert_allclose(solved.classifier, np.linalg.lstsq(latents, targets)[0], atol=1e-9)


def test_an_invertible_mix_of_the_latents_changes_nothing(data, moments):
    rows, targets = data
    solved = solve_joint(moments, 4, 2.0)
    mix = np.random.default_rng(1).standard_normal((4, 4))
    encoder, decoder, classifier = parts(solved)
    undo = np.linalg.inv(mix)
    mixed = (encoder @ mix, undo @ decoder, undo @ classifier)
    np.testing.assert_allclose(
        joint_losses(rows, targets, *mixed),
        (solved.reconstruction_loss, solved.supervised_loss),
        rtol=1e-9,
    )
    angles = principal_angles(solved.encoder, jnp.asarray(mixed[0]), moments.scatter)
    np.testing.assert_allclose(angles, 0, atol=1e-10)
    # Heads fitted to the mixed latents come to the same maps.
    latents = rows @ mixed[0]
    np.testing.assert_allclose(
        mixed[0] @ np.linalg.lstsq(latents, rows)[0], encoder @ decoder, atol=1e-9
    )


@pytest.mark.parametrize("rank", [1, 4, 15])
def test_a_large_reconstruction_weight_gives_pca(moments, rank):
    solved = solve_joint(moments, rank, 1e9)
    basis = np.asarray(eigendecompose(moments).vectors[:, :rank])
    np.testing.assert_allclose(solved.encoder @ solved.decoder, basis @ basis.T, atol=1e-6)


def test_without_reconstruction_only_classes_count(moments):
    values = joint_encoders(moments, 0.0).values
    assert np.all(np.asarray(values[: CLASSES - 1]) > 1e-3)
    np.testing.assert_allclose(values[CLASSES - 1 :], 0, atol=1e-9)


DENOISING = [name for name, shape in cases.ALL if shape == SHAPE]


@pytest.mark.parametrize("name", DENOISING)
def test_denoising_matches_numpy(data, moments, name):
    rows, targets = data
    corruption, moments_of = cases.build(name, SHAPE)
    gain, second = moments_of(rows.T @ rows, len(rows))
    for rank, weight in ((1, 0.0), (3, 2.0), (16, 0.0)):
        solved = solve_denoising(moments, corruption, rank, weight)
        losses = denoising_losses(rows, targets, gain, second, *parts(solved))
        np.testing.assert_allclose(solved.reconstruction_loss, losses[0], rtol=1e-8, atol=1e-6)
        np.testing.assert_allclose(solved.supervised_loss, losses[1], rtol=1e-8)
        np.testing.assert_allclose(
            solved.loss, losses[0] + weight * losses[1], rtol=1e-8, atol=1e-6
        )
        total = (rows**2).sum() + weight * len(rows)
        np.testing.assert_allclose(
            solved.loss, total - float(solved.values.sum()), rtol=1e-8, atol=1e-6
        )
        encoder = np.asarray(solved.encoder)
        live = np.abs(encoder).max(0) > 0
        np.testing.assert_allclose(encoder.T @ second @ encoder, np.diag(live), atol=1e-8)
        if name not in cases.LOSSY:
            wanted = gain @ rows.T @ (rows @ rows.T + weight * targets @ targets.T) @ rows @ gain.T
            values = scipy.linalg.eigh(wanted, second, eigvals_only=True)[::-1]
            np.testing.assert_allclose(
                solved.values, np.maximum(values[:rank], 0), rtol=1e-7, atol=1e-7 * values[0]
            )


@pytest.mark.parametrize("name", ["patch_mask", "gaussian", "blur_subset_gaussian", "downsample"])
def test_no_perturbation_lowers_the_denoising_loss(data, moments, name):
    rows, targets = data
    corruption, moments_of = cases.build(name, SHAPE)
    gain, second = moments_of(rows.T @ rows, len(rows))
    rng = np.random.default_rng(0)
    solved = solve_denoising(moments, corruption, 3, 1.5)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(30):
            other = perturbed(rng, parts(solved), size)
            rec, sup = denoising_losses(rows, targets, gain, second, *other)
            assert rec + 1.5 * sup >= float(solved.loss) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("corruption", "patterns"),
    [
        (patch_mask(0.6, 2, SHAPE), reference.bernoulli_patches(0.6, 4)),
        (patch_subset(0.5, 2, SHAPE), reference.subset_patches(2, 4)),
    ],
    ids=["bernoulli", "subset"],
)
def test_mask_losses_are_the_average_over_all_masks(data, moments, corruption, patterns):
    rows, targets = data
    solved = solve_denoising(moments, corruption, 3, 1.0)
    index = reference.patch_numbers((2, 2), SHAPE)
    reconstruction = supervised = 0.0
    for keep, probability in zip(*patterns, strict=True):
        latents = (rows * keep[index]) @ np.asarray(solved.encoder)
        reconstruction += probability * ((latents @ solved.decoder - rows) ** 2).sum()
        supervised += probability * ((latents @ solved.classifier - targets) ** 2).sum()
    np.testing.assert_allclose(solved.reconstruction_loss, reconstruction, rtol=1e-10)
    np.testing.assert_allclose(solved.supervised_loss, supervised, rtol=1e-10)


def test_gaussian_noise_shrinks_the_decoder_and_nothing_else(moments):
    spectrum = eigendecompose(moments)
    solved = solve_denoising(moments, gaussian(0.8, SHAPE), 5)
    s2 = np.asarray(spectrum.values[:5])
    basis = np.asarray(spectrum.vectors[:, :5])
    shrink = s2 / (s2 + 90 * 0.64)
    np.testing.assert_allclose(
        solved.encoder @ solved.decoder, basis @ np.diag(shrink) @ basis.T, atol=1e-10
    )
    np.testing.assert_allclose(solved.values, s2 * shrink, rtol=1e-10)


def test_the_loss_falls_with_rank_and_all_ranks_nest(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    losses = [float(solve_denoising(moments, mask, k).loss) for k in (1, 2, 5, 16)]
    assert np.all(np.diff(losses) <= 1e-9)
    encoders = denoising_encoders(moments, mask)
    np.testing.assert_array_equal(
        solve_denoising(moments, mask, 4).encoder, encoders.vectors[:, :4]
    )


def test_identity_denoising_is_joint_without_supervision(moments):
    ours = solve_denoising(moments, identity(SHAPE), 4)
    np.testing.assert_allclose(
        ours.reconstruction_loss, solve_joint(moments, 4, 1e9).reconstruction_loss, rtol=1e-6
    )
    tail = float(eigendecompose(moments).values[4:].sum())
    np.testing.assert_allclose(ours.reconstruction_loss, tail, rtol=1e-9)


def test_latents_are_the_encoder_on_whitened_data(data, moments):
    spectrum = eigendecompose(moments)
    root = np.asarray(spectrum.vectors) / np.sqrt(np.asarray(spectrum.values))
    basis = data[0] @ root
    for encoders in (
        denoising_encoders(moments, patch_mask(0.5, 2, SHAPE)),
        joint_encoders(moments, 1.0),
    ):
        np.testing.assert_allclose(
            basis @ np.asarray(encoders.latents), data[0] @ np.asarray(encoders.vectors), atol=1e-9
        )


def test_solutions_pass_through_jit_with_traced_weights_and_ratios(moments):
    mask = patch_mask(0.5, 2, SHAPE)
    jitted = jax.jit(lambda m, w: solve_joint(m, 3, w))(moments, 0.7)
    np.testing.assert_allclose(jitted.loss, solve_joint(moments, 3, 0.7).loss, rtol=1e-12)
    jitted = jax.jit(lambda m, r: solve_denoising(m, patch_mask(r, 2, SHAPE), 3))(moments, 0.5)
    np.testing.assert_allclose(jitted.loss, solve_denoising(moments, mask, 3).loss, rtol=1e-12)


def test_rank_deficient_data_leave_zero_columns(image_like):
    images, labels = image_like(6, SHAPE, CLASSES, seed=4)
    moments = reference.moments_of(images, labels, CLASSES)
    rows, targets = reference.centred_rows(images), reference.one_hot(labels, CLASSES)
    solved = solve_joint(moments, 9, 1.0)
    assert np.all(np.asarray(solved.encoder[:, 5:]) == 0)
    rec, sup = joint_losses(rows, targets, *parts(solved))
    np.testing.assert_allclose((rec, solved.reconstruction_loss), 0, atol=1e-9)
    np.testing.assert_allclose(solved.supervised_loss, sup, rtol=1e-9)
    np.testing.assert_allclose(solved.supervised_loss, (targets.sum(0) ** 2).sum() / 6, rtol=1e-9)


def test_directions_without_variance_come_last_even_where_no_direction_is_wanted(image_like):
    # Without reconstruction, all but C - 1 of the directions that vary lower no loss either.
    images, labels = image_like(9, SHAPE, CLASSES, seed=4)
    for encoders in (
        joint_encoders(reference.moments_of(images, labels, CLASSES), 0.0),
        denoising_encoders(
            reference.moments_of(images, labels, CLASSES), identity(SHAPE), supervision_weight=1e9
        ),
    ):
        latents = reference.centred_rows(images) @ np.asarray(encoders.vectors)
        np.testing.assert_allclose(latents.T @ latents, np.diag(np.arange(16) < 8), atol=1e-7)


def test_tolerance_decides_what_counts_as_variance(moments):
    spectrum = eigendecompose(moments)
    cut = float((spectrum.values[5] + spectrum.values[6]) / 2 / spectrum.values[0])
    for encoders in (
        joint_encoders(moments, 1.0, tolerance=cut),
        denoising_encoders(moments, identity(SHAPE), tolerance=cut),
    ):
        live = np.abs(np.asarray(encoders.vectors)).max(0) > 0
        np.testing.assert_array_equal(live, np.arange(16) < 6)
    solved = solve_joint(moments, 16, 1.0, tolerance=cut)
    left = float(spectrum.values[6:].sum())
    np.testing.assert_allclose(solved.reconstruction_loss, left, rtol=1e-8)


def test_float32_is_close_to_float64(moments):
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, moments)
    for solve in (
        lambda m: solve_joint(m, 4, 1.0),
        lambda m: solve_denoising(m, patch_mask(0.5, 2, SHAPE), 4, 1.0),
    ):
        ours, exact = solve(single), solve(moments)
        assert {leaf.dtype for leaf in jax.tree.leaves(ours[:4])} == {np.dtype(np.float32)}
        np.testing.assert_allclose(ours.loss, exact.loss, rtol=1e-5)
        np.testing.assert_allclose(ours.values, exact.values, rtol=1e-4)
        scale = float(jnp.abs(exact.encoder @ exact.decoder).max())
        np.testing.assert_allclose(
            ours.encoder @ ours.decoder, exact.encoder @ exact.decoder, atol=1e-3 * scale
        )


@pytest.mark.parametrize("rank", [0, -1, 17])
def test_rank_out_of_range_is_refused(moments, rank):
    message = rf"rank must lie in 1 .. 16 \(H W C\), got {rank}"
    with pytest.raises(ValueError, match=message):
        solve_joint(moments, rank, 1.0)
    with pytest.raises(ValueError, match=message):
        solve_denoising(moments, identity(SHAPE), rank)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_must_be_finite_and_not_negative(moments, weight):
    with pytest.raises(
        ValueError, match=f"reconstruction_weight must be finite and >= 0, got {weight}"
    ):
        solve_joint(moments, 2, weight)
    with pytest.raises(
        ValueError, match=f"supervision_weight must be finite and >= 0, got {weight}"
    ):
        solve_denoising(moments, identity(SHAPE), 2, weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, r"1 image\(s\) have no spectrum; at least 2"),
        ({"scatter": 0.0}, "all 90 images are the same: there is no variance to explain"),
        ({"scatter": np.nan}, "the scatter matrix holds NaN or infinite entries"),
    ],
)
def test_unusable_moments_are_refused(moments, change, message):
    bad = moments._replace(
        **{k: jnp.full_like(getattr(moments, k), value) for k, value in change.items()}
    )
    for call in (
        lambda: solve_joint(bad, 2, 1.0),
        lambda: solve_denoising(bad, identity(SHAPE), 2),
        lambda: eigendecompose(bad),
    ):
        with pytest.raises(ValueError, match=message):
            call()
