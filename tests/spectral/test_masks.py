import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.linalg import principal_angles
from recon_jax.spectral import (
    alignment_curve,
    compose,
    denoising_encoders,
    gaussian,
    identity,
    linear,
    patch_index,
    patch_mask,
    patch_subset,
    pixel_mask,
)
from recon_jax.spectral.block_masks import block_mask, grid_mask
from recon_jax.spectral.masks import num_kept, patch_grid, within_patches

from . import reference


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("patch", "sides"), [(1, (1, 1)), (2, (2, 2)), ((2, 3), (2, 3))])
def test_patch_index_groups_what_shares_a_patch(patch, sides, per_channel):
    shape = (4, 6, 3)
    index = patch_index(patch, shape, per_channel=per_channel)
    expected = reference.patch_numbers(sides, shape, per_channel)
    np.testing.assert_array_equal(index[:, None] == index[None, :], expected[:, None] == expected)
    assert set(index) == set(range(index.max() + 1))
    scatter = jnp.asarray(np.random.default_rng(0).standard_normal((72, 72)))
    inside = np.where(expected[:, None] == expected, scatter, 0)
    np.testing.assert_array_equal(within_patches(scatter, index), inside)


@pytest.mark.parametrize(
    ("patch", "sides", "grid"), [(2, (2, 2), (2, 3)), ((4, 1), (4, 1), (1, 6))]
)
def test_patch_grid_counts_rows_and_columns(patch, sides, grid):
    assert patch_grid(patch, (4, 6, 3)) == (sides, grid)


@pytest.mark.parametrize("make", [patch_mask, patch_subset])
def test_masks_drop_whole_patches_with_all_their_channels(make):
    shape = (4, 6, 3)
    mask = make(0.5, (2, 3), shape)
    kept = np.asarray(mask.corrupt(jax.random.key(0), jnp.ones((200, *shape))))
    assert set(np.unique(kept)) == {0.0, 1.0}
    blocks = kept.reshape(200, 2, 2, 2, 3, 3).transpose(0, 1, 3, 2, 4, 5).reshape(200, 4, -1)
    assert np.all(blocks == blocks[:, :, :1])
    # All patches take part, and images differ.
    assert np.all(np.ptp(blocks[:, :, 0], axis=0) == 1)


def test_per_channel_masks_drop_channels_apart():
    shape = (2, 2, 3)
    mask = pixel_mask(0.5, shape, per_channel=True)
    kept = np.asarray(mask.corrupt(jax.random.key(0), jnp.ones((400, *shape))))
    assert np.any(np.ptp(kept, axis=-1) == 1)
    correlation = np.corrcoef(kept.reshape(400, -1).T)
    assert np.abs(correlation - np.eye(12)).max() < 0.25
    together = np.asarray(
        pixel_mask(0.5, shape).corrupt(jax.random.key(0), jnp.ones((400, *shape)))
    )
    assert np.all(np.ptp(together, axis=-1) == 0)


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 6), (0.4, 4), (0.5, 3), (0.75, 2), (0.83, 1)])
def test_patch_subset_keeps_exactly_m_patches(ratio, kept):
    shape = (4, 6, 2)
    assert num_kept(ratio, 6) == kept
    mask = patch_subset(ratio, 2, shape)
    drawn = np.asarray(mask.corrupt(jax.random.key(1), jnp.ones((300, *shape))))
    np.testing.assert_array_equal(drawn.sum((1, 2, 3)), kept * 2 * 2 * 2)
    share = drawn.mean(0)
    np.testing.assert_allclose(share, kept / 6, atol=0.13)


