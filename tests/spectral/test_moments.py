import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax import parallel
from recon_jax.spectral import (
    Moments,
    eigendecompose,
    global_std,
    host_moments,
    init_moments,
    jackknife_error,
    leave_one_out,
    merge_moments,
    normalizing_scale,
    pixel_std,
    scale_moments,
    stream_moments,
    union_moments,
    update_moments,
)

from . import reference

SHAPE = (3, 2, 2)
CLASSES = 3


def assert_same(ours, expected, rtol=1e-10):
    np.testing.assert_array_equal(ours.count, expected.count)
    np.testing.assert_array_equal(ours.class_counts, expected.class_counts)
    for name in ("mean", "scatter", "cross"):
        wanted = np.asarray(getattr(expected, name))
        np.testing.assert_allclose(
            getattr(ours, name), wanted, atol=rtol * max(np.abs(wanted).max(), 1e-300)
        )


def assert_identical(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(params=["host", "device"])
def engine(request, monkeypatch):
    """Both engines behind stream_moments: the host's BLAS, and the devices (here one)."""
    if request.param == "device":
        monkeypatch.setattr(parallel, "is_single_cpu", lambda: False)
    else:
        assert parallel.is_single_cpu()
    return request.param


@pytest.fixture(scope="module")
def data(image_like):
    return image_like(60, SHAPE, CLASSES, seed=12)


def batches_of(images, labels, cuts):
    edges = [0, *sorted(cuts), len(images)]
    return [(images[a:b], labels[a:b]) for a, b in itertools.pairwise(edges) if b > a]


# One shot ----------------------------------------------------------------------------------------


def test_stream_matches_numpy(data, engine):
    ours = stream_moments([data], CLASSES)
    assert_same(ours, reference.moments_of(*data, CLASSES))
    assert ours.num_features == 12
    assert ours.num_classes == CLASSES
    assert ours.count.dtype == ours.class_counts.dtype == jnp.int32
    np.testing.assert_allclose(ours.cross.sum(1), 0, atol=1e-10)  # centred images sum to zero


def test_update_matches_numpy(data):
    ours = update_moments(init_moments(12, CLASSES), *data)
    assert_same(ours, reference.moments_of(*data, CLASSES))


def test_flat_images_give_the_same(data, engine):
    flat = (data[0].reshape(60, -1), data[1])
    assert_identical(stream_moments([flat], CLASSES), stream_moments([data], CLASSES))
    start = init_moments(12, CLASSES)
    assert_identical(update_moments(start, *flat), update_moments(start, *data))


def test_a_class_without_images_counts_zero(data, engine):
    ours = stream_moments([data], CLASSES + 2)
    np.testing.assert_array_equal(ours.class_counts[CLASSES:], 0)
    np.testing.assert_array_equal(ours.cross[:, CLASSES:], 0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_labels_of_any_integer_type(data, engine, dtype):
    images, labels = data
    expected = reference.moments_of(*data, CLASSES)
    assert_same(stream_moments([(images, labels.astype(dtype))], CLASSES), expected)
    ours = update_moments(init_moments(12, CLASSES), images, labels.astype(dtype))
    assert_same(ours, expected)


# Splits ------------------------------------------------------------------------------------------

cuts = st.lists(st.integers(1, 59), max_size=4, unique=True)


# Few different batch sizes here, since each is compiled.
@given(st.lists(st.sampled_from([10, 20, 30, 40, 50]), max_size=4, unique=True))
def test_updates_over_any_split_equal_one_shot(data, where):
    moments = init_moments(12, CLASSES)
    for images, labels in batches_of(*data, where):
        moments = update_moments(moments, images, labels)
    assert_same(moments, reference.moments_of(*data, CLASSES))


@given(cuts)
def test_streams_over_any_split_equal_one_shot(data, where):
    ours = stream_moments(batches_of(*data, where), CLASSES)
    assert_same(ours, reference.moments_of(*data, CLASSES))


@given(cuts, st.randoms(use_true_random=False))
def test_merging_any_split_in_any_order_equals_one_shot(data, where, random):
    parts = [reference.moments_of(*batch, CLASSES) for batch in batches_of(*data, where)]
    random.shuffle(parts)
    while len(parts) > 1:
        left = parts.pop(random.randrange(len(parts)))
        right = parts.pop(random.randrange(len(parts)))
        parts.append(merge_moments(left, right))
    assert_same(parts[0], reference.moments_of(*data, CLASSES))


def test_merge_is_associative_commutative_and_has_a_neutral_element(data):
    a, b, c = (reference.moments_of(*part, CLASSES) for part in batches_of(*data, [5, 40]))
    assert_same(merge_moments(merge_moments(a, b), c), merge_moments(a, merge_moments(b, c)))
    assert_same(merge_moments(a, b), merge_moments(b, a))
    nothing = init_moments(12, CLASSES)
    assert_identical(merge_moments(a, nothing), a)
    assert_identical(merge_moments(nothing, a), a)
    assert_identical(merge_moments(nothing, nothing), nothing)


def test_device_stream_over_a_split_equals_one_shot(data, monkeypatch):
    monkeypatch.setattr(parallel, "is_single_cpu", lambda: False)
    ours = stream_moments(batches_of(*data, range(2, 60, 2)), CLASSES)
    assert_same(ours, reference.moments_of(*data, CLASSES))


@pytest.mark.parametrize("size", [1023, 1024, 1100])
def test_scatters_that_devices_add_in_panels(size):
    images, labels = random_bytes(40, size)
    parts = [(images[i : i + 20], labels[i : i + 20]) for i in (0, 20)]
    exact = reference.moments_of(images, labels, CLASSES)
    assert_same(stream_moments(parts, CLASSES, engine="devices"), exact, rtol=1e-12)
    single = stream_moments(parts, CLASSES, engine="devices", dtype=jnp.float32)
    assert_same(single, exact, rtol=1e-6)


def test_a_drifting_stream_keeps_its_digits_in_float32():
    # Every batch far from those before it, as where images come sorted.
    rng = np.random.default_rng(2)
    images = rng.standard_normal((640, 6)) + np.repeat(np.arange(64.0) * 3, 10)[:, None]
    labels = rng.integers(0, CLASSES, 640)
    exact = reference.moments_of(images, labels, CLASSES)
    parts = [(images[i : i + 10], labels[i : i + 10]) for i in range(0, 640, 10)]
    ours = stream_moments(parts, CLASSES, engine="devices", dtype=jnp.float32)
    assert_same(ours._replace(cross=exact.cross), exact, rtol=1e-6)
    np.testing.assert_allclose(ours.cross, exact.cross, atol=1e-6 * 640 * float(exact.mean.max()))


@pytest.mark.parametrize("engine", ["gpu", "Host"])
def test_unknown_engines_are_refused(data, engine):
    with pytest.raises(ValueError, match=f"one of auto, host, devices, got '{engine}'"):
        stream_moments([data], CLASSES, engine=engine)


# Masks -------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=60, max_size=60).filter(any))
def test_masked_rows_do_not_count(data, keep):
    images, labels = data
    keep = np.array(keep)
    expected = reference.moments_of(images[keep], labels[keep], CLASSES)
    padded = np.where(keep[:, None, None, None], images, 1e3)
    blind = np.where(keep, labels, 0)
    assert_same(update_moments(init_moments(12, CLASSES), padded, blind, keep), expected)
    assert_same(stream_moments([(padded, blind, keep)], CLASSES), expected)


def test_masks_of_zeros_and_ones_are_read_as_booleans(data, engine):
    images, labels = data
    keep = np.arange(60) % 3 > 0
    expected = stream_moments([(images, labels, keep)], CLASSES)
    assert_identical(stream_moments([(images, labels, keep.astype(np.int32))], CLASSES), expected)
    assert int(expected.count) == 40


def test_wholly_masked_batches_among_others_are_skipped(data, engine):
    images, labels = data
    none = np.zeros(60, bool)
    ours = stream_moments([(images * 7, labels, none), data, (images, labels, none)], CLASSES)
    assert_same(ours, reference.moments_of(*data, CLASSES))


# Precision ---------------------------------------------------------------------------------------


def random_bytes(count, size, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size), dtype=np.uint8)
    images[:, 0] = 255 * (np.arange(count) % 2)  # as far from 128 as it goes
    images[:, 1] = 0
    return images, rng.integers(0, CLASSES, count)


def test_bytes_are_summed_exactly():
    # Long enough for the float32 block to overflow 2^24 several times.
    images, labels = random_bytes(5000, 12)
    sums = host_moments.accumulate([(images, labels, np.ones(5000, bool))], CLASSES)
    shifted = images.astype(np.int64) - 128
    assert (shifted**2).sum(0).max() > 4 * 2**24
    np.testing.assert_array_equal(np.triu(sums.second), np.triu(shifted.T @ shifted))
    for label in range(CLASSES):
        np.testing.assert_array_equal(sums.class_sums[:, label], shifted[labels == label].sum(0))


@pytest.mark.parametrize("size", [255, 256, 257, 600])
def test_scatter_is_mirrored_across_panels(size):
    images, labels = random_bytes(300, size)
    ours = stream_moments([(images, labels)], CLASSES)
    centred = images - images.mean(0)
    np.testing.assert_allclose(ours.scatter, centred.T @ centred, rtol=1e-12, atol=1e-7)
    np.testing.assert_array_equal(ours.scatter, ours.scatter.T)


@given(st.integers(1, 3000), st.integers(0, 1000))
def test_moments_of_bytes_do_not_depend_on_order_or_batch_size(batch, seed):
    images, labels = random_bytes(2500, 6)
    whole = stream_moments([(images, labels)], CLASSES)
    order = np.random.default_rng(seed).permutation(2500)
    images, labels = images[order], labels[order]
    parts = [(images[i : i + batch], labels[i : i + batch]) for i in range(0, 2500, batch)]
    assert_identical(stream_moments(parts, CLASSES), whole)


def test_moments_of_bytes_match_numpy(engine):
    images, labels = random_bytes(3000, 8)
    ours = stream_moments([(images, labels)], CLASSES)
    assert_same(ours, reference.moments_of(images, labels, CLASSES), rtol=1e-12)


def test_a_pixel_of_constant_bytes_has_exactly_no_variance():
    images, labels = random_bytes(777, 5)
    ours = stream_moments([(images, labels)], CLASSES)
    assert float(ours.scatter[1, 1]) == float(ours.mean[1]) == 0
    np.testing.assert_allclose(ours.scatter[1], 0, atol=1e-15 * float(ours.scatter.max()))


def test_long_streams_of_floats_match_numpy(engine):
    # Longer than the block that is moved to float64 at a time.
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((9001, 5)) + 3, rng.integers(0, CLASSES, 9001)
    expected = reference.moments_of(images, labels, CLASSES)
    parts = [(images[i : i + 1000], labels[i : i + 1000]) for i in range(0, 9001, 1000)]
    assert_same(stream_moments(parts, CLASSES), expected, rtol=1e-12)
    single = stream_moments(parts, CLASSES, dtype=jnp.float32)
    assert_same(single, expected, rtol=1e-5)


def test_a_large_offset_costs_no_digits(engine):
    rng = np.random.default_rng(1)
    images, labels = 1e4 + rng.standard_normal((500, 6)), rng.integers(0, CLASSES, 500)
    exact = images.astype(np.longdouble) - images.astype(np.longdouble).mean(0)
    expected = np.asarray(exact.T @ exact, np.float64)
    parts = [(images[i : i + 50], labels[i : i + 50]) for i in range(0, 500, 50)]
    streamed = stream_moments(parts, CLASSES)
    updated = init_moments(6, CLASSES)
    for part in parts:
        updated = update_moments(updated, *part)
    for ours in (streamed, updated):
        np.testing.assert_allclose(ours.scatter, expected, atol=1e-9 * expected.max())


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("dtype", [jnp.float32, np.float64, "float32"])
def test_dtype_of_the_result(data, engine, dtype, kind):
    given_data = random_bytes(60, 12) if kind == "bytes" else data
    ours = stream_moments([given_data], CLASSES, dtype=dtype)
    assert ours.mean.dtype == ours.scatter.dtype == ours.cross.dtype == jnp.dtype(dtype)
    assert_same(ours, reference.moments_of(*given_data, CLASSES), rtol=1e-5)
    assert init_moments(4, 2, dtype).scatter.dtype == jnp.dtype(dtype)


# Purity ------------------------------------------------------------------------------------------


def test_update_runs_under_jit_and_scan(data):
    images, labels = jnp.asarray(data[0]), jnp.asarray(data[1])
    start = init_moments(12, CLASSES)
    eager = update_moments(start, images, labels)
    assert_same(jax.jit(update_moments)(start, images, labels), eager, rtol=1e-13)

    def step(moments, batch):
        return update_moments(moments, *batch), None

    stacked = (images.reshape(6, 10, *SHAPE), labels.reshape(6, 10))
    scanned, _ = jax.lax.scan(step, start, stacked)
    assert_same(scanned, eager)


def test_images_closed_over_by_jit_are_accepted(data):
    images, labels = jnp.asarray(data[0]), jnp.asarray(data[1])
    start = init_moments(12, CLASSES)
    ours = jax.jit(lambda: update_moments(start, images, labels))()
    assert_same(ours, update_moments(start, images, labels), rtol=1e-13)


def test_arguments_are_not_changed(data):
    images, labels = data[0].copy(), data[1].copy()
    start = init_moments(12, CLASSES)
    update_moments(start, images, labels)
    stream_moments([(images, labels)], CLASSES)
    np.testing.assert_array_equal(images, data[0])
    np.testing.assert_array_equal(labels, data[1])
    assert int(start.count) == 0


def test_moments_are_a_pytree(data):
    moments = stream_moments([data], CLASSES)
    doubled = jax.tree.map(lambda a: 2 * a, moments)
    assert isinstance(doubled, Moments)
    assert int(doubled.count) == 120


# Scales ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_pixel", [False, True])
def test_scaled_moments_are_the_moments_of_scaled_images(data, per_pixel):
    images, labels = data
    scale = np.linspace(0.5, 2, 12) if per_pixel else 0.25
    scaled = (images.reshape(60, -1) * scale, labels)
    ours = scale_moments(reference.moments_of(*data, CLASSES), scale)
    assert_same(ours, reference.moments_of(*scaled, CLASSES))


def test_standard_deviations(data):
    moments = reference.moments_of(*data, CLASSES)
    rows = reference.centred_rows(data[0])
    np.testing.assert_allclose(global_std(moments), rows.std(), rtol=1e-12)
    np.testing.assert_allclose(pixel_std(moments), rows.std(0), rtol=1e-12)
    unit = scale_moments(moments, 1 / global_std(moments))
    np.testing.assert_allclose(global_std(unit), 1, rtol=1e-12)
    unit = scale_moments(moments, 1 / pixel_std(moments))
    np.testing.assert_allclose(pixel_std(unit), 1, rtol=1e-12)


# Bad input ---------------------------------------------------------------------------------------


def feed(how, images, labels, mask=None, num_classes=CLASSES):
    if how == "update":
        return update_moments(init_moments(12, num_classes), images, labels, mask)
    batch = (images, labels) if mask is None else (images, labels, mask)
    return stream_moments([batch], num_classes)


def ones(count=4):
    return np.ones((count, *SHAPE))


@pytest.mark.parametrize("how", ["update", "stream"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: (ones(), np.array([0, 1, 2, 3])),
            r"labels run from 0 to 3; with num_classes=3 they must lie in \[0, 2\]",
        ),
        (lambda: (ones(), np.array([0, 1, -1, 2])), "labels run from -1 to 2"),
        (
            lambda: (np.where(np.arange(48).reshape(4, *SHAPE) == 30, np.nan, 1), np.arange(4) % 3),
            "1 images of the batch hold NaN or infinite pixels, the first at position 2",
        ),
        (
            lambda: (np.where(np.arange(48).reshape(4, *SHAPE) > 20, np.inf, 1), np.arange(4) % 3),
            "3 images of the batch hold NaN or infinite pixels, the first at position 1",
        ),
    ],
    ids=["label above", "label below", "nan", "inf"],
)
def test_bad_values_are_refused(how, make, message):
    with pytest.raises(ValueError, match=message):
        feed(how, *make())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((ones(), np.zeros(4)), "labels must be integer class indices, got float64"),
        ((ones(), np.zeros(3, int)), r"labels \(3,\) and mask \(3,\) must both be \(4,\)"),
        (
            (ones(), np.zeros(4, int), np.ones(3, bool)),
            r"labels \(4,\) and mask \(3,\) must both be \(4,\)",
        ),
    ],
    ids=["float labels", "labels shape", "mask shape"],
)
def test_batches_that_do_not_fit_together_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        stream_moments([batch], CLASSES)


