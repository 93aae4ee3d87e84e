"""What holds for every autoencoder."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.models import (
    Autoencoding,
    ConvAutoencoder,
    MLPAutoencoder,
    ResNetAutoencoder,
    layer_shapes,
)

FAMILIES = [MLPAutoencoder, ConvAutoencoder, partial(ResNetAutoencoder, depth=18)]


@pytest.mark.parametrize("shape", [(28, 28, 1), (27, 30, 2), (1, 1, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_reconstructions_have_the_shape_of_the_images(family, shape):
    model = family(shape, 7)
    layers = layer_shapes(model, shape)
    assert layers["reconstruction"] == shape
    assert layers["latent"] == model.latent_shape
    assert list(layers)[-1] == "reconstruction"


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_options(family):
    with pytest.raises(ValueError, match="latent_size=0 must be an integer of at least 1"):
        family((8, 8, 1), 0)
    with pytest.raises(ValueError, match="image_shape must be"):
        family((8, 8), 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_images_and_latents_are_refused(family):
    model = family((8, 8, 1), 4)
    with pytest.raises(ValueError, match=r"images must have shape \(N, 8, 8, 1\)"):
        layer_shapes(model, (8, 9, 1))
    with pytest.raises(ValueError, match="latents must have shape"):
        model.apply({}, jnp.zeros((2, 3)), method="decode")


@pytest.fixture(scope="module")
def small(draw, draw_variables):
    model = MLPAutoencoder((3, 2, 2), 4)
    return model, draw_variables(model, (3, 2, 2)), draw(5, (3, 2, 2))


def test_the_halves_make_the_whole(small):
    model, variables, images = small
    output = model.apply(variables, images)
    assert isinstance(output, Autoencoding)
    latent = model.apply(variables, images, method="encode")
    assert_allclose(output.latent, latent, rtol=1e-6)
    decoded = model.apply(variables, latent, method="decode")
    assert_allclose(output.reconstruction, decoded, rtol=1e-6)
    assert decoded.shape == images.shape
    assert decoded.min() > 0
    assert decoded.max() < 1


def test_numpy_images_are_welcome(small):
    model, variables, images = small
    assert model.apply(variables, np.asarray(images)).latent.shape == (5, 4)


def test_training_updates_both_halves(small):
    model, variables, images = small
    _, updated = model.apply(variables, images, train=True, mutable="batch_stats")
    for half in ("encoder", "decoder"):
        before = variables["batch_stats"][half]["hidden1"]["norm"]["mean"]
        after = updated["batch_stats"][half]["hidden1"]["norm"]["mean"]
        assert float(jnp.abs(before - after).max()) > 1e-3
