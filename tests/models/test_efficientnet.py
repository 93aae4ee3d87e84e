import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.models import (
    EfficientNetB0,
    apply_with_intermediates,
    layer_shapes,
    make_model,
    parameter_count,
)
from recon_jax.models.efficientnet import MBConv, SqueezeExcite
from recon_jax.models.layers import KeyedDropout

STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))


def test_parameter_counts():
    # Published with torchvision's weights, 1,000 classes.
    large = EfficientNetB0(1000, stem="imagenet")
    assert parameter_count(large, (224, 224, 3)) == 5_288_548
    # Without the 1 x 1 convolution to 1,280 channels, its norm, and the rows of the head for it.
    without_top = 5_288_548 - (320 * 1280 + 2 * 1280) - 1281 * 1000 + 321 * 10
    assert parameter_count(EfficientNetB0(10), (32, 32, 3)) == without_top == 3_598_598


def test_stages():
    layers = layer_shapes(EfficientNetB0(10), (32, 32, 3))
    last = [layers[f"stage{stage}_block{blocks}"] for stage, (blocks, _) in enumerate(STAGES, 1)]
    sides, channels = (32, 16, 8, 4, 4, 2, 2), (16, 24, 40, 80, 112, 192, 320)
    assert last == [(side, side, count) for side, count in zip(sides, channels, strict=True)]
    assert layers["stage3_block1/expand"] == (16, 16, 6 * 24)
    assert layers["stage3_block1/depthwise"] == (8, 8, 6 * 24)
    assert "stage1_block1/expand" not in layers
    assert list(layers)[-2:] == ["pooled", "logits"]
    large = layer_shapes(EfficientNetB0(10, stem="imagenet"), (64, 64, 3))
    assert large["stem"] == (32, 32, 32)
    assert large["top"] == (2, 2, 1280)


def test_width_is_in_proportion():
    layers = layer_shapes(make_model("efficientnet_b0", 10, width=8), (8, 8, 1))
    names = ["stem", *(f"stage{stage}_block1" for stage in range(1, 8))]
    assert [layers[name][-1] for name in names] == [8, 4, 6, 10, 20, 28, 48, 80]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_equals_pytorch(stem, draw, draw_variables):
    pytest.importorskip("torch")
    from models import torch_reference

    model, images = EfficientNetB0(5, stem=stem, width=4), draw(2, (33, 38, 3))
    variables = draw_variables(model, images.shape[1:])
    stride = 2 if stem == "imagenet" else 1
    expected = torch_reference.efficientnet(images, variables, STAGES, stride)
    found = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_channels_are_weighted_by_what_all_positions_have_in_common(draw, draw_variables):
    model, x = SqueezeExcite(3), draw(4, (5, 6, 8)) - 0.3
    variables = jax.tree.map(lambda leaf: 3 * leaf, draw_variables(model, x.shape[1:]))
    params = jax.device_get(variables["params"])
    squeeze, excite = params["squeeze"], params["excite"]
    inside = np.asarray(x, float).mean((1, 2)) @ squeeze["kernel"] + squeeze["bias"]
    inside = inside / (1 + np.exp(-inside))
    weights = 1 / (1 + np.exp(-(inside @ excite["kernel"] + excite["bias"])))
    assert weights.std() > 0.1
    found = model.apply(variables, x)
    expected = np.asarray(x) * weights[:, None, None, :]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def trained(draw, draw_variables):
    """One block that may be left out: outputs in training of six images, by the keys."""
    model, images = MBConv(2, 3, 3, 1, drop_path=0.5), draw(6, (5, 4, 2))
    variables = draw_variables(model, images.shape[1:])

    @jax.jit
    def apply(keys):
        return model.apply(variables, images, train=True, mutable=["batch_stats"], keys=keys)[0]

    return apply, model, variables, images


def test_branches_are_left_out_by_the_keys(trained):
    apply, model, variables, images = trained
    keys = jax.random.split(jax.random.key(0), 6)
    left_out = np.all(apply(keys) == images, axis=(1, 2, 3))
    assert 0 < left_out.sum() < 6
    np.testing.assert_array_equal(
        np.all(apply(keys[::-1]) == images, axis=(1, 2, 3))[::-1], left_out
    )
    # What is kept counts twice.
    whole = model.clone(drop_path=0.0)
    full = whole.apply(variables, images, train=True, mutable=["batch_stats"])[0]
    branch = np.where(left_out[:, None, None, None], 0, 2 * (full - images))
    np.testing.assert_allclose(apply(keys) - images, branch, rtol=1e-4, atol=1e-5)


def test_batch_statistics_need_no_keys(trained):
    _, model, variables, images = trained
    output, layers = apply_with_intermediates(model, variables, images, batch_statistics=True)
    whole = model.clone(drop_path=0.0)
    expected = whole.apply(variables, images, train=True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    assert list(layers)[:3] == ["expand", "depthwise", "squeeze_excite"]


def test_training_without_keys_is_refused():
    model = EfficientNetB0(3, width=4)
    images = jnp.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"needs `keys=` in training, one an image, \(2,\)"):
        jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, images, train=True))


@pytest.mark.parametrize("axes", [(), (1, 2, 3)])
def test_dropout_keeps_the_mean_and_images_apart(axes):
    layer, ones = KeyedDropout(0.25, broadcast_dims=axes), jnp.ones((2000, 2, 3, 1))
    keys = jax.random.split(jax.random.key(1), 2000)
    dropped = np.asarray(layer.apply({}, ones, keys))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    # Standard error of a mean of n draws of (kept / 0.75): sqrt(0.25 / 0.75 / n).
    count = 2000 if axes else dropped.size
    assert abs(dropped.mean() - 1) < 4 * np.sqrt(1 / 3 / count)
    together = (dropped.reshape(2000, -1) == dropped.reshape(2000, -1)[:, :1]).all(1)
    assert together.all() == bool(axes)
    alone = layer.apply({}, ones[5:6], keys[5:6])
    np.testing.assert_array_equal(alone, dropped[5:6])


def test_bfloat16_keeps_float32_logits():
    model = EfficientNetB0(3, width=4, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    )
    assert shapes[0].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes[1])} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "patches"}, "stem='patches' is unknown"),
        ({"width": 0}, "width=.* must be an integer of at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_model("efficientnet_b0", **{"num_classes": 3, **options})
