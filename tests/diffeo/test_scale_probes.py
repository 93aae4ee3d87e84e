import jax
import numpy as np
import pytest
from scipy import stats

from recon_jax.diffeo.scale_detection import render_1d, render_2d
from recon_jax.diffeo.scale_probes import (
    move_sites_1d,
    move_sites_2d,
    probe_sites_1d,
    probe_sites_2d,
    rectified_noise,
)

KEY = jax.random.key(0)


def test_sites_of_a_line_move_by_one_and_stay_on_it():
    sites = np.tile([[0, 7], [3, 4]], (300, 1))
    steps = np.asarray(move_sites_1d(KEY, sites, 8)) - sites
    # At an end the step outwards is not taken.
    assert set(steps[::2, 0]) == {0, 1}
    assert set(steps[::2, 1]) == {-1, 0}
    assert set(steps[1::2].ravel()) == {-1, 1}
    right = [(steps[::2, 0] == 1).sum(), (steps[1::2, 0] == 1).sum(), (steps[1::2, 1] == 1).sum()]
    assert min(stats.binomtest(int(count), 300).pvalue for count in right) > 0.01
    # The two sites of an image move independently of each other.
    assert abs(np.corrcoef(steps[1::2].T)[0, 1]) < 0.15


def test_sites_stay_in_their_block():
    sites = np.tile([[3, 4], [1, 6]], (100, 1))
    moved = np.asarray(move_sites_1d(KEY, sites, 8, 4))
    free = np.asarray(move_sites_1d(KEY, sites, 8))
    np.testing.assert_array_equal(moved // 4, sites // 4)
    # A step that would leave is undone, the others are taken.
    np.testing.assert_array_equal(moved, np.where(free // 4 == sites // 4, free, sites))
    assert set(moved[::2, 0]) == {2, 3}
    assert set(moved[1::2, 0]) == {0, 2}


def test_pixels_move_to_neighbours_with_the_probabilities_of_a_rounded_direction():
    sites = np.full((3000, 2, 2), 5)
    steps = (np.asarray(move_sites_2d(KEY, sites, 11)) - sites).reshape(-1, 2)
    index, counts = np.unique(steps @ [3, 1] + 4, return_counts=True)
    assert index.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]  # never 4, no step
    # The cosine of 60 degrees is 1/2: 60 degrees a side, 30 a corner.
    expected = np.array([1, 2, 1, 2, 2, 1, 2, 1]) / 12
    assert stats.chisquare(counts, 6000 * expected).pvalue > 0.01


def test_pixels_stay_in_the_image():
    sites = np.tile([[[0, 0], [9, 4]]], (200, 1, 1))
    moved = np.asarray(move_sites_2d(KEY, sites, 10))
    steps = moved - sites
    assert set(steps[:, 0].ravel()) == {0, 1}
    assert set(steps[:, 1, 0]) == {-1, 0}
    assert set(steps[:, 1, 1]) == {-1, 0, 1}


@pytest.mark.parametrize(("move", "shape"), [(move_sites_1d, (2,)), (move_sites_2d, (2, 2))])
def test_an_image_moves_the_same_whatever_follows_it(move, shape):
    sites = np.full((9, *shape), 6)
    all_moved = np.asarray(move(KEY, sites, 12))
    np.testing.assert_array_equal(move(KEY, sites[:4], 12), all_moved[:4])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.arange(9))
    np.testing.assert_array_equal(move(keys, sites, 12), all_moved)
    assert len(np.unique(all_moved, axis=0)) > 1


def test_noise_of_a_line_is_half_a_gaussian_of_the_mean_change():
    images = render_1d(np.tile([[2, 9]], (200, 1)), 64)
    deformed = render_1d(np.tile([[3, 8]], (200, 1)), 64)
    noise = np.asarray(rectified_noise(KEY, images, deformed)).ravel()
    scale = np.sqrt(np.square(np.asarray(deformed - images)).mean())
    assert scale == pytest.approx(np.sqrt(4 * 32 / 64), rel=1e-6)
    assert noise.min() == 0
    positive = noise[noise > 0]
    assert stats.binomtest(len(positive), len(noise)).pvalue > 0.01
    assert stats.kstest(positive / scale, stats.halfnorm.cdf).pvalue > 0.01
    # One scale for all images, not one for each.
    mixed = np.concatenate([deformed[:1], images[1:]])
    quiet = np.asarray(rectified_noise(KEY, images, mixed))
    np.testing.assert_allclose(quiet.ravel(), noise / np.sqrt(200), rtol=1e-5, atol=1e-6)


def test_probes_of_a_line():
    sites = np.array([[1, 6], [3, 12], [4, 11]])
    probes = probe_sites_1d(KEY, sites, 16, 4)
    np.testing.assert_array_equal(probes.images, render_1d(sites, 16))
    first, second = jax.random.split(KEY)
    moved = move_sites_1d(first, sites, 16, 4)
    np.testing.assert_array_equal(probes.deformed, render_1d(moved, 16))
    noise = rectified_noise(second, probes.images, probes.deformed)
    np.testing.assert_array_equal(probes.noisy, probes.images + noise)
    assert np.any(np.asarray(moved) != sites)


def test_probes_of_a_square_have_noise_of_the_norm_of_each_deformation():
    sites = np.tile([[[0, 1], [5, 5]], [[2, 3], [7, 0]]], (4, 1, 1))
    probes = probe_sites_2d(KEY, sites, 8)
    np.testing.assert_array_equal(probes.images, render_2d(sites, 8))
    change, noise = (
        np.linalg.norm(np.asarray(part - probes.images).reshape(8, -1), axis=1)
        for part in (probes.deformed, probes.noisy)
    )
    np.testing.assert_allclose(noise, change, rtol=1e-5)
    # Both pixels move by one: twice the squared value each.
    assert np.round(np.square(change / 32)).max() == 4
    assert np.asarray(probes.noisy).min() < 0


def test_bad_probes():
    with pytest.raises(ValueError, match="block=3 does not divide size=16"):
        move_sites_1d(KEY, np.array([[0, 1]]), 16, 3)
    with pytest.raises(ValueError, match="sites run from 0 to 16"):
        move_sites_1d(KEY, np.array([[0, 16]]), 16)
    with pytest.raises(ValueError, match=r"must have shape \(N, 2, 2\)"):
        move_sites_2d(KEY, np.array([[0, 1]]), 16)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 4\) and \(2, 5\)"):
        rectified_noise(KEY, np.zeros((2, 4)), np.zeros((2, 5)))
