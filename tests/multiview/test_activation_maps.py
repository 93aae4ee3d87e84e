import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax.multiview import activation_maps as cam

RNG = np.random.default_rng(0)


def region_sums(images, rows, columns):
    """Sum of the pixels of each region (N, A, B)."""
    count, height, width, channels = images.shape
    cut = images.reshape(count, rows, height // rows, columns, width // columns, channels)
    return cut.sum((2, 4, 5))


def weighted_sums(weights, images):
    """Logits whose k-th is a known sum over regions, weights (K, A, B)."""
    channels = 1.0 + jnp.arange(images.shape[3], dtype=images.dtype)[None, None, None]
    return jnp.einsum("kab,nab->nk", weights, region_sums(channels * images, *weights.shape[1:]))


# --- Eigen-CAM ---


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 2, 3, 9)])
def test_the_map_is_the_projection_on_the_first_singular_vector(shape, center):
    maps = RNG.standard_normal(shape) + 0.5
    found = cam.eigen_cam(maps, center=center, rescale=False)
    assert found.dtype == np.float64
    for image, got in zip(maps, np.asarray(found), strict=True):
        rows = image.reshape(-1, shape[3])
        used = rows - rows.mean(0) if center else rows
        values, vectors = np.linalg.eigh(used.T @ used)
        expected = used @ vectors[:, -1]
        sign = np.sign(np.corrcoef(expected, np.linalg.norm(rows, axis=1))[0, 1])
        np.testing.assert_allclose(got.ravel(), sign * expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(np.sum(got**2), values[-1], rtol=1e-12)
        assert np.corrcoef(got.ravel(), np.linalg.norm(rows, axis=1))[0, 1] >= 0


def test_one_direction_of_different_strength_is_found_whatever_its_sign():
    strength = RNG.uniform(0.5, 2, (2, 3, 3))
    direction = np.array([3.0, 0.0, -4.0]) / 5
    maps = strength[..., None] * direction
    for sign in (1, -1):
        found = cam.eigen_cam(sign * maps, rescale=False)
        np.testing.assert_allclose(found, strength, rtol=1e-12)


def test_maps_are_rescaled_to_the_unit_interval_or_are_zero():
    maps = RNG.standard_normal((3, 7, 7, 11)).astype(np.float32)
    maps[1], maps[2] = maps[1, 0, 0], 0.0
    found = cam.eigen_cam(maps)
    assert found.dtype == np.float32
    assert (found[0].min(), found[0].max()) == (0, 1)
    raw = np.asarray(cam.eigen_cam(maps, rescale=False))[0]
    np.testing.assert_allclose(found[0], (raw - raw.min()) / np.ptp(raw), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1:], 0)
    np.testing.assert_array_equal(cam.eigen_cam(maps, center=True)[1:], 0)
    # Equal norms say nothing of the sign: rounding must not choose it.
    constant = np.broadcast_to(RNG.standard_normal((20, 1, 1, 5)), (20, 4, 4, 5)).astype(np.float32)
    lengths = np.broadcast_to(np.linalg.norm(constant[:, :1, :1], axis=3), (20, 4, 4))
    np.testing.assert_allclose(cam.eigen_cam(constant, rescale=False), lengths, rtol=1e-5)


def test_each_image_by_itself_under_jit_and_vmap():
    maps = RNG.standard_normal((4, 3, 3, 5))
    whole = cam.eigen_cam(maps)
    np.testing.assert_allclose(jax.jit(cam.eigen_cam)(maps), whole, rtol=1e-10, atol=1e-12)
    alone = jax.vmap(lambda one: cam.eigen_cam(one[None])[0])(maps)
    np.testing.assert_allclose(alone, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.ones((3, 4, 5)), r"feature_maps must have shape \(N, H, W, C\)"),
        (np.ones((0, 4, 5, 2)), "not be empty"),
        (np.ones((1, 2, 2, 3), int), "feature_maps must be floats, got int64"),
        (np.full((1, 2, 2, 3), np.nan), "12 NaN or infinite"),
    ],
)
def test_maps_that_cannot_be_used_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        # The annotations refuse some of them too; this is what a user without checks sees.
        inspect.unwrap(cam.eigen_cam)(maps)


# --- Regions ---


