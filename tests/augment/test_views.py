import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from recon_jax import augment
from recon_jax.augment.strength import strength_policy

SHAPES = {"colour": (9, 12, 3), "grey": (8, 8, 1)}
FAMILIES = sorted(SHAPES)
POLICIES = {family: augment.view_policy(shape) for family, shape in SHAPES.items()}


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def smooth(count, shape, seed=1):
    white = np.random.default_rng(seed).random((count, *shape))
    return jnp.asarray(np.clip(2 * scipy.ndimage.gaussian_filter(white, (0, 1, 1, 0)) - 0.5, 0, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_strength_0_is_the_identity_and_more_changes_more(family):
    images, policy = smooth(24, SHAPES[family]), POLICIES[family]
    np.testing.assert_array_equal(policy(keys(24), images, 0.0), images)
    changes = [
        float(jnp.abs(policy(keys(24), images, strength) - images).mean())
        for strength in (0.02, 0.1, 0.3, 0.6, 1.0)
    ]
    assert 0 < changes[0] < 0.05
    assert changes == sorted(changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_strengths_of_single_images_are_theirs(family):
    images, policy = smooth(24, SHAPES[family]), POLICIES[family]
    strengths = np.tile([0.0, 1.0, 0.3], 8)
    found = policy(keys(24), images, strengths)
    np.testing.assert_array_equal(found[::3], images[::3])
    for first, strength in ((1, 1.0), (2, 0.3)):
        alone = augment.at_strength(policy, strength)(keys(24), images)
        np.testing.assert_allclose(found[first::3], alone[first::3], atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_views_depend_on_key_and_image_alone(family):
    images, policy = smooth(24, SHAPES[family]), POLICIES[family]
    together = policy(keys(24), images, 0.7)
    order = np.random.default_rng(0).permutation(24)
    shuffled = policy(keys(24)[order], images[order], 0.7)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-12)
    same = policy(keys(24), jnp.tile(images[:1], (24, 1, 1, 1)), 0.7)
    assert (jnp.abs(same[1:] - same[:1]).max((1, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_images_get_the_same_views_as_float64(family):
    images, policy = smooth(24, SHAPES[family]), POLICIES[family]
    single = policy(keys(24), images.astype(jnp.float32), 0.7)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, policy(keys(24), images, 0.7), atol=1e-5)
    short = jax.eval_shape(policy, keys(24), images.astype(jnp.bfloat16), 0.7)
    assert short.dtype == jnp.bfloat16


def test_one_compilation_serves_all_strengths():
    traced = []

    def apply(images, strengths, draws):
        traced.append(strengths)
        return images + strengths[:, None, None, None] * draws[:, None, None, None]

    policy = strength_policy((2, 2, 1), jax.random.uniform, apply)
    images = jnp.zeros((3, 2, 2, 1))
    full = policy(keys(3), images, 1.0)
    assert full[:, 0, 0, 0].tolist() == [float(jax.random.uniform(key, (), jnp.float64))
                                         for key in keys(3)]  # fmt: skip
    for strength in (0.5, np.float32(0.25), jnp.asarray([0.1, 0.2, 0.3])):
        found = policy(keys(3), images, strength)
        expected = full * jnp.broadcast_to(jnp.asarray(strength), 3)[:, None, None, None]
        np.testing.assert_allclose(found, expected, atol=1e-7)
    assert len(traced) == 1
    step = jax.jit(policy)
    assert not jnp.array_equal(step(keys(3), images, 0.2), step(keys(3), images, 0.8))
    assert step._cache_size() == 1


def test_draws_of_float32_are_kept_for_float64_images():
    policy = strength_policy(
        (2, 2, 1), lambda key: jax.random.uniform(key, (), jnp.float32), lambda x, a, u: x + u[0]
    )
    found = policy(keys(1), jnp.zeros((1, 2, 2, 1)), 1.0)
    assert found.dtype == jnp.float64
    assert float(found[0, 0, 0, 0]) == float(jax.random.uniform(keys(1)[0], (), jnp.float32))


def test_the_family_follows_from_the_channels():
    for family, shape in SHAPES.items():
        images = smooth(24, shape)
        chosen = POLICIES[family](keys(24), images, 1.0)
        named = jax.jit(augment.VIEW_FAMILIES[family](shape))
        np.testing.assert_allclose(chosen, named(keys(24), images, 1.0), atol=1e-5)


def test_views_are_a_policy_by_name():
    images = smooth(24, (8, 8, 1))
    policy = jax.jit(augment.make_policy("views", (8, 8, 1), strength=0.4))
    np.testing.assert_allclose(
        policy(keys(24), images), POLICIES["grey"](keys(24), images, 0.4), atol=1e-5
    )
    quiet = jax.jit(augment.make_policy("views", (8, 8, 1), brightness=0.0, noise=0.0))
    np.testing.assert_allclose(quiet(keys(24), 0 * images), 0, atol=1e-12)


GREY = POLICIES["grey"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: GREY(keys(2), x, -0.1), r"strength=-0.1 must lie in \[0, 1\]: 0 leaves images"),
        (lambda x: GREY(keys(2), x, np.asarray([0.5, 1.5])), "strength=1.5 must lie in"),
        (lambda x: GREY(keys(2), x, float("nan")), "strength=nan must lie in"),
        (lambda x: augment.at_strength(GREY, 2), "strength=2 must lie in"),
        (lambda x: augment.make_policy("views", (8, 8, 1), strength=7), "strength=7 must lie in"),
        (lambda x: GREY(keys(2), x, np.zeros(3)), r"shape \(3,\); one number or one for each of"),
        (lambda x: GREY(keys(2), x[:, :7], 0.5), r"\(2, 7, 8, 1\); the policy was made for \(N, 8"),
        (lambda x: GREY(keys(2), x[0], 0.5), r"images have shape \(8, 8, 1\)"),
        (
            lambda x: GREY(keys(2), (255 * x).astype(jnp.uint8), 0.5),
            "uint8, floats are needed: div",
        ),
        (lambda x: GREY(keys(3), x, 0.5), r"2 images need 2 keys, got keys of shape \(3,\)"),
        (lambda x: augment.view_policy((8, 8, 1), "color"), "'color'; choose one of auto, colour"),
        (
            lambda x: augment.view_policy((8, 8, 3), rotation=3.0, jiter=1.0),
            "unknown range jiter, rotation of colour views; choose from least_area, ratio, flip",
        ),
        (lambda x: augment.view_policy((1, 8, 3)), r"image_shape=\(1, 8, 3\) must be \(height"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 8, 8, 1)))
