import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.data import (
    Source,
    batch_at,
    epoch_batches,
    epoch_order,
    fold_steps,
    from_arrays,
    num_steps,
    run_batches,
)


def numbered(n, dtype=np.uint8):
    """Images whose pixels are their index plus one, so that none looks like padding."""
    values = np.arange(1, n + 1)
    images = np.broadcast_to(values[:, None, None, None], (n, 2, 3, 1)).astype(dtype)
    return from_arrays(images, values % 5)


def visited(batches):
    return [int(i) - 1 for b in batches for i in b.images[b.mask][:, 0, 0, 0]]


sizes = st.integers(1, 60)
batch_sizes = st.integers(1, 70)


@given(sizes, batch_sizes, st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_visits_every_image_once(n, batch_size, shuffle, seed, epoch):
    batches = list(epoch_batches(numbered(n), batch_size, seed=seed, epoch=epoch, shuffle=shuffle))
    assert len(batches) == num_steps(n, batch_size)
    order = epoch_order(n, seed=seed, epoch=epoch, shuffle=shuffle)
    assert visited(batches) == order.tolist()
    assert sorted(visited(batches)) == list(range(n))
    for batch in batches:
        assert batch.images.shape == (batch_size, 2, 3, 1)
        assert batch.labels.shape == batch.mask.shape == (batch_size,)
        assert (batch.images.dtype, batch.labels.dtype) == (np.uint8, np.int32)
        assert batch.mask.dtype == bool
        np.testing.assert_array_equal(
            batch.labels[batch.mask], batch.images[batch.mask, 0, 0, 0] % 5
        )
        assert not batch.images[~batch.mask].any()
        assert not batch.labels[~batch.mask].any()
        assert (np.diff(batch.mask.astype(int)) <= 0).all()
    assert all(batch.mask.all() for batch in batches[:-1])
    assert batches[-1].mask.sum() == n - (len(batches) - 1) * batch_size


@given(sizes, st.integers(1, 8), st.integers(1, 8), st.data())
def test_the_processes_together_are_one_process(n, rows, processes, data):
    source, batch_size = numbered(n), rows * processes
    step = data.draw(st.integers(0, num_steps(n, batch_size) - 1))
    where = {"step": step, "batch_size": batch_size, "seed": 3, "epoch": 1}
    alone = batch_at(source, **where)
    shares = [
        batch_at(source, **where, process_index=i, process_count=processes)
        for i in range(processes)
    ]
    for part, whole in zip(zip(*shares, strict=True), alone, strict=True):
        assert all(len(p) == rows for p in part)
        np.testing.assert_array_equal(np.concatenate(part), whole)
        assert {p.dtype for p in part} == {whole.dtype}


@given(sizes, batch_sizes)
def test_dropping_the_last_batch_leaves_no_padding(n, batch_size):
    source = numbered(n)
    batches = list(epoch_batches(source, batch_size, drop_last=True))
    assert len(batches) == n // batch_size == num_steps(n, batch_size, drop_last=True)
    assert all(batch.mask.all() for batch in batches)
    full = visited(epoch_batches(source, batch_size))
    assert visited(batches) == full[: len(batches) * batch_size]


@given(sizes, st.integers(1, 20), st.data())
def test_resuming_within_an_epoch_is_the_rest_of_it(n, batch_size, data):
    source = numbered(n)
    start = data.draw(st.integers(0, num_steps(n, batch_size)))
    whole = visited(epoch_batches(source, batch_size, seed=1))
    rest = visited(epoch_batches(source, batch_size, seed=1, start_step=start))
    assert rest == whole[start * batch_size :]


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {
        (seed, epoch): tuple(epoch_order(50, seed=seed, epoch=epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(set(orders.values())) == 16
    epoch_order.cache_clear()
    np.random.seed(0)
    assert all(tuple(epoch_order(50, seed=s, epoch=e)) == o for (s, e), o in orders.items())
    np.testing.assert_array_equal(epoch_order(5, seed=9, epoch=9, shuffle=False), np.arange(5))


def test_every_position_is_equally_likely():
    first = [epoch_order(5, seed=0, epoch=e)[0] for e in range(2000)]
    assert (np.abs(np.bincount(first, minlength=5) - 400) < 90).all()


def test_the_shared_order_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(5, seed=0, epoch=0)[0] = 1


def test_float_images_keep_their_dtype_in_the_padding():
    batch = batch_at(numbered(3, np.float32), step=0, batch_size=4, shuffle=False)
    assert batch.images.dtype == np.float32
    assert batch.mask.tolist() == [True, True, True, False]
    share = batch_at(
        numbered(1, np.float32), step=0, batch_size=4, process_index=1, process_count=2
    )
    assert (share.images.dtype, share.mask.any()) == (np.float32, False)


def test_a_batch_is_a_pytree():
    doubled = jax.tree.map(lambda x: 2 * x, batch_at(numbered(4), step=0, batch_size=2))
    assert type(doubled).__name__ == "Batch"


def test_images_of_another_shape_are_refused():
    def read(indices):
        side = 4 if indices[0] < 2 else 5
        return np.zeros((len(indices), side, side, 1), np.uint8), np.zeros(len(indices), np.int32)

    source = Source("odd", "train", 4, (4, 4, 1), ("a",), read)
    batches = epoch_batches(source, 2, shuffle=False)
    next(batches)
    with pytest.raises(ValueError, match=r"odd: .*\(5, 5, 1\) were read at step 1.*\(4, 4, 1\)"):
        next(batches)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 3}, r"step=3 is outside .* steps 0\.\.2 \(10 images in batches of 4\)"),
        ({"step": -1}, "step=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"process_count": 3}, "batch_size=4.* process_count=3; .* such as 6"),
        ({"process_count": 0}, "process_count=0"),
        ({"process_index": 2, "process_count": 2}, r"process_index=2 must be in 0\.\.1"),
        ({"process_index": -1}, "process_index=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"epoch": -1}, "epoch=-1"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        batch_at(numbered(10), **({"step": 0, "batch_size": 4} | arguments))


def test_an_epoch_refuses_bad_arguments_before_its_first_batch():
    for arguments, message in (
        ({"start_step": 4}, r"start_step=4 must be in 0\.\.3"),
        ({"start_step": -1}, "start_step=-1"),
        ({"process_count": 3}, "process_count=3"),
        ({"start_step": 3, "drop_last": True}, r"must be in 0\.\.2"),
    ):
        with pytest.raises(ValueError, match=message):
            epoch_batches(numbered(10), 4, **arguments)
    with pytest.raises(ValueError, match="num_images=0"):
        num_steps(0, 4)


@given(n=st.integers(1, 300), folds=st.integers(1, 12), batch_size=st.integers(1, 50))
def test_folds_cover_every_image_once_and_are_of_one_size(n, folds, batch_size):
    if n < folds:
        with pytest.raises(ValueError, match=f"{n} image.* num_folds={folds}"):
            fold_steps(n, folds, batch_size)
        return
    size, parts = fold_steps(n, folds, batch_size)
    assert 1 <= size <= batch_size
    assert sorted(step for part in parts for step in part) == list(range(num_steps(n, size)))
    images = [sum(min(size, n - step * size) for step in part) for part in parts]
    assert sum(images) == n
    assert min(images) > 0
    assert max(images) - min(images) <= size


@given(
    n=st.integers(1, 300),
    folds=st.integers(1, 6),
    batch_size=st.integers(1, 50),
    multiple=st.integers(1, 9),
)
def test_folds_that_devices_share_equally(n, folds, batch_size, multiple):
    if -(-n // multiple) < folds:
        with pytest.raises(ValueError, match=r"make num_folds="):
            fold_steps(n, folds, batch_size, multiple)
        return
    size, parts = fold_steps(n, folds, batch_size, multiple)
    assert size % multiple == 0
    assert size <= max(batch_size, multiple)
    assert sorted(step for part in parts for step in part) == list(range(num_steps(n, size)))
    assert all(parts)


def test_run_batches_of_all_processes_are_those_of_one():
    source = numbered(10)
    whole = run_batches(source, 4, seed=3)
    shares = [run_batches(source, 4, seed=3, process_index=i, process_count=2) for i in range(2)]
    for step in range(5):
        for parts, wanted in zip(
            zip(*(share(step) for share in shares), strict=True), whole(step), strict=True
        ):
            np.testing.assert_array_equal(np.concatenate(parts), wanted)
    with pytest.raises(ValueError, match="does not divide among process_count=3"):
        run_batches(source, 4, process_index=0, process_count=3)


def test_run_batches_are_full_and_follow_the_epochs():
    source = numbered(10)
    batch_of = run_batches(source, 4, seed=3)
    for step in range(6):
        epoch, within = divmod(step, 2)
        expected = batch_at(source, step=within, batch_size=4, seed=3, epoch=epoch)
        for found, wanted in zip(batch_of(step), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert batch_of(step).mask.all()
    with pytest.raises(ValueError, match="batch_size=11 is more than the 10 images"):
        run_batches(source, 11)
