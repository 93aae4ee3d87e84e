import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.diffeo.scale_detection import (
    active_value,
    render_1d,
    render_2d,
    sites_2d,
    split,
    task_1d,
    task_2d,
)

# Counts and enumerations of the released generators.
FILE = Path(__file__).parents[1] / "oracles" / "diffeo" / "scale_detection.json"
RELEASED = json.loads(FILE.read_text())
NORMS = {"L2": "euclidean", "Linf": "chebyshev"}


def counts(pairs):
    return int((pairs.labels == 1).sum()), int((pairs.labels == -1).sum())


def label(item):
    return "-".join(str(item[k]) for k in item if not isinstance(item[k], list))


@pytest.mark.parametrize("item", RELEASED["line"], ids=label)
def test_lines_are_those_of_the_released_generator(item):
    gap = item["gap"] if item["task"] == 1 else 0  # which the released task 2 ignores
    pairs = task_1d(item["img_size"], item["xi"], item["task"], gap)
    assert counts(pairs) == (item["n_plus"], item["n_minus"])
    if "pairs" in item:
        assert pairs.sites.tolist() == item["pairs"]
        assert pairs.labels.tolist() == item["labels"]


@pytest.mark.parametrize("item", RELEASED["square"], ids=label)
def test_squares_are_those_of_the_released_generator(item):
    shape = item["d"], item["xi"], item["gap"], NORMS[item["norm"]]
    pairs = task_2d(*shape, periodic=bool(item["pbc"]))
    assert counts(pairs) == (item["n_near"], item["n_far"])
    for sign, name in ((1, "all_near_sorted"), (-1, "all_far_sorted")):
        if name in item:
            assert pairs.sites[pairs.labels == sign].reshape(-1, 4).tolist() == item[name]


@pytest.mark.parametrize("task", [1, 2])
@pytest.mark.parametrize(("size", "scale", "gap"), [(10, 5, 0), (12, 3, 1), (12, 4, 0.5)])
def test_lines_by_brute_force(size, scale, gap, task):
    gap = gap if task == 1 else 0
    expected = {}
    for i in range(size):
        for j in range(i + 1, size):
            if task == 2:
                expected[i, j] = 1 if i // scale == j // scale else -1
                continue
            distance = min(j - i, size - j + i)
            if distance < scale - gap:
                expected[i, j] = 1
            elif distance >= scale + gap:
                expected[i, j] = -1
    pairs = task_1d(size, scale, task, gap)
    found = zip(map(tuple, pairs.sites.tolist()), pairs.labels.tolist(), strict=True)
    assert dict(found) == expected


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "chebyshev"])
def test_squares_by_brute_force(distance, periodic, diagonal):
    size, scale, gap = 6, 2.25, 0.75
    sites = [(r, c) for r in range(size) for c in range(size) if diagonal or r != c]
    assert sites_2d(size, diagonal).tolist() == [list(site) for site in sites]
    expected = {}
    for place, first in enumerate(sites):
        for second in sites[place + 1 :]:
            along = np.abs(np.subtract(first, second)).astype(float)
            if periodic:
                along = np.minimum(along, size - along)
            length = along.max() if distance == "chebyshev" else np.hypot(*along)
            if length < scale - gap / 2:
                expected[*first, *second] = 1
            elif length >= scale + gap / 2:
                expected[*first, *second] = -1
    pairs = task_2d(size, scale, gap, distance, periodic=periodic, include_diagonal=diagonal)
    flat = map(tuple, pairs.sites.reshape(-1, 4).tolist())
    assert dict(zip(flat, pairs.labels.tolist(), strict=True)) == expected


def test_a_distance_that_equals_the_scale_is_far():
    pairs = task_2d(6, 5, 0)
    three_four = [[0, 1], [3, 5]]
    assert pairs.labels[pairs.sites.tolist().index(three_four)] == -1
    line = task_1d(16, 4)
    assert line.labels[line.sites.tolist().index([0, 4])] == -1
    assert line.labels[line.sites.tolist().index([0, 12])] == -1


def rows_of(pairs):
    return [tuple(row) for row in pairs.sites.reshape(len(pairs.sites), -1).tolist()]


