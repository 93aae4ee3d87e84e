"""Reads datasets that TFDS itself wrote: generated images, under the names of real datasets."""

import io
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from recon_jax.data import batch_at, open_source, tfds_source

TRAIN, TEST = 20, 8


def picture(index, shape):
    pixels = np.random.default_rng(index).integers(0, 256, shape, np.uint8)
    pixels[0, 0] = index  # so that an image tells which one it is
    return pixels


def prepare(data_dir, name, version, splits, *, config=None, shape=(32, 32, 3), **choices):
    """Writes a dataset; `splits` maps a split to its number of images."""
    declared, num_classes = choices.get("declared", shape), choices.get("num_classes", 10)
    extra = choices.get("extra", {})
    label = choices.get("label", lambda split, i: i % num_classes)

    class Generated(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version=version)] if config else []

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=declared),
                "label": choices.get("label_feature")
                or tfds.features.ClassLabel(names=[f"class {k}" for k in range(num_classes)]),
            } | extra
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for i in range(splits[split]):
                size = choices["sizes"](i) if "sizes" in choices else shape
                buffer = io.BytesIO()
                Image.fromarray(picture(i, size).squeeze()).save(buffer, "PNG")
                buffer.seek(0)
                example = {"image": buffer, "label": label(split, i)}
                yield i, example | {key: 1 for key in extra}

    Generated.name = name
    options = {"config": config} if config else {}
    builder = Generated(
        data_dir=data_dir, file_format=choices.get("file_format", "array_record"), **options
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return builder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    both = {"train": TRAIN, "test": TEST}
    identity = {"id": tfds.features.Scalar(np.int64)}
    prepare(folder, "cifar10", "3.0.2", both, extra=identity)
    coarse = {"coarse_label": tfds.features.ClassLabel(num_classes=20)}
    prepare(folder, "cifar100", "3.0.2", both, extra=coarse, num_classes=100)
    prepare(folder, "mnist", "3.0.1", both, shape=(28, 28, 1))
    prepare(
        folder,
        "imagenette",
        "1.0.0",
        {"train": TRAIN, "validation": TEST},
        config="160px-v2",
        declared=(None, None, 3),
        sizes=lambda i: (12 + i % 3, 16, 3) if i % 2 else (12, 12, 1),
    )
    return str(folder)


def numbers(images):
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("name", "shape", "num_classes"),
    [("cifar10", (32, 32, 3), 10), ("cifar100", (32, 32, 3), 100), ("mnist", (28, 28, 1), 10)],
)
def test_images_and_labels_come_back_exactly(data_dir, name, shape, num_classes):
    for split, n in (("train", TRAIN), ("test", TEST)):
        source = open_source(f"tfds:{name}", split, data_dir=data_dir)
        assert source[:4] == (f"tfds:{name}", split, n, shape)
        assert source.label_names == tuple(f"class {k}" for k in range(num_classes))
        images, labels = source.read(np.arange(n))
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert sorted(numbers(images)) == list(range(n))
        for i, image, label in zip(numbers(images), images, labels, strict=True):
            np.testing.assert_array_equal(image, picture(i, shape))
            assert label == i % num_classes


def test_access_is_random(data_dir):
    source = open_source("tfds:cifar10", data_dir=data_dir)
    everything, labels = source.read(np.arange(TRAIN))
    fresh = open_source("tfds:cifar10", data_dir=data_dir)
    for indices in ([7], [3, 19, 3, 0], []):
        images, some = fresh.read(np.array(indices, int))
        np.testing.assert_array_equal(images, everything[indices])
        np.testing.assert_array_equal(some, labels[indices])
    with pytest.raises(ValueError, match="image index 20 is outside"):
        fresh.read(np.array([20]))


def test_batches_come_from_disk(data_dir):
    source = open_source("tfds:cifar10", data_dir=data_dir)
    batches = [batch_at(source, step=s, batch_size=8) for s in range(3)]
    seen = np.concatenate([b.images[b.mask] for b in batches])
    assert sorted(numbers(seen)) == list(range(TRAIN))


@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_reads_its_own_records_alone(data_dir, monkeypatch, processes):
    kind, fetched, everything = tfds.core.data_sources.base.BaseDataSource, [], []
    get = kind.__getitems__
    monkeypatch.setattr(
        kind, "__getitems__", lambda self, keys: fetched.extend(keys) or get(self, keys)
    )
    for index in range(processes):
        source = open_source("tfds:cifar10", data_dir=data_dir)
        fetched.clear()  # opening looks at the first record
        batches = [
            batch_at(source, step=s, batch_size=12, process_index=index, process_count=processes)
            for s in range(2)
        ]
        assert len(fetched) == len(set(fetched)) == sum(batch.mask.sum() for batch in batches)
        everything += fetched
    assert sorted(everything) == list(range(TRAIN))
    # The last 8 images leave the last of 3 processes nothing but padding.
    assert batches[-1].mask.any() == (processes == 2)


def test_a_version_may_be_named(data_dir):
    assert open_source("tfds:cifar10:3.0.2", data_dir=data_dir).num_images == TRAIN


