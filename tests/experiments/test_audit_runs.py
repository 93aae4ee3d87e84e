import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from audit_cases import NETWORK, context_of, entry_of, small
from numpy.testing import assert_allclose
from safetensors.numpy import save_file

from experiments import audit_entries, audit_runs
from recon_jax import data, models

ORACLES = Path(__file__).parents[1] / "oracles"


def images_of(context):
    images = context.test.read(np.arange(7))[0]
    return np.asarray(images, np.float32) / 255


def by_hand(context, entry, variables, images, layer):
    apply = functools.partial(models.apply_with_intermediates, audit_runs.model_of(context, entry))
    return jax.jit(apply)(variables, images)[1][layer]


def test_networks_see_normalised_pixels(tmp_path):
    with jax.enable_x64(False):
        context = context_of(tmp_path, ("net", "random", NETWORK))
        images = images_of(context)
        train = context.train.read(np.arange(60))[0] / 255
        scale = np.sqrt(np.square(train - train.mean(0)).mean())
        seen = {
            "channels": (images - train.mean()) / train.std(),
            "global": (images - train.mean(0)) / scale,
        }
        for name, normalised in seen.items():
            entry = entry_of("net", "random", {**NETWORK, "normalize": name})
            built = audit_runs.build_random(context, entry, 5)
            variables = jax.jit(audit_runs.model_of(context, entry).init)(jax.random.key(5), images)
            expected = by_hand(context, entry, variables, normalised.astype(np.float32), "hidden1")
            assert_allclose(jax.jit(built.encoder.features)(images), expected, atol=2e-5)
        assert built.key == ["random", 5]
        other = built.encoder.fresh(6)
        assert np.abs(jax.jit(other.features)(images) - expected).max() > 1e-3
        entry = entry_of("net", "random", {**NETWORK, "normalize": "imagenet"})
        with pytest.raises(ValueError, match="mean of shape"):  # of three channels
            audit_runs.build_random(context, entry, 5).encoder.features(images)


def test_pooling_and_layers_before_the_features(tmp_path):
    options = {
        "model": "conv_autoencoder",
        "options": {"depth": 2, "first_width": 4, "latent_size": 3},
        "layer": "latent",
    }
    with jax.enable_x64(False):
        context = context_of(tmp_path, ("net", "random", options))
        images = images_of(context)
        model = audit_runs.model_of(context, entry_of("net", "random", options))
        shapes = models.variable_shapes(model, (8, 8, 1))
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        entries = [entry_of("net", "random", {**options, "pool": p}) for p in audit_entries.POOLS]
        whole, mean, first = (
            audit_runs.network_encoder(context, entry, model, variables) for entry in entries
        )
        assert jax.eval_shape(whole.features, images).shape == (7, 2, 2, 3)
        assert jax.eval_shape(mean.features, images).shape == (7, 3)
        assert jax.eval_shape(first.features, images).shape == (7, 3)
        layers = jax.eval_shape(whole.layers, images)
        assert list(layers) == ["encoder/conv1", "encoder/conv2"]


def test_pools():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    assert audit_runs.POOLS["none"] is None
    assert_allclose(audit_runs.POOLS["mean"](maps), maps.mean((1, 2)))
    assert_allclose(audit_runs.POOLS["first"](maps[:, 0]), maps[:, 0, 0])
    assert_allclose(audit_runs.POOLS["mean"](maps[:, 0]), maps[:, 0].mean(1))


def test_names_of_files():
    assert audit_runs.slug("LeNet, seed 1/2 ö.x") == "LeNet--seed-1-2-ö.x"


def built_from(tmp_path, weights, **options):
    """What is built of published weights for images of 16 x 16 x 3."""
    path = tmp_path / "model.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, path)
    path = path.parent if (tmp_path / "config.json").exists() else path
    images = np.random.default_rng(0).random((12, 16, 16, 3)).astype(np.float32)
    source = data.from_arrays(images, np.arange(12, dtype=np.int32) % 2)
    config = small(("net", "weights", {"path": str(path), **options}))
    context = audit_runs.Context(config, tmp_path, source, source, {})
    return images, audit_runs.build_weights(context, audit_entries.entries_of(config)[0], 0)


def tiny_vit():
    """A vision transformer in timm's names; see tests/oracles/make_published_encoders.py."""
    with np.load(ORACLES / "published_encoders.npz") as file:
        lines, flat = file["timm_vit/entries"].tolist(), file["timm_vit/weights"] / 64
    shapes = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    parts = np.split(flat.astype(np.float32), ends[:-1])
    return {n: p.reshape(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}


def test_published_classifiers_see_their_own_normalisation(tmp_path):
    weights = tiny_vit()
    with jax.enable_x64(False):
        images, built = built_from(tmp_path, weights, heads=3)
        found = models.load_encoder(weights, heads=3)
        mean, std = (np.array(numbers, np.float32) for numbers in (found.mean, found.std))
        expected = jax.jit(found.module.apply)(found.variables, (images - mean) / std)
        assert_allclose(jax.jit(built.encoder.features)(images), expected, atol=2e-5)
    assert built.encoder.name == "net"
    assert isinstance(built.key[0], str)


def test_published_masked_autoencoders_are_pooled(tmp_path):
    model = models.MaskedAutoencoder(
        (16, 16, 3), patch_size=4, width=12, depth=1, heads=3, decoder_width=8, decoder_depth=1,
        decoder_heads=1,
    )  # fmt: skip
    with jax.enable_x64(False):
        shapes = models.variable_shapes(model, (16, 16, 3))["params"]
        params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)
        exported = models.to_huggingface(params, model)
        (tmp_path / "config.json").write_text(json.dumps(models.huggingface_config(model)))
        images, built = built_from(tmp_path, exported, family="masked_autoencoder", pool="mean")
        assert jax.eval_shape(built.encoder.features, images).shape == (12, 12)


def test_weights_for_other_images_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(tiny_vit(), path)
    context = context_of(tmp_path, ("net", "weights", {"path": str(path), "heads": 3}))
    entry = audit_entries.entries_of(context.config)[0]
    message = r"images of \(8, 8, 3\), those of embedded are \(8, 8, 1\); set data.image_size"
    with pytest.raises(ValueError, match=message):
        audit_runs.build_weights(context, entry, 0)


def test_channels_are_normalised_by_numbers_of_their_own(tmp_path):
    images = np.random.default_rng(0).normal((0.1, 0.5), (0.1, 0.3), (50, 4, 5, 2))
    source = data.from_arrays(images, np.zeros(50, np.int32))
    context = audit_runs.Context(small(), tmp_path, source, source, {})
    found = audit_runs.normalization_of(context, "channels")
    assert_allclose(found["mean"], images.mean((0, 1, 2)))
    assert_allclose(found["std"], images.std((0, 1, 2)))
