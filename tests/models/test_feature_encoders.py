import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.models import (
    ConvEncoder,
    MLPEncoder,
    ResNet,
    ResNetEncoder,
    ViTClassifier,
    ViTFeatureEncoder,
    apply_with_intermediates,
    layer_shapes,
    parameter_count,
    patchify,
)


def test_perceptron_is_relu_after_every_linear_layer(draw, draw_variables):
    model, images = MLPEncoder((7, 5)), draw(4, (3, 2, 1))
    variables = draw_variables(model, (3, 2, 1))
    expected = np.asarray(images).reshape(4, 6)
    for name in ("dense1", "dense2"):
        dense = jax.tree.map(np.asarray, variables["params"][name]["dense"])
        expected = np.maximum(expected @ dense["kernel"] + dense["bias"][None], 0)
    assert (expected == 0).any()
    assert_allclose(model.apply(variables, images), expected, atol=1e-6)


@pytest.mark.parametrize("use_norm", [False, True])
def test_parameters_of_the_perceptron(use_norm):
    model = MLPEncoder([20, 9], use_norm)
    shifts = 2 * (20 + 9) if use_norm else 20 + 9
    assert parameter_count(model, (4, 4, 2)) == 32 * 20 + 20 * 9 + shifts


@pytest.mark.parametrize("use_norm", [False, True])
def test_parameters_of_the_convolutions(use_norm):
    widths = [3, 5, 10, 20, 20]
    kernels = sum(9 * a * b for a, b in itertools.pairwise(widths))
    shifts = (1 + use_norm) * sum(widths[1:])
    assert parameter_count(ConvEncoder(5, use_norm), (32, 32, 3)) == kernels + shifts


def test_convolutions_halve_28_pixels_to_2():
    layers = layer_shapes(ConvEncoder(3), (28, 28, 1))
    assert layers == {
        "conv1": (14, 14, 3),
        "conv2": (7, 7, 6),
        "conv3": (4, 4, 12),
        "conv4": (2, 2, 12),
    }


def test_convolutional_features_are_the_mean_over_positions(draw, draw_variables):
    model = ConvEncoder(2)
    variables = draw_variables(model, (17, 20, 1))
    features, layers = apply_with_intermediates(model, variables, draw(3, (17, 20, 1)))
    assert layers["conv4"].shape == (3, 2, 2, 8)
    assert_allclose(features, np.asarray(layers["conv4"]).mean((1, 2)), rtol=1e-5)
    assert float(features.min()) >= 0


@pytest.mark.parametrize(
    ("depth", "stem", "features"), [(18, "cifar", 512), (50, "imagenet", 2048)]
)
def test_residual_encoder_is_the_classifier_without_its_head(depth, stem, features):
    encoder, classifier = ResNetEncoder(depth, stem), ResNet(depth, 10, stem)
    shape = (32, 32, 3)
    head = features * 10 + 10
    assert parameter_count(encoder, shape) == parameter_count(classifier, shape) - head
    layers = layer_shapes(classifier, shape)
    assert list(layers.items())[:-2] == list(layer_shapes(encoder, shape).items())
    assert layers["pooled"] == (features,)


def test_residual_features_are_those_the_classifier_reads(draw, draw_variables):
    encoder, classifier = ResNetEncoder(18, width=2), ResNet(18, 3, width=2)
    variables, images = draw_variables(classifier, (9, 8, 1)), draw(2, (9, 8, 1))
    _, layers = apply_with_intermediates(classifier, variables, images)
    params = {k: v for k, v in variables["params"].items() if k != "head"}
    found = encoder.apply({**variables, "params": params}, images)
    assert_allclose(found, layers["pooled"], rtol=1e-6)


VIT = {"patch_size": 4, "width": 8, "depth": 2, "heads": 2}


def test_transformer_features_are_those_the_classifier_reads(draw, draw_variables):
    shape = (8, 12, 1)
    options = {"image_shape": shape, "pooling": "mean", **VIT}
    classifier = ViTClassifier(3, **options)
    variables, images = draw_variables(classifier, shape), draw(2, shape)
    encoder = ViTFeatureEncoder(**options, learned_positions=False)
    params = {"encoder": variables["params"]["encoder"]}
    found = encoder.apply({"params": params}, images)
    assert_allclose(found, classifier.apply(variables, images, method="features"), rtol=1e-6)
    names = list(layer_shapes(encoder, shape))
    assert names == list(layer_shapes(classifier, shape))[:-1]
    assert names[-1] == "pooled"


def test_learned_positions_are_added_to_the_patches(draw, draw_variables):
    encoder = ViTFeatureEncoder((8, 12, 1), **VIT)
    variables, images = draw_variables(encoder, (8, 12, 1)), draw(2, (8, 12, 1))
    tokens = apply_with_intermediates(encoder, variables, images)[1]["encoder/tokens"]
    params = jax.tree.map(np.asarray, variables["params"]["encoder"])
    assert params["positions"].shape == (6, 8)
    patches = np.asarray(patchify(images, 4)) @ params["embed"]["kernel"] + params["embed"]["bias"]
    assert_allclose(tokens[:, 1:], patches + params["positions"][None], rtol=1e-5, atol=1e-5)
    assert_allclose(tokens[0, 0], params["class_token"][0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        MLPEncoder((6, 4), use_norm=True),
        MLPEncoder((6,)),
        ConvEncoder(2),
        ViTFeatureEncoder((16, 17, 2), **{**VIT, "patch_size": 1, "depth": 1}, pooling="mean"),
    ],
)
def test_every_parameter_learns(model, dead_parameters):
    assert dead_parameters(model, (16, 17, 2)) == set()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPEncoder(()), "number of widths=0 must be an integer of at least 1"),
        (lambda: MLPEncoder((8, 0)), "each of widths=0 must be an integer of at least 1"),
        (lambda: ConvEncoder(0), "width=0 must be an integer of at least 1"),
        (lambda: ResNetEncoder(20), "depth=20 is unknown; choose one of 18, 34, 50"),
        (lambda: ResNetEncoder(18, "big"), "stem='big' is unknown"),
        (lambda: ResNetEncoder(18, width=0), "width=0 must be an integer of at least 1"),
        (lambda: ViTFeatureEncoder((8, 8)), r"image_shape must be \(height, width, channels\)"),
        (lambda: ViTFeatureEncoder((8, 8, 1), 3), "patch_size=3 does not divide image height 8"),
        (lambda: ViTFeatureEncoder((8, 8, 1), 4, 8, 1, 3), "encoder width=8 must be a multiple"),
        (lambda: ViTFeatureEncoder((8, 8, 1), 4, pooling="max"), "pooling='max' is unknown"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
