from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import MLP, VGG, ConvAutoencoder, apply_with_intermediates
from recon_jax.models.intermediates import record
from recon_jax.models.layers import ConvBlock

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


class Normed(nn.Module):
    """A convolution with batch norm, dropout, and a head."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = ConvBlock(4, use_relu=False, name="conv")(x, train=train)
        x = nn.Dropout(0.9, deterministic=not train)(x)
        return record(self, nn.Dense(2, name="head")(x.mean((1, 2))), "logits")


def test_batch_statistics_standardise_every_channel(draw, draw_variables):
    model, images = Normed(), draw(5, (4, 3, 2))
    variables = draw_variables(model, (4, 3, 2))
    before = jax.tree.map(np.array, variables)
    output, layers = apply_with_intermediates(model, variables, images, batch_statistics=True)
    norm = variables["params"]["conv"]["norm"]
    standard = (np.asarray(layers["conv"]) - np.asarray(norm["bias"])) / np.asarray(norm["scale"])
    assert_allclose(standard.mean((0, 1, 2)), 0, atol=1e-5)
    assert_allclose(standard.std((0, 1, 2)), 1, atol=1e-3)
    # Dropout would have changed nine entries in ten.
    head = variables["params"]["head"]
    pooled = layers["conv"].mean((1, 2))
    assert_allclose(output, pooled @ head["kernel"] + head["bias"][None], atol=1e-5)
    assert list(layers) == ["conv", "logits"]
    jax.tree.map(assert_array_equal, variables, before)
    usual = apply_with_intermediates(model, variables, images)[0]
    assert np.abs(output - usual).max() > 1e-2


@pytest.mark.slow
def test_batch_statistics_of_a_network_with_dropout(draw, draw_variables):
    shape = (32, 32, 1)
    model, plain = (
        VGG(11, 3, use_norm=True, head="imagenet", width=1, dropout=rate) for rate in (0.9, 0.0)
    )
    variables, images = draw_variables(model, shape), draw(3, shape)
    apply = partial(apply_with_intermediates, model, batch_statistics=True)
    found = jax.jit(lambda *args: apply(*args)[0])(variables, images)
    trained, _ = plain.apply(variables, images, train=True, mutable=["batch_stats"])
    assert_allclose(found, trained, atol=1e-4)
