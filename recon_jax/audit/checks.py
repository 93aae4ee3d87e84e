"""Refusal of encoders that cannot be audited."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_features(name: str, found: Any, count: int) -> Any:
    """What an encoder returned for `count` images; ValueError unless it is (N, ...) numbers.

    Only shape and dtype are looked at. Arrays of other libraries become NumPy's.
    """
    if isinstance(found, Mapping | tuple | list):
        raise ValueError(_several(name, found))
    if hasattr(found, "__array__") and not isinstance(found, np.ndarray | jax.Array):
        found = np.asarray(found)
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(
            f"{name} returned {type(found).__name__}, not an array of features (N, ...); convert "
            "it, as by numpy.asarray"
        )
    if not len(shape) or shape[0] != count:
        raise ValueError(
            f"{name} returned features of shape {tuple(shape)} for {count} images; the first axis "
            "must hold one entry an image: transpose, or do not pool over it"
        )
    if 0 in shape:
        raise ValueError(
            f"{name} returned features of shape {tuple(shape)}, which hold no number; return one "
            "or more for every image"
        )
    if not _is_real(dtype):
        raise ValueError(
            f"{name} returned features of dtype {dtype}; floats, integers and booleans are "
            "allowed: of complex numbers put real and imaginary parts side by side"
        )
    return found


def _several(name: str, found: Any) -> str:
    if isinstance(found, Mapping):
        entries, pick = ", ".join(map(repr, found)), repr(next(iter(found), "name"))
    else:
        entries, pick = f"{len(found)} entries", "0"
    return (
        f"{name} returned a {type(found).__name__} ({entries}), where one array of features is "
        f"expected; pick one: lambda images: encode(images)[{pick}]. Named intermediates go to "
        "layers=..."
    )


def _is_real(dtype: Any) -> bool:
    try:
        kinds = (jnp.floating, jnp.integer, jnp.bool_)
        return any(jnp.issubdtype(dtype, kind) for kind in kinds)
    except TypeError:  # dtypes of other libraries
        return False


def name_layers(name: str, found: Any, count: int) -> OrderedDict[str, Any]:
    """Named layers of `count` images as they are; ValueError unless {name: (N, ...)}.

    A pair (output, {name: (N, ...)}) will do.
    """
    if isinstance(found, tuple) and len(found) == 2:
        found = found[1]
    if not isinstance(found, Mapping) or not found:
        raise ValueError(
            f"layers of {name} returned {type(found).__name__}; return {{name: features}} with at "
            "least one entry, in order of computation"
        )
    return OrderedDict(
        (str(layer), check_features(f"layer {layer!r} of {name}", value, count))
        for layer, value in found.items()
    )


def as_floats(found: Any) -> Any:
    """Features as float32, or float64 if they are."""
    if not isinstance(found, jax.Array):
        found = np.asarray(found)
    return found if found.dtype in (np.float32, np.float64) else found.astype(np.float32)


def as_rows(found: Any) -> np.ndarray:
    """Features in host memory as float rows (N, K)."""
    return np.asarray(as_floats(found)).reshape(len(found), -1)


def require_finite(name: str, rows: np.ndarray, numbers: np.ndarray, what: str) -> None:
    """ValueError unless rows (N, K) are finite, naming bad ones by the numbers of their images."""
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if bad.size:
        listed = ", ".join(str(number) for number in numbers[bad[:5]])
        raise ValueError(
            f"{name} returned NaN or infinite features for {bad.size} of {len(rows)} {what} "
            f"(number {listed}{', ...' if bad.size > 5 else ''}); features must be finite: look at "
            "these images, for overflow in low precision, and at how the weights were trained"
        )
