"""What a program does, found by tracing it: nothing is compiled and no array is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

# What XLA does not fuse into its neighbours: they read operands from memory and write results.
# Elementwise operations are fused into them.
PRODUCTS = ("dot_general", "conv_general_dilated")
UNFUSED = (
    *PRODUCTS,
    *("reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin", "sort", "cumsum"),
    *("gather", "scatter", "scatter-add", "dynamic_slice", "dynamic_update_slice", "eigh"),
)


class ProgramCost(NamedTuple):
    """What one call of a program does.

    Attributes:
      flops: all, by XLA's cost analysis of the program before optimisation, plus `loop_flops`.
      conv_flops: those of its convolutions, 2 per multiply-add, padding included.
      dot_flops: those of its matrix products.
      traffic: bytes of arguments, results, and of what `UNFUSED` operations read and write.
      loop_flops: in passes of scans after the first, which XLA's cost analysis leaves out; by the
        same analysis of the body.
    """

    flops: float
    conv_flops: float
    dot_flops: float
    traffic: float
    loop_flops: float


class LaterPasses(NamedTuple):
    """What XLA's cost analysis leaves out of a scan, whose body it counts once.

    Attributes:
      body: one pass, a function of `types`.
      types: of the constants, the carry, and one slice of what is scanned over.
      count: passes after the first, over all passes of the scans around it.
    """

    body: Callable[..., Any]
    types: tuple[jax.ShapeDtypeStruct, ...]
    count: int


def _bytes(aval: Any) -> int:
    # Random keys have a type of their own, of no consequence for any memory.
    size = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * size


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays, or `jax.ShapeDtypeStruct`s, of a pytree.

    Args:
      tree: any pytree of them.
    """
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Innermost equations, with how often each is executed; a `while` counts as one pass."""
    for equation in jaxpr.eqns:
        inner = list(core.jaxprs_in_params(equation.params))
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        for sub in inner:
            yield from _equations(getattr(sub, "jaxpr", sub), times * repeats)
        if not inner:
            yield equation, times


def _scans(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Scans at any depth, with how often each is executed."""
    for equation in jaxpr.eqns:
        repeats = 1
        if equation.primitive.name == "scan":
            yield equation, times
            repeats = equation.params["length"]
        for sub in core.jaxprs_in_params(equation.params):
            yield from _scans(getattr(sub, "jaxpr", sub), times * repeats)


def _later_passes(jaxpr: Any) -> list[LaterPasses]:
    found = []
    for equation, times in _scans(jaxpr):
        body = equation.params["jaxpr"]
        types = tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in body.in_avals)
        length = equation.params["length"]
        # The body of the compiled loop is `unroll` passes, and what is left over stands beside it.
        unroll = min(equation.params["unroll"], length)
        if unroll and (count := times * (length - unroll - length % unroll)):
            found.append(LaterPasses(core.jaxpr_as_fun(body), types, count))
    return found


def later_passes(fn: Callable[..., Any], *args: Any) -> list[LaterPasses]:
    """The passes after the first of all scans of fn(*args), nested ones too.

    The cost of a compiled program with scans is XLA's own plus count times that of each body.

    Args:
      fn: a pure function of pytrees of arrays.
      *args: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _later_passes(jax.make_jaxpr(fn)(*args).jaxpr)


def _xla_flops(lowered: Any) -> float:
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))


def _dot_flops(equation: Any) -> int:
    (contracting, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * math.prod(left[axis] for axis in contracting)


def _conv_flops(equation: Any) -> int:
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    (images, kernel), (outputs,) = equation.invars, equation.outvars
    places = math.prod(kernel.aval.shape[axis] for axis in numbers.rhs_spec[2:])
    channels = images.aval.shape[numbers.lhs_spec[1]] // groups
    batches = equation.params["batch_group_count"]
    # Zeros that a dilation puts between pixels are not multiplied.
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(outputs.aval.shape) * places * channels // (batches * zeros)


# Slices and updates in place move what is read or written, not the array it belongs to: the place
# of that array's part among the operands; None for the result.
_PARTS = {
    "gather": None,
    "dynamic_slice": None,
    "dynamic_update_slice": 1,
    "scatter": 2,
    "scatter-add": 2,
}


def _moved(equation: Any) -> int:
    """Bytes that an operation reads and writes; 0 if it is fused into others."""
    name = equation.primitive.name
    if name not in UNFUSED:
        return 0
    if name in _PARTS:
        place = _PARTS[name]
        part = equation.outvars[0] if place is None else equation.invars[place]
        return 2 * _bytes(part.aval)
    return sum(_bytes(value.aval) for value in (*equation.invars, *equation.outvars))


def _flops(equation: Any, name: str) -> int:
    if equation.primitive.name != name:
        return 0
    return {"dot_general": _dot_flops, "conv_general_dilated": _conv_flops}[name](equation)


def cost_of(fn: Callable[..., Any], *args: Any) -> ProgramCost:
    """Cost of fn(*args), from the types of its arguments alone.

    FLOPs are XLA's own, of the program before optimisation, which changes them by 1 or 2%. Bytes
    are not: before fusion XLA counts every intermediate array, several times too much. They are
    counted here as if everything elementwise were fused, which is what accelerators come near to.

    Args:
      fn: a pure function of pytrees of arrays.
      *args: arrays or `jax.ShapeDtypeStruct`s.
    """
    traced = jax.jit(fn).trace(*args)
    traffic = tree_bytes(args) + sum(_bytes(aval) for aval in traced.jaxpr.out_avals)
    totals = np.zeros(3)  # dot, conv, traffic
    for equation, times in _equations(traced.jaxpr.jaxpr):
        dot, conv = (_flops(equation, name) for name in PRODUCTS)
        totals += (times * dot, times * conv, times * _moved(equation))
    dots, convs, inside = map(float, totals)
    loop_flops = 0.0
    for later in _later_passes(traced.jaxpr.jaxpr):
        loop_flops += later.count * _xla_flops(jax.jit(later.body).lower(*later.types))
    return ProgramCost(
        flops=_xla_flops(traced.lower()) + loop_flops,
        conv_flops=convs,
        dot_flops=dots,
        traffic=traffic + inside,
        loop_flops=loop_flops,
    )


def saved_bytes(loss: Callable[..., Any], params: Any, *rest: Any) -> int:
    """Bytes of what matrix products and convolutions of the forward pass leave for the gradient.

    Everything elementwise is taken to be computed again, which XLA does where it is fused; what it
    keeps after all comes on top.

    Args:
      loss: (params, *rest) -> (scalar, anything).
      params: what the gradient is taken of.
      *rest: further arguments.
    """
    saved = jax.checkpoint(loss, policy=lambda primitive, *_, **__: primitive.name in PRODUCTS)

    def residuals(params, *rest):
        return jax.vjp(lambda params: saved(params, *rest), params, has_aux=True)[1]

    jaxpr = jax.make_jaxpr(residuals)(params, *rest).jaxpr
    # Arguments that the gradient needs too are the caller's already.
    kept = {var for var in jaxpr.outvars if isinstance(var, core.Var)} - set(jaxpr.invars)
    return sum(_bytes(var.aval) for var in kept)
