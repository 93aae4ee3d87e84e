"""Checkpoints that are verified when read: Orbax writes them, a manifest says what is in them.

The manifest lists every leaf with dtype, shape and SHA-256, and carries the run's identity. A
damaged checkpoint is moved aside and the one before it is used; one that belongs to another run is
refused. Every process holds the whole state, so process 0 alone reads and writes; the others get
what it read. The only file that knows Orbax.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from recon_jax import parallel
from recon_jax.checks import check_integer
from recon_jax.identity import json_content
from recon_jax.training import fingerprint

DAMAGED = "damaged"


class DamagedError(Exception):
    """A checkpoint that does not hold what was saved."""


class Checkpoints(NamedTuple):
    """An open folder of checkpoints.

    Attributes:
      folder: holds one folder a step.
      manager: Orbax's.
      keep: how many of the newest to keep.
      best_mode: "max" or "min": also keep the one with the best metric; None keeps none.
    """

    folder: Path
    manager: ocp.CheckpointManager
    keep: int
    best_mode: str | None


class Restored(NamedTuple):
    """What a checkpoint gives back.

    Attributes:
      step: of the checkpoint.
      state: shaped as the template.
      carry: the JSON content saved beside it.
    """

    step: int
    state: Any
    carry: Any


@contextlib.contextmanager
def open_checkpoints(
    folder: str | os.PathLike, *, keep: int = 3, best_mode: str | None = None
) -> Iterator[Checkpoints]:
    """Open a folder of checkpoints; on leaving, wait for what is being saved.

    What an interrupted save left is removed, and folders named like a step that hold no checkpoint
    are moved to `damaged/`. Only one process may have the folder open: see `lock_workdir`.

    Args:
      folder: created if missing.
      keep: how many of the newest checkpoints to keep, at least 1.
      best_mode: "max" or "min" keeps the one with the best metric as well.

    Returns:
      A context manager that gives `Checkpoints`.

    Raises:
      ValueError: an argument outside its range.
      OSError: on leaving, if the last checkpoint could not be written.
    """
    check_integer("keep", keep, 1)
    if best_mode not in ("max", "min", None):
        raise ValueError(f"best_mode={best_mode!r} must be 'max', 'min' or None")
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        # Orbax lists such a folder as a step and fails on it.
        if path.name.isdigit() and not (path / "_CHECKPOINT_METADATA").is_file():
            _set_aside(path, "it holds no finished checkpoint")
    options = ocp.CheckpointManagerOptions(
        create=False,
        cleanup_tmp_directories=True,
        # Orbax measures by the wall clock how long a save takes: set forward by more than this
        # during one, it would give up.
        async_options=ocp.AsyncOptions(timeout_secs=100 * 365 * 86400),
        # In a run of several processes the others do not come here, and are not to be waited for.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="recon_jax"
        ),
    )
    manager = ocp.CheckpointManager(folder, item_names=("state", "manifest"), options=options)
    checkpoints = Checkpoints(folder, manager, keep, best_mode)
    try:
        yield checkpoints
    except BaseException:
        # What ended the run is the news; a failed save must not hide it.
        try:
            finish_saving(checkpoints)
        except OSError as error:
            logging.error("%s", error)
        raise
    else:
        finish_saving(checkpoints)
        _prune(checkpoints)
    finally:
        with contextlib.suppress(Exception):
            manager.close()


def _set_aside(path: Path, reason: str) -> None:
    target = path.parent / DAMAGED / path.name
    count = 1
    while target.exists():
        count += 1
        target = path.parent / DAMAGED / f"{path.name}-{count}"
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    logging.warning("checkpoint %s is damaged (%s); moved to %s", path, reason, target)


def saved_steps(checkpoints: Checkpoints) -> list[int]:
    """Steps of the finished checkpoints, ascending."""
    busy = checkpoints.manager.is_saving_in_progress()
    steps = sorted(checkpoints.manager.all_steps())
    return steps[:-1] if busy else steps


def save_checkpoint(
    checkpoints: Checkpoints,
    step: int,
    state: Any,
    *,
    identity: Mapping[str, Any] | None = None,
    carry: Any = None,
    metric: float | None = None,
) -> None:
    """Save a state in the background, once the save before it has finished.

    Args:
      checkpoints: see `open_checkpoints`.
      step: a step saved before is left as it is.
      state: a pytree of arrays; copied before this returns.
      identity: JSON content that a resumed run must agree on.
      carry: JSON content to get back beside the state.
      metric: what `best_mode` compares.

    Raises:
      OSError: this or the previous checkpoint could not be written; what was there before is kept.
      FloatingPointError: a parameter or statistic is NaN or infinite; nothing is saved.
    """
    finish_saving(checkpoints)
    if step in checkpoints.manager.all_steps():
        return
    leaves = fingerprint.host_leaves(state)
    fingerprint.require_finite(step, leaves)
    specs = fingerprint.leaf_specs(state)
    digests = {name: fingerprint.leaf_digest(name, value) for name, value in leaves.items()}
    content = {
        "step": step,
        "leaves": {name: {**spec, "sha256": digests[name]} for name, spec in specs.items()},
        "identity": json_content(identity),
        "carry": carry,
        "metric": metric,
    }
    text = json.dumps(content)
    # Orbax cannot store arrays without entries; their shape says all there is to them.
    arrays = {name: value for name, value in leaves.items() if value.size}
    _prune(checkpoints)
    with _writing(checkpoints, step):
        checkpoints.manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                manifest=ocp.args.JsonSave({"content": text, "sha256": _digest(text)}),
            ),
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _writing(checkpoints: Checkpoints, step: int | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a full disk is an OSError or, from Orbax's writer, a ValueError
        which = "the last checkpoint" if step is None else f"the checkpoint of step {step}"
        good = saved_steps(checkpoints)
        kept = f"step {good[-1]} is kept" if good else "there was none before"
        raise OSError(
            f"{which} could not be written to {checkpoints.folder} ({kept}): {error}; "
            "make room, or make the folder writable, and run the same command again to resume"
        ) from error


def check_saving(checkpoints: Checkpoints) -> None:
    """Raise the OSError of a failed save of checkpoints, without waiting for one under way."""
    if not checkpoints.manager.is_saving_in_progress():
        finish_saving(checkpoints)


def finish_saving(checkpoints: Checkpoints) -> None:
    """Wait until what is being saved of these checkpoints is on the disk.

    Raises:
      OSError: if it could not be written.
    """
    with _writing(checkpoints, None):
        checkpoints.manager.wait_until_finished()


def _prune(checkpoints: Checkpoints) -> None:
    """Delete all but the newest and the best; only finished ones count."""
    steps = sorted(checkpoints.manager.all_steps())
    keep = {*steps[-checkpoints.keep :], best_step(checkpoints)}
    for step in steps:
        if step not in keep:
            checkpoints.manager.delete(step)


def best_step(checkpoints: Checkpoints) -> int | None:
    """Step of the best of the checkpoints by the metric, the first of equals; None without any."""
    found = {}
    for step in sorted(checkpoints.manager.all_steps()) if checkpoints.best_mode else ():
        with contextlib.suppress(DamagedError):
            metric = read_manifest(checkpoints, step)["metric"]
            if metric is not None and np.isfinite(metric):
                found[step] = metric
    if not found:
        return None
    return (max if checkpoints.best_mode == "max" else min)(found, key=found.get)


def read_manifest(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself, see `save_checkpoint`; DamagedError if it cannot."""
    try:
        args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
        wrapped = checkpoints.manager.restore(step, args=args).manifest
        text, digest = wrapped["content"], wrapped["sha256"]
    except PermissionError:
        raise
    except Exception as error:
        raise DamagedError(f"its manifest cannot be read: {error}") from error
    if _digest(text) != digest:
        raise DamagedError("its manifest does not fit its SHA-256")
    content = json.loads(text)
    if content["step"] != step:
        raise DamagedError(f"it holds step {content['step']}")
    return content


