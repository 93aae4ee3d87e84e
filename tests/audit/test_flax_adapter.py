from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax import models
from recon_jax.audit.flax_adapter import flax_encoder

SHAPE = (6, 5, 2)
MEAN, STD = (0.25, 0.5), (0.5, 2.0)


class Plain(nn.Module):
    """A module that knows nothing of this library."""

    size: Any = 3

    @nn.compact
    def __call__(self, x, training):
        x = nn.BatchNorm(not training)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(self.size)(nn.relu(x).mean((1, 2)))

    def scaled(self, x, training):
        return 2 * self(x, training), jnp.zeros(())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def plain():
    variables = Plain().init(jax.random.key(1), jnp.zeros((1, *SHAPE)), False)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    return variables


def normalize(images):
    return (images - np.array(MEAN, np.float32)) / np.array(STD, np.float32)


def plain_encoder(variables, **options):
    settings = {"mean": MEAN, "std": STD, "options": {"training": False}, **options}
    return flax_encoder(Plain(), variables, **settings)


def test_features_are_what_the_module_makes_of_normalized_images(plain, images):
    encoder = plain_encoder(plain)
    assert (encoder.name, encoder.jit) == ("Plain", True)
    expected = Plain().apply(plain, normalize(images), False)
    assert_allclose(jax.jit(encoder.features)(images), expected, rtol=1e-5, atol=1e-6)
    doubled = plain_encoder(plain, method="scaled", output=0, name="double")
    assert doubled.name == "double"
    assert_allclose(doubled.features(images), 2 * expected, rtol=1e-5, atol=1e-6)


