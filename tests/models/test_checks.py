import numpy as np
import pytest

from recon_jax.models.checks import (
    as_image_shape,
    as_images,
    check_at_least,
    check_choice,
    check_fraction,
    require_shape,
)


def test_what_is_fine_passes():
    check_at_least("width", np.int64(3), 3)
    check_choice("stem", "cifar", ("cifar", "imagenet"))
    check_fraction("dropout", 0.0)
    assert as_image_shape([28, 28, 1]) == (28, 28, 1)
    assert as_images(np.zeros((2, 3, 4, 1))).shape == (2, 3, 4, 1)
    assert require_shape("latents", np.zeros((2, 5)), (5,)).shape == (2, 5)


@pytest.mark.parametrize("value", [2, 0, -1, 4.5, "4", None])
def test_too_small(value):
    with pytest.raises(ValueError, match=f"width must be an integer of at least 3, got {value!r}"):
        check_at_least("width", value, 3)


def test_choices_are_listed():
    with pytest.raises(ValueError, match="depth=12 is unknown; choose one of 11, 13"):
        check_choice("depth", 12, (11, 13))


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_no_fraction(value):
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\)"):
        check_fraction("dropout", value)


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
