import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.augment.latent_views import latent_views, random_network
from recon_jax.data.latent_model import latent_source

POLICY = jax.jit(latent_views())


@pytest.fixture(scope="module")
def latents():
    return jnp.asarray(latent_source(num_images=16).read(np.arange(16))[0])


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 16)


def network(rows, layers):
    for kernel, bias in layers[:-1]:
        rows = np.tanh(rows @ kernel + bias[None])
    return rows @ layers[-1][0] + layers[-1][1][None]


def test_strength_0_is_the_plain_observation(latents, keys):
    found = POLICY(keys, latents, 0.0)
    assert found.shape == (16, 1, 40, 1)
    assert found.dtype == jnp.float32
    rows = np.asarray(latents, np.float64)[:, 0, :, 0]
    expected = network(rows, random_network((8, 64, 64, 40), 0))
    assert_allclose(found[:, 0, :, 0], expected, atol=1e-5)
    assert_array_equal(found, POLICY(keys[::-1], latents, 0.0))


def test_only_augmented_latents_are_jittered_by_strength_times_a_normal(keys):
    # Affine and of full rank, the network can be undone.
    policy = latent_views(content=2, augmented=3, observed=5, hidden=(), seed=3)
    ((kernel, bias),) = random_network((5, 5), 3)
    latents = np.random.default_rng(0).standard_normal((4000, 1, 5, 1))
    strength = np.where(np.arange(4000) < 2000, 0.2, 0.8)
    seen = policy(jax.random.split(keys[0], 4000), jnp.asarray(latents), strength)
    assert seen.dtype == jnp.float64
    undone = (np.asarray(seen)[:, 0, :, 0] - bias[None]) @ np.linalg.inv(kernel.astype(float))
    jitter = (undone - latents[:, 0, :, 0]) / strength[:, None]
    assert_allclose(jitter[:, :2], 0, atol=1e-10)
    for half in (jitter[:2000, 2:], jitter[2000:, 2:]):
        assert_allclose(half.mean(0), 0, atol=0.08)
        assert_allclose(np.cov(half.T), np.eye(3), atol=0.1)


def test_each_datum_has_a_key_of_its_own(latents, keys):
    whole = POLICY(keys, latents, 0.5)
    assert_allclose(latent_views()(keys[5:7], latents[5:7], 0.5), whole[5:7], atol=1e-5)
    assert float(jnp.abs(POLICY(keys[::-1], latents, 0.5) - whole).min(1).max()) > 1e-3


def test_observations_are_smooth_and_bend(latents):
    observe = lambda z: latent_views()(jax.random.split(jax.random.key(0), 1), z, 0.0)  # noqa: E731
    z = jnp.asarray(latents[:1], jnp.float64)
    step = jnp.asarray(np.random.default_rng(1).standard_normal(z.shape))
    value, slope = jax.jvp(observe, (z,), (step,))
    rest = [
        float(jnp.abs(observe(z + size * step) - value - size * slope).max())
        for size in (1e-2, 1e-3)
    ]
    # The remainder is of second order, and not zero.
    assert 50 < rest[0] / rest[1] < 200
    assert rest[0] > 1e-5


def test_observations_are_of_unit_size_and_tell_the_class():
    images, labels = latent_source(num_images=600).read(np.arange(600))
    keys = jax.random.split(jax.random.key(0), 600)
    x = np.asarray(latent_views()(keys, jnp.asarray(images), 0.0))[:, 0, :, 0]
    assert 0.2 < x.std(0).mean() < 2
    rows = np.concatenate([x, np.ones((600, 1))], 1)
    fit = np.linalg.lstsq(rows[:400], np.eye(4)[labels[:400]], rcond=None)[0]
    assert np.mean((rows[400:] @ fit).argmax(1) == labels[400:]) > 0.5


def test_networks_follow_from_the_seed():
    first, again, other = (random_network((3, 4, 2), seed) for seed in (1, 1, 2))
    for (kernel, bias), same, different in zip(first, again, other, strict=True):
        assert_array_equal(kernel, same[0])
        assert_array_equal(bias, same[1])
        assert np.abs(kernel - different[0]).min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content": 0}, "content=0 must be an integer of at least 1"),
        ({"augmented": -1}, "augmented=-1 must be an integer of at least 1"),
        ({"observed": 0}, "observed=0 must be an integer of at least 1"),
        ({"hidden": (8, 0)}, "each of hidden=0 must be an integer of at least 1"),
        ({"seed": -1}, "seed=-1 must be an integer of at least 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        latent_views(**options)


def test_bad_calls(latents, keys):
    with pytest.raises(ValueError, match=r"strength=1\.5 must lie in"):
        latent_views()(keys, latents, 1.5)
    with pytest.raises(ValueError, match="the policy was made for"):
        latent_views(content=3)(keys, latents, 0.5)
    with pytest.raises(ValueError, match="16 images need 16 keys"):
        latent_views()(keys[:3], latents, 0.5)
