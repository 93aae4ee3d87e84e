import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_jax.data.array_source import balanced_subset, from_arrays


def make(n=6, shape=(4, 5, 3), dtype=np.uint8):
    images = np.arange(n * np.prod(shape)).reshape(n, *shape) % 251
    return images.astype(dtype), np.arange(n) % 3


def test_reads_the_asked_rows_in_the_asked_order():
    images, labels = make()
    source = from_arrays(images, labels, ["a", "b", "c"], name="n", split="test")
    x, y = source.read(np.array([4, 0, 4]))
    np.testing.assert_array_equal(x, images[[4, 0, 4]])
    np.testing.assert_array_equal(y, [1, 0, 1])
    assert x.dtype == np.uint8
    assert y.dtype == np.int32
    assert source[:5] == ("n", "test", 6, (4, 5, 3), ("a", "b", "c"))
    assert source.num_classes == 3


def test_reading_nothing_keeps_shape_and_dtype():
    x, y = from_arrays(*make(dtype=np.float32)).read(np.array([], int))
    assert (x.shape, x.dtype, y.shape) == ((0, 4, 5, 3), np.float32, (0,))


def test_what_is_read_is_a_copy():
    source = from_arrays(*make())
    source.read(np.array([0]))[0][:] = 99
    source.read(np.array([0]))[1][:] = 99
    np.testing.assert_array_equal(source.read(np.array([0]))[0], make()[0][:1])
    assert source.read(np.array([0]))[1] == 0


def test_two_dimensional_images_gain_a_channel():
    images, labels = make(shape=(4, 5))
    source = from_arrays(images, labels)
    assert source.image_shape == (4, 5, 1)
    np.testing.assert_array_equal(source.read(np.arange(6))[0][..., 0], images)


def test_default_names_count_the_classes():
    assert from_arrays(*make()).label_names == ("0", "1", "2")


@pytest.mark.parametrize("index", [-1, 6])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(ValueError, match=rf"image index {index} is outside 0\.\.5"):
        from_arrays(*make()).read(np.array([0, index]))


@pytest.mark.parametrize("indices", [np.array([0.0]), np.array([[0]]), np.array(0)])
def test_indices_must_be_a_vector_of_integers(indices):
    with pytest.raises(ValueError, match="pass a vector of integers"):
        from_arrays(*make()).read(indices)


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, int), None, r"shape \(0, 4, 4, 1\)"),
        (np.zeros((2, 4), np.uint8), np.zeros(2, int), None, r"shape \(2, 4\)"),
        (np.zeros((2, 4, 4, 1), np.int64), np.zeros(2, int), None, "dtype int64"),
        (np.zeros((2, 4, 4, 1), bool), np.zeros(2, int), None, "dtype bool"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, int), None, "there are 2 images"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 1), int), None, r"shape \(2, 1\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2), None, "dtype float64"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.array([0, -1]), None, "label -1 is outside"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2]), ["a", "b"], r"label 2 .* 0\.\.1"),
    ],
)
def test_bad_arrays_are_refused_by_name(images, labels, names, message):
    with pytest.raises(ValueError, match=f"mine: .*{message}"):
        from_arrays(images, labels, names, name="mine")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_pixels_are_refused_naming_the_image(bad):
    images, labels = make(dtype=np.float32)
    images[4, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="image 4 holds NaN or infinity; 1 of 6"):
        from_arrays(images, labels)


def test_subset_takes_the_first_of_each_class_in_the_original_order():
    labels = np.array([0, 0, 1, 0, 2, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(balanced_subset(labels, 6), [0, 1, 2, 4, 5, 6])
    # The seventh goes to the class whose third image comes first.
    np.testing.assert_array_equal(balanced_subset(labels, 7), [0, 1, 2, 3, 4, 5, 6])


def test_a_small_class_gives_its_places_to_the_others():
    np.testing.assert_array_equal(balanced_subset(np.array([0, 0, 0, 0, 1]), 4), [0, 1, 2, 4])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70))
def test_subset_is_as_balanced_as_the_classes_allow(labels, limit):
    labels = np.array(labels)
    kept = balanced_subset(labels, limit)
    assert len(kept) == min(limit, len(labels))
    assert (np.diff(kept) > 0).all()
    counts = np.bincount(labels, minlength=5)
    chosen = np.bincount(labels[kept], minlength=5)
    unfinished = chosen < counts
    if unfinished.any():
        assert chosen.max() - chosen[unfinished].min() <= 1
    for label in range(5):
        mine = np.flatnonzero(labels == label)[: chosen[label]]
        np.testing.assert_array_equal(kept[labels[kept] == label], mine)


def test_subset_of_many_images():
    labels = np.random.default_rng(0).integers(0, 7, 5000)
    expected = np.sort(np.concatenate([np.flatnonzero(labels == k)[:100] for k in range(7)]))
    np.testing.assert_array_equal(balanced_subset(labels, 700), expected)
    uneven = balanced_subset(labels, 703)
    added = np.setdiff1d(uneven, expected)
    hundredth = sorted(np.flatnonzero(labels == k)[100] for k in range(7))
    np.testing.assert_array_equal(added, hundredth[:3])


def test_no_limit_keeps_all():
    np.testing.assert_array_equal(balanced_subset(np.array([1, 0, 1]), None), [0, 1, 2])
