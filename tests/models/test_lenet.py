import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal

from recon_jax.models import LeNet, layer_shapes, parameter_count


@pytest.mark.parametrize("side", [28, 32])
def test_published_parameter_count(side):
    assert parameter_count(LeNet(10), (side, side, 1)) == 61_706


@pytest.mark.parametrize("side", [28, 32])
def test_layers_of_digits(side):
    assert list(layer_shapes(LeNet(10), (side, side, 1)).items()) == [
        ("conv1", (28, 28, 6)),
        ("pool1", (14, 14, 6)),
        ("conv2", (10, 10, 16)),
        ("pool2", (5, 5, 16)),
        ("dense1", (120,)),
        ("dense2", (84,)),
        ("logits", (10,)),
    ]


def test_colour_adds_only_to_the_first_convolution():
    assert parameter_count(LeNet(10), (32, 32, 3)) == 61_706 + 2 * 25 * 6


def test_padding_by_the_model_is_padding_by_hand(draw, draw_variables):
    model, images = LeNet(10), draw(2, (28, 28, 1))
    variables = draw_variables(model, (28, 28, 1))
    apply = jax.jit(model.apply)
    by_hand = jnp.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    assert_array_equal(apply(variables, images), apply(variables, by_hand))


def test_small_images_are_refused_without_padding():
    assert layer_shapes(LeNet(10, pad_to=0), (16, 16, 1))["pool2"] == (1, 1, 16)
    with pytest.raises(ValueError, match=r"15 x 16 are too small .* 16 x 16"):
        layer_shapes(LeNet(10, pad_to=0), (15, 16, 1))


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"pad_to": -1}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))}=.* must"):
        LeNet(**{"num_classes": 10, **options})


def test_every_parameter_learns(dead_parameters):
    assert dead_parameters(LeNet(3, pad_to=0), (16, 16, 1)) == set()
