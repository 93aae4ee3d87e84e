"""The cores, the allocator and the threads of this machine."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from recon_jax import parallel
from recon_jax.parallel import host


def test_this_process_is_alone():
    assert parallel.process_index() == 0
    assert parallel.process_count() == 1
    assert parallel.is_single_cpu() == (jax.default_backend() == "cpu")


def test_the_cpu_is_recognised(monkeypatch):
    assert parallel.is_cpu()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not parallel.is_cpu()
    assert not parallel.is_single_cpu()
    assert parallel.device_count() == jax.local_device_count()


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_host_map_keeps_the_order(workers):
    def slow_first(item):
        time.sleep(0.02 * (item == 0))
        return jnp.asarray(item) * 2

    assert [int(r) for r in parallel.host_map(slow_first, range(6), workers)] == [0, 2, 4, 6, 8, 10]
    assert parallel.host_map(slow_first, [], workers) == []


def test_host_map_works_side_by_side():
    # Each waits for the other: one after the other they would time out.
    barrier = threading.Barrier(2, timeout=20)
    assert len(parallel.host_map(lambda _: barrier.wait(), range(2), workers=2)) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_host_map_lets_exceptions_through(workers):
    def fail(item):
        if item == 3:
            raise RuntimeError("item 3 went wrong")
        return item

    with pytest.raises(RuntimeError, match="item 3 went wrong"):
        parallel.host_map(fail, range(6), workers)


def test_host_map_waits_for_results(monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda value: waited.append(value) or value)
    parallel.host_map(lambda item: item, range(4), 2)
    parallel.host_map(lambda item: item, range(4), 1)
    assert sorted(waited) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_allocator_of_another_c_library_is_left_alone(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(host.ctypes, "CDLL", missing)
    assert parallel.tune_allocator() is False


def test_programs_for_accelerators_can_be_traced_here():
    with parallel.tracing_for_accelerators():
        assert not parallel.is_cpu()
        assert parallel.cpu_compiler_options() == {}
        assert not parallel.is_single_cpu()
    assert parallel.is_cpu()
