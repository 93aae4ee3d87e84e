"""The processes of a run: how they meet, what they agree on, and what happens when one is lost.

All processes run the same program. Files are the business of process 0 alone: the others learn what
it read or decided through JAX's collectives.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from recon_jax.checks import check_integer

HEARTBEAT_SECONDS = 30
"""After this time without a sign of life a process counts as lost, and all others are ended."""

# What the messages of a collective without its peers have in common, by transport.
_LOST = ("gloo", "nccl", "peer", "unavailable", "aborted", "deadline", "heartbeat", "connection")

T = TypeVar("T")

_agreements = itertools.count(1)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


def _check_placement(coordinator, num_processes, process_id) -> None:
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < 3:
        raise ValueError(
            f"coordinator, num_processes and process_id belong together; {', '.join(missing)} "
            "missing. Give all three, or none for a pod, a Slurm job or a single machine"
        )
    if missing:
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"coordinator={coordinator!r} must be HOST:PORT, such as 10.0.0.1:1234")
    check_integer("num_processes", num_processes, 1)
    if not 0 <= process_id < num_processes:
        raise ValueError(f"process_id={process_id} must be in 0..{num_processes - 1}")


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    join_seconds: int = 300,
) -> None:
    """Join this process to its run; every program calls it once, before anything uses a device.

    With three arguments the processes meet at the coordinator. Without any JAX looks for a TPU pod,
    a Slurm job or another cluster it knows; where there is none, this process is a run of its own,
    with a coordinator on localhost, so that one machine behaves as a pod of one.

    Args:
      coordinator: HOST:PORT where process 0 listens.
      num_processes: how many processes take part.
      process_id: which one this is, in [0, num_processes).
      heartbeat_seconds: how long a process may be silent before the others are ended.
      join_seconds: how long to wait for the others to start.

    Raises:
      ValueError: some of the three are missing, or out of range.
      RuntimeError: JAX has been used already, or the other processes did not come.
    """
    _check_placement(coordinator, num_processes, process_id)
    # XLA's own CPU collectives work within one process only. Accelerators do not look at it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # A process alone has nobody to wait for, and must survive a laptop that sleeps.
    alone = {"heartbeat_timeout_seconds": 10**7, "initialization_timeout": join_seconds}
    times = {**alone, "heartbeat_timeout_seconds": heartbeat_seconds}
    if coordinator is not None:
        times = alone if num_processes == 1 else times
        jax.distributed.initialize(coordinator, num_processes, process_id, **times)
    else:
        try:
            jax.distributed.initialize(**times)
        except ValueError as error:
            # It knows of no cluster here. What else is wrong must not become many runs of one.
            if "coordinator_address" not in str(error):
                raise
            address = f"localhost:{_free_port()}"
            jax.distributed.initialize(address, 1, 0, coordinator_bind_address=address, **alone)
    sys.excepthook = partial(_end_on_error, sys.excepthook)


def _end_on_error(show, kind, error, trace) -> None:
    show(kind, error, trace)
    if jax.process_count() > 1:
        end_process(1)


def end_process(code: int) -> None:
    """End this process at once, after an error, in a run of several.

    JAX would have it wait for the others at the end, and they wait for it in a collective.

    Args:
      code: the exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def process_index() -> int:
    """Index of this process among all processes of the run."""
    return jax.process_index()


def process_count() -> int:
    """Number of processes of the run."""
    return jax.process_count()


def placement() -> dict[str, int]:
    """Which share of every batch is this process's, as the functions of `data` take it."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def is_main() -> bool:
    """True in process 0, which writes the files of a run; it alone, or all must ask together."""
    return jax.process_index() == 0


def device_count() -> int:
    """Number of devices of this process."""
    return jax.local_device_count()


def total_device_count() -> int:
    """Number of devices of all processes together."""
    return jax.device_count()


def describe(batch_size: int | None = None) -> str:
    """One line on the run: processes, devices, and how a batch is shared.

    Args:
      batch_size: images of a global batch; left out if None.
    """

    def count(number: int, word: str, plural: str) -> str:
        return f"{number} {word if number == 1 else plural}"

    total = jax.device_count()
    line = (
        f"{count(jax.process_count(), 'process', 'processes')}, "
        f"{count(total, 'device', 'devices')} ({jax.devices()[0].device_kind}), "
        f"{jax.local_device_count()} in each process"
    )
    if batch_size is None:
        return line
    return f"{line}; batches of {batch_size}, {batch_size / total:g} a device"


def wait_for_all(name: str) -> None:
    """Return once every process has come here.

    Args:
      name: of the place; all processes must be at the same one.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _broadcast(content: bytes) -> bytes:
    """The bytes of process 0; what the others give does not count."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    # Bytes, because arrays of 64 bits would be rounded where JAX works with 32.
    own = np.frombuffer(content.ljust(size, b"\0")[:size], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own), np.uint8).tobytes()


def from_main(compute: Callable[[], T]) -> T:
    """What process 0 computes, in every process: for reading files and for decisions.

    Args:
      compute: called in process 0 alone. Its result, of host arrays and plain Python values, is
        sent to the others by a collective of all devices.

    Returns:
      The result.

    Raises:
      Exception: what `compute` raised, in every process.
    """
    if jax.process_count() == 1:
        return compute()
    content, error = b"", None
    if jax.process_index() == 0:
        try:
            content = pickle.dumps((compute(), None))
        except Exception as raised:
            error = raised
            content = pickle.dumps((None, (type(raised).__name__, str(raised))))
    received = _broadcast(content)
    if error is not None:
        raise error
    value, failure = pickle.load(io.BytesIO(received))
    if failure is not None:
        raise _as_builtin(*failure)
    return value


@contextlib.contextmanager
def in_main(
    context: Callable[[], contextlib.AbstractContextManager[T]],
) -> Iterator[T | None]:
    """Enter a context in process 0; the others get None, and the error if it cannot be entered.

    Args:
      context: makes the context manager; called in process 0 alone.
    """
    with contextlib.ExitStack() as stack:
        entered = []
        from_main(lambda: entered.append(stack.enter_context(context())))
        yield entered[0] if entered else None


def _as_builtin(name: str, message: str) -> Exception:
    kinds = {kind.__name__: kind for kind in (ValueError, OSError, FloatingPointError)}
    return kinds.get(name, RuntimeError)(f"process 0: {message}")


def gather_rows(tree: T) -> T:
    """Rows of all processes, those of process 0 first, in host memory.

    Args:
      tree: arrays with a leading axis, of the same shapes in every process.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(jax.tree.map(np.asarray, tree), tiled=True)


def preempted() -> bool:
    """True once all processes should save and stop, because one of them was sent SIGTERM.

    JAX's service agrees on the moment: all processes must call this equally often, and all get True
    in the same call. Always False where `initialize` was not called.
    """
    # A count of its own: steps start again with every training run of a program.
    return multihost_utils.reached_preemption_sync_point(next(_agreements))


@contextlib.contextmanager
def peer_failures() -> Iterator[None]:
    """Turn the failure of a collective, which is how a lost process is noticed, into an error.

    Raises:
      ConnectionError: a computation failed in a run of several processes, with the way out.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        # Other failures, such as memory that ran out, have messages of their own.
        if jax.process_count() == 1 or not any(word in str(error).lower() for word in _LOST):
            raise
        raise ConnectionError(
            f"process {jax.process_index()} of {jax.process_count()} stopped, because another "
            "process of this run ended or cannot be reached; run the same command again in all "
            f"processes to resume ({str(error).splitlines()[0][:200]})"
        ) from error
