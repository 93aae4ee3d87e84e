import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.data import epoch_batches, from_arrays, num_steps, source_share


def recorded(n):
    """A source whose images tell their index, and the list of the indices that are read."""
    images = np.broadcast_to(np.arange(n)[:, None, None, None], (n, 1, 2, 1)).astype(np.float32)
    source, seen = from_arrays(images, np.arange(n) % 3, ["a", "b", "c"]), []

    def read(indices):
        seen.extend(np.asarray(indices).tolist())
        return source.read(indices)

    return source._replace(read=read), seen


sizes = st.integers(1, 70)


@given(sizes, st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_processes_read_every_image_once_and_only_their_own(n, rows, processes, shuffle):
    batch_size, everything, lengths = rows * processes, [], set()
    for index in range(processes):
        source, seen = recorded(n)
        batches = list(
            epoch_batches(
                source, batch_size, shuffle=shuffle, process_index=index, process_count=processes
            )
        )
        lengths.add(len(batches))
        given_images = [int(i) for b in batches for i in b.images[b.mask][:, 0, 0, 0]]
        assert seen == given_images  # nothing is read that is not given, not even as padding
        assert all(len(b.images) == len(b.mask) == rows for b in batches)
        everything += seen
    assert sorted(everything) == list(range(n))
    # Were one process to stop earlier, the others would wait for it in the reduction.
    assert lengths == {num_steps(n, batch_size)}


@given(sizes, st.data())
def test_shares_hold_every_image_once(n, data):
    shares = data.draw(st.integers(1, n))
    source, seen = recorded(n)
    found = []
    for share in range(shares):
        part = source_share(source, share, shares)
        assert part[:2] + part[3:5] == source[:2] + source[3:5]
        assert abs(part.num_images - n / shares) < 1
        images, labels = part.read(np.arange(part.num_images))
        found += images[:, 0, 0, 0].astype(int).tolist()
        np.testing.assert_array_equal(labels, images[:, 0, 0, 0] % 3)
    assert found == seen == list(range(n))


def test_a_share_ends_where_the_next_begins():
    part = source_share(recorded(10)[0], 1, 3)
    assert part.read(np.array([2, 0]))[0][:, 0, 0, 0].tolist() == [5, 3]
    for outside in (3, -1):
        with pytest.raises(ValueError, match=rf"image index {outside} is outside 0\.\.2"):
            part.read(np.array([outside]))


@pytest.mark.parametrize(
    ("share", "shares", "message"),
    [
        (0, 0, r"shares=0 must be in 1\.\.10"),
        (0, 11, r"shares=11 must be in 1\.\.10"),
        (3, 3, r"share=3 must be in 0\.\.2"),
        (-1, 3, r"share=-1 must be in 0\.\.2"),
    ],
)
def test_shares_out_of_range_are_refused(share, shares, message):
    with pytest.raises(ValueError, match=message):
        source_share(recorded(10)[0], share, shares)
