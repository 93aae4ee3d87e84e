"""What a state is made of, leaf by leaf, and how two of them differ, in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon_jax.identity import identity_differences
from recon_jax.training.state import leaf_name


def named_leaves(state: Any) -> dict[str, Any]:
    """The leaves of a pytree by name, such as params.Dense_0.kernel.

    Raises:
      ValueError: if two leaves have the same name, as {"a.b": x, "a": {"b": y}} would give.
    """
    pairs = [(leaf_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    leaves = dict(pairs)
    if len(leaves) != len(pairs):
        raise ValueError("two leaves of the state have the same name; avoid dots in module names")
    return leaves


def is_key(leaf: Any) -> bool:
    """True for arrays of random keys, which have no bytes of their own."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def host_leaves(state: Any) -> dict[str, np.ndarray]:
    """Copies of the leaves in host memory, random keys as their raw data.

    On the CPU a plain conversion would be a view of memory that the next step is given to reuse.
    """
    return {
        name: np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        for name, leaf in named_leaves(state).items()
    }


def leaf_specs(state: Any) -> dict[str, dict[str, Any]]:
    """The dtype and shape of each leaf, as JSON content."""
    return {
        name: {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}
        for name, leaf in named_leaves(state).items()
    }


def leaf_digest(name: str, value: np.ndarray) -> str:
    """SHA-256 of a leaf: its name, dtype, shape and bytes."""
    header = json.dumps([name, str(value.dtype), list(value.shape)])
    digest = hashlib.sha256(header.encode())
    digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def spec_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Sentences on the leaves in which a stored state and a wanted one differ."""

    def describe(spec):
        return f"{spec['dtype']}{spec['shape']}"

    lines = []
    for name in [*wanted, *(name for name in stored if name not in wanted)]:
        if name not in stored:
            lines.append(f"{name}: not stored, now {describe(wanted[name])}")
        elif name not in wanted:
            lines.append(f"{name}: stored {describe(stored[name])}, now absent")
        elif any(stored[name][field] != wanted[name][field] for field in ("dtype", "shape")):
            lines.append(f"{name}: stored {describe(stored[name])}, now {describe(wanted[name])}")
    return lines


def require_same_run(
    path: Any,
    step: int,
    manifest: Mapping[str, Any],
    template: Any,
    identity: Mapping[str, Any],
    total_steps: int | None,
) -> None:
    """Raise ValueError if a checkpoint is of another run, model or length, saying what differs."""
    way_out = "use another workdir, or remove this one to start over"
    differences = identity_differences(manifest["identity"], identity)
    if differences:
        raise ValueError(
            f"checkpoint {path} belongs to a run with other settings: {'; '.join(differences)}; "
            f"restore these settings, {way_out}"
        )
    wanted = leaf_specs(template)
    differences = spec_differences(manifest["leaves"], wanted)
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"checkpoint {path} is of another model or optimizer: {'; '.join(differences[:3])}"
            f"{more}; {way_out}"
        )
    if total_steps is not None and step > total_steps:
        raise ValueError(
            f"checkpoint {path} is from the future of this run: step {step} lies past "
            f"total_steps={total_steps}; ask for at least {step} steps, {way_out}"
        )


def require_finite(step: int, leaves: Mapping[str, np.ndarray]) -> None:
    """Raise FloatingPointError if a leaf that is about to be saved holds NaN or infinity."""
    for name, value in leaves.items():
        # Optimizers may hold infinity on purpose, such as a best loss so far.
        if name.startswith("opt_state") or not jnp.issubdtype(value.dtype, jnp.inexact):
            continue
        if not np.isfinite(value).all():
            raise FloatingPointError(
                f"{name} holds NaN or infinite entries after step {step}; no checkpoint was written"
            )
