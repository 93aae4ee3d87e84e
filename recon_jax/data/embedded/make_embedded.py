"""Makes fashion_mnist.npz from the Debian package `dataset-fashion-mnist` (31 MB download).

    python -m recon_jax.data.embedded.make_embedded --output fashion_mnist.npz

Needs `apt-get` and `dpkg`, and writes the same bytes every time with the same zlib.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from recon_jax.data.array_source import balanced_subset

PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
IDX_NAMES = {"train": "train", "test": "t10k"}
NUM_KEPT = {"train": 10_000, "test": 2_000}
LABEL_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SHA256 = {
    "train_images": "3159da8fc5c6265f67b0f37999757ed0b2e0d2083152d7fceb010f53c2a6b334",
    "train_labels": "30304b65dcfcf7efc5f7b855aea30ac188f1be57a4a6b52fad52648b07585222",
    "test_images": "13ea29243e6af713757836b0f51ee93404c59b3c38b7c9ab6c8043a88efd37dc",
    "test_labels": "d05aa52a2687393805d2b0f107d230f636ebfcb4abf8f25b3aa8ce758686f75a",
    "label_names": "3cd2b4d5fcf5596d99ae7ff4532bc7a3c722bcf84060b84c49a69b6419747acf",
}


def read_idx(content: bytes) -> np.ndarray:
    """Parses an IDX file of unsigned bytes.

    The header is 0, 0, 8 (the code of unsigned bytes), the number of dimensions, then each
    dimension as a big-endian 32-bit integer.

    Raises:
      ValueError: another kind of file, or not as many bytes as the header says.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"not an IDX file of unsigned bytes: it begins with {content[:4]!r}")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != int(np.prod(shape)):
        raise ValueError(f"an IDX file of shape {shape} holds {len(content) - start} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def first_of_each_class(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the .npz, in the original order, from the four IDX files in `folder`."""
    arrays = {}
    for split, prefix in IDX_NAMES.items():
        images, labels = (
            read_idx(gzip.decompress((folder / f"{prefix}-{part}-ubyte.gz").read_bytes()))
            for part in ("images-idx3", "labels-idx1")
        )
        kept = balanced_subset(labels, NUM_KEPT[split])
        arrays[f"{split}_images"] = images[kept, ..., None]
        arrays[f"{split}_labels"] = labels[kept]
    return arrays | {"label_names": np.array(LABEL_NAMES)}


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and bytes."""
    header = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def check_digests(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError if an array is not the one expected, naming it."""
    for key, expected in SHA256.items():
        found = digest(arrays[key])
        if found != expected:
            raise ValueError(f"{key} has SHA-256 {found}, expected {expected}")


def download(folder: Path) -> Path:
    """Fetches and unpacks the Debian package; returns the folder of its IDX files."""
    # apt-get drops root for downloads, to a user who must be able to write here.
    os.chmod(folder, 0o777)
    subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=folder, check=True)
    (package,) = folder.glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=folder, check=True)
    return folder / "unpacked" / FOLDER


def main() -> None:
    """Downloads, selects, checks and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("fashion_mnist.npz")
    )
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        arrays = first_of_each_class(download(Path(folder)))
    check_digests(arrays)
    np.savez_compressed(output, **arrays)
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
