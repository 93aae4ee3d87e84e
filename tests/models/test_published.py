"""Published weights against what transformers makes of them, and files that do not fit."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax import losses
from recon_jax.models import patchify, variable_shapes
from recon_jax.models.huggingface import huggingface_config, load_published, to_huggingface
from recon_jax.models.published import DECODER_HEADS, ENCODER_HEADS, published_autoencoder

ORACLES = Path(__file__).parents[1] / "oracles"
HEADS = {"heads": 3, "decoder_heads": 2}
QUERY = "vit.encoder.layer.1.attention.attention.query.weight"


# Compiling takes all the time here, running none; equal models compile once.
@partial(
    jax.jit,
    static_argnames=("model", "method"),
)
def run(model, params, *inputs, method=None):
    return model.apply({"params": params}, *inputs, method=method)


@pytest.fixture(scope="module")
def oracle():
    """Weights, inputs and outputs of transformers; see tests/oracles/make_published.py."""
    with np.load(ORACLES / "published.npz") as file:
        return dict(file)


def weights_of(numbers):
    return {name[8:]: value for name, value in numbers.items() if name.startswith("weights/")}


@pytest.fixture(scope="module")
def weights(oracle):
    return weights_of(oracle)


@pytest.fixture(scope="module")
def published(weights):
    return published_autoencoder(weights, **HEADS)


def encoder_alone(weights):
    return {n.removeprefix("vit."): w for n, w in weights.items() if n.startswith("vit.")}


def as_original(weights):
    """Renamed as in the original release, with queries, keys and values in one matrix."""
    fixed = [
        ("vit.", ""),
        ("decoder.decoder_layers.", "decoder_blocks."),
        ("decoder.", ""),
        ("encoder.layer.", "blocks."),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("layernorm", "norm"),
        ("attention.output.dense", "attn.proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ]
    renamed = {}
    for name, value in weights.items():
        if "attention.key" in name or "attention.value" in name:
            continue
        if "attention.query" in name:
            parts = [weights[name.replace("query", part)] for part in ("query", "key", "value")]
            value = np.concatenate(parts)
            name = name.replace("attention.attention.query", "attn.qkv")
        for old, new in fixed:
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


def assert_same_params(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(assert_array_equal, found, expected)


def assert_same_outputs(numbers, published):
    """Latents in the order transformers keeps them, predictions and both losses, to 1e-5."""
    images = jnp.asarray(numbers["images"])
    output = run(published.model, published.params, images, numbers["kept"])
    assert_allclose(output.latent, numbers["latent"], rtol=1e-5, atol=1e-5)
    assert_allclose(output.reconstruction, numbers["reconstruction"], rtol=1e-5, atol=1e-5)
    assert_array_equal(output.mask, numbers["mask"] == 1)
    patches = patchify(images, published.model.patch_size)
    for normalize, name in ((False, "loss"), (True, "normalized_loss")):
        found = losses.masked_squared_error(
            output.reconstruction, patches, output.mask, normalize=normalize
        )
        assert_allclose(found.mean(), numbers[name], rtol=1e-5)
    found = run(published.model, published.params, images, method="encode")
    assert_allclose(found, numbers["encoded"], rtol=1e-5, atol=1e-5)


def test_outputs_equal_those_stored(oracle, published):
    assert published.notes == ()
    assert published.model.image_shape == (16, 16, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(published.params)} == {jnp.dtype("float32")}
    assert_same_outputs(oracle, published)


@pytest.fixture(scope="module")
def transformers_script():
    """The script of the oracle as a module: what it needs is not installed everywhere."""
    pytest.importorskip("torch", reason="needs PyTorch to compare with")
    pytest.importorskip("transformers", reason="needs transformers to compare with")
    path = ORACLES / "make_published.py"
    spec = importlib.util.spec_from_file_location("make_published", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_outputs_equal_those_of_transformers(transformers_script):
    numbers = transformers_script.compute(1)
    assert_same_outputs(numbers, published_autoencoder(weights_of(numbers), **HEADS))


def test_transformers_reads_what_is_exported(transformers_script, published, tmp_path, oracle):
    save = pytest.importorskip("safetensors.numpy").save_file
    model = published.model
    # transformers looks for the framework there.
    exported = to_huggingface(published.params, model)
    save(exported, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(model)))
    theirs, report = transformers_script.ViTMAEForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    again = transformers_script.old_names(theirs)
    assert set(again) == set(exported)
    for name, value in exported.items():
        assert_array_equal(again[name], value)
    assert theirs.config.decoder_num_attention_heads == 2
    # And back, saved by transformers itself, under the names it chooses.
    theirs.save_pretrained(tmp_path / "saved")
    back = load_published(tmp_path / "saved")
    assert_same_params(back.params, published.params)
    assert back.model == model


def test_another_image_size_interpolates_positions(oracle, weights):
    larger = jnp.asarray(oracle["larger"])
    published = published_autoencoder(encoder_alone(weights), heads=3, image_size=(24, 28))
    assert published.notes[0] == "positions of a 4 x 4 grid are interpolated to 6 x 7"
    assert published.model.position_grid == (4, 4)
    found = run(published.model, published.params, larger, method="encode")
    assert_allclose(found, oracle["encoded_larger"], rtol=1e-5, atol=1e-5)


def test_the_size_of_the_weights_is_no_other_size(weights):
    published = published_autoencoder(weights, **HEADS, image_size=16)
    assert (published.model.position_grid, published.notes) == (None, ())
    with pytest.raises(ValueError, match="patch_size=4 does not divide image height 18"):
        published_autoencoder(weights, **HEADS, image_size=18)


def test_the_original_layout_gives_the_same(weights, published):
    found = published_autoencoder(as_original(weights), **HEADS)
    assert found.model == published.model
    assert_same_params(found.params, published.params)


@pytest.mark.parametrize(
    "renaming",
    [
        [("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")],
        [
            ("vit.encoder.layer.", "vit.layers."),
            ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"),
            ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ],
    ],
)
def test_names_of_transformers_5(weights, published, renaming):
    renamed = {}
    for name, value in weights.items():
        for old, new in renaming:
            name = name.replace(old, new)
        renamed[name] = value
    assert set(renamed) != set(weights)
    assert_same_params(published_autoencoder(renamed, **HEADS).params, published.params)


@pytest.mark.parametrize("layout", ["huggingface", "original"])
def test_an_encoder_alone(weights, published, layout):
    alone = encoder_alone(weights)
    if layout == "original":
        alone = as_original(alone)
    found = published_autoencoder(alone, heads=3)
    assert set(found.params) == {"encoder"}
    assert_same_params(found.params["encoder"], published.params["encoder"])
    assert len(found.notes) == 1
    assert "cannot reconstruct" in found.notes[0]


@pytest.mark.parametrize("which", ["whole", "encoder"])
def test_export_is_the_inverse(weights, published, which):
    params, expected = published.params, weights
    if which == "encoder":
        params, expected = {"encoder": params["encoder"]}, encoder_alone(weights)
    found = to_huggingface(params, published.model)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        exact = "pos" not in name
        assert_allclose(found[name], value, rtol=0, atol=0 if exact else 1e-6)


def test_export_refuses_what_does_not_fit(published):
    small = published.model.clone(depth=1)
    with pytest.raises(ValueError, match=r"class_token|blocks.* in each of 1 blocks"):
        to_huggingface(published.params, small)
    wide = published.model.clone(image_shape=(16, 32, 3))
    with pytest.raises(ValueError, match="16 x 32 are not square"):
        to_huggingface(published.params, wide)
    with pytest.raises(ValueError, match="16 x 32 are not square"):
        huggingface_config(wide)


def test_all_faults_are_listed_by_name(weights):
    faulty = dict(weights)
    del faulty[QUERY], faulty["vit.layernorm.bias"]
    faulty["surplus"] = np.zeros(3, np.float32)
    faulty["decoder.decoder_pred.weight"] = faulty["decoder.decoder_pred.weight"][:, :-1]
    faulty["decoder.mask_token"] = np.full((1, 1, 16), np.nan, np.float32)
    with pytest.raises(ValueError, match="huggingface layout") as caught:
        published_autoencoder(faulty, **HEADS)
    text = str(caught.value)
    assert f"missing (2): {QUERY}, vit.layernorm.bias\n" in text
    assert "unexpected (1): surplus\n" in text
    assert "misshapen (1): decoder.decoder_pred.weight (48, 15), not (48, 16)\n" in text
    assert "not finite (1): decoder.mask_token\n" in text
    assert "classifier" not in text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pos_embed", None, r"missing \(1\): pos_embed"),
        ("decoder_embed.weight", None, r"missing \(1\): decoder_embed.weight"),
        ("blocks.0.norm1.weight", None, r"missing \(1\): blocks.0.norm1.weight"),
        ("blocks.3.norm1.bias", np.zeros(24), r"missing \(23\): .*blocks.2.* and 11 more"),
        ("patch_embed.proj.weight", np.zeros((24, 48)), r"weight \(24, 48\), not of 4 axes"),
        ("patch_embed.proj.weight", np.zeros((24, 3, 4, 2)), "patches not square"),
        ("pos_embed", np.zeros((1, 16, 24)), "15 positions .* not the square"),
        ("pos_embed", np.zeros((1, 17, 24)), "by up to 1 .* of a 4 x 4 grid.*all are zero"),
        ("head.weight", np.zeros((10, 24)), r"(?s)unexpected .*head.weight.*fine-tuned classifier"),
        ("decoder_blocks.0.mlp.fc1.bias", np.zeros(48), r"fc1.bias \(48,\), not \(64,\)"),
    ],
)
def test_each_fault_alone(weights, name, value, message):
    faulty = as_original(weights)
    if value is None:
        del faulty[name]
    else:
        faulty[name] = value.astype(np.float32)
    with pytest.raises(ValueError, match=message):
        published_autoencoder(faulty, **HEADS)


def test_names_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"these names: conv1.weight, .*\(1 in all\).*pos|proj"):
        published_autoencoder({"conv1.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"these names: nothing"):
        published_autoencoder({})


def test_positions_that_were_learned_are_refused(weights):
    name = "decoder.decoder_pos_embed"
    learned = weights[name].copy()
    learned[0, 7, 3] += 0.25
    with pytest.raises(ValueError, match=rf"{name} differs by up to 0.25 .* learned"):
        published_autoencoder({**weights, name: learned}, **HEADS)
    learned[0, 7, 3] -= 0.25 - 5e-5
    published_autoencoder({**weights, name: learned}, **HEADS)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_positions_rounded_to_16_bits_are_fixed_ones(weights, published, dtype):
    rounded = {n: w.astype(dtype).astype(np.float32) for n, w in weights.items()}
    name = "vit.embeddings.position_embeddings"
    assert np.abs(rounded[name] - weights[name]).max() > 1.01e-4
    published_autoencoder(rounded, **HEADS)
    rounded[name] = np.roll(rounded[name], 1, axis=2)
    with pytest.raises(ValueError, match="learned"):
        published_autoencoder(rounded, **HEADS)


def test_heads_of_an_unknown_width_must_be_given(weights):
    with pytest.raises(ValueError, match=r"encoder width=24 .* 192, 384, .*heads=..., a divisor"):
        published_autoencoder(weights, decoder_heads=2)
    with pytest.raises(ValueError, match=r"decoder width=16 .* 512, .*decoder_heads=\.\.\."):
        published_autoencoder(weights, heads=3)
    with pytest.raises(ValueError, match="multiple of its 5 heads"):
        published_autoencoder(weights, heads=5, decoder_heads=2)


def test_published_heads_are_64_wide_and_80_in_the_largest():
    widths = {width: width / heads for width, heads in ENCODER_HEADS.items()}
    assert widths == {192: 64, 384: 64, 768: 64, 1024: 64, 1280: 80}
    assert DECODER_HEADS == {512: 16}


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (1280, 16)])
def test_heads_of_published_widths_are_known(published, width, heads):
    model = published.model.clone(
        width=width, depth=1, heads=heads, decoder_width=512, decoder_heads=16
    )
    # Zeros that take no memory: the sizes are what matters.
    shapes = variable_shapes(model, model.image_shape)["params"]
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    assert published_autoencoder(to_huggingface(zeros, model)).model == model
