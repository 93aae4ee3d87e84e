from pathlib import Path

import numpy as np
import pytest

from recon_jax.models.positions import (
    cubic_kernel,
    resize_positions,
    resizing_matrix,
    sincos_positions,
)

GRID = (4, 4)
NEW_GRIDS = [(2, 3), (7, 5)]


@pytest.fixture(scope="module")
def stored():
    """Positions and what PyTorch resizes them to; see tests/oracles/make_published.py."""
    with np.load(Path(__file__).parents[1] / "oracles" / "published.npz") as file:
        names = [name for name in file if name.startswith("resized/")]
        return {tuple(map(int, name.split("/")[1].split("x"))): file[name] for name in names}


@pytest.mark.parametrize("new_grid", NEW_GRIDS)
def test_resized_as_pytorch_did(stored, new_grid):
    found = resize_positions(stored[GRID], GRID, new_grid)
    assert found.shape == (new_grid[0] * new_grid[1], 5)
    np.testing.assert_allclose(found, stored[new_grid], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("grid", "new_grid"), [((14, 14), (7, 7)), ((3, 5), (6, 4)), ((2, 1), (1, 3)), ((1, 1), (2, 2))]
)
def test_resized_as_pytorch_does(grid, new_grid):
    torch = pytest.importorskip("torch", reason="PyTorch is what is compared with")
    positions = np.random.default_rng(0).standard_normal((grid[0] * grid[1], 3))
    images = torch.from_numpy(positions.reshape(1, *grid, 3)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(images, size=new_grid, mode="bicubic")
    expected = expected.permute(0, 2, 3, 1).reshape(-1, 3)
    found = resize_positions(positions, grid, new_grid)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_same_grid_changes_nothing():
    positions = sincos_positions(3, 5, 8)
    np.testing.assert_array_equal(resize_positions(positions, (3, 5), (3, 5)), positions)


def test_rows_and_columns_are_told_apart():
    rows = np.repeat(np.arange(3.0), 4)[:, None]
    found = resize_positions(rows, (3, 4), (3, 8)).reshape(3, 8)
    np.testing.assert_allclose(found, np.arange(3.0)[:, None] * np.ones((1, 8)), atol=1e-12)


def test_a_linear_ramp_stays_one_away_from_the_borders():
    found = resizing_matrix(12, 24) @ np.arange(12.0)
    places = (np.arange(24) + 0.5) / 2 - 0.5
    # The cubic of -3/4 leaves a ramp only where it is sampled alike on both sides.
    np.testing.assert_allclose((found[4:19:2] + found[5:20:2]) / 2, places[4:19:2] + 0.25)


@pytest.mark.parametrize(("length", "new_length"), [(14, 7), (4, 9), (1, 3), (5, 1)])
def test_weights_sum_to_one(length, new_length):
    matrix = resizing_matrix(length, new_length)
    assert matrix.shape == (new_length, length)
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-13)


def test_the_kernel_by_hand():
    # Its pieces meet at 1 and 2, and a = -3/4 is its slope at 1.
    distances = np.array([0.0, 1.0, 2.0, 3.0, 0.5, -0.5, 1.5])
    expected = [1.0, 0.0, 0.0, 0.0, 0.59375, 0.59375, -0.09375]
    np.testing.assert_allclose(cubic_kernel(distances), expected, atol=1e-15)
    slope = (cubic_kernel(np.array([1 + 1e-6])) - cubic_kernel(np.array([1 - 1e-6]))) / 2e-6
    np.testing.assert_allclose(slope, -0.75, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"each of the 2 x 3 = 6 places .* got shape \(7, 4\)"):
        resize_positions(np.zeros((7, 4)), (2, 3), (4, 6))
    with pytest.raises(ValueError, match="new_grid=0 must be an integer of at least 1"):
        resize_positions(np.zeros((6, 4)), (2, 3), (0, 6))