def test_layers_of_a_plain_module_are_what_its_submodules_return(plain, images):
    layers = plain_encoder(plain).layers(images)
    assert list(layers) == ["Conv_0", "BatchNorm_0", "Dense_0"]
    conv = nn.Conv(4, (3, 3)).apply({"params": plain["params"]["Conv_0"]}, normalize(images))
    assert_allclose(layers["Conv_0"], conv, rtol=1e-5, atol=1e-6)
    assert_array_equal(layers["Dense_0"], plain_encoder(plain).features(images))
    chosen = plain_encoder(plain, layer="Conv_0", output=lambda maps: maps.mean((1, 2)))
    assert_allclose(chosen.features(images), conv.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_layers_of_ours_are_those_it_records(images, quick_variables):
    model = models.MLPEncoder((4, 3, 2))
    variables = quick_variables(model)
    encoder = flax_encoder(model, variables, layer="dense2")
    _, expected = models.apply_with_intermediates(model, variables, images)
    found = encoder.layers(images)
    assert list(found) == list(expected) == ["dense1", "dense2", "dense3"]
    for name, value in expected.items():
        assert_array_equal(found[name], value)
    assert_array_equal(encoder.features(images), expected["dense2"])
    some = flax_encoder(model, variables, layers=("dense3", "dense1"))
    assert list(some.layers(images)) == ["dense1", "dense3"]
    assert flax_encoder(model, variables, layers=()).layers is None


@pytest.fixture(scope="module")
def quick_variables():
    """Variables without the time that compiling an initialisation takes."""

    def variables(model, shape=SHAPE):
        rng = np.random.default_rng(3)
        shapes = models.variable_shapes(model, shape)
        return jax.tree.map(lambda s: jnp.asarray(0.5 + rng.random(s.shape), jnp.float32), shapes)

    return variables


def test_latents_of_autoencoders(images, quick_variables):
    model = models.MLPAutoencoder(SHAPE, latent_size=3, depth=2)
    variables = quick_variables(model)
    expected = model.apply(variables, images).latent
    options = ({"method": "encode"}, {"layer": "latent"}, {"output": "latent"})
    for option in options:
        assert_array_equal(flax_encoder(model, variables, **option).features(images), expected)
    assert "latent" in flax_encoder(model, variables, method="encode").layers(images)


def test_class_token_of_a_masked_autoencoder(quick_variables):
    options = {"width": 8, "depth": 1, "heads": 2}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    model = models.MaskedAutoencoder((4, 4, 1), patch_size=2, **options, **decoder)
    variables, images = quick_variables(model, (4, 4, 1)), 0.5 + jnp.ones((2, 4, 4, 1)) / 2
    encoder = flax_encoder(
        model, variables, method="encode", output=lambda tokens: tokens[:, 0], mean=0.5, std=0.5
    )
    encode = jax.jit(partial(model.apply, method="encode"))
    found = jax.jit(encoder.features)(images)
    assert_allclose(found, encode(variables, images)[:, 0], rtol=1e-5, atol=1e-6)
    layers = jax.eval_shape(encoder.layers, images)
    assert {"encoder/tokens", "encoder/blocks/block1", "latent"} <= set(layers)
    assert not any("decoder" in name for name in layers)


@pytest.mark.parametrize("image_shape", [None, SHAPE])
def test_random_networks_are_initialised_by_the_module(plain, images, image_shape):
    encoder = plain_encoder(plain, image_shape=image_shape)
    drawn = [encoder.fresh(seed) for seed in (0, 1, 0)]
    variables = Plain().init(jax.random.key(0), jnp.zeros((1, *SHAPE)), False)
    found = [each.features(images) for each in drawn]
    expected = Plain().apply(variables, normalize(images), False)
    assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
    assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 1e-2
    assert np.abs(found[0] - encoder.features(images)).max() > 1e-2
    layers = drawn[1].layers(images)
    assert list(layers) == ["Conv_0", "BatchNorm_0", "Dense_0"]
    assert_allclose(layers["Dense_0"], found[1], rtol=1e-6)
    # One program for all seeds: what is compiled is the same value, arrays aside.
    assert hash(drawn[0].features.func) == hash(drawn[1].features.func)
    assert drawn[0].features.func == drawn[1].features.func


def test_random_networks_of_ours_know_the_shape(images):
    model = models.MLPAutoencoder(SHAPE, latent_size=3, depth=2)
    variables = model.init(jax.random.key(5), images)
    encoder = flax_encoder(model, variables, method="encode")
    found = encoder.fresh(5).features
    assert jax.tree.structure(found.args[0]["params"]["encoder"]) == jax.tree.structure(
        variables["params"]["encoder"]
    )
    assert_allclose(found(images), encoder.features(images), rtol=1e-5, atol=1e-6)


def test_a_module_that_has_no_hash_works(images):
    module = Plain(np.int64(3))
    object.__setattr__(module, "size", np.array(3))
    variables = module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), False)
    encoder = flax_encoder(module, variables, options={"training": False}, image_shape=SHAPE)
    expected = encoder.features(images)
    assert expected.shape == (4, 3)
    assert_allclose(encoder.fresh(0).features(images), expected, rtol=1e-5, atol=1e-6)


def test_faults_are_found_before_anything_is_compiled(plain, images):
    spec = jax.ShapeDtypeStruct(images.shape, images.dtype)
    for options, message in (
        ({"layer": "Conv_1"}, "Plain has no layer 'Conv_1'; choose from Conv_0, BatchNorm_0, Den"),
        ({"method": "scaled"}, "Plain returned a tuple of 0, 1, not one array"),
        ({"output": "latent"}, "output='latent' is nothing that Plain returned"),
        ({"mean": (0.1, 0.2, 0.3)}, r"mean of shape \(1, 1, 3\) does not fit images of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(plain_encoder(plain, **options).features, spec)
    with pytest.raises(ValueError, match="Plain has no layer 'Conv_1', 'x'; choose from Conv_0"):
        jax.eval_shape(plain_encoder(plain, layers=("Conv_1", "x", "Conv_0")).layers, spec)


def test_bad_arguments(plain):
    with pytest.raises(ValueError, match=r"module is function, not a flax\.linen\.Module"):
        flax_encoder(lambda variables: variables, plain)
    for variables in (plain["params"], [1]):
        with pytest.raises(ValueError, match=r"variables must be .*wrap parameters"):
            flax_encoder(Plain(), variables)
    with pytest.raises(ValueError, match="std must be positive"):
        plain_encoder(plain, std=0)
