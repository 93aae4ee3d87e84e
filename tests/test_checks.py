import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.checks import (
    as_finite_floats,
    check_choice,
    check_indices,
    check_integer,
    check_labels,
    check_numbers,
    is_concrete,
)


def test_what_is_fine_passes():
    check_integer("width", np.int64(3), 3)
    check_integer("rank", 5, 1, high=5)
    check_numbers("dropout", 0.0, "[0, 1)")
    check_numbers("rates", jnp.asarray([0.5, 1.0], jnp.bfloat16), "(0, 1]")
    check_numbers("offset", -2, "(-inf, 0]")
    check_choice("stem", "cifar", ("cifar", "imagenet"))
    check_labels(np.array([0, 2, 1]), 3, 3)
    check_indices("levels", np.zeros((0, 2), int), "count", 4)


@pytest.mark.parametrize("value", [2, 0, -1, 4.5, "4", None, True, np.float32(4)])
def test_no_integer_of_that_size(value):
    with pytest.raises(ValueError, match=r"width=.* must be an integer of at least 3: of the maps"):
        check_integer("width", value, 3, "of the maps")


@pytest.mark.parametrize("value", [0, 6])
def test_an_integer_out_of_range(value):
    with pytest.raises(ValueError, match=rf"^rank={value} must be an integer in 1 \.\. 5$"):
        check_integer("rank", value, 1, high=5)


@pytest.mark.parametrize(
    ("value", "interval", "message"),
    [
        (1.0, "[0, 1)", r"x=1.0 must lie in \[0, 1\): a share"),
        (-0.1, "[0, 1]", r"x=-0.1 must lie in \[0, 1\]"),
        (0.0, "(0, 1]", r"x=0.0 must lie in \(0, 1\]"),
        (1.1, "(0, 1]", r"x=1.1 must lie in"),
        (0, "(0, inf)", "x=0 must be a finite number > 0: a share"),
        (-1, "[0, inf)", "x=-1 must be a finite number >= 0"),
        (np.inf, "[0, inf)", "x=inf must be a finite number >= 0"),
        (np.inf, "[0, inf]", "x=inf must be a finite number >= 0"),
        (np.nan, "[0, 1]", "x=nan must lie in"),
        (0.5, "[2.5, inf)", "x=0.5 must be a finite number >= 2.5"),
        (1, "(-inf, 0]", r"x=1 must lie in \(-inf, 0\]"),
        ([0.5, 2.0, 3.0], "[0, 1]", "x=2.0 must lie in"),
        ("one", "[0, 1]", "x='one' must lie in"),
        (None, "(0, inf)", "x=None must be a finite number > 0"),
    ],
)
def test_numbers_outside_an_interval(value, interval, message):
    with pytest.raises(ValueError, match=message):
        check_numbers("x", value, interval, "a share")


def test_values_are_not_looked_at_inside_jit():
    @jax.jit
    def traced(x, labels):
        assert not is_concrete(x)
        check_numbers("x", x, "[0, 1]")
        check_labels(labels, 2)
        return as_finite_floats("x", x)

    assert float(traced(jnp.asarray(np.inf), jnp.asarray([5]))) == np.inf
    assert is_concrete(1.0, np.zeros(2))


def test_choices_are_listed():
    with pytest.raises(ValueError, match="depth=12 is unknown; choose one of 11, 'deep'"):
        check_choice("depth", 12, (11, "deep"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2), int), r"non-empty vector \(N,\)"),
        (np.zeros(0, int), "non-empty vector"),
        (np.zeros(2, int), "there are 2 labels for 3 rows; give one label a row"),
        (np.zeros(3), "integer class indices, got float64"),
        (np.array([0, -1, 1]), "run from -1 to 1; with num_classes=2 they must lie in 0 .. 1"),
        (np.array([0, 2, 1]), "run from 0 to 2"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 2, 3)


@pytest.mark.parametrize("found", [[[0, 4]], [[-1, 3]]])
def test_indices_out_of_range_and_the_way_out(found):
    with pytest.raises(ValueError, match=r"levels run .* count=4 .* in 0 \.\. 3: declare more$"):
        check_indices("levels", np.array(found), "count", 4, "declare more")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_of_at_least_single_precision(dtype):
    found = as_finite_floats("x", np.ones(3, dtype))
    assert found.dtype == max(np.dtype(dtype), np.dtype(np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3, int), r"x must be floats, got int64; use x.astype\('f4'\)"),
        (np.ones(0), r"x must not be empty, got shape \(0,\)"),
        (np.array([1, np.nan, np.inf]), "x holds 2 NaN or infinite entries of 3"),
    ],
)
def test_what_is_no_finite_floats(array, message):
    with pytest.raises(ValueError, match=message):
        as_finite_floats("x", array)
