"""Opens a source of labelled images by name."""

from __future__ import annotations

from importlib import resources

from recon_jax.checks import check_integer
from recon_jax.data.array_source import Source, from_arrays
from recon_jax.data.folder_source import open_folder
from recon_jax.data.npz_source import open_npz
from recon_jax.data.scenes import open_scenes
from recon_jax.data.tfds_source import open_tfds

__all__ = ["Source", "from_arrays", "open_source"]

SPLITS = ("train", "test")


def open_source(
    name: str = "embedded",
    split: str = "train",
    *,
    image_size: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
) -> Source:
    """Opens one split of a source of labelled images.

    Names:
      "embedded": 10,000 train and 2,000 test images of Fashion-MNIST, 28x28x1, in this package.
      "tfds:NAME": a dataset prepared by TensorFlow Datasets, such as "tfds:cifar10",
        "tfds:imagenette/160px-v2" or "tfds:imagenet_resized/64x64" (`open_tfds`).
      "npz:PATH": arrays of pixels or JPEG bytes (`open_npz`).
      "folder:PATH": image files, one folder a class (`open_folder`).
      "scenes:OPTIONS": drawn shapes over noise, such as
        "scenes:object_scale=0.25&background_amplitude=1" (`scenes_source`).

    Args:
      name: as above.
      split: "train" or "test".
      image_size: pixels a side; images are cropped to their central square and resized (Lanczos),
        scenes are drawn at that size. Needed where images differ in size.
      data_dir: where TFDS datasets are; other sources do not use it.
      limit: keep this many images, as many of each class as possible: the first
        `limit // num_classes` of each class, what remains from those that come next within their
        class; in the original order.

    Returns:
      A `Source`.

    Raises:
      FileNotFoundError: there is no such file, folder, split or prepared dataset.
      ValueError: an argument is out of range, or the data cannot be used; the message says why.
    """
    scheme, colon, address = name.partition(":")
    if scheme not in READERS:
        raise ValueError(
            f"source {name!r} has the unknown scheme {scheme!r}; "
            f"choose one of {', '.join(READERS)} (such as 'embedded' or 'tfds:cifar10')"
        )
    if scheme in ("tfds", "npz", "folder") and not address:
        raise ValueError(f"source {name!r} lacks what to open; write {scheme}:{_EXAMPLES[scheme]}")
    if scheme == "embedded" and colon:
        raise ValueError(f"source {name!r}: the embedded source takes no options; write 'embedded'")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not a split; choose one of {', '.join(SPLITS)}")
    for option, value in (("image_size", image_size), ("limit", limit)):
        if value is not None:
            check_integer(option, value, 1, "or None")
    source = READERS[scheme](
        address, split=split, image_size=image_size, data_dir=data_dir, limit=limit
    )
    return source._replace(name=name, split=split)


def _open_embedded(address: str, **options) -> Source:
    file = resources.files("recon_jax.data.embedded") / "fashion_mnist.npz"
    with resources.as_file(file) as path:
        return open_npz(path, **options)


READERS = {
    "embedded": _open_embedded,
    "tfds": open_tfds,
    "npz": open_npz,
    "folder": open_folder,
    "scenes": open_scenes,
}
_EXAMPLES = {"tfds": "cifar10", "npz": "PATH", "folder": "PATH"}
