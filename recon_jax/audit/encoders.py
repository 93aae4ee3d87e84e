"""Any function of images as an encoder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Encoder(NamedTuple):
    """A function from images to features, and what else is known of it.

    Attributes:
      name: what tables call it.
      features: images (N, H, W, C), float32 in [0, 1], to features (N, ...). A `functools.partial`
        with arrays in it, such as the variables of a network, is compiled once for all arrays in
        their place.
      layers: images to named intermediates {name: (N, ...)} in order of computation, if any.
      fresh: from a seed to the same architecture with new random weights, an Encoder or a function
        like `features`; None if there is no such thing.
      jit: True compiles the functions with JAX. False calls them as they are, with NumPy arrays,
        as functions of NumPy or PyTorch need it. None compiles if they can be traced, and trace to
        the same program twice.
    """

    name: str
    features: Callable[[Any], Any]
    layers: Callable[[Any], Mapping[str, Any]] | None = None
    fresh: Callable[[int], Any] | None = None
    jit: bool | None = True


def as_encoder(
    encode: Any,
    *,
    name: str | None = None,
    layers: Any = None,
    fresh: Any = None,
    jit: bool | None = None,
) -> Encoder:
    """An `Encoder` of any function of images.

    Args:
      encode: (N, H, W, C) float32 in [0, 1] -> (N, ...); or an Encoder, of which the options that
        are given are replaced.
      name: what tables call it; by default the function's own name.
      layers: as `Encoder.layers`.
      fresh: as `Encoder.fresh`.
      jit: as `Encoder.jit`.

    Returns:
      The Encoder. Nothing is called yet.

    Raises:
      ValueError: if one of the functions cannot be called, or the name is empty.
    """
    given = {"layers": layers, "fresh": fresh}
    functions = {what: function for what, function in given.items() if function is not None}
    if not isinstance(encode, Encoder):
        functions["encode"] = encode
    for what, function in functions.items():
        if not callable(function):
            raise ValueError(
                f"{what} is {type(function).__name__}, not a function; pass a callable, such as "
                "functools.partial(model.apply, variables)"
            )
    options = {"name": name, "layers": layers, "fresh": fresh, "jit": jit}
    if not isinstance(encode, Encoder):
        encode = Encoder(_name_of(encode), encode, jit=None)
    encode = encode._replace(**{key: value for key, value in options.items() if value is not None})
    if not encode.name:
        raise ValueError("the encoder has an empty name; pass name=..., by which tables call it")
    return encode


def _name_of(encode: Any) -> str:
    while isinstance(encode, functools.partial):
        encode = encode.func
    owner = getattr(encode, "__self__", None)
    name = type(owner).__name__ if owner is not None else getattr(encode, "__name__", "")
    return "encoder" if name in ("", "<lambda>") else name


def fresh_encoder(encoder: Encoder, seed: int) -> Encoder:
    """The same architecture with the random weights of a seed; `encoder.fresh` must be there."""
    made = as_encoder(encoder.fresh(seed), name=f"{encoder.name}, untrained")
    return made._replace(fresh=None)
