import numpy as np
import pytest

from recon_jax import data
from recon_jax.audit.subjects import (
    MOST_PIXELS,
    as_source,
    gather_subjects,
    reduce_images,
    reduced_shape,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 3, 1)).astype(np.uint8)
LABELS = np.arange(60) % 4
LIMITS = {"num_images": None, "num_test_images": None, "seed": 0}


def gather(source, test=None, **options):
    return gather_subjects(source, test, **LIMITS | options)


def test_a_fifth_is_held_out_by_the_seed():
    subjects = gather((IMAGES, LABELS))
    assert len(subjects.train) == 48
    assert len(subjects.test) == 12
    together = np.concatenate([subjects.train_numbers, subjects.test_numbers])
    np.testing.assert_array_equal(np.sort(together), np.arange(60))
    np.testing.assert_array_equal(subjects.train, IMAGES[subjects.train_numbers])
    np.testing.assert_array_equal(subjects.test_labels, LABELS[subjects.test_numbers])
    again, other = gather((IMAGES, LABELS)), gather((IMAGES, LABELS), seed=1)
    np.testing.assert_array_equal(subjects.test_numbers, again.test_numbers)
    assert (subjects.test_numbers != other.test_numbers).any()
    assert subjects.source == again.source
    assert subjects.source["digest"] != other.source["digest"]
    assert subjects.source["shape"] == [4, 3, 1]
    assert subjects.source["classes"] == 4


def test_a_test_set_is_taken_whole_and_limits_draw():
    test = data.from_arrays(IMAGES[:9], LABELS[:9], split="test")
    subjects = gather(data.from_arrays(IMAGES, LABELS), test)
    assert len(subjects.train) == 60
    np.testing.assert_array_equal(np.sort(subjects.test_numbers), np.arange(9))
    few = gather((IMAGES, LABELS), num_images=20, num_test_images=7)
    np.testing.assert_array_equal(few.train_numbers, gather((IMAGES, LABELS)).train_numbers[:20])
    assert len(few.test) == 7


def test_scores_are_projections_of_centred_unit_images():
    subjects = gather((IMAGES, LABELS), num_images=30)
    train, test = (x.reshape(len(x), -1) / 255 for x in (subjects.train, subjects.test))
    vectors = np.linalg.svd(train - train.mean(0), full_matrices=False)
    assert subjects.directions == 12
    np.testing.assert_allclose(
        np.abs(subjects.test_scores), np.abs((test - train.mean(0)) @ vectors[2].T), atol=1e-5
    )
    np.testing.assert_allclose(subjects.scores.mean(0), 0, atol=1e-6)
    shares = vectors[1] ** 2 / np.sum(vectors[1] ** 2)
    np.testing.assert_allclose(subjects.variance, shares, rtol=1e-6)


def test_directions_without_variance_do_not_count():
    still = IMAGES.copy()
    still[:, 0] = 7
    assert gather((still, LABELS)).directions == 9
    assert gather((IMAGES, LABELS), num_images=8).directions == 7


@pytest.mark.parametrize(
    "given", [IMAGES, IMAGES[..., 0], (IMAGES, None), IMAGES.astype(np.float32) / 255]
)
def test_labels_may_be_missing(given):
    subjects = gather(given)
    assert subjects.train_labels is None
    assert subjects.num_classes == 0
    assert subjects.source["classes"] == 0
    assert subjects.warnings == ()
    assert as_source(given)[1] is False


def test_a_test_set_without_labels_leaves_none():
    assert gather((IMAGES, LABELS), IMAGES[:10]).train_labels is None


def test_pixels_of_another_range_are_noted():
    (warning,) = gather(IMAGES.astype(np.float32)).warnings
    assert warning.startswith("pixels run from 0 to 255")


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [
        ((64, 64, 3), MOST_PIXELS, (64, 64, 3)),
        ((128, 128, 1), MOST_PIXELS, (128, 128, 1)),
        ((224, 224, 3), MOST_PIXELS, (56, 56, 3)),
        ((129, 129, 1), MOST_PIXELS, (64, 64, 1)),
        ((227, 100, 3), MOST_PIXELS, (75, 33, 3)),
        ((8, 2, 3), 3, (1, 1, 3)),
        ((2, 2, 3), 1, (1, 1, 3)),
    ],
)
def test_sides_shrink_by_a_whole_factor(shape, most, expected):
    assert reduced_shape(shape, most) == expected
    assert np.prod(expected) <= max(most, shape[2])


def test_reduced_images_are_filtered():
    images = RNG.random((3, 8, 12, 2)).astype(np.float32)
    assert reduce_images(images, (8, 12, 2)) is images
    found = np.asarray(reduce_images(images, (4, 6, 2)))
    weights = np.array([1, 3, 3, 1]) / 8  # a triangle over two pixels of the small image
    inner = np.einsum("i,j,nijc->nc", weights, weights, images[:, 3:7, 5:9])
    np.testing.assert_allclose(found[:, 2, 3], inner, rtol=1e-5)
    np.testing.assert_allclose(reduce_images(np.ones_like(images), (2, 3, 2)), 1, rtol=1e-6)


def test_the_spectrum_of_large_images_is_that_of_reduced_ones():
    images = RNG.random((60, 6, 4, 1)).astype(np.float32)
    subjects = gather((images, LABELS), most_pixels=6)
    assert subjects.pixel_shape == (3, 2, 1)
    assert subjects.source["pixel_shape"] == [3, 2, 1]
    assert subjects.source["shape"] == [6, 4, 1]
    assert subjects.train.shape == (48, 6, 4, 1)
    small = gather((np.asarray(reduce_images(images, (3, 2, 1))), LABELS))
    assert small.pixel_shape == (3, 2, 1)
    np.testing.assert_allclose(subjects.variance, small.variance, rtol=1e-5)
    np.testing.assert_allclose(np.abs(subjects.scores), np.abs(small.scores), atol=1e-5)
    (warning,) = subjects.warnings
    assert "encoder sees 6x4 pixels" in warning
    assert "reduced to 3x2" in warning


@pytest.mark.parametrize(
    ("source", "test", "message"),
    [
        ("embedded", None, "source is str; pass a data.Source"),
        ((IMAGES, LABELS[:-1]), None, "labels have shape"),
        (IMAGES[:9], None, "9 image.s., but 10 are needed to train and to test on"),
        (IMAGES[:4], IMAGES, "but 5 are needed to train on"),
        (IMAGES, IMAGES[:1], "but 2 are needed to test on"),
        (IMAGES, IMAGES[:, :3], "test images have shape .3, 3, 1., training images .4, 3, 1."),
        (np.zeros((20, 3, 3, 1), np.float32), None, "are the same"),
        (np.full((20, 3, 3, 1), np.nan), None, "NaN"),
    ],
)
def test_bad_input(source, test, message):
    with pytest.raises(ValueError, match=message):
        gather(source, test)
