import pytest

from recon_jax.models import MLPAutoencoder, layer_shapes, parameter_count

CIFAR = (32, 32, 3)


def test_widths_of_depth_3():
    assert list(layer_shapes(MLPAutoencoder(CIFAR), CIFAR).items()) == [
        ("encoder/hidden1", (1792,)),
        ("latent", (512,)),
        ("decoder/hidden1", (1792,)),
        ("reconstruction", CIFAR),
    ]


def test_parameters_of_depth_3():
    encoder = 3072 * 1792 + 2 * 1792 + 1792 * 512 + 512
    decoder = 512 * 1792 + 2 * 1792 + 1792 * 3072 + 3072
    assert parameter_count(MLPAutoencoder(CIFAR), CIFAR) == encoder + decoder


def test_widths_of_depth_5():
    layers = layer_shapes(MLPAutoencoder(CIFAR, depth=5), CIFAR)
    hidden = [shape[0] for name, shape in layers.items() if "hidden" in name]
    assert hidden == [2432, 1792, 1152, 1152, 1792, 2432]


def test_halves_of_different_depth():
    layers = layer_shapes(MLPAutoencoder((4, 4, 1), 4, depth=2, decoder_depth=4), (4, 4, 1))
    assert list(layers.items()) == [
        ("latent", (4,)),
        ("decoder/hidden1", (8,)),
        ("decoder/hidden2", (12,)),
        ("reconstruction", (4, 4, 1)),
    ]


@pytest.mark.parametrize("option", ["depth", "decoder_depth"])
def test_bad_depths(option):
    with pytest.raises(ValueError, match=f"^{option}=1 must be an integer of at least 2"):
        MLPAutoencoder((4, 4, 1), 4, **{option: 1})


def test_every_parameter_but_the_bias_of_the_latent_learns(dead_parameters):
    # The decoder begins with a linear map without bias and batch norm, which removes any shift.
    dead = dead_parameters(MLPAutoencoder((3, 3, 2), 4, depth=3), (3, 3, 2))
    assert dead == {"encoder/last/bias"}


def test_every_parameter_of_linear_halves_learns(dead_parameters):
    assert dead_parameters(MLPAutoencoder((2, 2, 1), 3, depth=2), (2, 2, 1)) == set()
