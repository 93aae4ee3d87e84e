"""The networks against PyTorch's own layers, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.models import ConvAutoencoder, ResNet, ResNet9
from recon_jax.models.layers import ConvBlock, adaptive_avg_pool

torch = pytest.importorskip("torch")

from models import torch_reference as reference  # noqa: E402


def apply(model, variables, images):
    return jax.jit(model.apply)(variables, images)


def test_resnet9(draw, draw_variables):
    model, images = ResNet9(5), draw(2, (16, 17, 2))
    variables = draw_variables(model, images.shape[1:])
    expected = reference.resnet9(images, variables)
    assert_allclose(apply(model, variables, images), expected, rtol=1e-3, atol=1e-3)


def test_resnet18_with_the_imagenet_stem(draw, draw_variables):
    model, images = ResNet(18, 5, stem="imagenet"), draw(2, (37, 40, 3))
    variables = draw_variables(model, images.shape[1:])
    expected = reference.resnet18(images, variables)
    assert_allclose(apply(model, variables, images), expected, rtol=1e-3, atol=1e-3)


def test_conv_autoencoder_of_even_and_odd_sides(draw, draw_variables):
    model, images = ConvAutoencoder((7, 12, 2), 6, depth=2, first_width=4), draw(3, (7, 12, 2))
    variables = draw_variables(model, images.shape[1:])
    # 7 x 12 becomes 4 x 6, then 2 x 3.
    expected = reference.conv_autoencoder(images, variables, [(1, 1), (0, 1)])
    assert_allclose(apply(model, variables, images).reconstruction, expected, atol=1e-5)


def test_batch_norm_in_training(draw, draw_variables):
    model, images = ConvBlock(3, use_relu=False), draw(4, (5, 5, 2))
    variables = draw_variables(model, images.shape[1:])
    train = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    y, updated = train(variables, images)
    params, old = variables["params"], variables["batch_stats"]["norm"]
    raw = reference.conv(reference.images_to_torch(images), params["conv"])
    expected, mean, var = reference.norm(raw, params["norm"], old, train=True)
    assert_allclose(y, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    new = updated["batch_stats"]["norm"]
    assert_allclose(new["mean"], mean, rtol=1e-4, atol=1e-5)
    # PyTorch's new share is of the unbiased variance, n / (n - 1) times ours.
    n = 4 * 5 * 5
    kept = 0.9 * np.asarray(old["var"])
    assert_allclose((new["var"] - kept) * n / (n - 1), var.numpy() - kept, rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (5, 12), (14, 9)])
def test_adaptive_pool(draw, size):
    x = draw(2, (*size, 3))
    expected = torch.nn.functional.adaptive_avg_pool2d(reference.images_to_torch(x), 7)
    assert_allclose(adaptive_avg_pool(x, 7), jnp.asarray(expected.permute(0, 2, 3, 1)), atol=1e-6)
