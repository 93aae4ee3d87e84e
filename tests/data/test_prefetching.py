import gc
import threading
import time

import jax
import numpy as np
import pytest

from recon_jax.data import epoch_batches, from_arrays, prefetch


def threads():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not threads()
    yield
    assert not threads()


@pytest.mark.parametrize("size", [1, 2, 10])
def test_the_batches_and_their_order_stay(size):
    assert list(prefetch(range(20), size)) == list(range(20))
    assert list(prefetch([], size)) == []


def test_real_batches_are_transferred():
    source = from_arrays(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), np.arange(10))
    plain = list(epoch_batches(source, 4))
    moved = list(prefetch(epoch_batches(source, 4), transfer=jax.device_put))
    for a, b in zip(plain, moved, strict=True):
        assert isinstance(b.images, jax.Array)
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_work_happens_ahead_in_another_thread_but_not_too_far():
    made = []

    def batches():
        for i in range(10):
            made.append(threading.current_thread().name)
            yield i

    ahead = prefetch(batches(), 3)
    assert not made
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    # One is in use, three are ready.
    assert made == ["prefetch"] * 4
    ahead.close()


def test_an_exception_comes_in_its_place():
    def batches():
        yield 1
        yield 2
        raise KeyError("disk on fire")

    ahead = prefetch(batches(), 5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="disk on fire") as caught:
        next(ahead)
    assert any(entry.name == "batches" for entry in caught.traceback)
    with pytest.raises(StopIteration):
        next(ahead)


def test_an_exception_of_the_transfer_surfaces():
    with pytest.raises(ZeroDivisionError):
        list(prefetch([1, 0, 2], transfer=lambda x: 1 / x))


def test_an_exception_before_the_first_batch_surfaces():
    class Closed:
        def __iter__(self):
            raise OSError("closed")

    with pytest.raises(OSError, match="closed"):
        next(prefetch(Closed()))


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_early_ends_the_thread_and_the_batches(taken):
    ended = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    batches = endless()  # held here, so that nothing but closing ends it
    ahead = prefetch(batches, 2)
    for _ in range(taken):
        next(ahead)
    assert threads()
    ahead.close()
    assert not threads()
    assert ended.is_set()


def test_dropping_the_iterator_ends_the_thread():
    for _ in prefetch(iter(int, 1), 2):
        break
    gc.collect()
    assert not threads()


def test_an_unused_iterator_starts_no_thread():
    ahead = prefetch(iter(int, 1))
    assert not threads()
    ahead.close()


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused_at_once(size):
    with pytest.raises(ValueError, match=f"size={size}"):
        prefetch([1], size)
