"""The only file that knows devices, meshes and processes.

Everything else is written for one device and takes `axis_name=None`; the functions here map it over
the devices of this process (pmap) and, through `jax.distributed`, over all processes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits

AXIS = "devices"

STEPS_IN_FLIGHT = 8
"""How many steps may be dispatched and not finished: enough to keep an accelerator busy, and half
of what simulated CPU devices were seen to survive."""

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


def device_count() -> int:
    """Number of devices of this process."""
    return jax.local_device_count()


def cpu_cores() -> int:
    """Number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_cpu() -> bool:
    """True where the host's CPU is what JAX computes on, one device or simulated ones."""
    return jax.default_backend() == "cpu"


def is_single_cpu() -> bool:
    """True on one CPU device of one process, where the host's BLAS is the fastest engine."""
    return is_cpu() and jax.local_device_count() == 1 and jax.process_count() == 1


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
        if len(devices) == 1:
            return _on_one_device(fn, tuple(axes), out_axes, axis_name, devices[0])(*args)
        replicas = jax.pmap(
            fn, axis_name=axis_name, in_axes=tuple(axes), out_axes=out_axes, devices=devices
        )
        out = replicas(*split)
        if out_axes is None:
            return out
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    return mapped


@lru_cache(maxsize=16)
def _on_one_device(fn, in_axes, out_axes, axis_name, device, donate: bool = False):
    """`fn` compiled for one device, with the axis name bound; faster there than pmap on the CPU."""
    mesh = Mesh(np.array([device]), (axis_name,))
    specs = {None: PartitionSpec(), 0: PartitionSpec(axis_name)}
    mapped = jax.shard_map(
        fn,
        mesh=mesh,
        in_specs=tuple(specs[axis] for axis in in_axes),
        out_specs=specs[out_axes],
        check_vma=False,
    )
    return fast_jit(mapped, donate_argnums=0 if donate else ())


@cache
def _probed_cpu_options() -> dict[str, bool | str]:
    # jaxlib 0.10 computes the weight gradient of convolutions in a kernel 10 to 18 times slower
    # than XLA's own; this leaves that library only dot products and reductions.
    options: dict[str, bool | str] = {
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
        )
    }
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(np.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def cpu_compiler_options() -> dict[str, bool | str]:
    """Compiler options that make convolutions fast on the CPU, for `jax.jit(compiler_options=)`.

    The option is experimental, so it is tried once on a tiny function.

    Returns:
      The options; {} on another backend, or where this version of XLA does not know them.
    """
    return dict(_probed_cpu_options()) if is_cpu() else {}


def fast_jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` with `cpu_compiler_options`; `options` (donate_argnums, ...) go to `jax.jit`."""
    return jax.jit(fn, compiler_options=cpu_compiler_options() or None, **options)


def data_parallel(
    step_fn: Callable[[Any, Any], Any],
    axis_name: str = AXIS,
    *,
    devices: Sequence[jax.Device] | None = None,
    donate: bool = True,
) -> Callable[[Any, Any], Any]:
    """Compile step(state, batch) -> (state, metrics) for the devices of this process.

    The state is given whole to every device and comes back as one copy, so that no replica axis
    exists outside; the batch is split along its leading axis. On one device the function is
    compiled alone, with the same axis name bound. The memory of the state is donated: the state
    that was passed in cannot be used afterwards, unless `donate` is False, as for evaluation.

    Args:
      step_fn: a pure function whose results collectives over `axis_name` made equal everywhere.
      axis_name: the name collectives inside `step_fn` use.
      devices: the devices to use; all local ones by default.
      donate: give up the memory of the state that is passed in.

    Returns:
      A function with the signature of `step_fn`.

    Raises:
      ValueError: on the call, if the batch is not a multiple of the number of devices.
    """
    devices = tuple(devices) if devices is not None else tuple(jax.local_devices())
    mesh = Mesh(np.array(devices), (axis_name,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    if len(devices) > 1:
        replicas = jax.pmap(
            step_fn,
            axis_name=axis_name,
            in_axes=(None, 0),
            out_axes=None,
            devices=devices,
            donate_argnums=0 if donate else (),
        )

        def compiled(state, batch):
            return replicas(state, split_leading(batch, len(devices)))

    else:
        compiled = _on_one_device(step_fn, (None, 0), None, axis_name, devices[0], donate)

    def step(state, batch):
        # Where the results will be: a first state from elsewhere would have a program of its own,
        # and compilation take twice as long.
        if any(getattr(leaf, "sharding", None) != everywhere for leaf in jax.tree.leaves(state)):
            state = jax.device_put(state, everywhere)
        return compiled(state, batch)

    return step


def enable_compilation_cache(path: str | os.PathLike, *, min_seconds: float = 1.0) -> None:
    """Keep compiled functions on disk, so that the next process need not compile them again.

    Call it before anything is compiled.

    Args:
      path: a folder of its own; created if missing.
      min_seconds: only what took at least this long to compile is kept.
    """
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(min_seconds))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def tune_allocator() -> bool:
    """Make malloc keep the memory of large arrays instead of returning it after every step.

    By default glibc maps each array over 32 MB anew, and on the CPU the page faults can take longer
    than the arithmetic. The price is memory that stays with the process. It concerns the whole
    process, so programs call it, before the first large array; importing the library does not.

    Returns:
      True if it was done; False where the C library is not glibc, and nothing changes.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        settings = (
            (-4, 0),  # M_MMAP_MAX: no array in a mapping of its own
            (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: never shrink the heap
            (-2, 64 * 2**20),  # M_TOP_PAD: grow it in large pieces
            (-8, 1),  # M_ARENA_MAX: one heap, so that threads reuse each other's memory
        )
        return all([libc.mallopt(option, value) == 1 for option, value in settings])
    except (OSError, AttributeError):
        return False


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
    if not is_cpu():
        return [jax.block_until_ready(fn(item)) for item in items]
    workers = workers or min(len(items), cpu_cores())
    if workers < 2:
        return [jax.block_until_ready(fn(item)) for item in items]
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: jax.block_until_ready(fn(item)), items))
