"""Every probe refuses the same bad training sets."""

import inspect
from functools import partial

import jax
import numpy as np
import pytest

from recon_jax.probes import logistic_probe, mlp_probe, ridge_probe

from . import reference

PROBES = {
    "ridge": partial(ridge_probe, regularization=0.1),
    "logistic": partial(logistic_probe, regularization=0.1),
    "mlp": partial(mlp_probe, jax.random.key(0)),
}


def training_set():
    return reference.blobs(12, 4)


def with_entry(value):
    x, y = training_set()
    x[5, 2] = value
    return x, y


CASES = {
    "nan": (*with_entry(np.nan), 3, "1 row.s. of features hold NaN .* the first is row 5"),
    "infinite": (*with_entry(np.inf), 3, "hold NaN or infinite"),
    "too few classes": (*training_set(), 2, "labels run from 0 to 2; with num_classes=2 they must"),
    "negative": (training_set()[0], training_set()[1] - 1, 3, "labels run from -1 to 1"),
    "one class": (training_set()[0], np.full(12, 2), 3, "all 12 labels are 2: a probe needs"),
    "one class in all": (
        training_set()[0],
        np.zeros(12, int),
        1,
        "num_classes=1 must be an integer",
    ),
    "lengths": (training_set()[0], training_set()[1][:7], 3, "7 labels for 12 rows"),
    "no rows": (np.zeros((0, 4)), np.zeros(0, int), 3, "non-empty matrix"),
    "no columns": (np.zeros((12, 0)), training_set()[1], 3, "non-empty matrix"),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("case", CASES)
def test_bad_training_sets_are_refused(probe, case):
    x, y, classes, message = CASES[case]
    fit = PROBES[probe]
    with pytest.raises(ValueError, match=message):
        # Without the type checker of the tests, which would speak first.
        inspect.unwrap(fit.func)(*fit.args, x, y, classes, **fit.keywords)


@pytest.mark.parametrize("fit", [ridge_probe, logistic_probe])
@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
def test_bad_regularization_is_refused(fit, value):
    x, y = training_set()
    with pytest.raises(ValueError, match=r"regularization=.* must be a finite number >= 0"):
        fit(x, y, 3, regularization=value)
