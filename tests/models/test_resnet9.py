import itertools

import pytest

from recon_jax.models import ResNet9, layer_shapes, parameter_count

WIDTHS = [3, 64, 128, 128, 128, 256, 512, 512, 512, 1028, 1028, 1028]


def test_parameters_follow_from_the_widths():
    convolutions = sum(9 * a * b + 3 * b for a, b in itertools.pairwise(WIDTHS))
    assert parameter_count(ResNet9(10), (32, 32, 3)) == convolutions + 1028 * 10 + 10


def test_layers_on_cifar():
    layers = layer_shapes(ResNet9(10), (32, 32, 3))
    assert list(layers.items()) == [
        ("conv1", (32, 32, 64)),
        ("conv2", (32, 32, 128)),
        ("pool1", (16, 16, 128)),
        ("res1/conv1", (16, 16, 128)),
        ("res1/conv2", (16, 16, 128)),
        ("res1", (16, 16, 128)),
        ("conv3", (16, 16, 256)),
        ("pool2", (8, 8, 256)),
        ("conv4", (8, 8, 512)),
        ("pool3", (4, 4, 512)),
        ("res2/conv1", (4, 4, 512)),
        ("res2/conv2", (4, 4, 512)),
        ("res2", (4, 4, 512)),
        ("conv5", (4, 4, 1028)),
        ("pool4", (2, 2, 1028)),
        ("res3/conv1", (2, 2, 1028)),
        ("res3/conv2", (2, 2, 1028)),
        ("res3", (2, 2, 1028)),
        ("pooled", (1028,)),
        ("logits", (10,)),
    ]


@pytest.mark.parametrize("shape", [(16, 16, 1), (28, 28, 1), (64, 40, 3)])
def test_other_images(shape):
    assert layer_shapes(ResNet9(4), shape)["logits"] == (4,)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match=r"15 x 28 are too small .* at least 16 x 16"):
        layer_shapes(ResNet9(10), (15, 28, 1))


def test_no_class():
    with pytest.raises(ValueError, match="num_classes"):
        ResNet9(0)


@pytest.mark.slow
def test_every_parameter_but_biases_before_batch_norm_learns(dead_parameters):
    dead = dead_parameters(ResNet9(3), (16, 16, 1))
    assert len(dead) == 11
    assert all(path.endswith("conv/bias") for path in dead)