def _read_leaves(
    checkpoints: Checkpoints, step: int, template: Any, specs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The leaves of a checkpoint, compared with their digests."""
    blanks = {
        name: np.empty_like(jax.random.key_data(leaf) if fingerprint.is_key(leaf) else leaf)
        for name, leaf in fingerprint.named_leaves(template).items()
        if leaf.size
    }
    try:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(blanks))
        stored = checkpoints.manager.restore(step, args=args).state
    except PermissionError:
        raise
    except Exception as error:
        raise DamagedError(f"it cannot be read: {str(error)[:300]}") from error
    for name in blanks:
        if fingerprint.leaf_digest(name, stored[name]) != specs[name]["sha256"]:
            raise DamagedError(f"{name} does not fit its SHA-256")
    return stored


def restore_checkpoint(
    checkpoints: Checkpoints | None,
    template: Any,
    *,
    identity: Mapping[str, Any] | None = None,
    total_steps: int | None = None,
) -> Restored | None:
    """The newest checkpoint that is undamaged, with a warning for each that is not.

    Args:
      checkpoints: see `open_checkpoints`; in processes other than the first it may be None.
      template: a state of the structure, shapes and dtypes to restore.
      identity: JSON content; must equal the one saved.
      total_steps: length of the run; a checkpoint past it is refused.

    Returns:
      The state, or None if there is no undamaged checkpoint.

    Raises:
      ValueError: the checkpoint is of another identity or model, or lies past the end of the run.
    """
    identity = json_content(identity)
    found = parallel.from_main(lambda: _newest_good(checkpoints, template, identity, total_steps))
    if found is None:
        return None
    step, stored, carry = found
    return Restored(step, _rebuild(template, stored), carry)


def _newest_good(checkpoints, template, identity, total_steps):
    """Step, leaves and carry of the newest undamaged checkpoint; None without any."""
    for step in sorted(checkpoints.manager.all_steps(), reverse=True):
        path = checkpoints.folder / str(step)
        try:
            manifest = read_manifest(checkpoints, step)
            fingerprint.require_same_run(path, step, manifest, template, identity, total_steps)
            stored = _read_leaves(checkpoints, step, template, manifest["leaves"])
        except DamagedError as error:
            _set_aside(path, str(error))
            checkpoints.manager.reload()
            continue
        return step, stored, manifest["carry"]
    return None


def _rebuild(template: Any, stored: Mapping[str, np.ndarray]) -> Any:
    def leaf(name, like):
        if fingerprint.is_key(like):
            return jax.random.wrap_key_data(stored[name], impl=jax.random.key_impl(like))
        return jnp.asarray(stored[name]) if name in stored else jnp.zeros(like.shape, like.dtype)

    leaves = [leaf(name, like) for name, like in fingerprint.named_leaves(template).items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