def by_hand(weights, image, map_, share):
    """The same count, image by image and region by region."""
    rows, columns = map_.shape
    high, wide = image.shape[0] // rows, image.shape[1] // columns
    order = sorted(range(rows * columns), key=lambda i: (-map_.ravel()[i], i))

    def score(kept, winner=None):
        shown = np.broadcast_to(image.mean((0, 1)), image.shape).copy()
        for region in kept:
            i, j = divmod(region, columns)
            part = np.s_[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            shown[part] = image[part]
        logits = (weights * region_sums(shown[None] * [1, 2], rows, columns)).sum((1, 2))
        winner = logits.argmax() if winner is None else winner
        return winner, logits[winner] - logits.mean()

    winner, full = score(order)
    scores = [score(order[:r], winner)[1] for r in range(len(order) + 1)]
    needed = len(order)
    while needed > 0 and scores[needed - 1] >= share * full:
        needed -= 1
    return needed, winner, scores


def test_counts_are_those_of_a_loop_over_regions():
    images = RNG.standard_normal((6, 6, 8, 2))
    maps = RNG.integers(0, 5, (6, 3, 2)).astype(float)  # with equal values
    weights = RNG.standard_normal((4, 3, 2))
    for share in (0.5, 0.9, 1.0):
        found = cam.regions_for_logit(weighted_sums, weights, images, maps, share=share)
        expected = [by_hand(weights, *pair, share) for pair in zip(images, maps, strict=True)]
        np.testing.assert_array_equal(found.needed, [row[0] for row in expected])
        np.testing.assert_array_equal(found.predicted, [row[1] for row in expected])
        np.testing.assert_allclose(found.scores, [row[2] for row in expected], atol=1e-12)
    assert found.scores.dtype == np.float64


def object_of(parts):
    """One dark image (1, 8, 8, 1) with regions of 2 x 2 pixels, some bright with given sums."""
    image = np.zeros((4, 4))
    for (i, j), value in parts.items():
        image[i, j] = value / 4
    return np.kron(image, np.ones((2, 2)))[None, :, :, None]


def test_a_logit_that_is_a_sum_over_parts_needs_as_many():
    places = [(0, 0), (0, 3), (2, 1), (3, 3)]
    image = object_of({place: 16.0 for place in places})
    weights = np.zeros((2, 4, 4))
    for place in places:
        weights[0][place] = 1.0
    map_ = np.asarray(region_sums(image, 4, 4))
    # Each part adds 16 to the logit, minus what the mean of 4 has there: 16, 28, 40, 52, 64.
    found = cam.regions_for_logit(weighted_sums, weights, image, map_)
    np.testing.assert_allclose(found.scores[0, :5], np.array([16, 28, 40, 52, 64]) / 2)
    for share, needed in ((0.9, 4), (0.8, 3), (0.6, 2), (0.4, 1), (0.2, 0)):
        found = cam.regions_for_logit(weighted_sums, weights, image, map_, share=share)
        assert found.needed[0] == needed
    kept = cam.kept_regions(map_, np.array([4]))
    assert {tuple(place) for place in np.argwhere(kept[0])} == set(places)
    np.testing.assert_array_equal(cam.distinct_regions(kept), [4])


def test_a_number_added_to_all_logits_changes_nothing():
    images, maps = RNG.standard_normal((3, 4, 4, 1)), RNG.random((3, 2, 2))
    weights = RNG.standard_normal((3, 2, 2))

    def shifted(weights, images):
        return weighted_sums(weights, images) - 1000.0

    first = cam.regions_for_logit(weighted_sums, weights, images, maps)
    second = cam.regions_for_logit(shifted, weights, images, maps)
    np.testing.assert_array_equal(first.needed, second.needed)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-9)


def test_a_score_that_falls_again_counts_from_where_it_lasts():
    # Scores over r: 0, 10, 2, 10 of 10, so 1 region is enough for a moment, 3 for good.
    image = np.array([[[3.0], [-1.0], [-2.0]]])[None]
    weights = np.array([[[10 / 3, 8.0, -4.0]], [[-10 / 3, -8.0, 4.0]]])
    found = cam.regions_for_logit(weighted_sums, weights, image, np.array([[[3.0, 2.0, 1.0]]]))
    np.testing.assert_allclose(found.scores, [[0, 10, 2, 10]], atol=1e-12)
    assert found.needed[0] == 3


