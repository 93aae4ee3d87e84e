from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.models import CircularCNN, apply_with_intermediates, layer_shapes, parameter_count


def variables_of(model, length, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, length, channels)))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), shapes)


def by_hand(model, params, images):
    """Layer by layer with loops over sites, in float64."""
    x, layers = np.asarray(images, np.float64), []
    size, before = model.filter_size, (model.filter_size - 1) // 2
    for layer in range(1, model.depth + 1):
        kernel, bias = (np.asarray(params[f"conv{layer}"][name]) for name in ("kernel", "bias"))
        length = x.shape[1]
        columns = []
        for start in range(0, length, model.stride):
            seen = np.stack([x[:, (start + k - before) % length] for k in range(size)], axis=1)
            weights = kernel / np.sqrt(size * x.shape[2])
            columns.append(np.einsum("nfc,fck->nk", seen, weights) + bias)
        x = np.sqrt(size) * np.maximum(np.stack(columns, axis=1), 0)
        layers.append(x)
    pooled = x.mean(1)
    output = pooled @ np.asarray(params["beta"]) / model.width + np.asarray(params["bias"])
    return layers, pooled, model.alpha * output[:, None]


@pytest.mark.parametrize(
    ("filter_size", "stride", "length", "depth"),
    [(5, 1, 11, 3), (2, 2, 16, 3), (3, 3, 9, 2), (4, 2, 16, 2), (2, 1, 6, 2)],
)
def test_layers_are_those_of_the_formula(filter_size, stride, length, depth):
    model = CircularCNN(3, depth, filter_size, stride, alpha=0.5, dtype=jnp.float64)
    variables = variables_of(model, length)
    images = np.random.default_rng(1).standard_normal((2, length, 1))
    output, found = jax.jit(partial(apply_with_intermediates, model))(variables, images)
    layers, pooled, expected = by_hand(model, variables["params"], images)
    assert list(found) == [*(f"conv{k}" for k in range(1, depth + 1)), "pooled", "logits"]
    for k, layer in enumerate(layers, 1):
        np.testing.assert_allclose(found[f"conv{k}"], layer, atol=1e-12)
    np.testing.assert_allclose(found["pooled"], pooled, atol=1e-12)
    # The output is at least float32, and float64 here.
    np.testing.assert_allclose(output, expected, atol=1e-12)
    column = jax.jit(partial(model.apply, train=True))(variables, images[:, :, None])
    np.testing.assert_allclose(column, output, atol=1e-12)


def test_a_rotation_by_the_strides_changes_nothing():
    model = CircularCNN(4, 2, 2, 2, dtype=jnp.float64)
    variables = variables_of(model, 16)
    images = np.random.default_rng(2).standard_normal((2, 16, 1))
    apply = jax.jit(model.apply)
    output = apply(variables, images)
    for shift in (4, 8):
        rolled = np.roll(images, shift, axis=1)
        np.testing.assert_allclose(apply(variables, rolled), output, atol=1e-12)
    moved = apply(variables, np.roll(images, 2, axis=1))
    assert np.abs(moved - output).max() > 1e-3


def test_everything_begins_as_a_standard_normal():
    model = CircularCNN(64, 2, 5, 1)
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 8, 1)))["params"]
    assert params["conv2"]["kernel"].shape == (5, 64, 64)
    for leaf in (params["conv2"]["kernel"], params["conv2"]["bias"], params["beta"]):
        assert leaf.dtype == jnp.float32
        assert abs(float(leaf.mean())) < 4 / np.sqrt(leaf.size)
        assert abs(float(leaf.std()) - 1) < 4 / np.sqrt(leaf.size)
    assert params["beta"].shape == (64,)  # one axis, so that weight decay spares it
    assert abs(float(params["bias"][0])) > 0.05


def test_the_released_network():
    model = CircularCNN()
    count = 2 * 1000 + 6 * 2 * 1000 * 1000 + 7 * 1000 + 1000 + 1
    assert parameter_count(model, (128, 1, 1)) == count
    shapes = layer_shapes(model, (128, 1, 1))
    assert [shapes[f"conv{k}"][0] for k in range(1, 8)] == [64, 32, 16, 8, 4, 2, 1]


def test_every_parameter_learns():
    model = CircularCNN(3, 2, 2, 2, dtype=jnp.float64)
    variables = variables_of(model, 8)
    images = np.random.default_rng(4).standard_normal((20, 8, 1))
    grads = jax.jit(jax.grad(lambda v: jnp.square(model.apply(v, images)).sum()))(variables)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width=.* must be an integer of at least 1"),
        ({"depth": 0}, "depth=.* must be an integer of at least 1"),
        ({"filter_size": 1}, "filter_size=.* must be an integer of at least 2"),
        ({"stride": 0}, "stride=.* must be an integer of at least 1"),
        ({"alpha": 0.0}, "alpha=0.* must be a finite number > 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        CircularCNN(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((12, 1), "layer 3 sees 3 sites, which stride=2 does not divide; .* multiple of 2.4 sites"),
        ((8, 1), r"layer 4 sees 1 site\(s\), fewer than filter_size=2; choose depth=3"),
        ((8, 8, 1), r"must have shape \(N, L, C\) or \(N, L, 1, C\).* got \(1, 8, 8, 1\)"),
        ((8,), r"got \(1, 8\)"),
    ],
)
def test_images_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(CircularCNN(2, 4).init, jax.random.key(0), jnp.zeros((1, *shape)))
