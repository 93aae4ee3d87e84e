import numpy as np
import pytest

from recon_jax.data.cache import decode_once


def counted_reader():
    asked = []

    def read(indices):
        asked.extend(indices.tolist())
        images = np.broadcast_to(indices[:, None, None, None], (len(indices), 2, 2, 1))
        return images.astype(np.uint8), (indices % 3).astype(np.int32)

    return read, asked


def test_each_image_is_decoded_once():
    read, asked = counted_reader()
    cached = decode_once(read, 10, (2, 2, 1), "s")
    for indices in ([3, 1, 3], [1, 2], [3], []):
        indices = np.array(indices, int)
        images, labels = cached(indices)
        np.testing.assert_array_equal(images[:, 0, 0, 0], indices)
        np.testing.assert_array_equal(labels, indices % 3)
    assert sorted(asked) == [1, 2, 3]


def test_data_larger_than_the_bound_is_decoded_each_time():
    read, asked = counted_reader()
    cached = decode_once(read, 10, (2, 2, 1), "s", max_bytes=39)
    for _ in range(2):
        np.testing.assert_array_equal(cached(np.array([4, 5]))[0][:, 0, 0, 0], [4, 5])
    assert asked == [4, 5, 4, 5]


def test_what_is_returned_can_be_changed_without_harm():
    cached = decode_once(counted_reader()[0], 10, (2, 2, 1), "s")
    cached(np.array([7]))[0][:] = 0
    assert cached(np.array([7]))[0].max() == 7


def test_a_failed_read_is_tried_again():
    read, _ = counted_reader()
    failures = [OSError("disk")]

    def flaky(indices):
        if failures:
            raise failures.pop()
        return read(indices)

    cached = decode_once(flaky, 10, (2, 2, 1), "s")
    with pytest.raises(OSError, match="disk"):
        cached(np.array([5]))
    assert cached(np.array([5]))[0].max() == 5


def test_indices_are_checked():
    cached = decode_once(counted_reader()[0], 10, (2, 2, 1), "mine")
    with pytest.raises(ValueError, match="mine: image index 10"):
        cached(np.array([10]))
