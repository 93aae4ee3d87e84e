"""Published encoders against what timm, torchvision and transformers make of the same weights."""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import load_encoder, parameter_count, resize_positions
from recon_jax.models.published_encoders import IMAGENET_MEAN, IMAGENET_STD

ORACLES = Path(__file__).parents[1] / "oracles"
HEADS = {"heads": 3}


def read_entries(lines):
    """Names and shapes of lines such as "conv1.weight 64 3 7 7"."""
    parts = [line.split() for line in lines.tolist()]
    return {name: tuple(map(int, shape)) for name, *shape in parts}


@pytest.fixture(scope="module")
def oracle():
    """Weights, inputs and outputs by case; see tests/oracles/make_published_encoders.py."""
    cases = {}
    with np.load(ORACLES / "published_encoders.npz") as file:
        for name in file.files:
            case, entry = name.split("/")
            cases.setdefault(case, {})[entry] = file[name]
    networks = {}
    for case, found in cases.items():
        if case == "entries":
            continue
        shapes = read_entries(found["entries"])
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        parts = np.split(found["weights"], ends[:-1])
        weights = {
            name: (part.reshape(shape) / 64).astype(np.float32)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        networks[case] = {**found, "weights": weights, "images": found["images"] / 64}
    return {**networks, "entries": cases["entries"]}


@pytest.fixture(scope="module")
def timm(oracle):
    return oracle["timm_vit"]["weights"]


@pytest.fixture(scope="module")
def resnet(oracle):
    return oracle["resnet18"]["weights"]


# Compiling takes all the time here, running none; equal modules compile once.
@partial(jax.jit, static_argnames="module")
def run(module, variables, images):
    return module.apply(variables, images)


def features(found, images, dtype=jnp.float64):
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), found.variables)
    return run(found.module.clone(dtype=dtype), variables, jnp.asarray(images, dtype))


def assert_same(found, expected):
    assert found.module == expected.module
    assert jax.tree.structure(found.variables) == jax.tree.structure(expected.variables)
    jax.tree.map(assert_array_equal, found.variables, expected.variables)


@pytest.mark.parametrize("case", ["resnet18", "resnet50", "timm_vit", "torchvision_vit"])
def test_features_equal_those_stored(oracle, case):
    numbers = oracle[case]
    found = load_encoder(numbers["weights"], heads=3)
    assert found.family == ("vit" if "vit" in case else "resnet")
    assert {leaf.dtype for leaf in jax.tree.leaves(found.variables)} == {jnp.dtype("float32")}
    assert (found.channels, found.notes) == (3, ())
    assert numbers["features"].shape == (2, found.dimension)
    got = features(found, numbers["images"])
    assert_allclose(got, numbers["features"], rtol=1e-11, atol=1e-12)
    if "logits" in numbers:
        kernel, bias = (np.asarray(part, np.float64) for part in found.head)
        assert_allclose(got @ kernel + bias[None], numbers["logits"], rtol=1e-11, atol=1e-12)
    else:
        assert found.head is None


