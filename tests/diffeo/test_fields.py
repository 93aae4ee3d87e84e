import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from recon_jax import diffeo
from recon_jax.diffeo import checks, fields

ORACLES = Path(__file__).parents[1] / "oracles" / "diffeo"
TEMPERATURES = json.loads((ORACLES / "temperature.json").read_text())
ENSEMBLE = json.loads((ORACLES / "ensemble.json").read_text())


def fixed_tables(cutoff):
    i, j = np.mgrid[1 : cutoff + 1, 1 : cutoff + 1]
    return np.sin(i + 2.0 * j), np.cos(2 * i - j + 0.5)


def summed(table, side, height, width, temperature):
    """One component of a field, wave by wave."""
    y, x = np.mgrid[:height, :width]
    total = np.zeros((height, width))
    cutoff = len(table)
    for i in range(1, cutoff + 1):
        for j in range(1, cutoff + 1):
            if math.sqrt(i * i + j * j) < cutoff + 0.5:
                wave = np.sin(i * np.pi * x / (width - 1)) * np.sin(j * np.pi * y / (height - 1))
                total += table[i - 1, j - 1] * wave / math.sqrt(i * i + j * j)
    return side * math.sqrt(temperature) * total


def random_fields(count, size, cutoff, temperature, seed=0):
    tables = np.random.default_rng(seed).standard_normal((2, count, cutoff, cutoff))
    return diffeo.displacement_field(*tables, size, temperature)


def test_weights_and_sines_are_those_of_the_released_code():
    with np.load(ORACLES / "modes.npz") as file:
        for n, c in ((28, 3), (32, 3), (32, 5), (32, 10), (16, 2)):
            np.testing.assert_allclose(fields.mode_weights(c), file[f"e_n{n}_c{c}"], atol=1e-15)
            np.testing.assert_allclose(fields.sine_table(n, c), file[f"s_n{n}_c{c}"], atol=1e-13)


@pytest.mark.parametrize(("cutoff", "count"), [(2, 3), (3, 6), (5, 19), (10, 77), (15, 172)])
def test_number_of_waves(cutoff, count):
    assert np.count_nonzero(diffeo.mode_weights(cutoff)) == count


def test_a_fixed_field_is_that_of_the_released_code():
    with np.load(ORACLES / "fixed_fields.npz") as file:
        found = diffeo.displacement_field(*fixed_tables(5), 32, float(file["T"]))
        np.testing.assert_allclose(found, (file["dx"], file["dy"]), atol=1e-12)
    largest = np.abs(np.asarray(found)).max((1, 2))
    np.testing.assert_allclose(largest, (1.268043, 1.656147), atol=1e-6)


def test_fields_of_unequal_sides_are_the_sums_of_their_waves():
    tables = np.random.default_rng(0).standard_normal((2, 2, 3, 4, 4))
    temperature = np.random.default_rng(1).uniform(0, 2, (2, 3))
    found = jax.jit(diffeo.displacement_field, static_argnums=2)(*tables, (5, 7), temperature)
    single = diffeo.displacement_field(
        *tables.astype(np.float32), (5, 7), temperature.astype(np.float32)
    )
    for component, side in ((0, 7), (1, 5)):
        assert (found[component].dtype, single[component].dtype) == (np.float64, np.float32)
        for at in np.ndindex(2, 3):
            expected = summed(tables[component][at], side, 5, 7, temperature[at])
            np.testing.assert_allclose(found[component][at], expected, atol=1e-12)
            np.testing.assert_allclose(single[component][at], expected, atol=3e-5)


def test_borders_do_not_move_at_all():
    # Also waves that are finer than the pixels, and float32, in which sin(pi) is not 0.
    tables = np.random.default_rng(0).standard_normal((2, 5, 6, 6)).astype(np.float32)
    for field in diffeo.displacement_field(*tables, (4, 9), 1.0):
        for edge in (field[:, 0], field[:, -1], field[:, :, 0], field[:, :, -1]):
            np.testing.assert_array_equal(edge, 0)
        assert np.abs(field).max() > 0.1
    assert not np.any(diffeo.displacement_field(*tables, 2, 1.0))


def test_coefficients_are_independent_normal_numbers():
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.vmap(lambda key: diffeo.sample_coefficients(key, 3, jnp.float64))(keys)
    rows = np.concatenate([np.asarray(table).reshape(2000, 9) for table in drawn], axis=1)
    assert scipy.stats.kstest(rows.reshape(-1), "norm").pvalue > 0.01
    np.testing.assert_allclose(np.corrcoef(rows.T), np.eye(18), atol=5 / np.sqrt(2000))


def test_tables_of_coefficients():
    A, B = diffeo.sample_coefficients(jax.random.key(3), 4)
    assert (A.shape, A.dtype, B.shape, B.dtype) == ((4, 4), jnp.float32, (4, 4), jnp.float32)
    again = diffeo.sample_coefficients(jax.random.key(3), 4)
    np.testing.assert_array_equal(again, (A, B))
    # x first, every entry drawn, also those beyond the radius.
    flat = jax.random.normal(jax.random.key(3), (32,), jnp.float32)
    np.testing.assert_array_equal(flat, np.concatenate([A, B], axis=None))


