import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import (
    alignment_curve,
    correlated_gaussian,
    corruption_impact,
    denoising_encoders,
    eigendecompose,
    gaussian,
    grayscale,
    identity,
    label_r2,
    patch_mask,
    patch_subset,
    pixel_mask,
    solve_denoising,
)
from recon_jax.spectral.alignment import relative_change

from . import cases, reference

CLASSES = 4


@pytest.fixture(scope="module")
def sets(image_like):
    """Images, labels and moments of each shape."""
    made = {}
    for shape in (cases.GREY, cases.COLOUR):
        images, labels = image_like(150, shape, CLASSES, seed=2)
        made[shape] = (images, labels, reference.moments_of(images, labels, CLASSES))
    return made


def numpy_curve(images, labels, moments_of):
    rows = reference.centred_rows(images)
    gain, second = moments_of(rows.T @ rows, len(rows))
    _, vectors = reference.encoders_on_range(gain, second, rows.T @ rows)
    return reference.alignment(rows, labels, labels.max() + 1, vectors)


def assert_is_a_curve(curve, end=1.0):
    assert np.all(np.diff(curve) >= -1e-12)
    assert np.all((np.asarray(curve) >= 0) & (np.asarray(curve) <= 1 + 1e-12))
    np.testing.assert_allclose(curve[-1], end, rtol=1e-9)


@pytest.mark.parametrize(("name", "shape"), cases.ALL)
def test_alignment_matches_the_authors_way(sets, name, shape):
    images, labels, moments = sets[shape]
    corruption, moments_of = cases.build(name, shape)
    expected = numpy_curve(images, labels, moments_of)
    curve = np.asarray(alignment_curve(moments, corruption))
    determined = len(curve) // cases.NOISY_LOSSY.get(name, 1)
    if name in cases.LOSSY:
        determined = np.linalg.matrix_rank(moments_of(np.eye(len(curve)), 1)[0])
        assert 0.1 < expected[determined - 1] < 0.98
    np.testing.assert_allclose(curve[:determined], expected[:determined], rtol=1e-8)
    # Where directions were lost, noise or not, further encoders explain nothing.
    np.testing.assert_allclose(curve[determined:], curve[determined - 1], rtol=1e-12)
    assert_is_a_curve(curve, end=expected[determined - 1])
    lossy = name in cases.LOSSY or name in cases.NOISY_LOSSY
    assert lossy == (curve[-1] < 0.999)


def test_classes_are_unbalanced_and_corruptions_matter(sets):
    images, labels, moments = sets[cases.GREY]
    assert moments.class_counts.max() > 2 * moments.class_counts.min()
    clean = alignment_curve(moments)
    masked = alignment_curve(moments, patch_mask(0.75, 2, cases.GREY))
    assert float(jnp.abs(masked - clean).max()) > 0.01
    rows = reference.centred_rows(images)
    expected = reference.alignment(rows, labels, CLASSES, np.linalg.svd(rows)[2].T)
    np.testing.assert_allclose(clean, expected, rtol=1e-10)


def test_plain_curve_is_the_identity_corruption_and_gaussian_noise(sets):
    _, _, moments = sets[cases.COLOUR]
    clean = alignment_curve(moments)
    assert_is_a_curve(clean)
    for corruption in (identity(cases.COLOUR), gaussian(0.01, cases.COLOUR)):
        np.testing.assert_allclose(alignment_curve(moments, corruption), clean, rtol=1e-10)


def test_curve_counts_the_label_energy_the_heads_explain(image_like):
    images, labels = image_like(60, cases.GREY, 3, seed=5)
    labels = np.arange(60) % 3  # balanced: the weights of the classes are equal
    moments = reference.moments_of(images, labels, 3)
    mask = patch_mask(0.5, 2, cases.GREY)
    curve = np.asarray(alignment_curve(moments, mask))
    rows, targets = reference.centred_rows(images), reference.one_hot(labels, 3)
    encoders = np.asarray(denoising_encoders(moments, mask).vectors)
    losses = []
    for rank in range(1, 17):
        latents = rows @ encoders[:, :rank]
        fitted = latents @ np.linalg.lstsq(latents, targets)[0]
        losses.append(((fitted - targets) ** 2).sum())
    losses = np.array(losses)
    np.testing.assert_allclose(curve**2, (60 - losses) / (60 - losses[-1]), atol=1e-9)


# Rank-deficient data -----------------------------------------------------------------------------


def few_images(images, labels):
    return images[:9], np.arange(9) % CLASSES


def constant_pixels(images, labels):
    images = images.copy()
    images[:, 0, 1] = 0.0
    images[:, 3, 2:] = 7.25
    return images, labels


def duplicated_pixels(images, labels):
    images = images.copy()
    images[:, 1, 1] = images[:, 0, 0]
    images[:, 3, 3] = -images[:, 2, 0]
    return images, labels