def test_patch_subset_draws_all_subsets_equally_often():
    mask = patch_subset(0.5, 2, (4, 6, 1)).mask
    assert mask[:3] == ((2, 2), (2, 3), 3)
    drawn = np.asarray(jax.jit(jax.vmap(mask.visible))(jax.random.split(jax.random.key(3), 8000)))
    subsets, times = np.unique(drawn, axis=0, return_counts=True)
    np.testing.assert_array_equal(subsets, list(itertools.combinations(range(6), 3)))
    assert np.abs(times - 400).max() < 5 * np.sqrt(400)
    assert patch_subset(0.0, 2, (4, 6, 1)).mask.num_visible == 6


EXACT = {
    "patch_subset": lambda shape: patch_subset(0.6, (2, 3), shape),
    "block_mask": lambda shape: block_mask(0.3, (2, 3), shape),
    "grid_mask": lambda shape: grid_mask(2, (2, 3), shape),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("flat", [False, True])
def test_corrupt_shows_the_patches_that_visible_draws(name, flat):
    shape, count = (8, 12, 2), 40
    masked = EXACT[name](shape)
    visible = masked.mask.visible
    images = np.random.default_rng(0).standard_normal((count, *shape))
    expected = np.zeros_like(images)
    keys = jax.random.split(jax.random.key(4), count)
    drawn = np.asarray(jax.jit(jax.vmap(visible))(keys))
    for n, patches in enumerate(drawn):
        for p in patches:
            y, x = p // 4 * 2, p % 4 * 3
            expected[n, y : y + 2, x : x + 3] = images[n, y : y + 2, x : x + 3]
    given = images.reshape(count, -1) if flat else images
    corrupted = jax.jit(masked.corrupt)(jax.random.key(4), jnp.asarray(given))
    np.testing.assert_array_equal(corrupted, expected.reshape(given.shape))
    # Without a batch too, so that any training loop may draw its own keys.
    assert visible(keys[7]).dtype == jnp.int32
    np.testing.assert_array_equal(visible(keys[7]), drawn[7])


@pytest.mark.parametrize("name", EXACT)
def test_visible_patches_are_ascending_and_of_one_number(name):
    mask = EXACT[name]((8, 12, 1)).mask
    assert mask[:2] == ((2, 3), (4, 4))
    drawn = np.asarray(jax.jit(jax.vmap(mask.visible))(jax.random.split(jax.random.key(0), 200)))
    assert drawn.shape == (200, mask.num_visible)
    assert np.all(np.diff(drawn, axis=1) > 0)
    assert set(np.unique(drawn)) == set(range(16))
    assert len(np.unique(drawn, axis=0)) >= 4


def test_only_masks_of_an_exact_count_say_what_is_visible():
    shape = (4, 4, 1)
    without = (identity(shape), gaussian(1.0, shape), patch_mask(0.5, 2, shape))
    without += (pixel_mask(0.5, shape), compose([patch_subset(0.5, 2, shape)], shape))
    assert all(corruption.mask is None for corruption in without)


@pytest.mark.parametrize("make", [patch_mask, patch_subset])
def test_ratio_0_is_the_identity(make):
    shape = (4, 4, 2)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((6, *shape)))
    mask = make(0.0, 2, shape)
    np.testing.assert_array_equal(mask.corrupt(jax.random.key(0), images), images)
    np.testing.assert_array_equal(mask.gain(images), images)
    scatter = images.reshape(6, -1).T @ images.reshape(6, -1)
    np.testing.assert_allclose(mask.second_moment(scatter, 6), scatter, rtol=1e-14)


def test_pixel_mask_is_a_patch_of_one_pixel():
    shape = (3, 2, 2)
    scatter = jnp.asarray(np.random.default_rng(0).standard_normal((12, 12)))
    for per_channel in (False, True):
        pixel = pixel_mask(0.3, shape, per_channel=per_channel)
        patch = patch_mask(0.3, 1, shape, per_channel=per_channel)
        np.testing.assert_array_equal(
            pixel.second_moment(scatter, 4), patch.second_moment(scatter, 4)
        )
        assert (pixel.name, patch.name) == ("pixel_mask(0.3)", "patch_mask(0.3, 1x1)")


