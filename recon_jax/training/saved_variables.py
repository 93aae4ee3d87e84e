"""The variables of a finished or interrupted run, without the settings that trained them."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from recon_jax import parallel
from recon_jax.training import checkpoints as saving
from recon_jax.training import fingerprint
from recon_jax.training.workdir import lock_workdir


class SavedVariables(NamedTuple):
    """What a run had learned.

    Attributes:
      variables: {"params": ..., "batch_stats": ...} as the model is applied with; averaged
        parameters if the run has them.
      step: after how many steps.
      identity: what the run was told to be of, such as its data and options, as JSON content.
    """

    variables: PyTree
    step: int
    identity: Mapping[str, Any]


def read_variables(run: str | os.PathLike, template: PyTree) -> SavedVariables:
    """The variables in the newest undamaged checkpoint of a run, whatever optimizer it used.

    Args:
      run: folder of the run, as given to `fit`. Damaged checkpoints in it are moved aside.
      template: variables of the model, such as `models.variable_shapes(model, image_shape)`.

    Returns:
      The SavedVariables, arrays of NumPy.

    Raises:
      ValueError: if the folder is no run, has no good checkpoint, is in use by a live run, or holds
        the parameters of another model, naming the first that differ.
    """
    run = Path(run).expanduser()
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise ValueError(
            f"{run} is not the folder of a run: it has no checkpoints/; give the folder that holds "
            "metrics.jsonl and checkpoints/, such as WORKDIR/runs/NAME"
        )
    # With fewer kept, the rest would be deleted on leaving.
    opened = functools.partial(saving.open_checkpoints, folder, keep=sys.maxsize)
    with parallel.in_main(lambda: lock_workdir(run)), parallel.in_main(opened) as checkpoints:
        manifest = parallel.from_main(lambda: _newest_manifest(checkpoints))
        blanks = {name: _blank(spec) for name, spec in manifest.get("leaves", {}).items()}
        identity = manifest.get("identity", {})
        found = saving.restore_checkpoint(checkpoints, blanks, identity=identity)
    if found is None:
        raise ValueError(f"{folder} holds no undamaged checkpoint; train, or give another run")
    variables = _filled(run, template, jax.device_get(found.state))
    return SavedVariables(variables, found.step, identity)


def _newest_manifest(checkpoints: saving.Checkpoints) -> dict[str, Any]:
    """Of the newest checkpoint that has one; {} without any."""
    for step in reversed(saving.saved_steps(checkpoints)):
        with contextlib.suppress(saving.DamagedError):
            return saving.read_manifest(checkpoints, step)
    return {}


def _blank(spec: Mapping[str, Any]) -> Any:
    """Zeros of a shape and dtype, random keys among them."""
    shape = tuple(spec["shape"])
    if spec["dtype"].startswith("key<"):
        return jnp.broadcast_to(jax.random.key(0), shape)
    return np.zeros(shape, jnp.dtype(spec["dtype"]))


def _filled(run: Path, template: PyTree, leaves: Mapping[str, np.ndarray]) -> PyTree:
    """The template with the stored leaves in place of its shapes."""
    params = "ema_params" if any(name.startswith("ema_params.") for name in leaves) else "params"
    wanted = fingerprint.named_leaves(dict(template))
    roots = {"params": params, "batch_stats": "batch_stats"}
    stored = {
        f"{root}{name.removeprefix(source)}": value
        for root, source in roots.items()
        for name, value in leaves.items()
        if name.startswith(f"{source}.")
    }
    differences = fingerprint.spec_differences(
        fingerprint.leaf_specs(stored), fingerprint.leaf_specs(wanted)
    )
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"run {run} is of another model: {'; '.join(differences[:3])}{more}; give the name and "
            "the options that it was trained with"
        )
    return jax.tree.unflatten(jax.tree.structure(dict(template)), [stored[name] for name in wanted])
