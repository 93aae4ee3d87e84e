import subprocess
import sys

import numpy as np
import pytest

from recon_jax.data import Source, open_source


def test_the_default_is_the_embedded_train_split():
    source = open_source()
    assert isinstance(source, Source)
    assert (source.name, source.split, source.num_images) == ("embedded", "train", 10_000)


@pytest.mark.parametrize("name", ["cifar10", "tdfs:cifar10", "", "Embedded", "/data/x.npz"])
def test_an_unknown_scheme_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="embedded, tfds, npz, folder, scenes"):
        open_source(name)


@pytest.mark.parametrize("name", ["tfds", "npz:", "folder", "folder:"])
def test_a_name_without_an_address_is_refused(name):
    with pytest.raises(ValueError, match=rf"lacks what to open; write {name.rstrip(':')}:"):
        open_source(name)


def test_the_embedded_source_has_no_options():
    with pytest.raises(ValueError, match="takes no options"):
        open_source("embedded:cifar10")


@pytest.mark.parametrize("split", ["validation", "Train", "train[:10]"])
def test_an_unknown_split_is_refused(split):
    with pytest.raises(ValueError, match="choose one of train, test"):
        open_source("embedded", split)


@pytest.mark.parametrize("option", ["image_size", "limit"])
@pytest.mark.parametrize("value", [0, -1, True])
def test_sizes_must_be_positive_whole_numbers(option, value):
    with pytest.raises(ValueError, match=f"{option}={value!r} must be an integer of at least 1"):
        open_source("embedded", **{option: value})


def test_every_source_takes_limit_and_size(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        train_images=np.zeros((4, 6, 6, 1), np.uint8),
        train_labels=np.array([0, 0, 1, 1]),
        label_names=np.array(["a", "b"]),
    )
    for name in ("embedded", f"npz:{tmp_path}/a.npz", "scenes", "scenes:num_classes=2"):
        source = open_source(name, limit=2, image_size=5, data_dir="ignored")
        assert (source.name, source.num_images) == (name, 2)
        images, labels = source.read(np.arange(2))
        assert images.shape == (2, *source.image_shape)
        assert source.image_shape[:2] == (5, 5)
        assert len(set(labels.tolist())) == 2
        with pytest.raises(ValueError, match=r"outside 0\.\.1"):
            source.read(np.array([2]))


def test_reading_other_sources_does_not_import_tfds():
    code = (
        "import sys, recon_jax.data as d; d.open_source('embedded'); d.open_source('scenes');"
        "sys.exit('tensorflow_datasets' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
