import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import alignment_curve, denoising_encoders, gaussian, identity, neutrality
from recon_jax.spectral.block_masks import block_mask, grid_mask

from . import cases, reference

SHAPE = (4, 4, 1)


def patterns_of(corruption, draws=600):
    """The distinct patterns of visible patches that are drawn, and how often each."""
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = np.asarray(jax.jit(jax.vmap(corruption.mask.visible))(keys))
    keep = np.zeros((draws, np.prod(corruption.mask.grid)))
    np.put_along_axis(keep, drawn, 1, axis=1)
    return np.unique(keep, axis=0, return_counts=True)


@pytest.mark.parametrize(
    ("ratio", "grid", "block"),
    [
        (0.25, (4, 4), (2, 2)),  # not 1 x 4
        (0.5, (4, 4), (2, 4)),  # not 4 x 2, as square
        (0.875, (4, 4), (3, 4)),  # 14 is as close to 16, which is all
        (0.001, (4, 4), (1, 1)),
        (0.5, (1, 6), (1, 3)),
        (0.5, (6, 1), (3, 1)),
        (0.3, (2, 5), (1, 3)),
        (0.75, (6, 6), (5, 5)),  # 27 is missed by 2, as by 24 to 3 and by 30 to 3
        (1 / 3, (6, 6), (3, 4)),
        (0.28, (5, 5), (2, 3)),  # 7 lies between 6 and 8; 0.28 * 25 > 7 in float64
    ],
)
def test_the_block_is_the_closest_rectangle_at_every_position(ratio, grid, block):
    mask = block_mask(ratio, (2, 1), (2 * grid[0], grid[1], 1))
    expected, _ = reference.block_patches(block, grid)
    drawn, times = patterns_of(mask)
    np.testing.assert_array_equal(drawn, np.unique(expected, axis=0))
    assert np.abs(times - 600 / len(expected)).max() < 5 * np.sqrt(600 / len(expected))
    assert mask.mask[:3] == ((2, 1), grid, expected[0].sum())


