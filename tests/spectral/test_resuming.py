import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax import parallel
from recon_jax.spectral import load_moments, resume_moments

from . import reference
from .test_moments import assert_identical, assert_same

CLASSES, SIZE = 3, 10
COUNT = 7  # batches


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def data(image_like):
    return image_like(SIZE * COUNT, (3, 2, 2), CLASSES, seed=12)


@pytest.fixture(params=["host", "devices"])
def engine(request):
    return request.param


def batches_of(data, until=COUNT, seen=None):
    """Batches from `start`, killed before batch number `until`."""
    images, labels = data

    def batches_from(start):
        for step in range(start, COUNT):
            if step == until:
                raise KilledError
            if seen is not None:
                seen.append(step)
            rows = slice(step * SIZE, step * SIZE + SIZE)
            yield images[rows], labels[rows]

    return batches_from


def resume(path, data, until=COUNT, seen=None, **options):
    options = {"save_every": 2, "identity": {"source": "x"}, **options}
    count = options.pop("num_batches", COUNT)
    return resume_moments(batches_of(data, until, seen), count, CLASSES, path=path, **options)


@pytest.mark.parametrize("save_every", [1, 2, 3, 7, 100])
def test_a_whole_pass_matches_numpy(tmp_path, data, engine, save_every):
    path = tmp_path / "m.npz"
    ours = resume(path, data, save_every=save_every, engine=engine)
    assert_same(ours, reference.moments_of(*data, CLASSES), rtol=1e-12)
    assert ours.count.dtype == ours.class_counts.dtype == jnp.int32
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
    loaded, about = load_moments(path)
    assert_identical(loaded, ours)
    assert about["source"] == "x"


@pytest.mark.parametrize("until", range(1, COUNT))
def test_a_killed_pass_ends_with_the_same_bits(tmp_path, data, engine, until):
    whole = resume(tmp_path / "whole.npz", data, engine=engine)
    path = tmp_path / "broken.npz"
    with pytest.raises(KilledError):
        resume(path, data, until, engine=engine)
    seen = []
    assert_identical(resume(path, data, seen=seen, engine=engine), whole)
    assert seen == list(range(until - until % 2, COUNT))  # what was saved is not read again
    assert (tmp_path / "broken.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@given(st.lists(st.integers(1, COUNT - 1), max_size=4))
def test_kills_at_any_batches_change_nothing(tmp_path_factory, data, kills):
    folder = tmp_path_factory.mktemp("kills")
    for until in sorted(kills):
        with pytest.raises(KilledError):
            resume(folder / "m.npz", data, until)
    whole = resume(folder / "whole.npz", data)
    assert_identical(resume(folder / "m.npz", data), whole)


def test_a_finished_pass_asks_for_no_batch(tmp_path, data):
    whole = resume(tmp_path / "m.npz", data)
    seen = []
    assert_identical(resume(tmp_path / "m.npz", data, seen=seen), whole)
    assert seen == []


def test_an_unfinished_pass_is_not_loaded(tmp_path, data):
    with pytest.raises(KilledError):
        resume(tmp_path / "m.npz", data, 5)
    with pytest.raises(ValueError, match=r"holds 4 of 7 batches: the pass .* has not ended"):
        load_moments(tmp_path / "m.npz")


@pytest.mark.parametrize("position", [0, 70, 500, -1])
def test_a_damaged_save_falls_back_to_the_one_before(tmp_path, data, caplog, position):
    whole = resume(tmp_path / "whole.npz", data)
    path = tmp_path / "m.npz"
    with pytest.raises(KilledError):
        resume(path, data, 5)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    seen = []
    assert_identical(resume(path, data, seen=seen), whole)
    assert seen[0] == 2
    assert "m.npz is damaged" in caplog.text


def test_with_every_save_damaged_it_starts_anew(tmp_path, data, caplog):
    whole = resume(tmp_path / "whole.npz", data)
    with pytest.raises(KilledError):
        resume(tmp_path / "m.npz", data, 5)
    for path in (tmp_path / "m.npz", tmp_path / "m.npz.previous"):
        path.write_bytes(path.read_bytes()[:100])
    seen = []
    assert_identical(resume(tmp_path / "m.npz", data, seen=seen), whole)
    assert seen[0] == 0
    assert "m.npz.previous is damaged" in caplog.text


def test_a_kill_between_two_files_costs_one_span(tmp_path, data):
    whole = resume(tmp_path / "whole.npz", data)
    path = tmp_path / "m.npz"
    with pytest.raises(KilledError):
        resume(path, data, 5)
    path.unlink()  # as after the old save was put aside, before the new one was there
    seen = []
    assert_identical(resume(path, data, seen=seen), whole)
    assert seen[0] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": {"source": "y"}}, 'source: stored "x", now "y"'),
        ({"identity": {"source": "x", "units": 1}}, "units: stored absent, now 1"),
        ({"dtype": jnp.float32}, 'dtype: stored "float64", now "float32"'),
        ({"num_batches": 6}, "batches: stored 7, now 6"),
    ],
)
def test_another_pass_is_refused(tmp_path, data, changes, message):
    with pytest.raises(KilledError):
        resume(tmp_path / "m.npz", data, 5)
    with pytest.raises(ValueError, match=f"holds another pass .{message}.* or delete it"):
        resume(tmp_path / "m.npz", data, **changes)


