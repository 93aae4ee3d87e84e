"""A bit that flips anywhere in a checkpoint is harmless or noticed; never other numbers."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.training import open_checkpoints, restore_checkpoint, save_checkpoint

# Orbax gives up at the first leaf it cannot read, and the reads of the others then report to an
# event loop that is closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FLIPS = 50
IDENTITY = {"model": "mlp", "peak": 0.1}


def state_of(step):
    rng = np.random.default_rng(step)
    return {
        # Large enough for a file of its own, in which Orbax notices nothing.
        "kernel": jnp.asarray(rng.standard_normal((64, 48)), jnp.float32),
        "mean": jnp.asarray(rng.standard_normal(4)),
        "half": jnp.asarray(rng.standard_normal(3), jnp.bfloat16),
        "key": jax.random.key(step),
        "step": jnp.int32(step),
    }


def carry_of(step):
    return {"loss": [step / 7, 64.0]}


def bytes_of(state):
    plain = {**state, "key": jax.random.key_data(state["key"])}
    return {name: (str(x.dtype), np.asarray(x).tobytes()) for name, x in plain.items()}


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with open_checkpoints(folder) as checkpoints:
        for step in (10, 20):
            save_checkpoint(
                checkpoints, step, state_of(step), identity=IDENTITY, carry=carry_of(step)
            )
    return folder


def flip(rng, folder):
    """Flip one bit of all those in the files of a folder, each as likely; returns where."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    file = int(rng.choice(len(files), p=sizes / sizes.sum()))
    # Small files count as much as large ones in every other draw.
    if rng.random() < 0.5:
        file = int(rng.choice(np.flatnonzero(sizes)))
    byte, bit = int(rng.integers(sizes[file])), int(rng.integers(8))
    content = bytearray(files[file].read_bytes())
    content[byte] ^= 1 << bit
    files[file].write_bytes(content)
    return f"bit {bit} of byte {byte} of {files[file].relative_to(folder)}"


def test_any_flipped_bit_is_noticed_or_harmless(two_checkpoints, tmp_path, caplog):
    # Other places at each run of the tests; written down for the case that one fails.
    seed = int(np.random.default_rng().integers(2**32))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    used = []
    for index in range(FLIPS):
        folder = shutil.copytree(two_checkpoints, tmp_path / str(index))
        place = flip(rng, folder / "20")
        print(place)
        caplog.clear()
        with open_checkpoints(folder) as checkpoints:
            restored = restore_checkpoint(checkpoints, state_of(0), identity=IDENTITY)
        assert bytes_of(restored.state) == bytes_of(state_of(restored.step)), place
        assert restored.carry == carry_of(restored.step)
        warnings = re.findall(rf"checkpoint {folder / '20'} is damaged \(.+", caplog.text)
        assert (restored.step, len(warnings)) in ((20, 0), (10, 1)), place
        # The one before is never touched, and the damaged one is kept to be looked at.
        assert (folder / "10").is_dir()
        assert (folder / "damaged" / "20").is_dir() == (restored.step == 10)
        used.append(restored.step)
        shutil.rmtree(folder)
    # Flips without meaning alone, or none, would be no test.
    assert set(used) == {10, 20}
