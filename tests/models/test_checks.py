import numpy as np
import pytest

from recon_jax.models.checks import (
    as_image_shape,
    as_images,
    require_shape,
)


def test_what_is_fine_passes():
    assert as_image_shape([28, 28, 1]) == (28, 28, 1)
    assert as_images(np.zeros((2, 3, 4, 1))).shape == (2, 3, 4, 1)
    assert require_shape("latents", np.zeros((2, 5)), (5,)).shape == (2, 5)


@pytest.mark.parametrize("shape", [(28, 28), (28, 0, 1), (28, 28, -1)])
def test_no_image_shape(shape):
    with pytest.raises(ValueError, match="height, width, channels"):
        as_image_shape(shape)


def test_a_single_image_is_told_how_to_become_a_batch():
    with pytest.raises(ValueError, match=r"images\[None\]"):
        as_images(np.zeros((28, 28, 1)))


def test_small_images_are_told_the_least_side():
    with pytest.raises(ValueError, match=r"15 x 40 are too small .* at least 16 x 16; resize"):
        as_images(np.zeros((1, 15, 40, 1)), min_side=16)


@pytest.mark.parametrize("shape", [(2, 4), (5,), (2, 5, 1)])
def test_another_shape(shape):
    with pytest.raises(ValueError, match=r"latents must have shape \(N, 5\)"):
        require_shape("latents", np.zeros(shape), (5,))
