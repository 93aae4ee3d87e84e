"""Images from a folder of image files, one folder a class."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from recon_jax.data.array_source import Source, balanced_subset
from recon_jax.data.cache import decode_once
from recon_jax.data.pictures import common_shape, decode_picture, picture_header, to_square

SUFFIXES = (".jpeg", ".jpg", ".png")


def open_folder(
    path: str | PathLike,
    *,
    split: str = "train",
    image_size: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
) -> Source:
    """Opens one split of a folder `PATH/<split>/<class>/*.png|jpg|jpeg`.

    Images may lie in subfolders of their class, as in tiny-imagenet-200. Without `train` and `test`
    folders, `PATH/<class>/*` is the train split. Classes are the folder names of the train split,
    sorted; files are sorted within their class; names that begin with a dot are skipped. Greyscale
    stays one channel unless one image has colour; alpha is dropped. Every header is read here, the
    pixels when they are first asked for.

    Args:
      path: the folder.
      split: "train" or "test".
      image_size: pixels a side to crop and resize to; needed if the images differ in size.
      data_dir: not used.
      limit: how many images to keep, balanced over classes (`balanced_subset`).

    Returns:
      A `Source`.

    Raises:
      FileNotFoundError: there is no such folder, or no such split in it.
      ValueError: no class, a class without images, a test class that train lacks, an image that
        cannot be read, or images that differ in size without `image_size`.
    """
    del data_dir
    path = Path(path).expanduser()
    name = f"folder:{path}"
    label_names = _class_names(_split_folder(path, "train", split))
    files, labels = _list_images(_split_folder(path, split, split), label_names)
    kept = balanced_subset(labels, limit)
    files, labels = [files[i] for i in kept], labels[kept]
    headers = [picture_header(file, f"image {file}") for file in files]
    shape = common_shape(headers, image_size, name)

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(indices), *shape), np.uint8)
        for row, i in enumerate(indices):
            pixels = decode_picture(files[i], shape[2], f"image {files[i]}")
            images[row] = to_square(pixels, image_size)
        return images, labels[indices]

    read = decode_once(read, len(files), shape, name)
    return Source(name, split, len(files), shape, label_names, read)


def _split_folder(path: Path, wanted: str, asked: str) -> Path:
    """The folder that holds the classes of the wanted split.

    For classes, a folder that holds a test split alone stands in for its train split.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"folder:{path}: there is no such folder")
    present = [s for s in ("train", "test") if (path / s).is_dir()]
    if not present and asked == "train":
        return path
    if asked not in present:
        raise FileNotFoundError(
            f"folder:{path}: there is no {asked} split, as {path / asked} is not a folder; "
            + (f"only {present[0]} is there" if present else "only a train split, in the classes")
        )
    return path / (wanted if wanted in present else asked)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise ValueError(
            f"folder:{folder}: holds no class folders; put images in {folder}/<class>/*.png, "
            "one folder a class"
        )
    return tuple(names)


def _list_images(folder: Path, label_names: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    unknown = sorted(set(_class_names(folder)) - set(label_names))
    if unknown:
        raise ValueError(
            f"folder:{folder}: class {unknown[0]!r} is not in the train split, "
            f"which has {', '.join(label_names)}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, label_name in enumerate(label_names):
        if not (folder / label_name).is_dir():
            continue
        found = sorted(
            p
            for p in (folder / label_name).rglob("*")
            if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        )
        if not found:
            raise ValueError(
                f"folder:{folder}: class {label_name!r} holds no image files "
                f"({', '.join(SUFFIXES)}); add some, or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return files, np.asarray(labels, np.int32)
