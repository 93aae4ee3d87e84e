import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import augment

SHAPE, COUNT = (5, 4, 2), 10_000


def texture(*args, **options):
    policy = augment.texture(*args, **options)
    return jax.jit(policy)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def fields(correlation, strength=0.02, count=COUNT):
    """The field alone, (N, H, W, C): grey images whose clipping is 25 standard deviations away."""
    policy = texture(SHAPE, strength, correlation, brightness=0.0, contrast=1.0)
    grey = jnp.full((count, *SHAPE), 0.5, jnp.float32)
    return (np.asarray(policy(keys(count), grey), np.float64) - 0.5) / strength


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.85])
def test_moments_of_the_field_are_those_of_the_formula(correlation):
    found = fields(correlation)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])  # one field for all channels
    rows = found[..., 0].reshape(COUNT, -1)
    y, x = (part.reshape(-1) for part in np.mgrid[: SHAPE[0], : SHAPE[1]])
    distance = np.abs(y[:, None] - y[None]) + np.abs(x[:, None] - x[None])
    expected = float(correlation) ** distance  # 1 at distance 0, also without correlation
    np.testing.assert_allclose(rows.mean(0), 0, atol=5 / np.sqrt(COUNT))
    # A covariance of normal numbers has variance (1 + r^2) / N.
    np.testing.assert_allclose(rows.T @ rows / COUNT, expected, atol=5 * np.sqrt(2 / COUNT))
    # Normal, and not only in the first two moments.
    assert np.mean(rows**4) == pytest.approx(3, abs=0.1)


def test_the_field_is_added_to_the_image_of_less_contrast():
    images = jax.random.uniform(jax.random.key(1), (3, *SHAPE), jnp.float32)
    found = texture(SHAPE, 0.02, 0.85, brightness=0.2, contrast=0.5)(keys(3), images)
    expected = 0.2 + 0.5 * np.asarray(images) + 0.02 * fields(0.85, count=3)
    assert found.dtype == images.dtype
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_strength_nothing_is_random():
    images = jax.random.uniform(jax.random.key(1), (3, *SHAPE), jnp.float32)
    for seed in (0, 1):
        found = texture(SHAPE, 0.0)(keys(3, seed), images)
        np.testing.assert_allclose(found, 0.3 + 0.4 * images, atol=1e-6)


def test_an_image_depends_on_its_own_key_alone():
    images = jax.random.uniform(jax.random.key(1), (6, *SHAPE))
    policy = texture(SHAPE)
    together = policy(keys(6), images)
    np.testing.assert_array_equal(policy(keys(6), images), together)
    for i in range(6):
        alone = policy(keys(6)[i : i + 1], images[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-12)
    same = policy(keys(6), jnp.tile(images[:1], (6, 1, 1, 1)))
    assert np.abs(same[0] - same[1]).max() > 0.05


def test_pixels_stay_in_their_range():
    images = jnp.asarray(np.stack([np.zeros(SHAPE), np.ones(SHAPE)]), jnp.float32)
    found = texture(SHAPE, 5.0)(keys(2), images)
    assert (found.min(), found.max()) == (0, 1)


def test_edges_of_what_is_allowed():
    images = jnp.asarray(np.stack([np.zeros(SHAPE), np.ones(SHAPE)]), jnp.float32)
    plain = texture(SHAPE, 0.0, brightness=0.0, contrast=1.0)(keys(2), images)
    np.testing.assert_array_equal(plain, images)
    augment.texture(SHAPE, 0.0, 0.999, brightness=0.6, contrast=0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -0.1}, "strength=-0.1 must be at least 0; 0 draws no texture"),
        ({"strength": float("nan")}, "strength=nan must be at least 0"),
        ({"correlation": 1.0}, r"correlation=1.0 must lie in \[0, 1\); 0 is white noise"),
        ({"correlation": -0.2}, r"correlation=-0.2 must lie in \[0, 1\)"),
        ({"brightness": -0.1}, r"brightness=-0.1 and contrast=0.4 must keep b \+ c x in \[0, 1\]"),
        ({"brightness": 1.1}, "brightness=1.1 and contrast=0.4 must keep"),
        ({"brightness": 0.7}, r"brightness=0.7 and contrast=0.4 must .* c in \(0, 1 - b\]"),
        ({"contrast": 0.0}, "brightness=0.3 and contrast=0.0 must keep"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        augment.texture(SHAPE, **options)