@pytest.mark.parametrize(("stride", "grid"), [(2, (2, 4)), (3, (6, 3)), (4, (4, 4)), (1, (2, 3))])
def test_the_grid_is_regular_at_every_place(stride, grid):
    mask = grid_mask(stride, (1, 2), (grid[0], 2 * grid[1], 1))
    expected, _ = reference.grid_patches(stride, grid)
    drawn, times = patterns_of(mask)
    np.testing.assert_array_equal(drawn, np.unique(expected, axis=0))
    assert np.abs(times - 600 / stride**2).max() < 5 * np.sqrt(600 / stride**2)
    assert mask.mask[:3] == ((1, 2), grid, np.prod(grid) // stride**2)


def test_a_block_on_a_line_has_the_gain_counted_by_hand():
    mask = block_mask(0.5, 1, (1, 6, 1))
    np.testing.assert_allclose(
        mask.gain(jnp.ones((1, 6))), [[0.75, 0.5, 0.25, 0.25, 0.5, 0.75]], rtol=1e-15
    )


def test_moments_of_a_large_grid_are_products_of_counts_on_lines():
    # P(both hidden) factorises over rows and columns, and visible = 1 - hidden.
    length, side = 28, 14
    starts = np.arange(length - side + 1)
    covers = (np.arange(length) >= starts[:, None]) & (np.arange(length) < starts[:, None] + side)
    line = (covers[:, :, None] & covers[:, None, :]).mean(0)
    both = np.kron(line, line)
    hidden = np.diag(both)
    mask = block_mask(0.25, 1, (length, length, 1))
    assert mask.mask.num_visible == 784 - 196
    gain = mask.gain(jnp.ones((784,)))
    np.testing.assert_allclose(gain, 1 - hidden, atol=1e-14)
    second = mask.second_moment(jnp.full((784, 784), 2.0), 1)
    expected = 2 * (1 - hidden[:, None] - hidden[None, :] + both)
    np.testing.assert_allclose(second, expected, atol=1e-13)
    # The middle is hidden most often.
    assert np.argmin(gain) in (13 * 28 + 13, 13 * 28 + 14, 14 * 28 + 13, 14 * 28 + 14)


def test_grid_moments_join_patches_of_one_place():
    mask = grid_mask(2, 1, (2, 4, 1))
    np.testing.assert_allclose(mask.gain(jnp.full((3, 8), 2.0)), 0.5)
    same = np.kron(np.eye(2), np.tile(np.eye(2), (2, 2)))
    np.testing.assert_allclose(mask.second_moment(jnp.full((8, 8), 3.0), 1), 0.75 * same)


@pytest.mark.parametrize(
    "mask",
    [
        block_mask(0, 2, SHAPE),
        block_mask(0.0, 4, SHAPE),
        grid_mask(1, 2, SHAPE),
        grid_mask(1, 4, SHAPE),
    ],
    ids=lambda mask: mask.name,
)
def test_nothing_hidden_is_the_identity(mask):
    images = jnp.asarray(np.random.default_rng(0).standard_normal((5, *SHAPE)))
    np.testing.assert_array_equal(mask.corrupt(jax.random.key(0), images), images)
    np.testing.assert_array_equal(mask.gain(images), images)
    scatter = images.reshape(5, -1).T @ images.reshape(5, -1)
    np.testing.assert_array_equal(mask.second_moment(scatter, 5), scatter)
    assert mask.mask.num_visible == np.prod(mask.mask.grid)


def test_gains_of_whole_numbers_are_not_cut():
    np.testing.assert_allclose(grid_mask(2, 1, SHAPE).gain(jnp.ones((2, 16), int)), 0.25)


def test_names_hold_ratio_or_stride_and_patch():
    assert block_mask(0.5, 1, SHAPE).name == "block_mask(0.5, 1x1)"
    assert block_mask(0, (1, 2), SHAPE).name == "block_mask(0, 1x2)"
    assert grid_mask(2, (2, 1), SHAPE).name == "grid_mask(2, 2x1)"


# What autoencoders learn from them ---------------------------------------------------------------


@pytest.fixture(scope="module")
def moments(image_like):
    return reference.moments_of(*image_like(120, SHAPE, 3, seed=4), 3)


@pytest.mark.parametrize("name", ["block_mask", "wide_block_mask", "grid_mask"])
def test_encoders_solve_the_written_out_eigenproblem(moments, name):
    corruption, moments_of = cases.build(name, SHAPE)
    scatter = np.asarray(moments.scatter)
    gain, second = moments_of(scatter, 120)
    values, vectors = reference.encoders(gain, second, scatter)
    ours = denoising_encoders(moments, corruption)
    np.testing.assert_allclose(ours.values, values, rtol=1e-9)
    overlap = vectors.T @ second @ np.asarray(ours.vectors)
    np.testing.assert_allclose(np.abs(overlap), np.eye(16), atol=1e-6)


def test_a_block_in_the_middle_costs_labels_and_others_do_not(moments):
    clean = np.asarray(alignment_curve(moments))
    for mask, end in ((block_mask(0.25, 1, SHAPE), 1), (grid_mask(2, 1, SHAPE), 1)):
        curve = np.asarray(alignment_curve(moments, mask))
        np.testing.assert_allclose(curve[-1], end, rtol=1e-9)
        assert 0.01 < np.abs(curve - clean).max() < 0.5
        assert np.all(curve > 0)
    # 3 x 3 of 4 x 4: four pixels are never seen, so that 12 latents are all there are.
    curve = np.asarray(alignment_curve(moments, block_mask(0.55, 1, SHAPE)))
    assert curve[10] < curve[11] < 0.99
    np.testing.assert_allclose(curve[11:], curve[11], rtol=1e-12)


def test_neutrality_tells_masks_from_what_hides_nothing(moments):
    for mask in (block_mask(0.25, 1, SHAPE), grid_mask(2, 1, SHAPE)):
        verdict = neutrality(moments, mask, max_rank=8)
        assert not verdict.is_neutral
        assert not verdict.commutes
        assert 0.1 < float(verdict.max_sine.max()) <= 1
    for mask in (block_mask(0, 1, SHAPE), identity(SHAPE), gaussian(0.5, SHAPE)):
        assert neutrality(moments, mask, max_rank=8).is_neutral


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_mask(1.0, 1, SHAPE), r"ratio must lie in \[0, 1\), got 1.0"),
        (lambda: block_mask(-0.1, 1, SHAPE), r"ratio must lie in \[0, 1\), got -0.1"),
        (lambda: block_mask(float("nan"), 1, SHAPE), r"ratio must lie in \[0, 1\), got nan"),
        (
            lambda: block_mask(0.9, 1, SHAPE),
            "ratio=0.9 would hide all 16 patches of the 4 x 4 grid; choose at most 0.75, or",
        ),
        (
            lambda: block_mask(0.1, 4, SHAPE),
            "ratio=0.1 would hide all 1 patches of the 1 x 1 grid; choose at most 0, or smaller",
        ),
        (lambda: block_mask(0.5, 3, SHAPE), "patch_size=3 does not divide image height 4"),
        (
            lambda: jax.jit(lambda r: block_mask(r, 1, SHAPE).gain(jnp.ones((1, 16))))(0.5),
            "block_mask needs a concrete ratio",
        ),
        (
            lambda: grid_mask(3, 1, SHAPE),
            "stride=3 does not divide the 4 x 4 grid of patches; choose one of 1, 2, 4$",
        ),
        (
            lambda: grid_mask(4, (1, 2), SHAPE),
            "stride=4 does not divide the 4 x 2 grid of patches; choose one of 1, 2$",
        ),
        (lambda: grid_mask(0, 1, SHAPE), "stride=0 does not divide the 4 x 4 grid"),
        (lambda: grid_mask(2, 3, SHAPE), "patch_size=3 does not divide image height 4"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
