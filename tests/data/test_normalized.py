import numpy as np
import pytest

from recon_jax import data


@pytest.mark.parametrize("batch_size", [4, 10, 64])
def test_images_are_normalised_once_in_order(batch_size):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 4, 3, 2), np.uint8), np.arange(10) % 3
    source = data.from_arrays(images, labels, "abc", name="n", split="test")
    batches = list(data.epoch_batches(source, 4, shuffle=False))
    normalization = data.fit_normalization("per_image", batches)
    found = data.normalized_source(source, normalization, batch_size)
    assert (found.name, found.split, found.label_names) == ("n", "test", ("a", "b", "c"))
    pixels, got = found.read(np.arange(10))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, data.normalize(normalization, images))
    np.testing.assert_array_equal(got, labels)
