"""What adapters of Flax and PyTorch modules share: images normalised, one array picked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, ArrayLike, Float

# Of what a module returns: an entry, a field or a place, or a function of it.
Output = str | int | Callable[[Any], Any] | None
# What images are normalised by.
Constant = ArrayLike | Sequence[float] | None
LISTED = 20  # names in a message


def listed(names: Sequence[str]) -> str:
    """The first of many names for a message."""
    more = f", ... and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def as_constants(mean: Constant, std: Constant) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Mean and deviation as float32 arrays of four axes, to be broadcast to images.

    Args:
      mean: a number, one a channel (C,), or one a pixel (H, W, C), with a leading axis of length 1
        or without; None for none.
      std: likewise, positive.

    Raises:
      ValueError: for another shape, or numbers that are not finite or not positive.
    """
    found = []
    for name, given in (("mean", mean), ("std", std)):
        if given is None:
            found.append(None)
            continue
        array = np.asarray(given, np.float32)
        if array.ndim not in (0, 1, 3) and not (array.ndim == 4 and len(array) == 1):
            raise ValueError(
                f"{name} has shape {array.shape}; give a number, one a channel (C,), or one a "
                "pixel (H, W, C)"
            )
        if not np.isfinite(array).all() or (name == "std" and not (array > 0).all()):
            kind = "positive and finite" if name == "std" else "finite"
            raise ValueError(f"{name} must be {kind}, got {given}; images are in [0, 1]")
        found.append(array.reshape((1,) * (4 - array.ndim) + array.shape))
    return found[0], found[1]


def normalized(
    images: Float[Array | np.ndarray, "n h w c"],
    mean: Float[Array | np.ndarray, "1 ..."] | None,
    std: Float[Array | np.ndarray, "1 ..."] | None,
) -> Float[Array | np.ndarray, "n h w c"]:
    """(images - mean) / std.

    Args:
      images: (N, H, W, C).
      mean: from `as_constants`.
      std: likewise.

    Raises:
      ValueError: if mean or std do not fit the images.
    """
    for name, value in (("mean", mean), ("std", std)):
        if value is None:
            continue
        if any(a not in (1, b) for a, b in zip(value.shape, images.shape, strict=True)):
            raise ValueError(
                f"{name} of shape {value.shape[1:]} does not fit images of shape "
                f"{images.shape[1:]}; give a number, one a channel (C,), or one a pixel (H, W, C)"
            )
    images = images if mean is None else images - mean
    return images if std is None else images / std


def entry_names(found: Any) -> list[str] | None:
    """What `output` may be for something of several entries; None for a single thing."""
    if isinstance(found, Mapping):
        return [repr(key) for key in found]
    if hasattr(found, "_fields"):
        return [repr(name) for name in found._fields]
    return [str(i) for i in range(len(found))] if isinstance(found, tuple | list) else None


def pick(found: Any, output: Output, what: str) -> Any:
    """One of the things that a module returned.

    Args:
      found: by the module.
      output: key, field or index of an entry, or a function of `found`; None takes it whole.
      what: the module is called in messages.

    Raises:
      ValueError: if there is no such entry, or several and none was chosen.
    """
    if callable(output):
        return output(found)
    names = entry_names(found)
    if output is None:
        if names is None:
            return found
        raise ValueError(
            f"{what} returned a {type(found).__name__} of {', '.join(names) or 'nothing'}, not one "
            f"array; choose one by output={names[0] if names else '...'}, or a function of it"
        )
    if isinstance(found, Mapping) or (isinstance(output, int) and names is not None):
        try:
            return found[output]
        except (KeyError, IndexError):
            pass
    elif isinstance(output, str) and hasattr(found, output):
        return getattr(found, output)
    raise ValueError(
        f"output={output!r} is nothing that {what} returned, which is "
        + (f"{type(found).__name__} of {', '.join(names)}" if names else type(found).__name__)
    )
