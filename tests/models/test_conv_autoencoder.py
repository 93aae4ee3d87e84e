import pytest

from recon_jax.models import ConvAutoencoder, layer_shapes, parameter_count


@pytest.mark.parametrize(
    ("depth", "widths", "latent"),
    [(3, [32, 272, 512], (4, 4, 512)), (5, [32, 152, 272, 392, 512], (1, 1, 512))],
)
def test_widths_on_cifar(depth, widths, latent):
    model = ConvAutoencoder((32, 32, 3), depth=depth)
    layers = layer_shapes(model, (32, 32, 3))
    channels = [shape[-1] for name, shape in layers.items() if "conv" in name]
    assert channels == [*widths, *widths[-2::-1], 3]
    assert layers["latent"] == model.latent_shape == latent
    pairs = list(zip([3, *widths[:-1]], widths, strict=True))
    expected = sum(18 * a * b + a + b for a, b in pairs)
    assert parameter_count(model, (32, 32, 3)) == expected


def test_sides_that_do_not_halve_come_back():
    layers = layer_shapes(ConvAutoencoder((28, 28, 1)), (28, 28, 1))
    sides = [shape[0] for name, shape in layers.items() if "conv" in name]
    assert sides == [14, 7, 4, 7, 14, 28]


@pytest.mark.parametrize(("option", "least"), [("depth", 2), ("first_width", 1)])
def test_bad_options(option, least):
    with pytest.raises(ValueError, match=rf"{option}=.* must be an integer of at least {least}"):
        ConvAutoencoder((8, 8, 1), 4, **{option: least - 1})


def test_every_parameter_learns(dead_parameters):
    assert dead_parameters(ConvAutoencoder((7, 6, 1), 5, first_width=8), (7, 6, 1)) == set()
