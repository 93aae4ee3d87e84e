import gzip
import struct
from importlib import resources

import numpy as np
import pytest

from recon_jax.data import open_source
from recon_jax.data.embedded import make_embedded


def shipped():
    file = resources.files("recon_jax.data.embedded") / "fashion_mnist.npz"
    with resources.as_file(file) as path, np.load(path) as archive:
        return dict(archive)


@pytest.mark.parametrize(("split", "each"), [("train", 1000), ("test", 200)])
def test_the_shipped_images_are_balanced(split, each):
    source = open_source("embedded", split)
    assert source.image_shape == (28, 28, 1)
    assert source.label_names == make_embedded.LABEL_NAMES
    images, labels = source.read(np.arange(source.num_images))
    np.testing.assert_array_equal(np.bincount(labels), [each] * 10)
    assert images.dtype == np.uint8
    assert images.max() == 255


def test_the_original_order_is_kept():
    # The first labels of Fashion-MNIST, as its authors publish it.
    train, test = open_source("embedded"), open_source("embedded", "test")
    assert train.read(np.arange(10))[1].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert test.read(np.arange(10))[1].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_the_shipped_file_is_the_checked_one():
    arrays = shipped()
    assert set(arrays) == set(make_embedded.SHA256)
    make_embedded.check_digests(arrays)
    arrays["test_labels"] = arrays["test_labels"][::-1]
    with pytest.raises(ValueError, match="test_labels has SHA-256"):
        make_embedded.check_digests(arrays)


def test_train_and_test_do_not_overlap():
    arrays = shipped()
    train = {image.tobytes() for image in arrays["train_images"]}
    assert not any(image.tobytes() in train for image in arrays["test_images"])


def test_the_file_is_small_and_has_its_licence():
    folder = resources.files("recon_jax.data.embedded")
    assert len((folder / "fashion_mnist.npz").read_bytes()) < 6_000_000
    text = (folder / "README.md").read_text()
    for phrase in ("The MIT License", "Copyright (c) 2017 Zalando SE", "1708.07747"):
        assert phrase in text


def idx(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    arrays = {key: value[:100] for key, value in shipped().items()}
    for name in ("a.npz", "b.npz"):
        np.savez_compressed(tmp_path / name, **arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_idx_files_are_parsed():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(make_embedded.read_idx(idx(array)), array)
    with pytest.raises(ValueError, match="holds 23 bytes"):
        make_embedded.read_idx(idx(array)[:-1])
    with pytest.raises(ValueError, match="not an IDX file"):
        make_embedded.read_idx(b"\x89PNG....")


def test_selection_from_idx_files(tmp_path, monkeypatch):
    monkeypatch.setattr(make_embedded, "NUM_KEPT", {"train": 4, "test": 2})
    labels = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    for prefix, start in (("train", 0), ("t10k", 100)):
        images = np.arange(start, start + 6, dtype=np.uint8).reshape(6, 1, 1)
        for part, array in (("images-idx3", images), ("labels-idx1", labels)):
            (tmp_path / f"{prefix}-{part}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    arrays = make_embedded.first_of_each_class(tmp_path)
    assert arrays["train_images"].ravel().tolist() == [0, 1, 3, 4]
    assert arrays["train_images"].shape == (4, 1, 1, 1)
    assert arrays["train_labels"].tolist() == [1, 1, 0, 0]
    assert arrays["test_images"].ravel().tolist() == [100, 103]
