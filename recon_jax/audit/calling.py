"""Whether JAX can compile a function of images, and the compiled function."""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from recon_jax import parallel
from recon_jax.audit.checks import check_features, name_layers
from recon_jax.audit.encoders import Encoder


def is_traceable(encoder: Encoder, batch: np.ndarray) -> bool:
    """Whether JAX can compile the functions of an encoder without changing what they do."""
    functions = [function for function in (encoder.features, encoder.layers) if function]
    return all(_same_program_twice(function, batch) for function in functions)


def _same_program_twice(function: Callable, batch: np.ndarray) -> bool:
    spec = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
    try:
        # Not the function itself, whose second trace would come from a cache.
        traces = [jax.make_jaxpr(lambda images: function(images))(spec) for _ in range(2)]
    except Exception:  # whatever a function says that expects NumPy arrays
        return False
    # Numbers drawn by NumPy while tracing would be frozen in the compiled program.
    texts = [re.sub(r"0x[0-9a-f]+", "", str(trace.jaxpr)) for trace in traces]
    if texts[0] != texts[1]:
        return False
    pairs = zip(traces[0].consts, traces[1].consts, strict=True)
    return all(a is b or np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def callables_of(encoder: Encoder, batch: np.ndarray, jit: bool, with_layers: bool) -> tuple:
    """Features and layers (None without) as they are called.

    What is compiled is first checked by shapes alone.
    """
    layers = encoder.layers if with_layers else None
    if not jit:
        return encoder.features, layers
    spec = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
    found = jax.eval_shape(lambda images: encoder.features(images), spec)
    check_features(encoder.name, found, len(batch))
    if layers is not None:
        found = jax.eval_shape(lambda images: _ordered(layers(images)), spec)
        name_layers(encoder.name, found, len(batch))
        layers = compiled(layers)
    return compiled(encoder.features), layers


def compiled(function: Callable) -> Callable:
    """The function in one program; of a `functools.partial`, one for all arrays in it."""
    frame, arrays = parallel.take_arrays(function)
    build = _program_once if frame.is_key else _program
    return functools.partial(build(frame), arrays)


def _program(frame: parallel.Frame) -> Callable:
    """A compiled (arrays, images) -> outputs of the function of a frame."""
    return parallel.fast_jit(
        lambda arrays, images: _ordered(parallel.put_arrays(frame, arrays)(images))
    )


_program_once = functools.lru_cache(maxsize=16)(_program)


def _ordered(found: Any) -> Any:
    """Named layers in the order they came in, which JAX loses of a plain dict."""
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
        found = found[1]
    return OrderedDict(found.items()) if isinstance(found, Mapping) else found
