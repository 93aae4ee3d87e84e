from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import MLP, ConvAutoencoder, apply_with_intermediates
from recon_jax.models.intermediates import record

NAMES = ["hidden1", "hidden2", "hidden3", "logits"]


@pytest.fixture(scope="module")
def mlp(draw, draw_variables):
    images = draw(3, (2, 3, 2))
    model = MLP(2, depth=5)
    return model, draw_variables(model, (2, 3, 2)), images


def test_names_run_from_input_to_output(mlp):
    _, layers = apply_with_intermediates(*mlp)
    assert list(layers) == NAMES
    assert isinstance(layers, OrderedDict)


def test_order_survives_jit(mlp):
    model, variables, images = mlp
    output, layers = jax.jit(partial(apply_with_intermediates, model))(variables, images)
    assert list(layers) == NAMES
    assert_allclose(output, model.apply(variables, images), atol=1e-6)


def test_the_output_is_that_of_the_normal_path(mlp):
    model, variables, images = mlp
    output, layers = apply_with_intermediates(*mlp)
    assert_array_equal(output, model.apply(variables, images))
    assert_array_equal(output, model.apply(variables, images, train=False))
    assert_array_equal(layers["logits"], output)


def test_each_layer_follows_from_the_one_before(mlp):
    _, variables, _ = mlp
    _, layers = apply_with_intermediates(*mlp)
    head = variables["params"]["head"]
    logits = layers["hidden3"] @ head["kernel"] + head["bias"][None]
    assert_allclose(layers["logits"], logits, atol=1e-6)


def test_old_intermediates_do_not_pile_up(mlp):
    model, variables, images = mlp
    _, state = model.apply(variables, images, mutable=["intermediates"])
    _, layers = apply_with_intermediates(model, {**variables, **state}, 2 * images)
    assert_array_equal(layers["logits"], model.apply(variables, 2 * images))


def test_nothing_is_kept_unless_asked_for(mlp):
    model, variables, images = mlp
    assert set(variables) == {"params", "batch_stats"}
    _, state = model.apply(variables, images, mutable=["batch_stats"])
    assert set(state) == {"batch_stats"}


def test_both_halves_of_an_autoencoder(draw, draw_variables):
    images = draw(2, (6, 6, 1))
    model = ConvAutoencoder((6, 6, 1), 4, depth=2, first_width=2)
    variables = draw_variables(model, (6, 6, 1))
    output, layers = jax.jit(partial(apply_with_intermediates, model))(variables, images)
    assert list(layers) == [
        "encoder/conv1",
        "encoder/conv2",
        "latent",
        "decoder/conv1",
        "decoder/conv2",
        "reconstruction",
    ]
    assert_array_equal(layers["latent"], output.latent)
    assert_array_equal(layers["reconstruction"], output.reconstruction)
    assert_allclose(nn.sigmoid(layers["decoder/conv2"]), output.reconstruction, rtol=1e-5)


def test_a_module_of_ones_own_can_record():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return record(self, 2 * x, "doubled")

    output, layers = apply_with_intermediates(Twice(), {}, jnp.ones(2))
    assert_array_equal(layers["doubled"], output)
