import pytest

from recon_jax.models import ResNet, layer_shapes, parameter_count, variable_shapes

# Published with torchvision's weights, 1,000 classes.
PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_published_parameter_counts(depth):
    model = ResNet(depth, 1000, stem="imagenet")
    assert parameter_count(model, (224, 224, 3)) == PUBLISHED[depth]


@pytest.mark.parametrize("depth", PUBLISHED)
def test_the_cifar_stem_changes_one_kernel(depth):
    width = 2048 if depth == 50 else 512
    expected = PUBLISHED[depth] - (49 - 9) * 3 * 64 - (width + 1) * (1000 - 10)
    assert parameter_count(ResNet(depth, 10), (32, 32, 3)) == expected


def test_stages_on_imagenet():
    layers = layer_shapes(ResNet(50, 1000, stem="imagenet"), (224, 224, 3))
    assert list(layers)[:6] == [
        "stem",
        "stem_pool",
        "stage1_block1/conv1",
        "stage1_block1/conv2",
        "stage1_block1/conv3",
        "stage1_block1/shortcut",
    ]
    assert layers["stem"] == (112, 112, 64)
    assert layers["stem_pool"] == (56, 56, 64)
    assert layers["stage1_block3"] == (56, 56, 256)
    # The stride is in the 3 x 3 convolution.
    assert layers["stage2_block1/conv1"] == (56, 56, 128)
    assert layers["stage2_block4"] == (28, 28, 512)
    assert layers["stage3_block6"] == (14, 14, 1024)
    assert layers["stage4_block3"] == (7, 7, 2048)
    assert list(layers)[-2:] == ["pooled", "logits"]


def test_stages_on_cifar():
    layers = layer_shapes(ResNet(18, 10), (32, 32, 3))
    assert layers["stem"] == layers["stage1_block2"] == (32, 32, 64)
    assert "stem_pool" not in layers
    assert "stage1_block1/shortcut" not in layers
    assert layers["stage4_block2"] == (4, 4, 512)


@pytest.mark.parametrize("depth", PUBLISHED)
def test_depth_counts_the_layers_with_weights(depth):
    names = layer_shapes(ResNet(depth, 10), (8, 8, 1))
    assert sum("conv" in name for name in names) == depth - 2


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 33, 2)])
def test_any_image(stem, shape):
    assert layer_shapes(ResNet(18, 4, stem=stem), shape)["logits"] == (4,)


def test_width_is_of_the_stem_and_the_first_stage():
    layers = layer_shapes(ResNet(18, 10, width=5), (8, 8, 1))
    names = ["stem", *(f"stage{i}_block1" for i in range(1, 5))]
    assert [layers[name][-1] for name in names] == [5, 5, 10, 20, 40]


def test_convolutions_have_no_bias():
    params = variable_shapes(ResNet(18, 4), (8, 8, 1))["params"]
    assert set(params["stage2_block1"]["shortcut"]["conv"]) == {"kernel"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth=20 is unknown; choose one of 18, 34, 50"),
        ({"num_classes": 0}, "num_classes"),
        ({"width": 0}, "width=0 must be an integer of at least 1"),
        ({"stem": "patches"}, "stem='patches' is unknown; choose one of 'cifar', 'imagenet'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**{"depth": 18, "num_classes": 10, **options})