@pytest.fixture(scope="module")
def transformers_script():
    """The script of the oracle as a module: what it needs is not installed everywhere."""
    pytest.importorskip("torch", reason="needs PyTorch to compare with")
    pytest.importorskip("transformers", reason="needs transformers to compare with")
    path = ORACLES / "make_published_encoders.py"
    spec = importlib.util.spec_from_file_location("make_published_encoders", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_residual_features_equal_those_of_transformers(transformers_script):
    numbers = transformers_script.resnet(18, 1)
    got = features(load_encoder(numbers["weights"]), numbers["images"])
    assert_allclose(got, numbers["features"], rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [34, 50])
def test_deeper_features_in_float32_equal_those_of_transformers(transformers_script, depth):
    numbers = transformers_script.resnet(depth, 1, width=3)
    got = features(load_encoder(numbers["weights"]), numbers["images"], jnp.float32)
    assert got.dtype == jnp.float32
    scale = np.abs(numbers["features"]).max()
    assert_allclose(got, numbers["features"], rtol=1e-5, atol=1e-5 * scale)


def test_transformer_features_equal_those_of_transformers(transformers_script):
    numbers = transformers_script.vit(1)
    for pooling, name in (("class_token", "features"), ("mean", "mean")):
        found = load_encoder(numbers["weights"], heads=3, pooling=pooling)
        got = features(found, numbers["images"], jnp.float32)
        assert_allclose(got, numbers[name], rtol=1e-5, atol=1e-5)
    larger = load_encoder(numbers["weights"], heads=3, image_size=(24, 28))
    assert larger.notes == ("positions of a 4 x 4 grid are interpolated to 6 x 7",)
    got = features(larger, numbers["larger"], jnp.float32)
    assert_allclose(got, numbers["resized"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("depth", "dimension"), [(18, 512), (34, 512), (50, 2048)])
def test_entries_of_torchvision_are_those_expected(oracle, depth, dimension):
    shapes = read_entries(oracle["entries"][f"resnet{depth}"])
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    found = load_encoder(zeros)
    assert (found.module.depth, found.module.stem, found.dimension) == (
        depth,
        "imagenet",
        dimension,
    )
    assert found.head.kernel.shape == (dimension, 1000)
    counted = (name for name in shapes if "running" not in name and "num_batches" not in name)
    total = sum(int(np.prod(shapes[name])) for name in counted)
    assert parameter_count(found.module, (64, 64, 3)) == total - 1000 * (dimension + 1)


def test_a_file_gives_the_same(timm, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(timm, path)
    expected = load_encoder(timm, **HEADS)
    assert_same(load_encoder(path, **HEADS), expected)
    assert_same(load_encoder({n: w.astype(np.float64) for n, w in timm.items()}, heads=3), expected)
    with pytest.raises(ValueError, match=r"weights\.safetensors: .* 24 is no multiple|=24 is no"):
        load_encoder(str(path))


def test_older_names_of_torchvision_give_the_same(oracle):
    weights = oracle["torchvision_vit"]["weights"]
    pairs = (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2."))
    older = weights
    for new, old in pairs:
        older = {name.replace(new, old): value for name, value in older.items()}
    assert set(older) != set(weights)
    assert_same(load_encoder(older, **HEADS), load_encoder(weights, **HEADS))


def test_counts_of_batches_and_heads_may_be_missing(resnet, timm):
    counts = [name for name in resnet if "num_batches_tracked" in name]
    rest = {name: value for name, value in resnet.items() if name not in counts}
    assert len(counts) == 20
    assert_same(load_encoder(rest), load_encoder(resnet))
    headless = {name: value for name, value in timm.items() if not name.startswith("head.")}
    found = load_encoder(headless, **HEADS)
    assert found.head is None
    assert_same(found, load_encoder(timm, **HEADS))


def test_positions_without_one_of_the_class_token(timm):
    without = {**timm, "pos_embed": timm["pos_embed"][:, 1:]}
    zero = timm["pos_embed"].copy()
    zero[:, 0] = 0
    expected = load_encoder({**timm, "pos_embed": zero}, **HEADS)
    assert_same(load_encoder(without, **HEADS), expected)


def test_the_position_of_the_class_token_is_not_interpolated(timm):
    found = load_encoder(timm, **HEADS, image_size=8)
    encoder = found.variables["params"]["encoder"]
    token, first = timm["cls_token"], timm["pos_embed"][:, :1]
    assert_array_equal(encoder["class_token"], token + first)
    resized = resize_positions(timm["pos_embed"][0, 1:], (4, 4), (2, 2))
    assert_allclose(encoder["positions"], resized, rtol=1e-6, atol=1e-6)
    assert found.module.image_shape == (8, 8, 3)


def test_a_small_first_kernel_is_of_the_stem_for_small_images(resnet):
    kernel = resnet["conv1.weight"][:, :1, 2:5, 2:5]
    found = load_encoder({**resnet, "conv1.weight": kernel})
    assert (found.module.stem, found.channels) == ("cifar", 1)
    assert len(found.notes) == 1
    assert "stride 1 and no pooling" in found.notes[0]
    stem = found.variables["params"]["stem"]["conv"]["kernel"]
    assert_array_equal(stem, kernel.transpose(2, 3, 1, 0))


@pytest.mark.parametrize(("width", "heads"), [(64, 1), (192, 3), (448, 7), (1280, 16)])
def test_heads_by_width(timm, width, heads):
    def widen(value):
        sides = {24: width, 72: 3 * width, 96: 4 * width}
        return np.zeros([sides.get(side, side) for side in value.shape], np.float32)

    found = load_encoder({name: widen(value) for name, value in timm.items()})
    assert (found.module.width, found.module.heads, found.module.depth) == (width, heads, 2)


def test_all_faults_are_listed_by_name(resnet):
    faulty = dict(resnet)
    del faulty["layer2.0.downsample.0.weight"], faulty["bn1.running_var"]
    faulty["layer1.0.se.fc1.weight"] = np.zeros(3, np.float32)
    faulty["layer1.1.bn2.bias"] = np.zeros(3, np.float32)
    faulty["layer4.1.conv2.weight"] = np.full_like(faulty["layer4.1.conv2.weight"], np.nan)
    with pytest.raises(ValueError, match="residual network of 18 layers") as caught:
        load_encoder(faulty)
    text = str(caught.value)
    assert "missing (2): bn1.running_var, layer2.0.downsample.0.weight\n" in text
    assert "unexpected (1): layer1.0.se.fc1.weight\n" in text
    assert "misshapen (1): layer1.1.bn2.bias (3,), not (2,)\n" in text
    assert "not finite (1): layer4.1.conv2.weight\n" in text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", np.zeros((2, 3, 5, 5)), r"\(2, 3, 5, 5\), not of 7 x 7 or 3 x 3"),
        ("conv1.weight", np.zeros((2, 3, 7)), r"\(2, 3, 7\), not of 4 axes"),
        ("layer1.0.conv3.weight", np.zeros((2, 2, 1, 1)), r"\(2, 2, 2, 2\) bottleneck blocks is"),
        ("layer3.2.conv1.weight", np.zeros((2, 2, 1, 1)), r"\(2, 2, 3, 2\) basic blocks is none"),
        ("fc.weight", np.zeros((5, 16)), r"a linear head:\n  missing \(1\): fc.bias"),
        ("fc.bias", np.zeros(()), r"missing \(1\): fc.weight"),
    ],
)
def test_each_fault_of_a_residual_network_alone(resnet, name, value, message):
    with pytest.raises(ValueError, match=message):
        load_encoder({**resnet, name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cls_token", None, r"\(timm layout\):\n  missing \(1\): cls_token"),
        ("pos_embed", None, r"missing \(1\): pos_embed"),
        ("blocks.1.attn.qkv.bias", None, r"missing \(1\): blocks.1.attn.qkv.bias"),
        ("blocks.0.ls1.gamma", np.zeros(24), r"unexpected \(1\): blocks.0.ls1.gamma"),
        ("fc_norm.weight", np.zeros(24), r"unexpected \(1\): fc_norm.weight"),
        ("blocks.0.mlp.fc1.bias", np.zeros(48), r"fc1.bias \(48,\), not \(96,\)"),
        ("patch_embed.proj.weight", np.zeros((24, 48)), r"weight \(24, 48\), not of 4 axes"),
        ("patch_embed.proj.weight", np.zeros((24, 3, 4, 2)), r"\(24, 3, 4, 2\), patches not"),
        ("pos_embed", np.zeros((1, 15, 24)), r"pos_embed \(1, 15, 24\), grid not square"),
        ("head.bias", np.zeros(4), r"head.bias \(4,\), not \(5,\)"),
        ("head.weight", np.full((5, 24), np.inf), r"not finite \(1\): head.weight"),
    ],
)
def test_each_fault_of_a_transformer_alone(timm, name, value, message):
    faulty = dict(timm)
    if value is None:
        del faulty[name]
    else:
        faulty[name] = value
    with pytest.raises(ValueError, match=message):
        load_encoder(faulty, **HEADS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": None}, r"width=24 is no multiple of 64.*heads=\.\.\., a divisor of 24"),
        ({"heads": 5}, "multiple of its 5 heads"),
        ({"image_size": 18}, "patch_size=4 does not divide image height 18"),
        ({"pooling": "max"}, "pooling='max' is unknown; choose one of 'class_token', 'mean'"),
        ({"mean": (0.5, 0.5, 0.5)}, "go together"),
        ({"mean": (0.5,), "std": (0.5,)}, r"each of the 3 channels"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, r"std above 0"),
    ],
)
def test_bad_options(timm, options, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(timm, **{**HEADS, **options})


def test_names_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"backbone.conv1.weight, .*\(1 in all\).*conv1.weight, p"):
        load_encoder({"backbone.conv1.weight": np.zeros(3)})
    with pytest.raises(ValueError, match="these names: nothing"):
        load_encoder({})


def test_normalization(resnet, timm):
    found = load_encoder(timm, **HEADS)
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)
    found = load_encoder(timm, **HEADS, mean=[0.5] * 3, std=(0.5, 0.25, 1))
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 1.0))
    grey = load_encoder({**resnet, "conv1.weight": resnet["conv1.weight"][:, :1]})
    assert (grey.mean, grey.std) == (None, None)
