"""Images from a dataset that TensorFlow Datasets prepared, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recon_jax.data.array_source import Source, balanced_subset
from recon_jax.data.cache import decode_once
from recon_jax.data.pictures import (
    decode_picture,
    differing_sizes,
    picture_header,
    to_square,
)

_INFO_FILE = "dataset_info.json"
_LABELS_AT_ONCE = 1024

ReadRecords = Callable[[Sequence[int]], list[dict[str, Any]]]


def open_tfds(
    address: str,
    *,
    split: str = "train",
    image_size: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
) -> Source:
    """Opens one split of a prepared TFDS dataset; images are decoded when first asked for.

    The test split is "test", or "validation" where there is no test split or it has no labels
    (ImageNet). The order is the one on disk, which TFDS shuffled once when it prepared the data.

    Args:
      address: a TFDS name, such as "cifar10", "imagenette/160px-v2" or "cifar10:3.0.2".
      split: "train" or "test".
      image_size: pixels a side to crop and resize to; needed if the images differ in size.
      data_dir: where the dataset was prepared; by default TFDS's own folder, $TFDS_DATA_DIR or
        ~/tensorflow_datasets.
      limit: how many images to keep, balanced over classes (`balanced_subset`).

    Returns:
      A `Source`.

    Raises:
      FileNotFoundError: the dataset was not prepared, or not as array_record; the message gives
        the command that prepares it.
      ValueError: no such split, no labelled 8-bit images in it, images that differ in size
        without `image_size`, or a file that is damaged or missing, here or when it is first read.
    """
    # Importing it takes over a second, which only those who read from it should pay.
    import tensorflow_datasets as tfds

    name = f"tfds:{address}"
    builder, way_out = _prepared_builder(tfds, address, data_dir)
    label_names = _check_features(tfds, builder.info.features, name)
    # Pillow decodes them here, the same way as for every other source.
    decoders = {"image": tfds.decode.SkipDecoding()}
    records, count = _labelled_split(builder, split, decoders, name, way_out)
    kept = _kept_records(records, count, limit, len(label_names))
    declared = builder.info.features["image"].shape
    shape = _image_shape(records, count, declared, image_size, name)

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(indices), *shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        wanted = [int(i) for i in kept[indices]]
        for row, record in enumerate(records(wanted)):
            where = f"{name}: {split} image {wanted[row]}"
            pixels = decode_picture(record["image"], shape[2], where)
            pixels = to_square(pixels, image_size)
            if pixels.shape != shape:
                raise ValueError(differing_sizes(name, shape, pixels.shape))
            images[row], labels[row] = pixels, record["label"]
        return images, labels

    read = decode_once(read, len(kept), shape, name)
    return Source(name, split, len(kept), shape, label_names, read)


def _prepared_builder(tfds: Any, address: str, data_dir: str | None) -> tuple[Any, str]:
    """The builder of a dataset that is on disk as array_record, and how to prepare it again."""
    from etils import epath  # comes with TFDS; reads gs:// paths too

    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    dataset, _, version = address.partition(":")
    # TFDS's own error for a dataset that was never prepared speaks of TFRECORD files.
    patterns = [f"{version or '*'}/{_INFO_FILE}", f"*/{version or '*'}/{_INFO_FILE}"]
    if not any(found for pattern in patterns for found in (root / dataset).glob(pattern)):
        raise FileNotFoundError(
            f"tfds:{address} was not prepared in {root}. {_how_to_prepare(address, root)}"
        )
    builder = tfds.builder(address, data_dir=root)
    if not (builder.data_path / _INFO_FILE).exists():
        raise FileNotFoundError(
            f"tfds:{address} means {builder.info.full_name}, which was not prepared in {root}; "
            f"name the config and version that are there (tfds:NAME/CONFIG:VERSION), or prepare "
            f"this one. {_how_to_prepare(address, root)}"
        )
    formats = sorted(f.value for f in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise FileNotFoundError(
            f"tfds:{address} was prepared in {builder.data_path} as {', '.join(formats)}, which "
            f"has no random access; array_record is needed: remove it or choose another data_dir. "
            f"{_how_to_prepare(address, root)}"
        )
    return builder, f"remove {builder.data_path} and prepare it again. " + _how_to_prepare(
        address, root
    )


def _how_to_prepare(address: str, root: Any) -> str:
    return (
        "To prepare it, run: pip install 'recon-jax[prepare]', then: "
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{address}', data_dir='{root}', file_format='array_record')"
        '.download_and_prepare()"'
    )


def _check_features(tfds: Any, features: Any, name: str) -> tuple[str, ...]:
    """The class names of a dataset that holds 8-bit images with one label each."""
    parts = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = parts.get("image"), parts.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(
            f"{name}: it has no 8-bit image called 'image'; its features are {sorted(parts)}"
        )
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"{name}: it has no class label called 'label'; its features are {sorted(parts)}"
        )
    return tuple(label.names)


def _labelled_split(
    builder: Any, split: str, decoders: dict[str, Any], name: str, way_out: str
) -> tuple[ReadRecords, int]:
    """The records of the split that serves as train or test, and how many there are."""
    present = [s for s in builder.info.splits if builder.info.splits[s].num_examples]
    candidates = [split] if split == "train" else ["test", "validation"]
    for candidate in candidates:
        if candidate not in present:
            continue
        source = builder.as_data_source(candidate, decoders=decoders)
        records = _checked_reader(source, builder.info.splits[candidate], name, way_out)
        # Where test labels are secret, as ImageNet's, TFDS stores -1.
        if records([0])[0]["label"] >= 0:
            return records, len(source)
    raise ValueError(
        f"{name}: has no labelled {' or '.join(candidates)} split; its splits are {present}"
    )


def _checked_reader(source: Any, split_info: Any, name: str, way_out: str) -> ReadRecords:
    """Reads records by number; for one that cannot be read, the error names its file."""

    def read(numbers: Sequence[int]) -> list[dict[str, Any]]:
        try:
            found = source.__getitems__(numbers)
            # Of a file that ends after its first 64 KiB come empty records, and no error.
            if not all(record["image"] for record in found):
                raise EOFError("the record is empty")
            return found
        except Exception as error:
            if len(numbers) > 1:
                return [read([number])[0] for number in numbers]
            (number,) = numbers
            shard = int(np.searchsorted(np.cumsum(split_info.shard_lengths), number, "right"))
            raise ValueError(
                f"{name}: record {number} of the {split_info.name} split cannot be read, as "
                f"{split_info.filepaths[shard]} is damaged or missing ({error}); restore this file "
                f"from a good copy, or {way_out}"
            ) from error

    return read


def _kept_records(
    records: ReadRecords, count: int, limit: int | None, num_classes: int
) -> np.ndarray:
    """Record numbers of the balanced subset, from as few labels as settle it."""
    if limit is None or limit >= count:
        return np.arange(count)
    labels: list[int] = []
    counts = np.zeros(num_classes, np.int64)
    enough = -(-limit // num_classes)
    while len(labels) < count and counts.min() < enough:
        block = range(len(labels), min(len(labels) + _LABELS_AT_ONCE, count))
        labels += [int(r["label"]) for r in records(list(block))]
        counts = np.bincount(labels, minlength=num_classes)
    return balanced_subset(np.asarray(labels), limit)


def _image_shape(
    records: ReadRecords,
    count: int,
    declared: tuple[int | None, ...],
    image_size: int | None,
    name: str,
) -> tuple[int, int, int]:
    """(H, W, C) of all images; where the dataset does not declare it, of the first ones."""
    channels = 1 if declared[2] == 1 else 3
    if image_size is not None:
        return image_size, image_size, channels
    if None not in declared[:2]:
        return declared[0], declared[1], channels
    # A look at a few tells sizes apart before a long run; `read` checks every image.
    first = enumerate(records(range(min(32, count))))
    headers = [picture_header(record["image"], f"{name}: image {i}") for i, record in first]
    for other in headers:
        if other[:2] != headers[0][:2]:
            raise ValueError(differing_sizes(name, headers[0], other))
    return (*headers[0][:2], channels)