def test_a_changing_image_size_is_refused(engine):
    message = r"images of shape \(2, 2, 2\) have 8 scalars, but the statistics hold 12"
    labels = np.zeros(4, int)
    with pytest.raises(ValueError, match=message):
        stream_moments([(ones(), labels), (np.ones((4, 2, 2, 2)), labels)], CLASSES)
    with pytest.raises(ValueError, match=message):
        update_moments(init_moments(12, CLASSES), np.ones((4, 2, 2, 2)), labels)


def test_an_empty_stream_is_refused(engine):
    message = "no images were given: the source is empty or wholly masked"
    with pytest.raises(ValueError, match=message):
        stream_moments([], CLASSES)
    with pytest.raises(ValueError, match=message):
        stream_moments([(ones(), np.zeros(4, int), np.zeros(4, bool))], CLASSES)


def test_sizes_smaller_than_1_are_refused():
    with pytest.raises(ValueError, match="num_features must be at least 1, got 0"):
        init_moments(0, 2)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        init_moments(2, 0)


def test_moments_of_different_sizes_do_not_merge():
    message = r"cannot merge moments of \(4, 2\) and \(5, 2\) \(features, classes\)"
    with pytest.raises(ValueError, match=message):
        merge_moments(init_moments(4, 2), init_moments(5, 2))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_images_without_variance_have_no_spectrum(engine, count, value):
    moments = stream_moments([(value * ones(count), np.zeros(count, int))], CLASSES)
    message = "have no spectrum" if count == 1 else "all 5 images are the same"
    with pytest.raises(ValueError, match=message):
        eigendecompose(moments)