@pytest.mark.parametrize("entry", TEMPERATURES, ids=lambda e: f"n{e['n']}-c{e['c']}")
def test_temperatures_of_the_released_code(entry):
    n, c = entry["n"], entry["c"]
    np.testing.assert_allclose(
        diffeo.temperature_bounds(n, c), (entry["Tmin"], entry["Tmax"]), rtol=1e-12
    )
    one = diffeo.temperature_for(1, n, c)
    assert one == pytest.approx(entry["T_delta1"], rel=1e-12)
    assert diffeo.displacement_for(one, n, c) == pytest.approx(1, rel=1e-12)
    least, most = diffeo.temperature_bounds((n, n), c)
    assert diffeo.displacement_for(least, n, c) == pytest.approx(0.5, rel=1e-12)
    assert diffeo.displacement_for(most, n, c) == pytest.approx(n / (math.pi * c), rel=1e-12)
    exact = diffeo.rms_displacement(one, n, c)
    assert exact == pytest.approx(entry["exact_rms_grid_at_T_delta1"], rel=1e-12)


def test_a_nominal_displacement_of_nothing():
    assert diffeo.temperature_for(0.0, 32, 3) == 0
    assert diffeo.displacement_for(0, 32, 3) == 0
    assert diffeo.rms_displacement(0, 32, 3) == 0


def test_temperatures_of_unequal_sides_and_many_displacements():
    wanted = jnp.asarray([0.5, 1.0, 3.0])
    found = diffeo.temperature_for(wanted, (24, 40), 5)
    middle = 24**2 / 2 + 40**2 / 2
    np.testing.assert_allclose(found, 4 * wanted**2 / (np.pi * middle * np.log(5)), rtol=1e-12)
    np.testing.assert_allclose(diffeo.displacement_for(found, (24, 40), 5), wanted, rtol=1e-12)
    least, most = diffeo.temperature_bounds((24, 40), 5)
    assert least == pytest.approx(float(found[0]), rel=1e-12)
    assert most == diffeo.temperature_bounds(32, 5)[1]


@pytest.mark.parametrize("entry", ENSEMBLE, ids=lambda e: f"c{e['c']}-{e['name']}")
def test_exact_displacements_are_those_of_many_released_fields(entry):
    exact = diffeo.rms_displacement(entry["T"], entry["n"], entry["c"])
    assert exact == pytest.approx(entry["rms"], rel=0.02)


@pytest.mark.parametrize(
    ("size", "cutoff"), [((8, 11), 3), ((3, 6), 5)], ids=["plain", "finer than the pixels"]
)
def test_exact_displacements_are_those_of_many_fields(size, cutoff):
    dx, dy = random_fields(6000, size, cutoff, 0.01)
    found = np.sqrt(np.mean(np.square(dx) + np.square(dy)))
    assert diffeo.rms_displacement(0.01, size, cutoff) == pytest.approx(found, rel=0.02)


def test_the_slope_of_the_squared_displacement_is_what_a_degree_costs():
    tables = np.random.default_rng(0).standard_normal((2, 3, 3))

    def energy(temperature):
        dx, dy = diffeo.displacement_field(*tables, 8, temperature)
        return jnp.sum(jnp.square(dx) + jnp.square(dy))

    value, slope = jax.value_and_grad(energy)(0.3)
    assert slope == pytest.approx(float(value) / 0.3, rel=1e-12)


TABLE = np.ones((3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.as_cutoff(2.5), "cutoff=2.5 must be an integer of at least 2"),
        (lambda: checks.as_cutoff(True), "cutoff=True must be an integer"),
        (lambda: diffeo.sample_coefficients(jax.random.key(0), 1), "cutoff=1 must be an integer"),
        (lambda: diffeo.mode_weights(0), "cutoff=0 must be"),
        (lambda: diffeo.temperature_for(1.0, 32, 1), "cutoff=1 must be"),
        (lambda: diffeo.displacement_for(1.0, 32, -3), "cutoff=-3 must be"),
        (lambda: diffeo.temperature_bounds(32, 1), "cutoff=1 must be"),
        (lambda: diffeo.rms_displacement(1.0, 32, 1), "cutoff=1 must be"),
        (lambda: diffeo.displacement_field(TABLE[:1, :1], TABLE[:1, :1], 8, 1.0), "cutoff=1 must"),
        (lambda: diffeo.displacement_field(TABLE, TABLE, 1, 1.0), "size=1 must be one side or"),
        (lambda: diffeo.temperature_for(1.0, (32, 1), 3), r"size=\(32, 1\) must be one side or"),
        (lambda: checks.as_size(8.5), "size=8.5 must be"),
        (lambda: checks.as_size((8, 8, 3)), r"size=\(8, 8, 3\) must be"),
        (lambda: diffeo.temperature_for(-1.0, 32, 3), "displacement=-1.0 must be a finite number"),
        (lambda: diffeo.displacement_for(np.inf, 32, 3), "temperature=inf must be a finite"),
        (lambda: diffeo.rms_displacement(-0.1, 32, 3), "temperature=-0.1 must be"),
        (lambda: diffeo.displacement_field(TABLE, TABLE, 8, -1.0), "temperature=-1.0 must be"),
        (lambda: diffeo.displacement_field(TABLE, TABLE, 8, np.nan), "temperature=nan must be"),
        (
            lambda: diffeo.displacement_field(TABLE, TABLE, 8, np.ones(2)),
            r"temperature has shape \(2,\); one number or one a field, \(\), is needed",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("first", "second"), [((3, 3), (4, 4)), ((3, 4), (3, 4)), ((2, 3, 3), (3, 3)), ((3,), (3,))]
)
def test_tables_that_do_not_fit_are_refused(first, second):
    with pytest.raises(ValueError, match=r"A and B must be tables \(..., c, c\) of one shape"):
        diffeo.displacement_field(np.ones(first), np.ones(second), 8, 1.0)