def test_sigterm_stops_behind_a_save(tmp_path, data, monkeypatch):
    whole = resume(tmp_path / "whole.npz", data)
    calls = iter([False, True, False, False])
    monkeypatch.setattr(parallel, "preempted", lambda: next(calls))
    seen = []
    with pytest.raises(SystemExit) as stopped:
        resume(tmp_path / "m.npz", data, seen=seen)
    assert stopped.value.code == 0
    assert seen == [0, 1, 2, 3]
    assert_identical(resume(tmp_path / "m.npz", data, seen=seen), whole)
    assert seen == list(range(COUNT))


def test_float32_spans_are_added_up_in_float64(tmp_path, data):
    exact = reference.moments_of(*data, CLASSES)
    ours = resume(tmp_path / "m.npz", data, dtype=jnp.float32, engine="devices")
    assert ours.scatter.dtype == jnp.float32
    assert_same(ours, exact, rtol=1e-5)
    stored = np.asarray(load_moments(tmp_path / "m.npz")[0].scatter)
    assert (stored != stored.astype(np.float32)).any()


def test_wholly_masked_spans_are_skipped(tmp_path, data, engine):
    images, labels = data
    none = np.zeros(SIZE, bool)
    batches = [(images[:SIZE] * 9, labels[:SIZE], none)] * 2 + list(batches_of(data)(0))
    ours = resume_moments(
        lambda start: batches[start:],
        COUNT + 2,
        CLASSES,
        path=tmp_path / "m.npz",
        save_every=1,
        engine=engine,
    )
    assert_same(ours, reference.moments_of(*data, CLASSES), rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"save_every": 0}, "save_every=0 must be an integer of at least 1"),
        ({"num_batches": 0}, "num_batches=0 must be an integer of at least 1"),
        ({"num_batches": 9}, "there are 7 batches, but num_batches=9"),
        ({"identity": {"x": object()}}, "identity must hold only what JSON can"),
        ({"identity": {"x": np.nan}}, "identity must hold only what JSON can"),
        ({"engine": "gpu"}, "engine must be one of auto, host, devices, got 'gpu'"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, data, changes, message):
    with pytest.raises(ValueError, match=message):
        resume(tmp_path / "m.npz", data, **changes)


def test_no_images_are_refused(tmp_path, data):
    nothing = [(data[0][:4], data[1][:4], np.zeros(4, bool))]
    with pytest.raises(ValueError, match="no images were given"):
        resume_moments(lambda start: nothing, 1, CLASSES, path=tmp_path / "m.npz")


def test_a_full_disk_leaves_the_last_save(tmp_path, data, monkeypatch):
    from recon_jax.spectral import resuming

    whole = resume(tmp_path / "whole.npz", data)
    write, calls = resuming.write_moments, []

    def limited(*args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(*args)

    monkeypatch.setattr(resuming, "write_moments", limited)
    with pytest.raises(OSError, match="No space left"):
        resume(tmp_path / "m.npz", data)
    seen = []
    assert_identical(resume(tmp_path / "m.npz", data, seen=seen), whole)
    assert seen[0] == 4
