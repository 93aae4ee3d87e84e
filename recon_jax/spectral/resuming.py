"""A pass over images that goes on where it was when it was interrupted."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging
from jax.typing import DTypeLike

from recon_jax import parallel
from recon_jax.checks import check_integer
from recon_jax.identity import identity_differences
from recon_jax.spectral.moments import Moments, merge_moments
from recon_jax.spectral.saved_moments import (
    DONE,
    on_device,
    on_host,
    read_moments,
    write_moments,
)
from recon_jax.spectral.streaming import fold_moments, require_images


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _restore(path: Path, about: Mapping[str, Any]) -> tuple[Moments | None, int]:
    """Statistics and number of batches of the newest save that is whole."""
    for candidate in (path, _previous(path)):
        try:
            moments, stored = read_moments(candidate)
        except FileNotFoundError:
            continue
        except ValueError as error:
            logging.warning("%s; going on from an earlier save, or from the start", error)
            continue
        done = stored.pop(DONE, stored.get("batches"))
        found = identity_differences(stored, about)
        if found:
            raise ValueError(
                f"{path} holds another pass ({'; '.join(found)}); choose another file, or delete "
                "it to start anew"
            )
        return moments, done
    return None, 0


def _keep(path: Path, moments: Moments, about: Mapping[str, Any]) -> None:
    if path.exists():
        os.replace(path, _previous(path))
    write_moments(path, moments, about)
    if about[DONE] == about["batches"]:
        _previous(path).unlink(missing_ok=True)


def _check(num_batches: int, save_every: int, identity: Mapping[str, Any]) -> None:
    for name, value in (("num_batches", num_batches), ("save_every", save_every)):
        check_integer(name, value, 1)
    try:
        json.dumps(identity, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"identity must hold only what JSON can ({error})") from error


def resume_moments(
    batches_from: Callable[[int], Iterable[tuple]],
    num_batches: int,
    num_classes: int,
    *,
    path: str | os.PathLike,
    save_every: int = 64,
    identity: Mapping[str, Any] | None = None,
    dtype: DTypeLike | None = None,
    engine: str = "auto",
) -> Moments:
    """`stream_moments` with its statistics on disk, to go on after an interruption.

    Each span of `save_every` batches is accumulated locally and reduced once; process 0 merges it
    into the float64 total in the file, which is never half written. A pass that was interrupted
    ends with the same bits as one that was not, on the same devices. A damaged file is noticed, and
    the save before it is used. After SIGTERM to any process all stop behind the next save.

    Args:
      batches_from: start -> this process's batches number start, start + 1, ..., num_batches - 1,
        as for `stream_moments`; each call must give the same.
      num_batches: of the whole pass, the same in every process.
      num_classes: C.
      path: of the file, in a folder that exists. When the pass has ended it is a file for
        `load_moments`, and further calls read it without asking for a batch.
      save_every: batches between two saves; a save writes 8 D^2 bytes.
      identity: JSON content that says which images these are and in which units; an interrupted
        pass goes on only where it is the same.
      dtype: of the accumulation and the result; JAX's default float if None.
      engine: as for `stream_moments`.

    Returns:
      The Moments of all images.

    Raises:
      ValueError: an argument is out of range, the file holds another pass, there are fewer batches
        than `num_batches`, or a batch is refused by `stream_moments`.
      OSError: the file cannot be written.
      SystemExit: with code 0, in all processes, after SIGTERM and a save.
    """
    identity = dict(identity or {})
    _check(num_batches, save_every, identity)
    path, dtype = Path(path), jnp.dtype(dtype or jnp.result_type(float))
    about = {
        **identity,
        "num_classes": num_classes,
        "dtype": dtype.name,
        "batches": num_batches,
    }
    total, done = parallel.from_main(lambda: _restore(path, about))
    batches = iter(batches_from(done)) if done < num_batches else iter(())
    while done < num_batches:
        span = min(save_every, num_batches - done)
        taken = _Counted(itertools.islice(batches, span))
        part = fold_moments(taken, num_classes, dtype, engine)
        if taken.count < span:
            raise ValueError(
                f"there are {done + taken.count} batches, but num_batches={num_batches}"
            )
        part, done = on_host(part), done + span
        total = part if total is None else merge_moments(total, part)
        state = total, {**about, DONE: done}
        parallel.from_main(lambda state=state: _keep(path, *state))
        if done < num_batches and parallel.preempted():
            logging.warning("stopped by SIGTERM after %d of %d batches", done, num_batches)
            raise SystemExit(0)
    require_images(total)
    return on_device(total, dtype)


class _Counted:
    """An iterable that knows how many items it has given."""

    def __init__(self, items: Iterable):
        self.items, self.count = items, 0

    def __iter__(self):
        for item in self.items:
            self.count += 1
            yield item
