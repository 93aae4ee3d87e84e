"""Building by name, and what holds for every model."""

import jax
import jax.numpy as jnp
import pytest

from recon_jax.models import (
    MODELS,
    LeNet,
    MLPAutoencoder,
    ResNet,
    layer_shapes,
    make_model,
    parameter_count,
    variable_shapes,
)

SHAPE = (32, 32, 1)
# One of each family: tracing the deeper ones takes seconds and shows nothing more.
FAMILIES = [
    "mlp",
    "lenet",
    "alexnet",
    "resnet9",
    "vgg11_bn",
    "resnet18",
    "vit_tiny",
    "mlp_autoencoder",
    "conv_autoencoder",
    "resnet18_autoencoder",
    "simclr_conv",
]


def build(name, **options):
    encodes = "autoencoder" in name or name.startswith("mae_")
    kind = {} if encodes or name.startswith("simclr_") else {"num_classes": 4}
    if encodes or name.startswith("vit_"):
        kind["image_shape"] = SHAPE
    return make_model(name, **kind, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_representation_is_the_output(name):
    *_, last = layer_shapes(build(name), SHAPE).items()
    kinds = {"autoencoder": ("reconstruction", SHAPE), "simclr": ("projection", (64,))}
    assert last == next((out for kind, out in kinds.items() if kind in name), ("logits", (4,)))


@pytest.mark.parametrize("name", FAMILIES)
def test_training_in_bfloat16_keeps_float32_parameters_and_output(name):
    model = build(name, dtype=jnp.bfloat16)
    variables = variable_shapes(model, SHAPE)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}

    def step(variables, images):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(
            variables, images, train=True, mutable=["batch_stats", "intermediates"], rngs=rngs
        )

    images = jax.ShapeDtypeStruct((6, *SHAPE), jnp.float32)
    output, updated = jax.eval_shape(step, variables, images)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(output)} == {"float32"}
    inside = {leaf.dtype.name for leaf in jax.tree.leaves(updated["intermediates"])}
    assert inside == {"bfloat16", "float32"}
    stats = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), updated.get("batch_stats", {}))
    assert stats == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), variables.get("batch_stats", {})
    )


@pytest.mark.parametrize("name", ["mlp", "conv_autoencoder"])
def test_bfloat16_is_finite_and_near_float32(name, draw, draw_variables):
    options = {"latent_size": 4} if name == "conv_autoencoder" else {}
    images = draw(3, SHAPE)
    variables = draw_variables(build(name, **options), SHAPE)
    half = jax.jit(build(name, dtype="bfloat16", **options).apply)(variables, images)
    full = jax.jit(build(name, **options).apply)(variables, images)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert bool(jnp.isfinite(a).all())
        assert float(jnp.abs(a - b).max()) < 0.1 * (1 + float(jnp.abs(b).max()))


def test_models_are_what_their_classes_make():
    assert make_model("lenet", 10) == LeNet(10)
    assert make_model("resnet34", 7, stem="imagenet") == ResNet(34, 7, stem="imagenet")
    assert make_model("vgg16_bn", 7).use_norm
    assert not make_model("vgg16", 7).use_norm
    built = make_model("mlp_autoencoder", image_shape=[8, 8, 1], latent_size=4)
    assert built == MLPAutoencoder((8, 8, 1), 4)
    assert hash(built) == hash(MLPAutoencoder((8, 8, 1), 4))


@pytest.mark.parametrize(
    ("name", "published", "width"),
    [
        ("vit_tiny", 5_717_416, 192),
        ("vit_small", 22_050_664, 384),
        ("vit_base", 86_567_656, 768),
        ("vit_large", 304_326_632, 1024),
    ],
)
def test_vision_transformers_have_the_published_size_but_for_positions(name, published, width):
    model = make_model(name, 1000, image_shape=(224, 224, 3))
    # The published ones learn the positions of 14 x 14 patches and the class token; here they are
    # fixed.
    assert parameter_count(model, (224, 224, 3)) == published - 197 * width


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, "unknown model 'resnet'; choose one of mlp, lenet, .*resnet34_autoencoder"),
        ("lenet", {}, "model 'lenet' needs num_classes"),
        ("vit_base", {"num_classes": 3}, "model 'vit_base' needs image_shape"),
        ("vit_base", {"image_shape": SHAPE}, "model 'vit_base' needs num_classes"),
        ("vit_base", {"num_classes": 3, "width": 8}, "'vit_base' has no option width"),
        ("mlp_autoencoder", {}, "model 'mlp_autoencoder' needs image_shape"),
        ("lenet", {"num_classes": 3, "depth": 4}, "'lenet' has no option depth; choose from num"),
        ("vgg11", {"num_classes": 3, "depth": 13}, "'vgg11' has no option depth"),
        ("vgg11_bn", {"num_classes": 3, "use_norm": False}, "'vgg11_bn' has no option use_norm"),
        ("resnet18_autoencoder", {"image_shape": SHAPE, "num_classes": 3}, "option num_classes"),
        ("mlp", {"num_classes": 0}, "num_classes=0 must be an integer of at least 1"),
        ("mlp", {"num_classes": 3, "depth": 1}, "depth=1 must be an integer of at least 2"),
        ("conv_autoencoder", {"image_shape": SHAPE, "latent_size": -1}, "latent_size=.* must be"),
        (
            "simclr_mlp",
            {"num_classes": 3},
            "'simclr_mlp' has no option num_classes; choose from wid",
        ),
        ("simclr_resnet18", {"depth": 50}, "'simclr_resnet18' has no option depth; choose from st"),
        ("resnet18", {"num_classes": 3, "stem": "big"}, "stem='big' is unknown; choose one of"),
    ],
)
def test_bad_requests(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_model(name, **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_says_what_it_is(name):
    model = build(name)
    assert "Representations:" in type(model).__doc__
    assert "Source:" in type(model).__doc__
