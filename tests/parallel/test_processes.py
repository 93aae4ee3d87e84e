"""What one process can say about a run; test_runs.py has several."""

import contextlib
import os
import sys

import jax
import numpy as np
import pytest

from recon_jax import parallel


@pytest.fixture
def joined(monkeypatch):
    """What JAX is asked for, instead of doing it to the process of the tests."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # to be restored
    calls = []

    def join(*placement, coordinator_bind_address=None, **times):
        calls.append((placement, coordinator_bind_address, times))
        if not placement:
            raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", join)
    return calls


def test_a_coordinator_that_is_given_is_used(joined):
    parallel.initialize("localhost:1234", 2, 1, heartbeat_seconds=7, join_seconds=9)
    ((placement, _, times),) = joined
    assert placement == ("localhost:1234", 2, 1)
    assert times == {"heartbeat_timeout_seconds": 7, "initialization_timeout": 9}
    assert jax.config.jax_cpu_collectives_implementation == "gloo"


def test_without_a_cluster_a_process_is_a_run_of_its_own(joined):
    parallel.initialize()
    (first, _, _), (placement, bound, times) = joined
    assert first == ()
    address, count, index = placement
    assert (count, index) == (1, 0)
    # Not on the network of the machine.
    assert address.startswith("localhost:")
    assert bound == address
    # A laptop may sleep for days: nobody is waiting.
    assert times["heartbeat_timeout_seconds"] > 10**6


def test_a_cluster_that_is_not_understood_is_no_run_of_one(monkeypatch):
    def join(*placement, **times):
        assert not placement
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", join)
    with pytest.raises(ValueError, match="Number of processes must be defined"):
        parallel.initialize()


def test_a_context_of_process_0_is_entered_and_left():
    left = []

    @contextlib.contextmanager
    def opened():
        yield "open"
        left.append(True)

    with parallel.in_main(opened) as value:
        assert (value, left) == ("open", [])
    assert left == [True]


def test_others_do_not_wait_long_for_a_process_that_hangs(joined):
    parallel.initialize("localhost:1234", 2, 1)
    parallel.initialize("localhost:1234", 1, 0)
    several, alone = (times["heartbeat_timeout_seconds"] for *_, times in joined)
    assert several < 60
    assert alone > 10**6


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (("a:1", None, None), "num_processes, process_id missing"),
        ((None, 2, 0), "coordinator missing"),
        (("a", 2, 0), "coordinator='a' must be HOST:PORT"),
        (("a:b", 2, 0), "must be HOST:PORT"),
        ((":1", 2, 0), "must be HOST:PORT"),
        (("a:1", 0, 0), "num_processes=0 must be an integer of at least 1"),
        (("a:1", 2, 2), r"process_id=2 must be in 0\.\.1"),
        (("a:1", 2, -1), r"process_id=-1 must be in 0\.\.1"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(joined, placement, message):
    with pytest.raises(ValueError, match=message):
        parallel.initialize(*placement)
    assert joined == []


def test_a_single_process_agrees_with_itself():
    assert parallel.is_main()
    assert parallel.from_main(os.getpid) == os.getpid()
    with pytest.raises(KeyError):
        parallel.from_main({}.popitem)
    rows = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(parallel.gather_rows(rows), rows)
    parallel.wait_for_all("here")
    assert not parallel.preempted()


@pytest.mark.parametrize(
    ("count", "message"), [(1, "UNAVAILABLE: gloo"), (4, "RESOURCE_EXHAUSTED: out of memory")]
)
def test_other_failures_keep_their_message(monkeypatch, count, message):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message), parallel.peer_failures():
        raise jax.errors.JaxRuntimeError(message)


def test_a_lost_peer_is_told_with_the_way_out(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    message = "process 0 of 4 stopped, because another process .* to resume .gloo: closed.$"
    with pytest.raises(ConnectionError, match=message), parallel.peer_failures():
        raise jax.errors.JaxRuntimeError("gloo: closed\nmore")


def test_the_run_is_described_in_one_line(monkeypatch):
    kind = jax.devices()[0].device_kind
    assert parallel.describe() == f"1 process, 1 device ({kind}), 1 in each process"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    assert parallel.describe(512) == (
        f"2 processes, 8 devices ({kind}), 4 in each process; batches of 512, 64 a device"
    )
