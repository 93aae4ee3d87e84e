import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from recon_jax.models.pixel_sampling import (
    ancestral_sample,
    wavefront_rows,
    wavefront_sample,
    wavefront_steps,
)
from recon_jax.models.pixelcnn import PixelCNN

LEVELS = 7


def sample(key, params):
    """Rounded sigmoid of a normal number around a sine, which no parameter drives to an end."""
    noise = jax.random.normal(key, params.shape, params.dtype)
    value = jax.nn.sigmoid(2 * jnp.sin(params) + noise)
    return jnp.round(value * (LEVELS - 1)).astype(jnp.int32)


def build(horizon, shape, *, count=3, with_features=True, **options):
    """A head in float64, its parameters, features of so many images."""
    head = PixelCNN(shape[-1], horizon, 4, 1, 3, 3, dtype=jnp.float64, **options)
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.standard_normal((count, *shape[:2], 3))) if with_features else None
    shapes = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((count, *shape)), features)

    def leaf(path, shape):
        gain = 4.0 if "image_branch" in str(path) else 1.0
        return jnp.asarray(gain * rng.standard_normal(shape.shape))

    return head, jax.tree.map_with_path(leaf, shapes)["params"], features


def run(sampler, head, params, features, shape, count=None, seed=1):
    call = functools.partial(
        sampler, head, sample=sample, image_shape=shape, levels=LEVELS, count=count
    )
    compiled = jax.jit(
        lambda params, key, features: call(params=params, key=key, features=features),
    )
    return np.asarray(compiled(params, jax.random.key(seed), features))


def by_hand(head, params, features, shape, count, seed=1):
    """The definition: the whole image is predicted for each pixel, with its own key."""
    height, width = shape[:2]
    pixels, drawn = np.zeros((count, *shape)), np.zeros((count, *shape), int)
    predict = jax.jit(lambda pixels: head.apply({"params": params}, pixels, features))
    draw = jax.jit(jax.vmap(sample))
    for p in range(height * width):
        i, j = divmod(p, width)
        folded = [jax.random.fold_in(jax.random.key(seed), n) for n in range(count)]
        keys = jnp.stack([jax.random.fold_in(key, p) for key in folded])
        drawn[:, i, j] = draw(keys, predict(jnp.asarray(pixels))[:, i, j])
        pixels[:, i, j] = 2 * drawn[:, i, j] / (LEVELS - 1) - 1
    return drawn


@pytest.mark.parametrize(
    ("horizon", "shape", "with_features"),
    [(2, (3, 4, 2), True), (1, (4, 3, 1), False), (None, (4, 5, 1), True), (0, (3, 4, 2), True)],
)
def test_pixels_are_drawn_in_order_each_with_its_key(horizon, shape, with_features):
    head, params, features = build(horizon, shape, with_features=with_features, count=2)
    count = None if with_features else 2
    found = run(ancestral_sample, head, params, features, shape, count)
    assert found.shape == (2, *shape)
    assert len(np.unique(found)) > 3
    assert_array_equal(found, by_hand(head, params, features, shape, 2))


@pytest.mark.parametrize(
    ("horizon", "shape", "with_features"),
    [
        (1, (3, 9, 3), True),
        (2, (7, 4, 1), False),
        (3, (6, 11, 1), True),
        (2, (1, 6, 1), True),
        (1, (6, 1, 1), True),
        (0, (3, 4, 1), True),
    ],
)
def test_the_wavefront_draws_the_same_images(horizon, shape, with_features):
    head, params, features = build(horizon, shape, with_features=with_features)
    count = None if with_features else 3
    expected = run(ancestral_sample, head, params, features, shape, count)
    assert len(np.unique(expected)) > 3
    found = run(wavefront_sample, head, params, features, shape, count)
    assert_array_equal(found, expected)


def test_images_do_not_depend_on_their_number():
    shape = (3, 4, 1)
    head, params, features = build(1, shape)
    three = run(ancestral_sample, head, params, features, shape)
    assert_array_equal(run(wavefront_sample, head, params, features[:2], shape), three[:2])
    assert (run(ancestral_sample, head, params, features, shape, seed=2) != three).any()


def test_images_of_equal_features_differ():
    shape = (4, 4, 1)
    head, params, features = build(1, shape)
    found = run(ancestral_sample, head, params, jnp.zeros_like(features), shape)
    assert (found[0] != found[1]).any()
    # Pixels have keys of their own: a constant image would be a sign of a single one.
    assert all(len(np.unique(image)) > 1 for image in found)


@pytest.mark.parametrize(("horizon", "height", "width"), [(1, 28, 28), (3, 32, 32), (2, 5, 9)])
def test_steps_and_rows_of_the_wavefront(horizon, height, width):
    i, j = np.mgrid[:height, :width]
    step = j + (horizon + 1) * i
    assert wavefront_steps(horizon, height, width) == step.max() + 1
    assert wavefront_rows(horizon, height, width) == np.bincount(step.ravel()).max()


def test_the_published_number_of_steps():
    assert wavefront_steps(3, 32, 32) == 156


@pytest.mark.parametrize("sampler", [ancestral_sample, wavefront_sample])
@pytest.mark.parametrize(
    ("horizon", "options", "message"),
    [
        (1, {"levels": 1}, "levels=.* must be an integer of at least 2"),
        (1, {"image_shape": (4, 4)}, "image_shape must be"),
        (1, {"image_shape": (4, 5, 1)}, r"features must have shape \(N, 4, 5, F\)"),
        (1, {"count": 4}, "count=4 is not the 3 images"),
        (1, {"features": None}, "count=.* must be an integer of at least 1"),
        (0, {"features": None, "count": 3}, "horizon=0 sees no pixels and needs features"),
        (4, {}, "horizon=4 does not fit images of 4 x 4"),
    ],
)
def test_bad_input(sampler, horizon, options, message):
    given = {"features": jnp.zeros((3, 4, 4, 2)), "image_shape": (4, 4, 1), "levels": 2}
    with pytest.raises(ValueError, match=message):
        sampler(PixelCNN(1, horizon), {}, sample, jax.random.key(0), **(given | options))


def test_a_full_head_has_no_wavefront():
    with pytest.raises(ValueError, match="needs an integer horizon; use ancestral_sample"):
        wavefront_sample(
            PixelCNN(1, None),
            {},
            sample,
            jax.random.key(0),
            jnp.zeros((1, 4, 4, 2)),
            image_shape=(4, 4, 1),
            levels=2,
        )
