import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import multiview
from recon_jax.multiview.teacher import warn_outside


def test_numbers_of_the_setting():
    low, high = multiview.teacher_scale_bounds(0.5, 2, 4)
    assert (low, high) == (pytest.approx(1.5**0.25), pytest.approx(2**0.25))
    assert multiview.default_teacher_scale(0.5, 2) == pytest.approx(high)
    np.testing.assert_allclose((low, high), (1.107, 1.189), atol=5e-4)
    assert multiview.teacher_scale_bounds(1.0, 3) == (1, 1)
    assert multiview.teacher_scale_bounds(0.3, 1) == pytest.approx((0.3**-0.25,) * 2)
    lows, highs = multiview.teacher_scale_bounds(np.asarray([0.25, 0.5]), 2)
    np.testing.assert_allclose((lows[1], highs[1]), (low, high))


@functools.partial(jax.jit, static_argnums=3)
def growth(image, keep, scale, power):
    """Slope of descent of a small kernel along the first axis."""
    kernel = jnp.asarray([[0.1, 0.0, 0.0]])
    return -jax.grad(multiview.mask_reconstruction_loss)(kernel, image, keep, scale, 1.0, power)[
        0, 0
    ]


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("power", [3, 4])
@pytest.mark.parametrize("spread", [2, 3])
def test_the_window_is_where_gradients_change_sign(keep, power, spread):
    """A kernel along what is on n patches grows above low for n = C_p, above high for n = 1."""
    bounds = multiview.teacher_scale_bounds(keep, spread, power)
    for patches, bound in zip((spread, 1), bounds, strict=True):
        image = np.zeros((1, 5, 3))
        image[0, :patches, 0] = 1.0
        below, at, above, far = (
            float(growth(image, keep, bound * factor, power)) for factor in (0.999, 1, 1.001, 1.1)
        )
        assert below < 0 < above
        assert at == pytest.approx(0, abs=1e-6 * far)


def test_both_features_of_a_class_together_grow_below_the_window():
    keep, spread, scale = 0.5, 2, 1.08
    image = np.zeros((1, 5, 3))
    image[0, :2, 0] = image[0, 2:4, 1] = 1.0
    sum_of_both, alone = 0.1 * np.eye(3)[0] + 0.1 * np.eye(3)[1], 0.1 * np.eye(3)[0]

    def slope(kernel):
        gradient = jax.grad(multiview.mask_reconstruction_loss)
        return -float((gradient(kernel[None], image, keep, scale) @ kernel)[0])

    assert 1.25**0.25 < scale < multiview.teacher_scale_bounds(keep, spread)[0]
    assert slope(alone) < 0 < slope(sum_of_both)


@pytest.mark.parametrize(("scale", "what"), [(1.05, "features shrink"), (1.3, "noise of single")])
def test_scales_outside_are_warned_of_with_the_bounds(scale, what):
    with pytest.warns(
        UserWarning, match=f"teacher_scale={scale} .* 1.10668 < tau <= 1.18921 .*{what}"
    ):
        warn_outside(scale, 0.5, 2, 4)


def test_scales_inside_are_not():
    low, high = multiview.teacher_scale_bounds(0.5, 2)
    for scale in (low * 1.0001, 1.15, high, np.float32(high)):
        warn_outside(scale, 0.5, 2, 4)
    jax.vmap(lambda scale: warn_outside(scale, 0.5, 2, 4) or scale)(np.asarray([0.5, 2.0]))


def test_bad_input():
    for call in (multiview.teacher_scale_bounds, multiview.default_teacher_scale):
        with pytest.raises(ValueError, match=r"keep=0 must lie in \(0, 1\]"):
            call(0, 2)
        with pytest.raises(ValueError, match="patches_per_feature=0 must be an integer"):
            call(0.5, 0)
        with pytest.raises(ValueError, match="power=0 must be"):
            call(0.5, 2, 0)
    with pytest.raises(ValueError, match=r"teacher_scale=-1\.0 must be a finite number > 0"):
        warn_outside(-1.0, 0.5, 2, 4)
