"""Matrices too large for one device: rows spread over the devices of all processes.

A sharded matrix is one global array. The functions that see it are written for one device, know
their rows and what is the same everywhere, and may use collectives over `axis_name`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from recon_jax.parallel.mapping import AXIS, STEPS_IN_FLIGHT, all_devices

T = TypeVar("T")

_EVERYWHERE = PartitionSpec()


def _mesh(axis_name: str) -> Mesh:
    return Mesh(np.array(all_devices()), (axis_name,))


def _own(tree: T) -> T:
    """This process's copy, on its default device, of arrays that are whole on every device."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf.addressable_data(0))), tree)


def is_row_sharded(matrix: jax.Array) -> bool:
    """True if no device holds all rows.

    Args:
      matrix: an array on devices, at least one axis.
    """
    sharding = getattr(matrix, "sharding", None)
    return sharding is not None and sharding.shard_shape(matrix.shape)[0] < matrix.shape[0]


@lru_cache(maxsize=32)
def _fold_step(update, axis_name, mesh, arguments):
    rows = PartitionSpec(axis_name)

    def step(state, matrix, *arrays):
        return update(state, matrix, jax.lax.axis_index(axis_name) * len(matrix), *arrays)

    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(_EVERYWHERE, rows) + (rows,) * arguments,
        out_specs=(_EVERYWHERE, rows),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=(0, 1))


@lru_cache(maxsize=32)
def _map(fn, axis_name, mesh, arguments):
    mapped = jax.shard_map(
        lambda matrix, *args: fn(matrix, jax.lax.axis_index(axis_name) * len(matrix), *args),
        mesh=mesh,
        in_specs=(PartitionSpec(axis_name),) + (_EVERYWHERE,) * arguments,
        out_specs=_EVERYWHERE,
        check_vma=False,
    )
    return jax.jit(mapped)


def row_sharded_fold(
    update: Callable[..., tuple[T, jax.Array]],
    initial: T,
    shape: tuple[int, int],
    dtype: DTypeLike,
    batches: Iterable[tuple],
    *,
    axis_name: str = AXIS,
) -> tuple[T, jax.Array]:
    """Fold batches into a state that every device holds, and a matrix of which each has some rows.

    (state, own) <- update(state, own, offset, *rows of the batch that this device got), with `own`
    the rows offset, offset + 1, ... of the matrix, zero at first.

    Args:
      update: pure function for one device; collectives must make the state equal everywhere.
      initial: the state before any data, the same on every device.
      shape: of the matrix, (M, N); M is a multiple of the number of all devices.
      dtype: of the matrix.
      batches: tuples of arrays with a common leading axis, this process's share, a multiple of its
        device count. Every process must give the same number of batches.
      axis_name: the name collectives inside `update` use.

    Returns:
      The state, this process's own copy, and the matrix as one global array.

    Raises:
      ValueError: if rows cannot be split evenly over the devices.
    """
    mesh = _mesh(axis_name)
    if shape[0] % mesh.size:
        raise ValueError(
            f"{shape[0]} rows cannot be spread over {mesh.size} devices; choose a number of "
            f"devices that divides {shape[0]}, or pad to {-(-shape[0] // mesh.size) * mesh.size}"
        )
    rows = NamedSharding(mesh, PartitionSpec(axis_name))
    # Made where they are needed: one device could not hold them.
    matrix = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=rows)()
    whole = NamedSharding(mesh, _EVERYWHERE)
    state = jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(whole, np.asarray(leaf)), initial
    )
    local = mesh.local_mesh.size
    for index, batch in enumerate(batches):
        if len(batch[0]) % local:
            raise ValueError(
                f"a batch of {len(batch[0])} rows cannot be split over {local} devices; choose a "
                f"multiple of {local} and mask the padding"
            )
        arrays = [
            jax.make_array_from_process_local_data(rows, np.asarray(array)) for array in batch
        ]
        step = _fold_step(update, axis_name, mesh, len(arrays))
        state, matrix = step(state, matrix, *arrays)
        if index % STEPS_IN_FLIGHT == STEPS_IN_FLIGHT - 1:
            jax.block_until_ready(matrix)
    return _own(state), matrix


def row_sharded_map(
    fn: Callable[..., Any], matrix: jax.Array, *args: Any, axis_name: str = AXIS
) -> Any:
    """What devices compute together from a matrix of which each has some rows.

    Args:
      fn: pure function (own rows, offset of the first, *args) for one device, whose result
        collectives over `axis_name` made equal everywhere.
      matrix: of `row_sharded_fold`.
      args: arrays given whole to every device, the same in every process.
      axis_name: the name collectives inside `fn` use.

    Returns:
      The result, this process's own copy.
    """
    mesh = matrix.sharding.mesh
    whole = NamedSharding(mesh, _EVERYWHERE)
    args = [jax.make_array_from_process_local_data(whole, np.asarray(arg)) for arg in args]
    return _own(_map(fn, axis_name, mesh, len(args))(matrix, *args))