DEGENERATE = {"N < D": few_images, "constant": constant_pixels, "duplicated": duplicated_pixels}
ROBUST = [
    "identity",
    "gaussian",
    "correlated_gaussian",
    "pixel_mask",
    "patch_mask",
    "subset_1_of_4",
    "blur_noise",
    "mask_then_gaussian",
    "linear",
]


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("spoil", DEGENERATE, ids=str)
def test_rank_deficient_data_match_the_range_restricted_reference(sets, spoil, name):
    images, labels = DEGENERATE[spoil](*sets[cases.GREY][:2])
    moments = reference.moments_of(images, labels, CLASSES)
    corruption, moments_of = cases.build(name, cases.GREY)
    expected = numpy_curve(images, labels, moments_of)
    curve = np.asarray(alignment_curve(moments, corruption))
    rank = np.linalg.matrix_rank(reference.centred_rows(images))
    assert rank < 16
    np.testing.assert_allclose(curve[:rank], expected[:rank], rtol=1e-6)
    np.testing.assert_allclose(curve[rank - 1 :], 1, rtol=1e-9)
    assert_is_a_curve(curve)
    clean = np.asarray(alignment_curve(moments))
    rows = reference.centred_rows(images)
    plain = reference.alignment(rows, labels, CLASSES, np.linalg.svd(rows)[2].T)
    np.testing.assert_allclose(clean[:rank], plain[:rank], rtol=1e-8)
    np.testing.assert_allclose(clean[rank - 1 :], 1, rtol=1e-9)


def test_tolerance_cuts_directions(sets):
    _, _, moments = sets[cases.GREY]
    values = eigendecompose(moments).values
    cut = float((values[7] + values[8]) / 2 / values[0])
    curve = alignment_curve(moments, tolerance=cut)
    assert float(curve[6]) < 1
    np.testing.assert_allclose(curve[7:], 1, rtol=1e-12)
    curve = alignment_curve(moments, pixel_mask(0.0, cases.GREY), tolerance=cut)
    assert float(curve[6]) < 1
    np.testing.assert_allclose(curve[7:], 1, rtol=1e-12)


# Sharing, jit and precision ----------------------------------------------------------------------


def test_spectrum_and_encoders_at_hand_change_nothing(sets):
    _, _, moments = sets[cases.GREY]
    mask = patch_mask(0.5, 2, cases.GREY)
    spectrum = eigendecompose(moments)
    encoders = denoising_encoders(moments, mask)
    expected = alignment_curve(moments, mask)
    for shared in ({"spectrum": spectrum}, {"encoders": encoders}):
        np.testing.assert_array_equal(alignment_curve(moments, mask, **shared), expected)


@pytest.mark.parametrize("make", [None, pixel_mask, gaussian, grayscale])
def test_jit_equals_eager(sets, make):
    shape = cases.COLOUR
    _, _, moments = sets[shape]
    corruption = (
        {None: None, grayscale: grayscale(shape)}.get(make)
        if make in (None, grayscale)
        else make(0.4, shape)
    )
    eager = alignment_curve(moments, corruption)
    jitted = jax.jit(lambda m: alignment_curve(m, corruption))(moments)
    np.testing.assert_allclose(jitted, eager, rtol=1e-10)


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_many_ratios_in_one_compiled_function(sets, how):
    _, _, moments = sets[cases.GREY]
    ratios = jnp.array([0.0, 0.1, 0.5, 0.9])

    def one(ratio):
        return alignment_curve(moments, patch_mask(ratio, 2, cases.GREY))

    curves = jax.jit(lambda r: jax.lax.map(one, r) if how == "map" else jax.vmap(one)(r))(ratios)
    for ratio, curve in zip(ratios, curves, strict=True):
        np.testing.assert_allclose(curve, one(float(ratio)), rtol=1e-9)


def test_float32_is_close_to_float64(sets):
    # Of variance between 1 and 1e-4 of the largest float32 keeps enough.
    _, _, moments = sets[cases.GREY]
    values = eigendecompose(moments).values
    assert float(values[-1] / values[0]) > 1e-4
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, moments)
    for corruption in (None, patch_mask(0.6, 2, cases.GREY), patch_subset(0.5, 2, cases.GREY)):
        curve = alignment_curve(single, corruption)
        assert curve.dtype == jnp.float32
        np.testing.assert_allclose(curve, alignment_curve(moments, corruption), atol=2e-4)


def test_impact_is_the_relative_change(sets):
    _, _, moments = sets[cases.GREY]
    mask = patch_mask(0.75, 2, cases.GREY)
    clean, masked = alignment_curve(moments), alignment_curve(moments, mask)
    np.testing.assert_allclose(corruption_impact(moments, mask), masked / clean - 1, atol=1e-12)
    np.testing.assert_allclose(corruption_impact(moments, gaussian(2.0, cases.GREY)), 0, atol=1e-9)
    assert float(jnp.abs(corruption_impact(moments, mask)).max()) > 0.01
    change = relative_change(jnp.array([0.5, 0.5]), jnp.array([0.0, 0.25]))
    np.testing.assert_array_equal(change, [0, 1])


