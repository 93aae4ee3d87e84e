import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from recon_jax import diffeo


def pairs(count=6, shape=(5, 4, 3), dtype=np.float64, seed=0):
    """Images and others at very different distances."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, *shape))
    scales = 10.0 ** np.arange(-3, count - 3)
    change = rng.standard_normal((count, *shape)) * scales.reshape(-1, *[1] * len(shape))
    return images.astype(dtype), (images + change).astype(dtype)


def norms(images):
    return np.linalg.norm(np.asarray(images, np.float64).reshape(len(images), -1), axis=1)


@pytest.mark.parametrize(("dtype", "accuracy"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_each_image_gets_noise_of_its_own_norm(dtype, accuracy):
    images, deformed = pairs(dtype=dtype)
    noise = diffeo.matched_noise(jax.random.key(0), images, deformed)
    assert noise.dtype == dtype
    np.testing.assert_allclose(norms(noise), norms(deformed - images), rtol=accuracy)


def test_signals_of_another_rank():
    images, deformed = pairs(4, (7,))
    noise = diffeo.matched_noise(jax.random.key(0), images, deformed)
    np.testing.assert_allclose(norms(noise), norms(deformed - images), rtol=1e-12)


def test_noise_is_uniform_on_its_sphere():
    # A coordinate of a uniform unit vector in D dimensions: (1 + u) / 2 ~ Beta((D - 1) / 2, same).
    shape = (2, 3, 1)
    images = np.zeros((3000, *shape))
    deformed = np.ones((3000, *shape))
    noise = diffeo.matched_noise(jax.random.key(1), images, deformed)
    units = np.asarray(noise).reshape(3000, 6) / np.sqrt(6)
    for column in units.T:
        assert scipy.stats.kstest((1 + column) / 2, "beta", (2.5, 2.5)).pvalue > 1e-3
    np.testing.assert_allclose(units.T @ units / 3000, np.eye(6) / 6, atol=0.02)


def test_what_was_not_changed_gets_no_noise():
    images, deformed = pairs()
    deformed[1] = images[1]
    noise = np.asarray(diffeo.matched_noise(jax.random.key(0), images, deformed))
    np.testing.assert_array_equal(noise[1], 0)
    assert (norms(noise) > 0).tolist() == [True, False, True, True, True, True]

    def energy(deformed):
        return jnp.square(diffeo.matched_noise(jax.random.key(0), images, deformed)).sum()

    slope = jax.grad(energy)(jnp.asarray(deformed))
    # ||noise||^2 = ||deformed - images||^2.
    np.testing.assert_allclose(slope, 2 * (deformed - images), rtol=1e-10)


def test_noise_of_the_first_images_does_not_depend_on_how_many_follow():
    images, deformed = pairs()
    key = jax.random.key(2)
    together = diffeo.matched_noise(key, images, deformed)
    assert len(np.unique(together)) == together.size
    some = diffeo.matched_noise(key, images[:3], deformed[:3])
    np.testing.assert_allclose(some, together[:3], rtol=1e-14)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(6))
    np.testing.assert_array_equal(diffeo.matched_noise(keys, images, deformed), together)


def test_random_linear_readouts_feel_deformations_and_noise_alike():
    images, deformed = pairs()
    noise = diffeo.matched_noise(jax.random.key(2), images, deformed)
    readouts = np.random.default_rng(0).standard_normal((60, 4000))
    by_deformation, by_noise = (
        np.mean((np.asarray(change).reshape(6, 60) @ readouts) ** 2, axis=1)
        for change in (deformed - images, noise)
    )
    # Means of 4,000 squares of normal numbers: 2.2 % each.
    np.testing.assert_allclose(by_deformation, by_noise, rtol=0.12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda images: diffeo.matched_noise(jax.random.key(0), images, images[:, :4]),
            r"one shape \(N, ...\), got \(6, 5, 4, 3\) and \(6, 4, 4, 3\)",
        ),
        (
            lambda images: diffeo.matched_noise(jax.random.key(0), images[0, 0, 0, 0], 0.5),
            r"one shape \(N, ...\), got \(\)",
        ),
        (
            lambda images: diffeo.matched_noise(
                jax.random.split(jax.random.key(0), 5), images, images
            ),
            r"6 images need one key or 6 keys, got keys of shape \(5,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(pairs()[0])
