"""Images from a .npz file: as pixels, or as the bytes of JPEG files."""

from __future__ import annotations

import itertools
import zipfile
from os import PathLike
from pathlib import Path

import numpy as np

from recon_jax.data.array_source import Source, balanced_subset, check_images, from_arrays
from recon_jax.data.pictures import common_shape, decode_picture, picture_header, to_square

_LAYOUTS = (
    "{0}_images with {0}_labels (pixels), or {0}_jpeg with {0}_offsets and {0}_labels (JPEG bytes)"
)


def open_npz(
    path: str | PathLike,
    *,
    split: str = "train",
    image_size: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
) -> Source:
    """Opens one split of a .npz file, decoded into memory.

    Two layouts, with S either "train" or "test", both with `label_names` (one string a class) and
    integer `S_labels` (N,):
      pixels: `S_images` (N, H, W, C) or (N, H, W), uint8 or floating point;
      JPEG: `S_jpeg`, the files one after another as uint8, and `S_offsets` (N + 1,), where file
        i is `S_jpeg[S_offsets[i]:S_offsets[i + 1]]`.

    Args:
      path: the file.
      split: "train" or "test".
      image_size: pixels a side to crop and resize to; needed if JPEGs differ in size.
      data_dir: not used.
      limit: how many images to keep, balanced over classes (`balanced_subset`).

    Returns:
      A `Source`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, lacks a key, or its arrays do not fit together; the message
        names the key or the image.
    """
    del data_dir
    path = Path(path).expanduser()
    name = f"npz:{path}"
    arrays = _load(path, split)
    labels = arrays[f"{split}_labels"]
    if f"{split}_images" in arrays:
        images = check_images(arrays[f"{split}_images"], name)
        _check_length(name, split, labels, len(images))
        kept = balanced_subset(labels, limit)
        images = images if len(kept) == len(images) else images[kept]
        if image_size is not None:
            images = np.stack([to_square(image, image_size) for image in images])
    else:
        files = _jpeg_files(arrays[f"{split}_jpeg"], arrays[f"{split}_offsets"], name, split)
        _check_length(name, split, labels, len(files))
        kept = balanced_subset(labels, limit)
        images = _decode([files[i] for i in kept], kept, image_size, name, split)
    label_names = arrays["label_names"].ravel().tolist()
    return from_arrays(images, labels[kept], label_names, name=name, split=split)


def _load(path: Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of one split, all of them present."""
    if not path.is_file():
        raise FileNotFoundError(f"npz:{path}: there is no such file")
    try:
        # Given the path instead, NumPy leaves the file open when it is damaged.
        with path.open("rb") as file, np.load(file) as archive:
            present = archive.files
            wanted = _wanted_keys(split, present)
            arrays = {key: _read_array(archive.zip, key) for key in wanted if key in present}
    except PermissionError:
        raise
    except Exception as error:  # which one depends on where the damage is
        # NumPy's own message may advise allow_pickle=True, which would run code from the file.
        raise ValueError(
            f"npz:{path}: not a complete .npz file of plain arrays; copy it again, or write it "
            "with np.savez and no object arrays"
        ) from error
    missing = [key for key in wanted if key not in present]
    if missing:
        raise ValueError(
            f"npz:{path}: lacks {', '.join(missing)}; it holds {', '.join(present) or 'nothing'}. "
            f"Needed: label_names, and {_LAYOUTS.format(split)}"
        )
    return arrays


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    with archive.open(f"{key}.npy") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        # The checksum is compared at the end, where a damaged shape or a damaged compressed stream
        # does not lead.
        if file.read():
            raise ValueError(f"{key} is longer than its shape says")
    return array


def _wanted_keys(split: str, present: list[str]) -> list[str]:
    layout = ["jpeg", "offsets"] if f"{split}_jpeg" in present else ["images"]
    return [f"{split}_{part}" for part in (*layout, "labels")] + ["label_names"]


def _check_length(name: str, split: str, labels: np.ndarray, num_images: int) -> None:
    if labels.shape != (num_images,):
        raise ValueError(
            f"{name}: {split}_labels has shape {labels.shape}, but there are {num_images} images"
        )


def _jpeg_files(data: np.ndarray, offsets: np.ndarray, name: str, split: str) -> list[bytes]:
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(
            f"{name}: {split}_jpeg has dtype {data.dtype} and shape {data.shape}; "
            "it must be a vector of uint8"
        )
    if offsets.ndim != 1 or len(offsets) < 2 or not np.issubdtype(offsets.dtype, np.integer):
        raise ValueError(
            f"{name}: {split}_offsets has dtype {offsets.dtype} and shape {offsets.shape}; "
            "it must be a vector of integers, one more than there are images"
        )
    offsets = offsets.astype(np.int64)
    falls = np.flatnonzero(np.diff(offsets) <= 0)
    if falls.size:
        i = int(falls[0])
        raise ValueError(
            f"{name}: {split}_offsets must increase, but offset {i} is {offsets[i]} and "
            f"offset {i + 1} is {offsets[i + 1]}"
        )
    if offsets[0] < 0 or offsets[-1] > len(data):
        raise ValueError(
            f"{name}: {split}_offsets run from {offsets[0]} to {offsets[-1]}, outside the "
            f"{len(data)} bytes of {split}_jpeg"
        )
    return [data[a:b].tobytes() for a, b in itertools.pairwise(offsets)]


def _decode(
    files: list[bytes], indices: np.ndarray, image_size: int | None, name: str, split: str
) -> np.ndarray:
    places = [f"{name}: {split} JPEG {i}" for i in indices]
    headers = [picture_header(file, place) for file, place in zip(files, places, strict=True)]
    shape = common_shape(headers, image_size, name)
    images = np.empty((len(files), *shape), np.uint8)
    for i, (file, place) in enumerate(zip(files, places, strict=True)):
        images[i] = to_square(decode_picture(file, shape[2], place), image_size)
    return images
