import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax import multiview

THRESHOLD, POWER = 0.8, 4


@functools.cache
def exact(gradient=False):
    """The loss, or its gradient, of kernels, patches, keep and teacher scale."""

    def loss(kernels, patches, keep, teacher_scale):
        return multiview.mask_reconstruction_loss(
            kernels, patches, keep, teacher_scale, THRESHOLD, POWER
        )

    return jax.jit(jax.grad(loss) if gradient else loss)


@functools.cache
def sampled(num_masks=1, gradient=False):
    """The same of random masks, of keys (S,)."""

    def loss(key, kernels, patches, keep, teacher_scale):
        return multiview.mask_reconstruction_loss_sampled(
            key, kernels, patches, keep, teacher_scale, THRESHOLD, POWER, num_masks=num_masks
        )

    loss = jax.grad(loss, 1) if gradient else loss
    return jax.jit(jax.vmap(loss, (0, None, None, None, None)))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def rectify(z):
    curved = np.clip(z, 0, None) ** POWER / (POWER * THRESHOLD ** (POWER - 1))
    return np.where(z <= THRESHOLD, curved, z - (1 - 1 / POWER) * THRESHOLD)


def draw(seed=0, kernels=3, images=2, patches=4, dim=5):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((kernels, dim)), rng.standard_normal((images, patches, dim)) / 2


def enumerated(kernels, patches, keep, teacher_scale, teacher_kernels=None):
    """The expectation as a sum over all masks, image by image."""
    teacher_kernels = kernels if teacher_kernels is None else teacher_kernels
    total = 0.0
    for image in patches:
        teacher = rectify(teacher_scale * teacher_kernels @ image.T).sum(1)
        for mask in itertools.product([0, 1], repeat=len(image)):
            weight = np.prod([keep if bit else 1 - keep for bit in mask])
            visible = np.asarray(mask)[:, None] * image
            student = rectify(kernels @ visible.T).sum(1) / keep
            total += weight * np.square(teacher - student).sum() / 2
    return total / len(patches)


@settings(max_examples=10)
@given(st.integers(0, 100), st.floats(0.05, 1.0), st.floats(0.5, 2.0))
def test_expectation_is_the_sum_over_all_masks(seed, keep, teacher_scale):
    kernels, patches = draw(seed)
    found = exact()(kernels, patches, keep, teacher_scale)
    expected = enumerated(kernels, patches, keep, teacher_scale)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_sampled_masks_have_this_expectation():
    kernels, patches = draw(images=6)
    losses = sampled(10)(keys(400), kernels, patches, 0.6, 1.2)
    assert abs(losses.mean() - exact()(kernels, patches, 0.6, 1.2)) < 4 * losses.std() / 20
    assert losses.std() > 0
    unmasked = sampled(10)(keys(400), kernels, patches, 1.0, 1.2)
    np.testing.assert_allclose(unmasked, exact()(kernels, patches, 1.0, 1.2), rtol=1e-12)


def test_masks_differ_from_image_to_image():
    kernels, patches = draw(images=1)
    one = sampled()(keys(100), kernels, patches, 0.5, 1.2)
    many = sampled()(keys(1, 1), kernels, np.repeat(patches, 50, 0), 0.5, 1.2)
    # One mask for all images would give one of the 2^4 values of a single image.
    assert len(np.unique(np.round(one, 9))) > 5
    assert np.abs(many - one).min() > 1e-9


def test_gradient_takes_the_teacher_for_a_constant():
    kernels, patches = draw()
    found = exact(gradient=True)(kernels, patches, 0.6, 1.3)
    step, expected = 1e-6, np.zeros_like(kernels)
    for index in np.ndindex(kernels.shape):
        move = np.zeros_like(kernels)
        move[index] = step
        ahead, behind = (
            enumerated(kernels + sign * move, patches, 0.6, 1.3, kernels) for sign in (1, -1)
        )
        expected[index] = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    (slope,) = sampled(gradient=True)(keys(1), kernels, patches, 1.0, 1.3)
    unmasked = exact(gradient=True)(kernels, patches, 1.0, 1.3)
    np.testing.assert_allclose(slope, unmasked, atol=1e-12)


def test_the_loss_is_a_sum_over_kernels():
    kernels, patches = draw(kernels=4)

    parts, rest = [kernels[:2], kernels[2:]], (patches, 0.5, 1.2)
    whole = exact()(kernels, *rest)
    np.testing.assert_allclose(sum(exact()(part, *rest) for part in parts), whole, rtol=1e-12)
    slopes = [exact(gradient=True)(part, *rest) for part in parts]
    whole = exact(gradient=True)(kernels, *rest)
    np.testing.assert_allclose(np.concatenate(slopes), whole, atol=1e-13)


def test_pixels_without_a_mask_and_in_expectation():
    kernels, patches = draw(images=6)
    decoder = np.random.default_rng(3).standard_normal(kernels.shape) / 3
    seen = rectify(np.einsum("rd,npd->npr", kernels, patches))
    error = patches.sum(1) - seen.sum(1) @ decoder
    plain = np.square(error).sum() / 12

    @jax.jit
    def losses_of(keep):
        return jax.vmap(
            lambda key: multiview.mae_loss(kernels, decoder, patches, key, keep, THRESHOLD, POWER)
        )(keys(4000))

    np.testing.assert_allclose(losses_of(1.0), plain, rtol=1e-12)
    losses = losses_of(0.4)
    expected = plain + 0.6 / 0.4 * np.square(seen @ decoder).sum() / 12
    assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(4000)


def test_float32_stays():
    kernels, patches = (array.astype(np.float32) for array in draw())

    @jax.jit
    def losses(key, keep):
        return (
            multiview.mask_reconstruction_loss(kernels, patches, keep, 1.2),
            multiview.mask_reconstruction_loss_sampled(key, kernels, patches, keep, 1.2),
            multiview.mae_loss(kernels, kernels, patches, key, keep),
        )

    assert {loss.dtype for loss in losses(jax.random.key(0), 0.5)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_keep_out_of_range(keep):
    kernels, patches = draw()
    key, message = jax.random.key(0), r"keep=.* must lie in \(0, 1\]: .* a drop ratio r is keep"
    with pytest.raises(ValueError, match=message):
        multiview.mask_reconstruction_loss(kernels, patches, keep, 1.2)
    with pytest.raises(ValueError, match=message):
        multiview.mask_reconstruction_loss_sampled(key, kernels, patches, keep, 1.2)
    with pytest.raises(ValueError, match=message):
        multiview.mae_loss(kernels, kernels, patches, key, keep)


def test_other_bad_input():
    kernels, patches = draw()
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"teacher_scale=0\.0 must be a finite number > 0"):
        multiview.mask_reconstruction_loss(kernels, patches, 0.5, 0.0)
    with pytest.raises(ValueError, match="num_masks=0 must be an integer of at least 1"):
        multiview.mask_reconstruction_loss_sampled(key, kernels, patches, 0.5, 1.2, num_masks=0)
    with pytest.raises(ValueError, match=r"decoder has shape \(2, 5\), kernels \(3, 5\)"):
        inspect.unwrap(multiview.mae_loss)(kernels, kernels[:2], patches, key, 0.5)
