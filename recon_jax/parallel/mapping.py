"""One function over many devices: the file that changes on the day `pmap` goes.

Everything else is written for one device and takes `axis_name=None`. The functions here map it over
devices, in one of two ways with the same results: `pmap`, or `jit` of `shard_map`. Arguments and
results belong to this process; collectives inside see the devices of all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recon_jax.parallel.compilation import fast_jit

AXIS = "devices"

STEPS_IN_FLIGHT = 8
"""How many steps may be dispatched and not finished: enough to keep an accelerator busy, and half
of what simulated CPU devices were seen to survive."""

MAPPINGS = ("pmap", "shard_map")

T = TypeVar("T")

_chosen = "pmap"


def use_mapping(name: str) -> None:
    """Choose how functions are mapped over devices from now on, where nothing else is asked for.

    Args:
      name: "pmap" or "shard_map", which is `jit` of `shard_map`.

    Raises:
      ValueError: for another name.
    """
    global _chosen
    _chosen = _require_mapping(name)


def _require_mapping(name: str | None) -> str:
    if name is None:
        return _chosen
    if name not in MAPPINGS:
        raise ValueError(f"mapping={name!r} must be one of {', '.join(MAPPINGS)}")
    return name


def split_leading(tree: T, devices: int) -> T:
    """Reshape every leaf (N, ...) to (devices, N / devices, ...).

    Args:
      tree: arrays with a leading axis of one length N.
      devices: by which N is divided.

    Raises:
      ValueError: if N is not a multiple of `devices`; pmap itself would drop devices silently.
    """

    def split(leaf):
        length = leaf.shape[0]
        if length % devices:
            raise ValueError(
                f"a leading axis of {length} cannot be split over {devices} devices; choose a "
                f"multiple of {devices}, such as {-(-length // devices) * devices}, and mask the "
                "padding"
            )
        return leaf.reshape(devices, length // devices, *leaf.shape[1:])

    return jax.tree.map(split, tree)


def all_devices() -> tuple[jax.Device, ...]:
    """The devices of all processes, process by process.

    In this order rows lie as the processes' shares follow each other in a batch, and what a device
    draws for its rows does not depend on how a pod numbers its devices.
    """
    return tuple(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))


def _local_count(devices: Sequence[jax.Device]) -> int:
    return sum(device.process_index == jax.process_index() for device in devices)


@lru_cache(maxsize=32)
def _replicas(fn, in_axes, out_axes, axis_name, devices, donate, mapping):
    """`fn` on each device, as pmap defines it.

    An axis of 0 stands for a leading axis with one entry for each of this process's devices, None
    for one copy that all devices get, or that collectives made equal on all of them.
    """
    build = _by_pmap if mapping == "pmap" and len(devices) > 1 else _by_shard_map
    return build(fn, in_axes, out_axes, axis_name, devices, donate)


@lru_cache(maxsize=32)
def _reduction(reduce, axis_name):
    # The same object every time, so that it is compiled once.
    return partial(reduce, axis_name=axis_name)


def _by_pmap(fn, in_axes, out_axes, axis_name, devices, donate):
    return jax.pmap(
        fn,
        axis_name=axis_name,
        in_axes=in_axes,
        out_axes=out_axes,
        devices=devices,
        donate_argnums=donate,
    )


def _by_shard_map(fn, in_axes, out_axes, axis_name, devices, donate):
    mesh = Mesh(np.array(devices), (axis_name,))
    spec = {None: PartitionSpec(), 0: PartitionSpec(axis_name)}

    def on_one(*args):
        args = [
            arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
            for arg, axis in zip(args, in_axes, strict=True)
        ]
        out = fn(*args)
        return out if out_axes is None else jax.tree.map(lambda leaf: leaf[None], out)

    compiled = fast_jit(
        jax.shard_map(
            on_one,
            mesh=mesh,
            in_specs=tuple(spec[axis] for axis in in_axes),
            out_specs=spec[out_axes],
            check_vma=False,
        ),
        donate_argnums=donate,
    )
    if mesh.is_multi_process:

        def run(*args):
            args = [
                multihost_utils.host_local_array_to_global_array(arg, mesh, spec[axis])
                for arg, axis in zip(args, in_axes, strict=True)
            ]
            out = compiled(*args)
            return multihost_utils.global_array_to_host_local_array(out, mesh, spec[out_axes])

    else:
        shardings = tuple(NamedSharding(mesh, spec[axis]) for axis in in_axes)

        def run(*args):
            # Arrays that are in place already stay there.
            return compiled(*jax.device_put(args, shardings))

    run.lower = compiled.lower
    return run


def device_map(
    fn: Callable[..., Any],
    in_axes: int | Sequence[int | None] | None = 0,
    out_axes: int | None = 0,
    *,
    axis_name: str = AXIS,
    devices: Sequence[jax.Device] | None = None,
    mapping: str | None = None,
) -> Callable[..., Any]:
    """Map `fn` over devices without a replica axis in the caller's arrays.

    Arguments with axis 0 are split along their leading axis, one block of rows a device; arguments
    with None are given whole to every device. `fn` may use collectives over `axis_name`.

    Args:
      fn: a pure function of arrays or pytrees of arrays.
      in_axes: 0 or None for every argument, or one of them for each.
      out_axes: 0 joins the results of the devices along their leading axis; None returns one copy,
        for results that a collective made equal on all devices.
      axis_name: the name collectives inside `fn` use.
      devices: the devices to use; by default those of this process, and no other takes part.
      mapping: "pmap" or "shard_map"; see `use_mapping`.

    Returns:
      A function with the signature of `fn`.

    Raises:
      ValueError: if `in_axes` or `out_axes` holds something other than 0 and None or, on the call,
        if a leading axis is not a multiple of the number of devices.
    """
    devices = tuple(devices) if devices is not None else tuple(jax.local_devices())
    mapping = _require_mapping(mapping)
    for axis in (*(in_axes if isinstance(in_axes, Sequence) else (in_axes,)), out_axes):
        if axis not in (0, None):
            raise ValueError(f"an axis must be 0 (split by rows) or None (whole), got {axis!r}")

    def mapped(*args):
        axes = tuple(in_axes) if isinstance(in_axes, Sequence) else (in_axes,) * len(args)
        if len(axes) != len(args):
            raise ValueError(f"in_axes names {len(axes)} arguments, the call has {len(args)}")
        count = _local_count(devices)
        split = [
            arg if axis is None else split_leading(arg, count)
            for arg, axis in zip(args, axes, strict=True)
        ]
        out = _replicas(fn, axes, out_axes, axis_name, devices, (), mapping)(*split)
        if out_axes is None:
            return out
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    return mapped


def data_parallel(
    step_fn: Callable[[Any, Any], Any],
    axis_name: str = AXIS,
    *,
    devices: Sequence[jax.Device] | None = None,
    donate: bool = True,
    mapping: str | None = None,
) -> Callable[[Any, Any], Any]:
    """Compile step(state, batch) -> (state, metrics) for the devices of all processes.

    The state is given whole to every device and comes back as one copy, so that no replica axis
    exists outside; the batch, this process's share of it, is split along its leading axis. The
    memory of the state is donated: the state that was passed in cannot be used afterwards, unless
    `donate` is False, as for evaluation.

    Args:
      step_fn: a pure function whose results collectives over `axis_name` made equal everywhere.
      axis_name: the name collectives inside `step_fn` use.
      devices: the devices to use, the same list in every process; all by default.
      donate: give up the memory of the state that is passed in.
      mapping: "pmap" or "shard_map"; see `use_mapping`.

    Returns:
      A function with the signature of `step_fn`. Results are this process's own: what it does with
      them needs no other process.

    Raises:
      ValueError: on the call, if the batch is not a multiple of the number of devices.
    """
    devices = tuple(devices) if devices is not None else all_devices()
    mapping = _require_mapping(mapping)
    mine = [device for device in devices if device.process_index == jax.process_index()]
    everywhere = NamedSharding(Mesh(np.array(mine), (axis_name,)), PartitionSpec())
    arguments = ((None, 0), None, axis_name, devices, (0,) if donate else (), mapping)
    compiled = _replicas(step_fn, *arguments)

    def step(state, batch):
        # Where the results will be: a first state from elsewhere would have a program of its own,
        # compilation take twice as long, and the memory be copied instead of donated.
        if any(getattr(leaf, "sharding", None) != everywhere for leaf in jax.tree.leaves(state)):
            state = jax.device_put(state, everywhere)
        return compiled(state, split_leading(batch, len(mine)))

    step.lower = compiled.lower
    return step


def device_fold(
    update: Callable[..., T],
    initial: T,
    batches: Iterable[tuple],
    reduce: Callable[[T, str], T],
    *,
    axis_name: str = AXIS,
    mapping: str | None = None,
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
      mapping: "pmap" or "shard_map"; see `use_mapping`.

    Returns:
      The reduced state, on the host's default device.

    Raises:
      ValueError: if a batch cannot be split evenly over the devices.
    """
    devices, mapping = all_devices(), _require_mapping(mapping)
    count = _local_count(devices)

    def over(fn, arguments, out_axes, donate):
        return _replicas(fn, (0,) * arguments, out_axes, axis_name, devices, donate, mapping)

    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)), initial)
    # Placed before it is donated: arrays that must be moved are copied, and some warn.
    rows = NamedSharding(
        Mesh(np.array(jax.local_devices()), (axis_name,)), PartitionSpec(axis_name)
    )
    state = jax.device_put(state, rows)
    for index, batch in enumerate(batches):
        arrays = split_leading(tuple(batch), count)
        state = over(update, 1 + len(arrays), 0, (0,))(state, *arrays)
        if index % 16 == 15:
            # Simulated CPU devices abort when too many steps are in flight.
            jax.block_until_ready(state)
    final = over(_reduction(reduce, axis_name), 1, None, ())(state)
    # On the default device: what follows is computed by each process for itself.
    return jax.tree.map(jnp.asarray, jax.device_get(final))