def test_constant_images_and_equal_logits_need_no_region():
    weights = RNG.standard_normal((3, 2, 2))
    constant = np.full((2, 4, 4, 1), 0.7)
    maps = RNG.random((2, 2, 2))
    np.testing.assert_array_equal(
        cam.regions_for_logit(weighted_sums, weights, constant, maps).needed, 0
    )
    images = RNG.standard_normal((2, 4, 4, 1))
    np.testing.assert_array_equal(
        cam.regions_for_logit(weighted_sums, 0 * weights, images, maps).needed, 0
    )


def test_logits_that_are_not_finite_are_flagged():
    images, maps = np.ones((2, 2, 2, 1), np.float32), np.ones((2, 1, 1), np.float32)
    found = cam.regions_for_logit(
        lambda v, x: v[None] + x[:, 0, 0], np.full(3, np.nan), images, maps
    )
    np.testing.assert_array_equal(found.needed, -1)
    assert not cam.kept_regions(maps, found.needed).any()


def test_float32_stays_and_jit_agrees():
    images = RNG.standard_normal((3, 4, 4, 1)).astype(np.float32)
    maps, weights = RNG.random((3, 2, 2)), jnp.asarray(RNG.standard_normal((3, 2, 2)), jnp.float32)
    first = cam.regions_for_logit(weighted_sums, weights, images, maps)
    assert (first.scores.dtype, first.needed.dtype) == (np.float32, np.int32)
    second = jax.jit(lambda *args: cam.regions_for_logit(weighted_sums, *args))(
        weights, images, maps
    )
    np.testing.assert_array_equal(first.needed, second.needed)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_more_of_the_logit_needs_no_fewer_regions(seed, low, high):
    rng = np.random.default_rng(seed)
    images, maps = rng.standard_normal((3, 4, 6, 1)), rng.random((3, 2, 3))
    weights = rng.standard_normal((4, 2, 3))
    counts = [
        cam.regions_for_logit(weighted_sums, weights, images, maps, share=share).needed
        for share in sorted((low, high))
    ]
    assert (counts[0] <= counts[1]).all()
    assert (counts[0] >= 0).all()
    assert (counts[1] <= 6).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.ones((2, 5, 4, 1))},
            "maps of 2 regions do not divide image height 5",
        ),
        ({"images": np.ones((2, 4, 7, 1))}, "maps of 2 regions do not divide image width 7"),
        ({"images": np.ones((3, 4, 4, 1))}, "3 images need as many maps, got 2"),
        ({"share": 0.0}, r"share=0.0 must lie in \(0, 1\]"),
        ({"share": 1.1}, "share=1.1 must lie in"),
        ({"maps": np.full((2, 2, 2), np.inf)}, "maps holds 8 NaN or infinite"),
        ({"images": np.full((2, 4, 4, 1), np.nan)}, "images holds 32 NaN"),
    ],
)
def test_what_does_not_fit_is_refused_before_compilation(changes, message):
    def forbidden(*_):
        raise AssertionError("traced in spite of bad input")

    given = {"images": np.ones((2, 4, 4, 1)), "maps": np.ones((2, 2, 2)), "share": 0.9, **changes}
    images, maps, share = given.values()
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(cam.regions_for_logit)(forbidden, None, images, maps, share=share)


# --- Pieces ---


def test_pieces_touch_by_sides_not_by_corners():
    kept = np.array(
        [
            [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
            [[1, 0, 1], [0, 1, 0], [1, 0, 1]],
            [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
            [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
        ],
        bool,
    )
    np.testing.assert_array_equal(cam.distinct_regions(kept), [2, 5, 0, 1])
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: jnp.asarray(cam.distinct_regions(x)))(kept)


def test_the_highest_regions_are_kept():
    maps = np.array([[[0.5, 2.0], [2.0, -1.0]]] * 3)
    found = cam.kept_regions(maps, np.array([1, 3, 0]))
    np.testing.assert_array_equal(found[0], [[0, 1], [0, 0]])  # of equals the first by row
    np.testing.assert_array_equal(found[1], [[1, 1], [1, 0]])
    np.testing.assert_array_equal(found[2], 0)
    with pytest.raises(ValueError, match="one for each of 3 maps"):
        inspect.unwrap(cam.kept_regions)(maps, np.array([1]))