def test_the_split_is_balanced_disjoint_and_fixed():
    pairs = task_1d(16, 4)
    train, test = split(pairs, 40, 56)
    for part, count in ((train, 40), (test, 56)):
        assert len(set(rows_of(part))) == count
        np.testing.assert_array_equal(part.labels, np.tile([-1, 1], count // 2))
    assert not set(rows_of(train)) & set(rows_of(test))
    known = dict(zip(rows_of(pairs), pairs.labels, strict=True))
    assert all(known[row] == sign for row, sign in zip(rows_of(train), train.labels, strict=True))
    for again, part in zip(split(pairs, 40, 56), (train, test), strict=True):
        np.testing.assert_array_equal(again.sites, part.sites)
    assert rows_of(split(pairs, 40, 56, seed=1)[0]) != rows_of(train)


def test_a_larger_training_set_holds_the_smaller_and_keeps_the_test():
    pairs = task_1d(16, 4)
    small, large = split(pairs, 10, 20), split(pairs, 70, 20)
    assert set(rows_of(small[0])) < set(rows_of(large[0]))
    np.testing.assert_array_equal(small[1].sites, large[1].sites)
    # 48 near and 72 far: all near pairs are used, and 48 of the far.
    whole = split(pairs, 48, 48)
    assert len(set(rows_of(whole[0])) | set(rows_of(whole[1]))) == 96
    released = RELEASED["default"]
    assert released["train_size"] == 2 * 120_767 - released["test_size"]


def test_images_have_the_released_value():
    released = RELEASED["default"]
    image = np.asarray(render_2d(np.array([[[3, 5], [27, 0]]]), 28))
    assert image.shape == (1, 28, 28, 1)
    assert image.sum() == pytest.approx(released["sum"])
    assert np.linalg.norm(image) == pytest.approx(released["norm_of_image"], rel=1e-6)
    assert image[0, 3, 5, 0] == image[0, 27, 0, 0] == pytest.approx(released["active_value"])
    line = np.asarray(render_1d(np.array([[0, 15]]), 16))
    np.testing.assert_allclose(line[0, :, 0], np.sqrt(8) * (np.arange(16) % 15 == 0), rtol=1e-6)
    # Squared norm L, whatever the size: pixels have a mean square of 1.
    assert active_value(128, 1) ** 2 * 2 == pytest.approx(128)


def test_pixels_in_one_place_add_up():
    image = np.asarray(render_1d(np.array([[2, 2], [0, 3]]), 4))[..., 0]
    np.testing.assert_allclose(image, np.sqrt(2) * np.array([[0, 0, 2, 0], [1, 0, 0, 1]]))
    square = np.asarray(render_2d(np.full((1, 2, 2), 1), 4, jnp.float64))
    assert square.dtype == np.float64
    assert square[0, 1, 1, 0] == 16 == square.sum()


def test_images_are_drawn_inside_jit():
    sites = np.array([[1, 3], [0, 2]])
    inside = jax.jit(lambda s: render_1d(s, 8))(sites)
    np.testing.assert_array_equal(inside, render_1d(sites, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: task_1d(3, 2), "size=3 must be an integer of at least 4"),
        (lambda: task_1d(16, 1), r"scale=1 must be an integer in 2 .. 8"),
        (lambda: task_1d(16, 9), r"scale=9 must be an integer in 2 .. 8: there are 16 sites"),
        (lambda: task_1d(16, 4, 3), "task=3 is unknown; choose 1 for the distance"),
        (lambda: task_1d(16, 5, 2), "scale=5 does not divide size=16 .* choose one of 2, 4, 8"),
        (lambda: task_1d(16, 4, 2, 1), "gap=1 has no meaning for blocks"),
        (lambda: task_1d(16, 4, 1, -1), "gap=-1 must be finite and 0 or more"),
        (lambda: task_1d(16, 4, 1, 3), "gap=3 .* leaves 0 near and 24 far pairs"),
        (lambda: task_1d(16, 6, 1, 3), "leaves 32 near and 0 far pairs"),
        (lambda: task_2d(3), "size=3 must be an integer of at least 4"),
        (lambda: task_2d(6, 0), "scale=0 must be a finite number of pixels above 0"),
        (lambda: task_2d(6, 3, float("nan")), "gap=nan must be finite"),
        (lambda: task_2d(6, 3, 1, "L1"), "unknown distance 'L1'; choose one of euclidean, cheb"),
        (lambda: task_2d(6, 3, 8), "gap=8 .* leaves 0 near and 1 far pairs"),
        (lambda: task_2d(6, 20, 0), "leaves 435 near and 0 far pairs"),
        (lambda: render_1d(np.array([[0, 8]]), 8), "sites run from 0 to 8, outside 0 .. 7"),
        (lambda: render_1d(np.array([[-1, 3]]), 8), "sites run from -1 to 3"),
        (lambda: render_1d(np.zeros((2, 3), int), 8), r"must have shape \(N, 2\), got \(2, 3\)"),
        (lambda: render_2d(np.zeros((3, 2), int), 8), r"must have shape \(N, 2, 2\)"),
    ],
)
def test_bad_tasks(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((3, 4), "num_train=3 must be an even number, 2 or more"),
        ((4, 0), "num_test=0 must be an even number"),
        ((60, 40), "need 50 pairs of each class, and the smaller one has 48; ask for at most 96"),
        ((4, 4, -1), "seed=-1 must be an integer"),
    ],
)
def test_bad_splits(options, message):
    with pytest.raises(ValueError, match=message):
        split(task_1d(16, 4), *options)
