import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.data import epoch_batches
from recon_jax.data.latent_model import latent_source


def read(source):
    images, labels = source.read(np.arange(source.num_images))
    return images[:, 0, :, 0], labels


def test_shapes_names_and_batches():
    source = latent_source(split="test", num_images=10, content=3, augmented=2)
    assert (source.name, source.split) == ("latents", "test")
    assert source.image_shape == (1, 5, 1)
    assert source.num_classes == 4
    images, labels = source.read(np.array([7, 2]))
    assert images.shape == (2, 1, 5, 1)
    assert images.dtype == np.float32
    assert_array_equal(labels, [3, 2])
    assert sum(len(batch.images) for batch in epoch_batches(source, 5, shuffle=False)) == 10


def test_labels_are_quadrants_of_two_augmented_latents_and_balanced():
    latents, labels = read(latent_source(num_images=4000))
    assert_array_equal(labels, (latents[:, 4] > 0) + 2 * (latents[:, 5] > 0))
    assert_array_equal(np.bincount(labels), [1000] * 4)


def test_latents_are_standard_normal_and_content_does_not_tell_the_label():
    latents, labels = read(latent_source(num_images=20_000))
    assert_allclose(latents.mean(0), 0, atol=0.03)
    assert_allclose(np.cov(latents.T), np.eye(8), atol=0.03)
    assert_allclose(np.mean(latents**4, 0), 3, rtol=0.1)
    means = np.stack([latents[labels == k, :4].mean(0) for k in range(4)])
    assert_allclose(means, 0, atol=0.06)


def test_a_datum_depends_on_seed_split_and_index_alone():
    latents, _ = read(latent_source(num_images=30))
    assert_array_equal(read(latent_source(num_images=12))[0], latents[:12])
    for other in (latent_source(num_images=30, seed=1), latent_source(num_images=30, split="test")):
        assert np.abs(read(other)[0] - latents).min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "split='valid' is not a split; choose one of train, test"),
        ({"num_images": 3}, "num_images=3 must be an integer of at least 4"),
        ({"content": 0}, "content=0 must be an integer of at least 1"),
        ({"augmented": 1}, "augmented=1 must be an integer of at least 2"),
        ({"seed": -1}, "seed=-1 must be an integer of at least 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        latent_source(**options)
