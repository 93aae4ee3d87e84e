import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import (
    Spectrum,
    eigendecompose,
    explained_variance,
    learned_fraction,
    learning_times,
    project,
    split_by_variance,
)

from . import reference

SHAPE = (3, 4, 2)


@pytest.fixture(scope="module")
def images(image_like):
    return image_like(100, SHAPE, 2, seed=6)


@pytest.fixture(scope="module")
def spectrum(images):
    return eigendecompose(reference.moments_of(*images, 2))


def test_components_match_numpy(images, spectrum):
    rows = reference.centred_rows(images[0])
    _, s, vt = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(spectrum.values, s**2, rtol=1e-9)
    np.testing.assert_allclose(np.abs(spectrum.vectors.T @ vt.T), np.eye(24), atol=1e-7)
    np.testing.assert_allclose(spectrum.mean, images[0].reshape(100, -1).mean(0), rtol=1e-12)


def test_rounding_leaves_no_negative_eigenvalue(images):
    spectrum = eigendecompose(reference.moments_of(images[0][:5], images[1][:5], 2))
    assert float(spectrum.values.min()) >= 0
    np.testing.assert_allclose(spectrum.values[4:], 0, atol=1e-9)


def test_explained_variance_is_the_cumulative_share(spectrum):
    values = np.asarray(spectrum.values)
    expected = [values[: k + 1].sum() / values.sum() for k in range(24)]
    np.testing.assert_allclose(explained_variance(spectrum), expected, rtol=1e-12)


def test_split_keeps_what_stays_strictly_below_the_threshold(spectrum):
    share = np.asarray(explained_variance(spectrum))
    # The authors' convention: components in ascending order, each with the mass of itself and of
    # all larger ones; the top are those whose mass is strictly below the threshold.
    values = np.asarray(spectrum.values)[::-1]
    mass = values[::-1].cumsum()[::-1] / values.sum()
    for threshold in [0.0, 0.3, 0.5, 0.9, 0.99, *share, *(share - 1e-9), *(share[:-1] + 1e-9)]:
        threshold = float(min(threshold, 1.0))
        top, bottom = split_by_variance(spectrum, threshold)
        assert top.shape == (24, (share < threshold).sum())
        assert bottom.shape == (24, 24 - top.shape[1])
        if not np.any(np.abs(mass - threshold) < 1e-12):
            assert top.shape[1] == (mass < threshold).sum()
        np.testing.assert_array_equal(jnp.concatenate([top, bottom], 1), spectrum.vectors)
    # A component whose own mass reaches the threshold exactly stays in the bottom.
    assert split_by_variance(spectrum, float(share[4]))[0].shape[1] == 4


def test_thresholds_0_and_1(spectrum):
    assert split_by_variance(spectrum, 0.0)[0].shape == (24, 0)
    # The last component completes the mass to 1, which is not below 1.
    assert split_by_variance(spectrum, 1)[0].shape[1] <= 23
    assert split_by_variance(spectrum, 1)[0].shape[1] >= 22


def test_the_order_of_summation_decides_nothing():
    draw = np.random.default_rng(0)
    for _ in range(20):
        values = np.sort(draw.random(200))[::-1].copy()
        spectrum = Spectrum(jnp.asarray(values), jnp.eye(200), jnp.zeros(200))
        # Backwards, and so with another rounding.
        shares = 1 - np.cumsum(values[::-1])[::-1][1:] / values.sum()
        assert split_by_variance(spectrum, 1.0)[0].shape[1] == 199
        assert split_by_variance(spectrum, float(shares[100]))[0].shape[1] == 100


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.9, 1.0])
def test_top_and_bottom_add_up_to_the_image(images, spectrum, threshold):
    top, bottom = split_by_variance(spectrum, threshold)
    np.testing.assert_allclose(top @ top.T + bottom @ bottom.T, np.eye(24), atol=1e-12)
    drawn = jnp.asarray(images[0][:7])
    upper, lower = (project(drawn, basis, spectrum.mean) for basis in (top, bottom))
    assert upper.shape == drawn.shape
    mean = spectrum.mean.reshape(1, *SHAPE)
    np.testing.assert_allclose(upper + lower - mean, drawn, atol=1e-11)
    np.testing.assert_allclose(project(upper, top, spectrum.mean), upper, atol=1e-11)
    np.testing.assert_allclose(
        project(upper, bottom, spectrum.mean), jnp.broadcast_to(mean, upper.shape), atol=1e-11
    )