def test_names_hold_ratio_and_patch():
    assert patch_mask(0.5, (2, 3), (4, 6, 1)).name == "patch_mask(0.5, 2x3)"
    assert patch_subset(0.75, 2, (4, 6, 1)).name == "patch_subset(0.75, 2x2)"


@pytest.mark.parametrize("scale", [0.01, 3.0, -2.0])
def test_a_rescaled_mask_learns_the_same_spans(image_like, scale):
    shape = (4, 4, 1)
    moments = reference.moments_of(*image_like(80, shape, 3), 3)
    mask = patch_mask(0.6, 2, shape)
    scaled = compose([mask, linear("scale", lambda x: scale * x, shape)], shape)
    np.testing.assert_allclose(
        alignment_curve(moments, scaled), alignment_curve(moments, mask), atol=1e-9
    )
    ours, theirs = (denoising_encoders(moments, c) for c in (mask, scaled))
    np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-9)
    for rank in (1, 5, 15):
        angles = principal_angles(ours.vectors[:, :rank], theirs.vectors[:, :rank])
        np.testing.assert_allclose(angles, 0, atol=1e-9)


def test_masks_interpolate_between_pca_and_patch_whitening(image_like):
    # As the ratio tends to 1 the problem becomes S^2 v = mu (S o B) v.
    shape = (6, 1, 1)
    images, labels = image_like(60, shape, 3)
    moments = reference.moments_of(images, labels, 3)
    scatter = np.asarray(moments.scatter)
    index = reference.patch_numbers((2, 1), shape)
    blocks = scatter * (index[:, None] == index)
    _, vectors = reference.encoders(np.eye(6), blocks, scatter)
    rows = reference.centred_rows(images)
    limit = reference.alignment(rows, labels, 3, vectors)
    near = alignment_curve(moments, patch_mask(0.9999, (2, 1), shape))
    np.testing.assert_allclose(near, limit, atol=1e-3)
    far = np.abs(np.asarray(alignment_curve(moments, patch_mask(0.9, (2, 1), shape))) - limit)
    assert far.max() > np.abs(np.asarray(near) - limit).max()


SHAPE = (4, 6, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patch_mask(1.0, 2, SHAPE), r"ratio must lie in \[0, 1\), got 1.0"),
        (lambda: patch_mask(-0.1, 2, SHAPE), r"ratio must lie in \[0, 1\), got -0.1"),
        (lambda: patch_mask(float("nan"), 2, SHAPE), r"ratio must lie in \[0, 1\), got nan"),
        (lambda: pixel_mask(1.5, SHAPE), r"ratio must lie in \[0, 1\), got 1.5"),
        (lambda: patch_subset(1.0, 2, SHAPE), r"ratio must lie in \[0, 1\), got 1.0"),
        (
            lambda: patch_mask(0.5, 3, SHAPE),
            "patch_size=3 does not divide image height 4; choose one of 1, 2, 4$",
        ),
        (
            lambda: patch_mask(0.5, (2, 4), SHAPE),
            "patch_size=4 does not divide image width 6; choose one of 1, 2, 3, 6$",
        ),
        (lambda: patch_mask(0.5, 0, SHAPE), "patch_size=0 does not divide image height 4"),
        (lambda: patch_mask(0.5, 8, SHAPE), "patch_size=8 does not divide image height 4"),
        (
            lambda: patch_subset(0.99, 2, SHAPE),
            "ratio=0.99 keeps 0 of 6 patches; at least 1 of at least 2 must remain",
        ),
        (
            lambda: patch_subset(0.1, (4, 6), SHAPE),
            "ratio=0.1 keeps 1 of 1 patches; at least 1 of at least 2 must remain",
        ),
        (
            lambda: jax.jit(lambda r: patch_subset(r, 2, SHAPE).gain(jnp.ones((1, 24))))(0.5),
            "patch_subset needs a concrete ratio",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
