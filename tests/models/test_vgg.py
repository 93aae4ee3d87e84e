import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal

from recon_jax.models import VGG, layer_shapes, parameter_count

# Published with torchvision's weights, 1,000 classes.
PUBLISHED = {
    (11, False): 132_863_336,
    (13, False): 133_047_848,
    (16, False): 138_357_544,
    (19, False): 143_667_240,
    (11, True): 132_868_840,
    (13, True): 133_053_736,
    (16, True): 138_365_992,
    (19, True): 143_678_248,
}


@pytest.mark.parametrize(("depth", "use_norm"), PUBLISHED)
def test_published_parameter_counts(depth, use_norm):
    model = VGG(depth, 1000, use_norm=use_norm, head="imagenet")
    assert parameter_count(model, (224, 224, 3)) == PUBLISHED[depth, use_norm]


def test_cifar_form():
    model = VGG(11, 10)
    layers = layer_shapes(model, (32, 32, 3))
    assert list(layers.items()) == [
        ("block1/conv1", (32, 32, 64)),
        ("block1/pool", (16, 16, 64)),
        ("block2/conv1", (16, 16, 128)),
        ("block2/pool", (8, 8, 128)),
        ("block3/conv1", (8, 8, 256)),
        ("block3/conv2", (8, 8, 256)),
        ("block3/pool", (4, 4, 256)),
        ("block4/conv1", (4, 4, 512)),
        ("block4/conv2", (4, 4, 512)),
        ("block4/pool", (2, 2, 512)),
        ("block5/conv1", (2, 2, 512)),
        ("block5/conv2", (2, 2, 512)),
        ("block5/pool", (1, 1, 512)),
        ("pooled", (512,)),
        ("logits", (10,)),
    ]
    classifier = 512 * 4096 * 49 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    expected = PUBLISHED[11, False] - classifier + 512 * 10 + 10
    assert parameter_count(model, (32, 32, 3)) == expected


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_depth_counts_the_layers_with_weights(depth):
    names = layer_shapes(VGG(depth, 10), (32, 32, 1))
    assert sum("conv" in name for name in names) + 1 == depth - 2


def test_imagenet_head_takes_any_size():
    layers = layer_shapes(VGG(11, 10, head="imagenet"), (40, 64, 1))
    assert list(layers)[-4:] == ["pooled", "dense1", "dense2", "logits"]
    assert layers["pooled"] == (7, 7, 512)


def test_small_images_are_refused_or_padded():
    with pytest.raises(ValueError, match=r"28 x 28 are too small .* 32 x 32; .* pad_to=32"):
        layer_shapes(VGG(11, 10), (28, 28, 1))
    assert layer_shapes(VGG(11, 10, pad_to=32), (28, 28, 1))["block1/conv1"] == (32, 32, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 12}, "depth=12 is unknown; choose one of 11, 13, 16, 19"),
        ({"num_classes": 0}, "num_classes"),
        ({"head": "mlp"}, "head='mlp' is unknown; choose one of 'linear', 'imagenet'"),
        ({"dropout": 1.0}, r"dropout=.* must lie in \[0, 1\)"),
        ({"pad_to": -1}, "pad_to"),
        ({"width": 0}, "width=0 must be an integer of at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        VGG(**{"depth": 11, "num_classes": 10, **options})


def test_width_is_of_the_first_block():
    layers = layer_shapes(VGG(11, 10, width=3), (32, 32, 1))
    assert [layers[f"block{i}/pool"][-1] for i in range(1, 6)] == [3, 6, 12, 24, 24]
    assert VGG(11, 10).width == 64


def test_every_parameter_learns(dead_parameters):
    assert dead_parameters(VGG(11, 3, width=4), (32, 32, 1)) == set()


@pytest.mark.slow
def test_every_parameter_but_biases_before_batch_norm_learns(dead_parameters):
    dead = dead_parameters(VGG(11, 3, use_norm=True, width=4), (32, 32, 1))
    assert len(dead) == 8
    assert all(path.endswith("conv/bias") for path in dead)


def test_dropout_follows_its_key(draw, draw_variables):
    model, images = VGG(11, 3, head="imagenet", width=4), draw(2, (32, 32, 1))
    variables = draw_variables(model, (32, 32, 1))

    @jax.jit
    def train(variables, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, train=True, rngs=rngs)

    first = train(variables, 0)
    assert_array_equal(first, train(variables, 0))
    assert float(jnp.abs(first - train(variables, 1)).max()) > 1e-3
