"""Files of weights: what comes back, and those that are damaged."""

import argparse
import json
import pickle
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal

from recon_jax.models import MaskedAutoencoder, variable_shapes
from recon_jax.models.huggingface import huggingface_config, load_published, to_huggingface
from recon_jax.models.weight_files import read_weights

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 3, "count": np.arange(4)}


def save_safetensors(path, name, dtype, array):
    """By hand, as the format is described: its writer for NumPy has no bfloat16."""
    spec = {name: {"dtype": dtype, "shape": array.shape, "data_offsets": [0, array.nbytes]}}
    header = json.dumps(spec).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + array.tobytes())


def test_safetensors_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    found = read_weights(str(path))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("stored", "dtype"), [("BF16", jnp.bfloat16), ("F16", np.float16), ("F64", np.float64)]
)
def test_other_floats_become_float32(tmp_path, stored, dtype):
    path, array = tmp_path / "a.safetensors", ARRAYS["a.weight"].astype(dtype)
    save_safetensors(path, "a", stored, array)
    found = read_weights(path)["a"]
    assert found.dtype == np.float32
    assert_array_equal(found, array.astype(np.float32))


def test_numbers_numpy_has_no_type_for(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, "a", "F8_E4M3", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"a.safetensors holds numbers .*F8_E4M3.* F64, F32"):
        read_weights(path)


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"x" + b[1:], lambda b: b""])
def test_a_damaged_safetensors_file_is_named(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged, .*download it again"):
        read_weights(path)


def test_other_places_and_endings(tmp_path):
    with pytest.raises(ValueError, match=r"weights.npz has an ending .* \.safetensors, \.pth"):
        read_weights(tmp_path / "weights.npz")
    with pytest.raises(FileNotFoundError, match=r"no file .*absent.safetensors"):
        read_weights(tmp_path / "absent.safetensors")


def test_without_pytorch_its_files_say_how_to_get_it(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"a\.pth .*pip install -e '\.\[torch\]'"):
        read_weights(path)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch, whose files these are")


@pytest.mark.parametrize(
    ("ending", "wrap"),
    [
        ("bin", lambda weights: weights),
        ("pth", lambda weights: {"model": weights, "epoch": 7, "args": argparse.Namespace(lr=0.1)}),
        ("pt", lambda weights: {"state_dict": weights}),
    ],
)
def test_pytorch_files_come_back(tmp_path, torch, ending, wrap):
    path = tmp_path / f"a.{ending}"
    torch.save(wrap({name: torch.from_numpy(array) for name, array in ARRAYS.items()}), path)
    found = read_weights(path)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert_array_equal(found[name], array)


def test_bfloat16_of_pytorch(tmp_path, torch):
    weight = torch.nn.Parameter(torch.tensor([1.5, -0.3], dtype=torch.bfloat16))
    torch.save({"a": weight}, tmp_path / "a.pt")
    found = read_weights(tmp_path / "a.pt")["a"]
    assert found.dtype == np.float32
    assert_array_equal(found, weight.detach().float())


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_pytorch_files_that_are_refused(tmp_path, torch):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(300)}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"a\.pth is damaged, cut short"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Malicious(), protocol=2))
    with pytest.raises(ValueError, match=r"a\.pth .*UnpicklingError"):
        read_weights(path)
    torch.save([torch.zeros(3)], path)
    with pytest.raises(ValueError, match=r"a\.pth holds a list, not named arrays"):
        read_weights(path)
    torch.save({"a": torch.zeros(3), "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"holds more than arrays: epoch; .*'model'"):
        read_weights(path)


@pytest.fixture(scope="module")
def model():
    return MaskedAutoencoder(
        (8, 8, 1),
        patch_size=4,
        width=24,
        depth=1,
        heads=6,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=1,
    )


@pytest.fixture
def folder(model, draw_variables, tmp_path):
    """As Hugging Face has them."""
    params = draw_variables(model, model.image_shape)["params"]
    arrays = to_huggingface(params, model)
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(model)))
    return tmp_path


def reconfigure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_says_how_many_heads(folder, model):
    found = load_published(folder)
    assert (found.model, found.notes) == (model, ())
    assert set(found.params) == {"encoder", "decoder"}
    expected = variable_shapes(model, model.image_shape)["params"]
    assert str({k: v.shape for k, v in found.params["decoder"]["embed"].items()}) == str(
        {k: v.shape for k, v in expected["decoder"]["embed"].items()}
    )
    assert load_published(folder, heads=3, decoder_heads=2).model == model.clone(
        heads=3, decoder_heads=2
    )
    larger = load_published(folder, image_size=16)
    assert larger.model.image_shape == (16, 16, 1)
    assert larger.notes == ("positions of a 2 x 2 grid are interpolated to 4 x 4",)


def test_a_file_alone_does_not(folder, model):
    path = folder / "model.safetensors"
    with pytest.raises(ValueError, match=r"model.safetensors: encoder width=24 is none of"):
        load_published(path, decoder_heads=1)
    assert load_published(path, heads=6, decoder_heads=1).model == model


def test_a_folder_of_pytorch(folder, model, torch):
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, folder / "pytorch_model.bin")
    assert load_published(folder).model == model


def test_larger_epsilons_are_noted(folder):
    reconfigure(folder, layer_norm_eps=1e-5)
    assert load_published(folder).notes == (
        "layer norms have epsilon 1e-06, config.json says 1e-05",
    )
    reconfigure(folder, layer_norm_eps=1e-12)
    assert load_published(folder).notes == ()


def test_folders_that_are_refused(folder):
    reconfigure(folder, hidden_act="relu")
    with pytest.raises(ValueError, match="hidden_act='relu'; only the exact 'gelu'"):
        load_published(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged: .*download it again"):
        load_published(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config.json; give the file"):
        load_published(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")
    with pytest.raises(ValueError, match="in several files"):
        load_published(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load_published(folder)
