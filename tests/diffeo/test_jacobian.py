import json
from pathlib import Path

import jax
import numpy as np
import pytest

from recon_jax import diffeo

ENSEMBLE = json.loads(
    (Path(__file__).parents[1] / "oracles" / "diffeo" / "ensemble.json").read_text()
)


def least_inside_cells(dx, dy, steps=5):
    """The least determinant of the bilinear map at steps x steps places of every cell."""
    y, x = np.mgrid[: dx.shape[0], : dx.shape[1]]
    corners = np.stack([y - dy, x - dx])
    a, b, c, d = (corners[:, r:][:, : dx.shape[0] - 1, s:][..., : dx.shape[1] - 1]
                  for r in (0, 1) for s in (0, 1))  # fmt: skip
    found = []
    for t in np.linspace(0, 1, steps):
        for s in np.linspace(0, 1, steps):
            along_x = (b - a) * (1 - t) + (d - c) * t
            along_y = (c - a) * (1 - s) + (d - b) * s
            found.append(along_y[0] * along_x[1] - along_y[1] * along_x[0])
    return np.min(found)


def test_linear_fields():
    y, x = np.mgrid[:4, :6].astype(np.float64)
    assert diffeo.min_jacobian(0 * x, 0 * y) == 1
    for a, b, c, d in ((0.5, 0, 0, 0), (0, 0, 0, -1), (0.2, 0.7, -0.3, 0.4), (1.5, 0, 0, 0)):
        found = diffeo.min_jacobian(a * x + b * y, c * x + d * y)
        assert found == pytest.approx((1 - a) * (1 - d) - b * c, abs=1e-12)


def test_no_place_within_a_cell_is_below_the_least():
    fields = np.random.default_rng(0).normal(0, 0.4, (2, 3, 4, 5, 6))
    found = diffeo.min_jacobian(*fields)
    assert found.shape == (3, 4)
    for at in np.ndindex(3, 4):
        expected = least_inside_cells(fields[0][at], fields[1][at])
        assert found[at] == pytest.approx(expected, abs=1e-12)
    assert np.abs(found).max() > 0.1


def test_a_zigzag_folds_though_its_central_differences_vanish():
    zigzag = np.tile(np.array([0.6, -0.6] * 4), (3, 1))
    assert diffeo.min_jacobian(zigzag, 0 * zigzag) == pytest.approx(1 - 1.2, abs=1e-12)
    assert diffeo.min_jacobian(0 * zigzag.T, zigzag.T) == pytest.approx(1 - 1.2, abs=1e-12)


def positive(entry, size, count=400):
    tables = np.random.default_rng(entry["c"]).standard_normal((2, count, entry["c"], entry["c"]))
    dx, dy = diffeo.displacement_field(*tables, size, entry["T"])
    return float(np.mean(np.asarray(diffeo.min_jacobian(dx, dy)) > 0))


@pytest.mark.parametrize(
    "entry",
    [entry for entry in ENSEMBLE if entry["c"] < 10 and entry["name"] != "T_delta1"],
    ids=lambda e: f"c{e['c']}-{e['name']}",
)
def test_as_many_fields_are_invertible_as_of_the_released_code(entry):
    expected = entry["invertible"]
    # On a fine grid, as temperatures have no unit of length; binomial errors of both counts.
    spread = np.sqrt((expected * (1 - expected) + 1e-3) * (1 / 400 + 1 / entry["draws"]))
    assert positive(entry, 65) == pytest.approx(expected, abs=4 * spread)


@pytest.mark.parametrize("cutoff", [3, 5])
def test_displacements_of_a_pixel_are_invertible_with_few_waves(cutoff):
    (entry,) = (e for e in ENSEMBLE if (e["c"], e["name"]) == (cutoff, "T_delta1"))
    assert positive(entry, entry["n"]) == entry["invertible"] == 1


@pytest.mark.parametrize(("cutoff", "fraction"), [(3, 0.62), (5, 0.66), (10, 0.87), (15, 0.96)])
def test_the_largest_temperature_guarantees_nothing(cutoff, fraction):
    (entry,) = (e for e in ENSEMBLE if (e["c"], e["name"]) == (cutoff, "Tmax"))
    assert entry["T"] == pytest.approx(diffeo.temperature_bounds(32, cutoff)[1], rel=1e-12)
    assert positive(entry, 32) == pytest.approx(fraction, abs=0.08)


def test_it_has_a_gradient_and_float32():
    field = np.random.default_rng(0).normal(0, 0.2, (2, 4, 4)).astype(np.float32)
    assert diffeo.min_jacobian(*field).dtype == np.float32
    slopes = jax.grad(diffeo.min_jacobian, argnums=(0, 1))(*field)
    assert np.isfinite(slopes).all()
    assert np.any(slopes)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((4, 4), (4, 5), r"one shape \(..., H, W\), got \(4, 4\), \(4, 5\)"),
        ((4,), (4,), "one shape"),
        ((1, 4), (1, 4), r"size=\(1, 4\) must be"),
    ],
)
def test_what_is_no_field_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        diffeo.min_jacobian(np.zeros(first), np.zeros(second))
