"""The only file that knows devices, meshes and processes.

Everything else is written for one device and takes `axis_name=None`; the functions here map it over
the devices of this process (pmap) and, through `jax.distributed`, over all processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from threadpoolctl import threadpool_limits

AXIS = "devices"

T = TypeVar("T")
R = TypeVar("R")


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join this process to a multi-process run; call it before anything touches a device.

    Args:
      coordinator: HOST:PORT of process 0; None lets JAX detect a TPU pod or a Slurm job.
      num_processes: how many processes take part.
      process_id: which one this is, in [0, num_processes).
    """
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or jax.config.jax_platforms == "cpu":
        # XLA's default CPU collectives work within one process only.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, num_processes, process_id)


def process_index() -> int:
    """Index of this process among all processes of the run."""
    return jax.process_index()


def process_count() -> int:
    """Number of processes of the run."""
    return jax.process_count()


def cpu_cores() -> int:
    """Number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_single_cpu() -> bool:
    """True on one CPU device of one process, where the host's BLAS is the fastest engine."""
    return (
        jax.default_backend() == "cpu"
        and jax.local_device_count() == 1
        and jax.process_count() == 1
    )


def _require_divisible(length: int, devices: int) -> None:
    if length % devices:
        raise ValueError(
            f"a leading axis of {length} cannot be split over {devices} devices; choose a multiple "
            f"of {devices}, such as {-(-length // devices) * devices}, and mask the padding"
        )


def split_leading(tree: T, devices: int) -> T:
    """Reshape every leaf (N, ...) to (devices, N / devices, ...).

    Raises:
      ValueError: if N is not a multiple of `devices`; pmap itself would drop devices silently.
    """

    def split(leaf):
        _require_divisible(leaf.shape[0], devices)
        return leaf.reshape(devices, leaf.shape[0] // devices, *leaf.shape[1:])

    return jax.tree.map(split, tree)


def device_map(
    fn: Callable[..., Any],
    in_axes: int | Sequence[int | None] | None = 0,
    out_axes: int | None = 0,
    *,
    axis_name: str = AXIS,
    devices: Sequence[jax.Device] | None = None,
) -> Callable[..., Any]:
    """Map `fn` over devices: pmap without a replica axis in the caller's arrays.

    Arguments with axis 0 are split along their leading axis, one block of rows a device; arguments
    with None are given whole to every device. `fn` may use collectives over `axis_name`.

    Args:
      fn: a pure function of arrays or pytrees of arrays.
      in_axes: 0 or None for every argument, or one of them for each.
      out_axes: 0 joins the results of the devices along their leading axis; None returns one copy,
        for results that a collective made equal on all devices.
      axis_name: the name collectives inside `fn` use.
      devices: the devices to use; all local ones by default.

    Returns:
      A function with the signature of `fn`.

    Raises:
      ValueError: if `in_axes` or `out_axes` holds something other than 0 and None or, on the call,
        if a leading axis is not a multiple of the number of devices.
    """
    devices = tuple(devices) if devices is not None else tuple(jax.local_devices())
    for axis in (*(in_axes if isinstance(in_axes, Sequence) else (in_axes,)), out_axes):
        if axis not in (0, None):
            raise ValueError(f"an axis must be 0 (split by rows) or None (whole), got {axis!r}")

    def mapped(*args):
        axes = in_axes if isinstance(in_axes, Sequence) else (in_axes,) * len(args)
        if len(axes) != len(args):
            raise ValueError(f"in_axes names {len(axes)} arguments, the call has {len(args)}")
        split = [
            arg if axis is None else split_leading(arg, len(devices))
            for arg, axis in zip(args, axes, strict=True)
        ]
        replicas = jax.pmap(
            fn, axis_name=axis_name, in_axes=tuple(axes), out_axes=out_axes, devices=devices
        )
        out = replicas(*split)
        if out_axes is None:
            return out
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    return mapped


def device_fold(
    update: Callable[..., T],
    initial: T,
    batches: Iterable[tuple],
    reduce: Callable[[T, str], T],
    *,
    axis_name: str = AXIS,
) -> T:
    """Fold batches into one accumulator a device, with a single reduction at the end.

    state_d <- update(state_d, *rows of the batch that device d holds) for every batch, then
    reduce(state_d, axis_name), which sees all devices of all processes. Nothing travels between
    devices before the end, so the traffic does not depend on the number of batches.

    Args:
      update: pure function (state, *arrays) -> state for one device.
      initial: the state before any data, the same on every device.
      batches: tuples of arrays with a common leading axis, a multiple of the local device count.
        Every process must give the same number of batches.
      reduce: pure function (state, axis_name) -> state, the same on every device.
      axis_name: name of the device axis.

    Returns:
      The reduced state, on the host's default device.

    Raises:
      ValueError: if a batch cannot be split evenly over the devices.
    """
    count = jax.local_device_count()
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)), initial)
    step = jax.pmap(update, axis_name=axis_name, donate_argnums=0)
    for index, batch in enumerate(batches):
        state = step(state, *split_leading(tuple(batch), count))
        if index % 16 == 15:
            # Simulated CPU devices abort when too many steps are in flight.
            jax.block_until_ready(state)
    final = jax.pmap(partial(reduce, axis_name=axis_name), axis_name=axis_name, out_axes=None)
    # A host copy: with several processes pmap's result belongs to a mesh that ordinary jit refuses.
    return jax.tree.map(jnp.asarray, jax.device_get(final(state)))


def host_map(fn: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> list[R]:
    """Apply `fn` to every item, side by side on the CPU's cores; in order elsewhere.

    Dense eigensolvers of a few hundred rows hardly gain from a second thread, so on the CPU backend
    two problems run side by side with one BLAS thread each. Accelerators get one at a time.

    Args:
      fn: called with one item; its result is waited for.
      items: the work.
      workers: number of threads; by default the cores this process may use.

    Returns:
      The results, in the order of the items.
    """
    if jax.default_backend() != "cpu":
        return [jax.block_until_ready(fn(item)) for item in items]
    workers = workers or min(len(items), cpu_cores())
    if workers < 2:
        return [jax.block_until_ready(fn(item)) for item in items]
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: jax.block_until_ready(fn(item)), items))