def test_tfds_own_default_folder_is_used(data_dir, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", data_dir)
    assert open_source("tfds:cifar10").num_images == TRAIN


@pytest.mark.parametrize("block", [3, 1024])
def test_limit_is_balanced_in_the_order_on_disk(data_dir, monkeypatch, block):
    monkeypatch.setattr(tfds_source, "_LABELS_AT_ONCE", block)
    everything, labels = open_source("tfds:cifar10", data_dir=data_dir).read(np.arange(TRAIN))
    source = open_source("tfds:cifar10", data_dir=data_dir, limit=10)
    images, some = source.read(np.arange(10))
    assert sorted(some) == list(range(10))
    first = sorted(np.flatnonzero(labels == k)[0] for k in range(10))
    np.testing.assert_array_equal(images, everything[first])


def test_validation_serves_as_test_and_sizes_need_a_size(data_dir):
    name = "tfds:imagenette/160px-v2"
    with pytest.raises(ValueError, match=r"differ in size: .* image_size=N"):
        open_source(name, data_dir=data_dir)
    source = open_source(name, "test", data_dir=data_dir, image_size=8)
    assert (source.split, source.num_images, source.image_shape) == ("test", TEST, (8, 8, 3))
    images, labels = source.read(np.arange(TEST))
    assert images.shape == (TEST, 8, 8, 3)
    # Even ones were written as greyscale files.
    grey = (images == images[..., :1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(grey, labels % 2 == 0)


def test_a_late_image_of_another_size_is_noticed(tmp_path):
    def prepare_with_odd(folder, odd):
        prepare(
            tmp_path / folder,
            "imagenette",
            "1.0.0",
            {"train": 60},
            config="160px-v2",
            declared=(None, None, 3),
            sizes=lambda i: (9, 10, 3) if i == odd else (9, 9, 3),
        )
        return open_source("tfds:imagenette/160px-v2", data_dir=str(tmp_path / folder))

    # The order on disk depends on the keys alone, so the first writing tells what is last.
    last = int(prepare_with_odd("equal", None).read(np.array([59]))[0][0, 0, 0, 0])
    source = prepare_with_odd("odd", last)
    assert source.image_shape == (9, 9, 3)
    source.read(np.arange(59))
    with pytest.raises(ValueError, match=r"9x9 and 9x10 pixels .* image_size=N"):
        source.read(np.array([59]))


def test_a_test_split_without_labels_is_passed_over(tmp_path):
    splits = {"test": 4, "validation": TEST}
    prepare(
        tmp_path,
        "imagenet2012",
        "5.1.0",
        splits,
        label=lambda split, i: -1 if split == "test" else i % 10,
    )
    source = open_source("tfds:imagenet2012", "test", data_dir=str(tmp_path))
    assert source.num_images == TEST
    with pytest.raises(ValueError, match=r"no labelled train split; its splits are .*validation"):
        open_source("tfds:imagenet2012", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["svhn_cropped", "imagenet_resized/64x64", "no_such_dataset"])
def test_a_dataset_that_was_not_prepared_gives_the_command(data_dir, name):
    with pytest.raises(FileNotFoundError) as caught:
        open_source(f"tfds:{name}", data_dir=data_dir)
    message = str(caught.value)
    assert f"tfds:{name} was not prepared in {data_dir}" in message
    assert "pip install 'recon-jax[prepare]'" in message
    assert (
        f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
        ".download_and_prepare()" in message
    )


def test_another_version_on_disk_is_not_taken(data_dir):
    with pytest.raises(FileNotFoundError, match=r"cifar10:2\.0\.0 was not prepared"):
        open_source("tfds:cifar10:2.0.0", data_dir=data_dir)


def test_another_config_on_disk_is_not_taken(data_dir):
    with pytest.raises(FileNotFoundError, match=r"full-size-v2.* was not prepared"):
        open_source("tfds:imagenette", data_dir=data_dir)


def test_a_folder_without_its_info_is_not_prepared(tmp_path):
    os.makedirs(tmp_path / "cifar10" / "3.0.2")
    with pytest.raises(FileNotFoundError, match=r"was not prepared .*download_and_prepare"):
        open_source("tfds:cifar10", data_dir=str(tmp_path))


def test_tfrecord_is_refused_with_the_command(tmp_path):
    builder = prepare(tmp_path, "mnist", "3.0.1", {"train": 4}, shape=(28, 28, 1))
    info = tmp_path / "mnist" / "3.0.1" / "dataset_info.json"
    # Writing real tfrecord files takes TensorFlow; what it records of them does not.
    assert '"fileFormat": "array_record"' in info.read_text()
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(FileNotFoundError, match=r"as tfrecord, .* array_record.*download_and_prep"):
        open_source("tfds:mnist", data_dir=str(tmp_path))
    assert builder.name == "mnist"


def test_a_dataset_without_class_labels_is_refused(tmp_path):
    label = tfds.features.Scalar(np.int64)
    prepare(tmp_path, "my_data", "1.0.0", {"train": 4}, label_feature=label)
    with pytest.raises(ValueError, match=r"no class label called 'label'; .*image.*label"):
        open_source("tfds:my_data", data_dir=str(tmp_path))
