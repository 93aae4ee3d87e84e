"""Refusal of bad input, before anything is compiled; values are looked at outside jit only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike


def is_concrete(*arrays: Any) -> bool:
    """True if every argument holds values, i.e. none is being traced by jit, vmap or grad."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_integer(
    name: str, value: Any, low: int, meaning: str = "", *, high: int | None = None
) -> None:
    """Raise ValueError unless the value is an integer of at least `low`, and at most `high`.

    Args:
      name: of the value.
      value: any object; booleans are no integers.
      low: smallest integer allowed.
      meaning: of the value, for the message.
      high: largest integer allowed; None is any.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        allowed = f"of at least {low}" if high is None else f"in {low} .. {high}"
        raise ValueError(_message(f"{name}={value!r} must be an integer {allowed}", meaning))


def check_numbers(name: str, value: Any, interval: str, meaning: str = "") -> None:
    """Raise ValueError unless all numbers are finite and lie in the interval. Skipped inside jit.

    Args:
      name: of the value.
      value: one number or an array.
      interval: as it is written, "[0, 1)" or "(0, inf)".
      meaning: of the value, for the message.
    """
    if not is_concrete(value):
        return
    found = np.asarray(value)
    low, high = (float(end) for end in interval[1:-1].split(","))
    if low == -math.inf or math.isfinite(high):
        allowed = f"lie in {interval}"
    else:
        allowed = f"be a finite number {'>=' if interval[0] == '[' else '>'} {low:g}"
    if not jnp.issubdtype(found.dtype, jnp.number) and found.dtype != bool:
        raise ValueError(_message(f"{name}={value!r} must {allowed}", meaning))
    above = found >= low if interval[0] == "[" else found > low
    below = found <= high if interval[-1] == "]" else found < high
    bad = found[~(above & below & np.isfinite(found))]
    if bad.size:
        raise ValueError(_message(f"{name}={bad.flat[0]} must {allowed}", meaning))


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless the value is one of the choices, which the message lists."""
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name}={value!r} is unknown; choose one of {listed}")


def check_labels(labels: Any, num_classes: int, count: int | None = None) -> None:
    """Raise ValueError unless `labels` are `count` class indices in 0 .. num_classes - 1."""
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels must be a non-empty vector (N,), got shape {labels.shape}")
    if count is not None and len(labels) != count:
        raise ValueError(f"there are {len(labels)} labels for {count} rows; give one label a row")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integer class indices, got {labels.dtype}")
    check_indices("labels", labels, "num_classes", num_classes)


def check_indices(what: str, found: Any, name: str, count: int, way_out: str = "") -> None:
    """Raise ValueError unless all integers lie in 0 .. count - 1. Skipped inside jit.

    Args:
      what: they are called in the message.
      found: an array of integers, which may be empty.
      name: of the count.
      count: how many values there are.
      way_out: for the message.
    """
    if not is_concrete(found) or not np.size(found):
        return
    # As NumPy's: inside jit, a constant of JAX would be traced by its own minimum.
    found = np.asarray(found)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= count:
        allowed = f"with {name}={count} they must lie in 0 .. {count - 1}"
        raise ValueError(_message(f"{what} run from {low} to {high}; {allowed}", way_out))


def as_finite_floats(name: str, array: ArrayLike) -> Array:
    """The array as float32, or float64 if it is; ValueError unless floats, not empty, finite."""
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be floats, got {array.dtype}; use {name}.astype('f4')")
    if not array.size:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if is_concrete(array):
        bad = int((~np.isfinite(np.asarray(array))).sum())
        if bad:
            raise ValueError(f"{name} holds {bad} NaN or infinite entries of {array.size}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _message(text: str, meaning: str) -> str:
    return f"{text}: {meaning}" if meaning else text
