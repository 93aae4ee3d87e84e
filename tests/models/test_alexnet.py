import itertools

import pytest

from recon_jax.models import AlexNet, layer_shapes, parameter_count


def test_layers_on_cifar():
    assert list(layer_shapes(AlexNet(10), (32, 32, 3)).items()) == [
        ("conv1", (16, 16, 64)),
        ("pool1", (8, 8, 64)),
        ("conv2", (8, 8, 192)),
        ("pool2", (4, 4, 192)),
        ("conv3", (4, 4, 384)),
        ("conv4", (4, 4, 256)),
        ("conv5", (4, 4, 256)),
        ("pool3", (2, 2, 256)),
        ("dense1", (4096,)),
        ("dense2", (4096,)),
        ("logits", (10,)),
    ]


def test_parameters_follow_from_the_widths():
    widths = [3, 64, 192, 384, 256, 256]
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise(widths))
    dense = [1024, 4096, 4096, 10]
    linear = sum(a * b + b for a, b in itertools.pairwise(dense))
    assert parameter_count(AlexNet(10), (32, 32, 3)) == convolutions + linear


def test_padding_as_for_digits():
    padded = layer_shapes(AlexNet(10, pad_to=32), (28, 28, 1))
    assert padded["conv1"] == (16, 16, 64)
    assert layer_shapes(AlexNet(10), (28, 28, 1))["conv1"] == (14, 14, 64)


def test_small_images_are_refused():
    assert layer_shapes(AlexNet(10), (15, 15, 1))["pool3"] == (1, 1, 256)
    with pytest.raises(ValueError, match=r"14 x 14 are too small .* pad_to=32"):
        layer_shapes(AlexNet(10), (14, 14, 1))


def test_every_layer_follows_the_width():
    narrow, wide = (layer_shapes(AlexNet(10, width=w), (32, 32, 3)) for w in (16, 64))
    for name in set(wide) - {"logits"}:
        assert narrow[name] == (*wide[name][:-1], wide[name][-1] // 4)


@pytest.mark.parametrize(
    "options", [{"num_classes": -1}, {"dropout": -0.5}, {"pad_to": -2}, {"width": 0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))}=.* must"):
        AlexNet(**{"num_classes": 10, **options})


@pytest.mark.slow
def test_every_parameter_learns(dead_parameters):
    assert dead_parameters(AlexNet(3, dropout=0.0, width=4), (15, 15, 1)) == set()