def test_projected_variance_is_that_of_the_kept_components(images, spectrum):
    top, _ = split_by_variance(spectrum, 0.8)
    kept = project(jnp.asarray(images[0]), top, spectrum.mean)
    energy = (reference.centred_rows(kept) ** 2).sum()
    np.testing.assert_allclose(energy, spectrum.values[: top.shape[1]].sum(), rtol=1e-10)


def test_project_accepts_rows_and_arrays_of_numpy(images, spectrum):
    top, _ = split_by_variance(spectrum, 0.8)
    flat = images[0][:5].reshape(5, -1)
    rows = project(flat, top, spectrum.mean)
    assert rows.shape == flat.shape
    np.testing.assert_allclose(
        rows.reshape(5, *SHAPE), project(images[0][:5], top, spectrum.mean), atol=1e-13
    )


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_out_of_range_is_refused(spectrum, threshold):
    with pytest.raises(ValueError, match=rf"threshold must lie in \[0, 1\], got {threshold}"):
        split_by_variance(spectrum, threshold)


def test_images_of_another_size_are_refused(spectrum):
    message = r"images of shape \(5,\) have 5 scalars, the basis has 24"
    with pytest.raises(ValueError, match=message):
        project(jnp.ones((2, 5)), spectrum.vectors, spectrum.mean)


def test_learning_follows_gradient_flow(images, spectrum):
    # Euler steps of da/dt = 2 a (1 - a) s^2 with the same start.
    rate = np.asarray(spectrum.values)
    end, steps = 3.0 / rate[0], 20_000
    a = np.full(24, 0.01)
    for _ in range(steps):
        a += end / steps * 2 * a * (1 - a) * rate
    np.testing.assert_allclose(learned_fraction(spectrum, end, initial=0.01), a, rtol=2e-3)


def test_learning_times_invert_learned_fraction(spectrum):
    starts = jnp.linspace(0.001, 0.2, 24)
    times = learning_times(spectrum, initial=starts, fraction=0.9)
    for mode in (0, 5, 23):
        reached = learned_fraction(spectrum, times[mode], initial=starts)[mode]
        np.testing.assert_allclose(reached, 0.9, rtol=1e-9)
    assert np.all(np.diff(learning_times(spectrum)) > 0)
    np.testing.assert_allclose(
        learning_times(spectrum) * spectrum.values, np.log(999) / 2, rtol=1e-9
    )


def test_modes_without_variance_are_never_learned(images):
    pixels = images[0].copy()
    pixels[:, 0, 0] = 0
    spectrum = eigendecompose(reference.moments_of(pixels, images[1], 2))._replace(
        values=jnp.array([2.0, 0.0] + [0.0] * 22)
    )
    times = learning_times(spectrum)
    assert np.isfinite(times[0])
    assert np.all(np.isposinf(times[1:]))
    np.testing.assert_allclose(learned_fraction(spectrum, 1e9)[1:], 1e-3, rtol=1e-9)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, float("nan")])
def test_fractions_out_of_range_are_refused(spectrum, bad):
    for name in ("initial", "fraction"):
        with pytest.raises(ValueError, match=rf"{name} must lie in \(0, 1\), got {bad}"):
            learning_times(spectrum, **{name: bad})


def test_learning_runs_under_jit(spectrum):
    jitted = jax.jit(lambda s, t, a: learned_fraction(s, t, initial=a))(spectrum, 0.01, 0.1)
    np.testing.assert_allclose(jitted, learned_fraction(spectrum, 0.01, initial=0.1), rtol=1e-12)