def test_one_class_is_refused(sets):
    images, _, _ = sets[cases.GREY]
    moments = reference.moments_of(images, np.ones(150, int), CLASSES)
    message = "only 1 of 4 classes have images; give labels of two classes or more"
    with pytest.raises(ValueError, match=message):
        alignment_curve(moments)
    with pytest.raises(ValueError, match=message):
        corruption_impact(moments, pixel_mask(0.5, cases.GREY))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, r"1 image\(s\) have no spectrum"),
        ({"scatter": 0.0}, "images are the same: there is no variance"),
        ({"scatter": np.inf}, "the scatter matrix holds NaN or infinite entries"),
    ],
)
def test_unusable_moments_are_refused(sets, change, message):
    _, _, moments = sets[cases.GREY]
    bad = moments._replace(
        **{k: jnp.full_like(getattr(moments, k), value) for k, value in change.items()}
    )
    with pytest.raises(ValueError, match=message):
        alignment_curve(bad)
    with pytest.raises(ValueError, match=message):
        alignment_curve(bad, pixel_mask(0.5, cases.GREY))


def test_one_nan_off_the_diagonal_is_seen(sets):
    _, _, moments = sets[cases.GREY]
    bad = moments._replace(scatter=moments.scatter.at[0, 1].set(jnp.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        alignment_curve(bad)


def test_infinite_noise_covariance_is_seen(sets):
    with pytest.raises(ValueError, match="symmetric and finite"):
        correlated_gaussian(np.diag(np.full(16, np.inf)), cases.GREY)


def test_supervised_loss_never_rises_with_rank(sets):
    _, _, moments = sets[cases.GREY]
    losses = [
        float(solve_denoising(moments, identity(cases.GREY), k).supervised_loss)
        for k in (1, 4, 8, 16)
    ]
    assert losses == sorted(losses, reverse=True)


def numpy_r2(images, labels, adjusted):
    """By least squares on the images themselves; classes weigh their sizes."""
    rows = reference.centred_rows(images)
    one_hot = np.eye(labels.max() + 1)[labels]
    centred = (one_hot - one_hot.mean(0)) * np.sqrt(one_hot.sum(0))
    residual = centred - rows @ np.linalg.lstsq(rows, centred)[0]
    unexplained = (residual**2).sum() / (centred**2).sum()
    if adjusted:
        unexplained *= (len(rows) - 1) / (len(rows) - 1 - np.linalg.matrix_rank(rows))
    return 1 - unexplained


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("shape", [cases.GREY, cases.COLOUR])
def test_label_r2_is_that_of_least_squares(sets, shape, adjusted):
    images, labels, moments = sets[shape]
    expected = numpy_r2(images, labels, adjusted)
    assert 0.1 < expected < 0.99
    np.testing.assert_allclose(label_r2(moments, adjusted=adjusted), expected, rtol=1e-9)
    np.testing.assert_allclose(
        jax.jit(lambda m: label_r2(m, adjusted=adjusted))(moments), expected, rtol=1e-9
    )


def test_label_r2_counts_the_rank_and_not_the_pixels(image_like):
    images, labels = image_like(90, (3, 3, 1), CLASSES, seed=5)
    images[:, 0, 0] = 7.0
    images[:, 1, 1] = 2 * images[:, 2, 2]
    moments = reference.moments_of(images, labels, CLASSES)
    expected = numpy_r2(images, labels, True)
    np.testing.assert_allclose(label_r2(moments), expected, rtol=1e-9)


def test_label_r2_of_unrelated_labels_is_zero_on_average():
    rng = np.random.default_rng(0)
    found, plain = [], []
    for _ in range(200):
        moments = reference.moments_of(
            rng.standard_normal((60, 3, 3, 1)), rng.integers(0, 3, 60), 3
        )
        found.append(label_r2(moments))
        plain.append(label_r2(moments, adjusted=False))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)
    assert np.mean(plain) > 0.1


def test_label_r2_is_undefined_without_images_to_spare(image_like):
    images, labels = image_like(9, (3, 3, 1), 2, seed=1)
    moments = reference.moments_of(images, labels, 2)
    assert np.isnan(label_r2(moments))
    np.testing.assert_allclose(label_r2(moments, adjusted=False), 1, rtol=1e-9)


def test_label_r2_needs_two_classes(image_like):
    images, _ = image_like(30, (3, 3, 1), 2, seed=1)
    with pytest.raises(ValueError, match="only 1 of 2 classes"):
        label_r2(reference.moments_of(images, np.zeros(30, int), 2))