# Folds -------------------------------------------------------------------------------------------


def test_leaving_one_fold_out_equals_streaming_the_others(data):
    parts = batches_of(*data, [10, 25, 45])
    folds = [stream_moments([part], CLASSES) for part in parts]
    assert_same(union_moments(folds), reference.moments_of(*data, CLASSES))
    for index, left in enumerate(leave_one_out(folds)):
        others = [part for i, part in enumerate(parts) if i != index]
        assert_same(left, stream_moments(others, CLASSES))


def test_the_jackknife_error_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).standard_normal((20, 3))
    left_out = np.stack([np.delete(x, i, 0).mean(0) for i in range(20)])
    expected = x.std(0, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(jackknife_error(jnp.asarray(left_out)), expected, rtol=1e-10)


def test_too_few_folds_are_refused(data):
    fold = stream_moments([data], CLASSES)
    with pytest.raises(ValueError, match="there is no fold to merge"):
        union_moments([])
    with pytest.raises(ValueError, match="leaving one out needs at least 2 folds, got 1"):
        leave_one_out([fold])
    with pytest.raises(ValueError, match="the jackknife needs at least 2 estimates, got 1"):
        jackknife_error(jnp.ones((1, 3)))


@pytest.mark.parametrize("name", ["global", "unit", "per_pixel"])
def test_normalizing_scale_matches_normalised_images(data, name):
    rows = data[0].reshape(len(data[0]), -1)
    factor = {
        "global": 1 / np.sqrt(np.mean((rows - rows.mean(0)) ** 2)),
        "unit": 1 / 255,
        "per_pixel": 1 / np.maximum(rows.std(0), 1e-12),
    }[name]
    moments = stream_moments([data], CLASSES)
    np.testing.assert_allclose(normalizing_scale(name, moments), factor, rtol=1e-9)


def test_unknown_normalisation_is_refused(data):
    moments = stream_moments([data], CLASSES)
    with pytest.raises(ValueError, match="one of global, unit, per_pixel, got 'per_image'"):
        normalizing_scale("per_image", moments)
