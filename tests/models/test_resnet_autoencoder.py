import pytest

from recon_jax.models import (
    ResNet,
    ResNetAutoencoder,
    layer_shapes,
    parameter_count,
    resnet,
    resnet_autoencoder,
)

IMAGENET = (224, 224, 3)


def test_maps_as_published():
    model = ResNetAutoencoder(IMAGENET, 640)
    layers = layer_shapes(model, IMAGENET)
    assert layers["encoder/stage4_block3"] == (7, 7, 512)
    assert layers["latent"] == (640,)
    assert list(layers).index("latent") < list(layers).index("decoder/stage4_block1/conv1")
    assert layers["decoder/stage4_block3"] == (14, 14, 256)
    assert layers["decoder/stage3_block6"] == (28, 28, 128)
    assert layers["decoder/stage2_block4"] == (56, 56, 64)
    assert layers["decoder/stage1_block3"] == (112, 112, 64)


def test_parameters_follow_from_the_design():
    trunk = parameter_count(ResNet(34, 10, stem="imagenet"), IMAGENET) - 5130
    latents = 2 * 25_088 * 512 + 512 + 25_088

    def block(a, b, upsamples):
        shortcut = a * b + 2 * a if upsamples else 0
        return 9 * a * a + 2 * a + 9 * a * b + 2 * a + shortcut

    stages = [(512, 256, 3), (256, 128, 6), (128, 64, 4), (64, 64, 3)]
    decoder = sum((n - 1) * block(a, a, False) + block(a, b, True) for a, b, n in stages)
    last = 2 * 64 + 49 * 64 * 3
    count = parameter_count(ResNetAutoencoder(IMAGENET, 512), IMAGENET)
    assert count == trunk + latents + decoder + last


def test_small_images_with_the_cifar_stem():
    layers = layer_shapes(ResNetAutoencoder((32, 32, 3), 16, depth=18, stem="cifar"), (32, 32, 3))
    assert layers["encoder/stage4_block2"] == (4, 4, 512)
    assert layers["decoder/stage2_block2"] == layers["decoder/stage1_block2"] == (32, 32, 64)
    assert "decoder/stage1_block2/shortcut" not in layers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 50}, "depth=50 is unknown; choose one of 18, 34"),
        ({"stem": "none"}, "stem='none' is unknown"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ResNetAutoencoder((32, 32, 3), 16, **options)


def test_every_parameter_learns(dead_parameters, monkeypatch):
    # Narrow and short, with every kind of block.
    for module in (resnet, resnet_autoencoder):
        monkeypatch.setattr(module, "WIDTHS", (8, 10, 12, 14))
        monkeypatch.setattr(module, "BLOCKS", {18: (2, 1, 1, 1)})
    model = ResNetAutoencoder((32, 33, 1), 9, depth=18)
    assert dead_parameters(model, (32, 33, 1)) == set()
