"""Datasets that are damaged on the disk: noticed when read, and the run goes on once restored."""

import io
import re
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from recon_jax import data, parallel
from recon_jax.training import fit, init_state, make_optimizer, make_train_step

from .runs import checkpoints_of

IMAGES, SHARDS, SHAPE = 48, 3, (8, 8, 3)


def picture(index, shape=SHAPE):
    """Smooth with a little noise, as photographs are."""
    rng = np.random.default_rng(index)
    rows, columns, channels = np.meshgrid(*map(np.arange, shape), indexing="ij")
    waves = np.sin(rows / 3 + index) + np.cos(columns / 2 - channels)
    return np.clip(128 + 50 * waves + 4 * rng.standard_normal(shape), 0, 255).astype(np.uint8)


def encoded(index, kind):
    buffer = io.BytesIO()
    Image.fromarray(picture(index)).save(buffer, kind)
    return buffer.getvalue()


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Generated pictures as a dataset that TFDS itself writes."""

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        parts = {
            "image": tfds.features.Image(shape=SHAPE),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(parts))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(IMAGES):
            yield i, {"image": io.BytesIO(encoded(i, "PNG")), "label": i % 3}


class Dataset(NamedTuple):
    """A dataset on disk.

    Attributes:
      folder: holds all of it.
      name: to open it with.
      data_dir: to open it with.
      files: those with images in them.
    """

    folder: object
    name: str
    data_dir: str | None
    files: list

    def open(self):
        """Opens it anew, with nothing in memory."""
        return data.open_source(self.name, data_dir=self.data_dir)


def write_tfds(folder):
    builder = Shapes(data_dir=folder, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False, num_shards=SHARDS)
    builder.download_and_prepare(download_config=config)
    files = sorted(folder.rglob("*.array_record-*"))
    assert len(files) == SHARDS
    return Dataset(folder, "tfds:shapes", str(folder), files)


def write_npz(folder, save=np.savez):
    folder.mkdir(exist_ok=True)
    images = np.stack([picture(i) for i in range(IMAGES)])
    arrays = {"train_images": images, "train_labels": np.arange(IMAGES) % 3}
    save(folder / "shapes.npz", **arrays, label_names=np.array(["a", "b", "c"]))
    return Dataset(folder, f"npz:{folder / 'shapes.npz'}", None, [folder / "shapes.npz"])


def write_folder(folder, kind="PNG"):
    for i in range(IMAGES):
        (folder / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        (folder / "abc"[i % 3] / f"{i:02}.{kind.lower()}").write_bytes(encoded(i, kind))
    return Dataset(folder, f"folder:{folder}", None, sorted(folder.glob("*/*")))


def write_jpegs(folder):
    return write_folder(folder, "JPEG")


def read_all(source):
    images, labels = source.read(np.arange(source.num_images))
    return source.label_names, images.tobytes(), labels.tolist()


def flip_bit(path, byte, bit):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def used_bytes(path):
    """What comes before the zeros with which ArrayRecord fills its blocks."""
    place = path.read_bytes().find(bytes(4096))
    return path.stat().st_size if place < 0 else place


WAYS_OUT = {
    "tfds": r"tfds:shapes: record \d+ of the train split cannot be read, as {file} is damaged or "
    r"missing \(.+\); restore this file from a good copy, or remove .+shapes/1\.0\.0 and prepare "
    r"it again\. To prepare it, run: .+download_and_prepare\(\)\"",
    "npz": r"npz:{file}: not a complete .npz file of plain arrays; copy it again, or .+",
    "folder": r"cannot read image {file}: .+; if it is damaged, restore it from a good copy",
}


def message_of(dataset, file):
    return WAYS_OUT[dataset.name.split(":")[0]].replace("{file}", re.escape(str(file)))


@pytest.mark.parametrize("write", [write_tfds, write_npz, write_folder, write_jpegs])
@pytest.mark.parametrize("keep", [0, 0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, write, keep):
    dataset = write(tmp_path / "data")
    file = dataset.files[1 % len(dataset.files)]
    truncate(file, int(keep * file.stat().st_size))
    with pytest.raises(ValueError, match=f"^{message_of(dataset, file)}$"):
        read_all(dataset.open())


def test_a_missing_shard_is_named(tmp_path):
    dataset = write_tfds(tmp_path / "data")
    dataset.files[2].unlink()
    with pytest.raises(ValueError, match=f"^{message_of(dataset, dataset.files[2])}$"):
        read_all(dataset.open())


@pytest.mark.parametrize(
    "write", [write_tfds, write_npz, lambda folder: write_npz(folder, np.savez_compressed)]
)
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path, write):
    dataset = write(tmp_path / "data")
    good = read_all(dataset.open())
    # Other places at each run of the tests; written down for the case that one fails.
    seed = int(np.random.default_rng().integers(2**32))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    noticed = 0
    for _ in range(60):
        file = dataset.files[rng.integers(len(dataset.files))]
        before = file.read_bytes()
        byte, bit = int(rng.integers(used_bytes(file))), int(rng.integers(8))
        print(f"bit {bit} of byte {byte} of {file}")
        flip_bit(file, byte, bit)
        try:
            found, message = read_all(dataset.open()), ""
        except ValueError as error:
            found, message = None, str(error)
        assert found == good or str(file) in message
        noticed += found is None
        file.write_bytes(before)
    assert noticed > 10


def test_a_damaged_shape_is_noticed(tmp_path):
    dataset = write_npz(tmp_path / "data")
    (file,) = dataset.files
    place = file.read_bytes().index(b"(48, 8, 8, 3)") + len("(48, 8, 8, ")
    flip_bit(file, place, 1)  # "3" becomes "1", and a third of the bytes would be all there is
    assert b"(48, 8, 8, 1)" in file.read_bytes()
    with pytest.raises(ValueError, match=f"^{message_of(dataset, file)}$"):
        dataset.open()


OPTIMIZER = make_optimizer("sgd", 0.1)
STEPS, DAMAGED_AT = 24, 14


def loss_fn(params, batch_stats, batch, key):
    images = jnp.asarray(batch.images, jnp.float32).reshape(len(batch.labels), -1) / 255
    losses = optax.softmax_cross_entropy_with_integer_labels(images @ params, batch.labels)
    return losses.mean(), (batch_stats, {})


@pytest.fixture(scope="module")
def step_fn():
    return parallel.data_parallel(make_train_step(loss_fn, OPTIMIZER))


def train(step_fn, workdir, dataset, damage=None, asked=None):
    """A run that opens its data anew at the step at which they are damaged."""
    reader = [data.run_batches(dataset.open(), 8, seed=0)]

    def batch_at(step):
        if damage is not None and step == DAMAGED_AT:
            damage()
            reader[0] = data.run_batches(dataset.open(), 8, seed=0)
        if asked is not None:
            asked.append(step)
        return reader[0](step)

    params = jnp.zeros((int(np.prod(SHAPE)), 3), jnp.float32)
    return fit(
        init_state(params, OPTIMIZER, key=jax.random.key(0)),
        step_fn,
        batch_at,
        STEPS,
        workdir=workdir,
        checkpoint_every=4,
        log_every=5,
        tensorboard=False,
    )


def flip_shard(file):
    flip_bit(file, used_bytes(file) // 3, 3)


def halve(file):
    truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    ("write", "damage"),
    [
        (write_tfds, flip_shard),
        (write_tfds, halve),
        (write_npz, flip_shard),
        (write_folder, halve),
        (write_jpegs, halve),
    ],
)
def test_training_stops_and_goes_on_once_the_file_is_restored(tmp_path, step_fn, write, damage):
    dataset = write(tmp_path / "data")
    file = dataset.files[-1]
    backup = shutil.copy(file, tmp_path / "backup")
    whole = train(step_fn, tmp_path / "whole", dataset)

    workdir = tmp_path / "run"
    for attempt in range(2):  # also when it is run again before the file is restored
        with pytest.raises(ValueError, match=f"^{message_of(dataset, file)}$"):
            train(step_fn, workdir, dataset, damage=None if attempt else lambda: damage(file))
        kept = checkpoints_of(workdir)
        assert kept[-1] in (12, 16, 20)

    shutil.copy(backup, file)
    asked = []
    state = train(step_fn, workdir, dataset, asked=asked)
    assert asked[0] == kept[-1]
    for ours, expected in zip(
        (state.params, state.opt_state), (whole.params, whole.opt_state), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, ours, expected)
    paths = [folder / "metrics.jsonl" for folder in (workdir, tmp_path / "whole")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert checkpoints_of(workdir) == checkpoints_of(tmp_path / "whole") == [16, 20, 24]
