import os

import numpy as np
import pytest

from recon_jax.files import read_arrays, write_arrays, write_bytes


def test_arrays_come_back(tmp_path):
    arrays = {
        "large": np.random.default_rng(0).random((300, 1000)),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "text": np.array("größe"),
        "scalar": np.int32(3),
        "none": np.zeros((0, 2), np.uint8),
    }
    write_arrays(tmp_path / "a.npz", arrays)
    again = read_arrays(tmp_path / "a.npz")
    assert set(again) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(again[name], value)
        assert again[name].dtype == np.asarray(value).dtype


def test_any_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": np.arange(20.0)})
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"a\.npz is damaged: its SHA-256 does not fit"):
            read_arrays(path)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_arrays(path)["x"], np.arange(20.0))


def test_python_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "a.npz", {"x": np.array([object()])})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [lambda p: write_bytes(p, b"new"), lambda p: write_arrays(p, {})])
def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch, write):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
