import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.data import from_arrays, paired_batches, run_batches, source_subset

NAMES = ["ant", "bee", "cat"]


def numbered(n, first=0):
    """Images that tell their number; labels are the number modulo 3."""
    numbers = np.arange(first, first + n)
    images = np.broadcast_to(numbers[:, None, None, None], (n, 1, 2, 1)).astype(np.float32)
    return from_arrays(images, numbers % 3, NAMES, name="numbered")


def numbers_of(batch):
    return batch.images[:, 0, 0, 0].astype(int).tolist()


@given(st.integers(1, 40), st.data())
def test_a_subset_holds_its_images_in_their_order(n, data):
    indices = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    source, subset = numbered(n), source_subset(numbered(n), np.array(indices))
    assert subset.num_images == len(indices)
    assert subset[:2] + subset[3:5] == source[:2] + source[3:5]
    rows = data.draw(st.permutations(range(len(indices))))
    images, labels = subset.read(np.array(rows))
    assert images[:, 0, 0, 0].astype(int).tolist() == [indices[row] for row in rows]
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] % 3)


def test_a_subset_of_a_subset():
    inner = source_subset(source_subset(numbered(10), np.array([7, 2, 5, 0])), np.array([2, 0]))
    assert inner.read(np.arange(2))[0][:, 0, 0, 0].tolist() == [5, 7]


@pytest.mark.parametrize("row", [2, -1])
def test_nothing_outside_a_subset_is_read(row):
    subset = source_subset(numbered(9), np.array([4, 6]))
    with pytest.raises(ValueError, match=rf"numbered: image index {row} is outside 0\.\.1"):
        subset.read(np.array([row]))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "numbered: no indices were given; a subset needs 1 image or more"),
        ([1, 9], r"numbered: image index 9 is outside 0\.\.8"),
        ([-1], r"numbered: image index -1 is outside 0\.\.8"),
        ([4, 2, 4], "numbered: image 4 is in the subset 2 times; give every index once"),
        ([3, 5, 3, 5, 5], "numbered: image 5 is in the subset 3 times; give every index once"),
    ],
)
def test_bad_indices_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        source_subset(numbered(9), np.array(indices, int))


def test_each_source_has_epochs_of_its_own():
    labelled, unlabelled = numbered(7), numbered(20, first=100)
    batch_of = paired_batches(labelled, unlabelled, 3, 5, seed=4)
    batches = [batch_of(step) for step in range(12)]
    for number, (source, size) in enumerate([(labelled, 3), (unlabelled, 5)]):
        steps, own = source.num_images // size, run_batches(source, size, seed=4)
        seen = [numbers_of(pair[number]) for pair in batches]
        assert seen == [numbers_of(own(step)) for step in range(12)]
        for start in range(0, 12, steps):
            epoch = [number for batch in seen[start : start + steps] for number in batch]
            assert len(set(epoch)) == size * steps == len(epoch)
        assert seen[:steps] != seen[steps : 2 * steps]
    for pair in batches:
        assert max(numbers_of(pair.labelled)) < 100 <= min(numbers_of(pair.unlabelled))
        for part in pair:
            np.testing.assert_array_equal(part.labels, np.array(numbers_of(part)) % 3)
            assert part.mask.all()
    again = paired_batches(labelled, unlabelled, 3, 5, seed=4)(11)
    assert [numbers_of(part) for part in again] == [numbers_of(part) for part in batches[11]]
    other = paired_batches(labelled, unlabelled, 3, 5, seed=5)
    assert [numbers_of(other(step).labelled) for step in range(4)] != [
        numbers_of(pair.labelled) for pair in batches[:4]
    ]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 30))
def test_the_processes_together_are_one_process(rows, more, processes, step):
    sources = numbered(15), numbered(20, first=100)
    sizes = rows * processes, more * processes
    alone = paired_batches(*sources, *sizes, seed=2)(step)
    shares = [
        paired_batches(*sources, *sizes, seed=2, process_index=i, process_count=processes)(step)
        for i in range(processes)
    ]
    for part, count in ((0, rows), (1, more)):
        assert all(len(share[part].labels) == count for share in shares)
        for leaf in range(3):
            joined = np.concatenate([share[part][leaf] for share in shares])
            np.testing.assert_array_equal(joined, alone[part][leaf])


@pytest.mark.parametrize(
    ("kept", "missing"), [([0, 3, 6], "bee, cat"), ([0, 2, 5], "bee"), ([1, 2], "ant")]
)
def test_every_class_needs_a_label(kept, missing):
    labelled = source_subset(numbered(9), np.array(kept))
    message = f"numbered: no labelled image of class {missing}; label one or more of every"
    with pytest.raises(ValueError, match=message):
        paired_batches(labelled, numbered(9), 2, 4)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((10, 4), "batch_size=10 is more than the 9 images"),
        ((4, 22), "batch_size=22 is more than the 20 images"),
        ((0, 4), "batch_size=0 must be an integer of at least 1"),
        ((3, 4), "batch_size=3, .* does not divide among process_count=2"),
        ((4, 3), "batch_size=3, .* does not divide among process_count=2"),
    ],
)
def test_sizes_out_of_range_are_refused_before_the_first_batch(sizes, message):
    with pytest.raises(ValueError, match=message):
        paired_batches(numbered(9), numbered(20), *sizes, process_count=2)
