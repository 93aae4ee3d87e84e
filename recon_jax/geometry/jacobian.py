"""Jacobians of a network at many points."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import as_finite_floats, check_integer

RowFunction = Callable[[Array], Array]


def _check_output(fn: RowFunction, points: Array) -> int:
    """P; ValueError unless fn maps (n, D) to floats (n, P)."""
    out = jax.eval_shape(fn, points)
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape is None or len(shape) != 2 or shape[0] != len(points) or not shape[1]:
        raise ValueError(
            f"fn must map points {points.shape} to one row each ({len(points)}, P), got "
            f"{type(out).__name__ if shape is None else shape}; flatten what follows the first axis"
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"fn must return floats, got {dtype}: integers have no derivative")
    return shape[1]


def local_jacobian(
    fn: RowFunction, points: Float[ArrayLike, "n d"], *, batch_size: int | None = None
) -> Float[Array, "n p d"]:
    """Derivatives d fn(x) / dx at points x: of a piecewise-affine network the matrix of a region.

    The network is linearised once for all points of a batch, and pushed forward along D directions,
    or pulled back along P where that is fewer. On the border between two regions the convention of
    the activation decides, 0 for `jax.nn.relu`.

    Outside jit each call compiles anew, with what fn closes over as constants. Where parameters
    change, compile around it, once:

        jacobians = jax.jit(lambda params, x: local_jacobian(lambda h: head.apply(params, h), x))

    Args:
      fn: (n, D) -> (n, P) for any n, each row by itself: batch norm in evaluation mode, no dropout.
        Otherwise the derivatives of all rows by one point are added up.
      points: (N, D).
      batch_size: points at a time, all if None. Memory beyond the result is about that of
        batch_size * min(P, D) rows going through fn.

    Returns:
      (N, P, D), exact to the rounding of fn's dtype.

    Raises:
      ValueError: if `points` is no finite non-empty matrix of floats (values: outside jit), fn
        returns another number of rows or not two axes of floats, or batch_size < 1.
    """
    points = as_finite_floats("points", points)
    if points.ndim != 2:
        raise ValueError(
            f"points must have shape (N, D), got {points.shape}; images are flattened, and "
            "reshaped within fn"
        )
    count, size = points.shape
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1, "how many points are linearised at once")
    batch_size = min(batch_size or count, count)
    outputs = _check_output(fn, points[:batch_size])
    linearized = _reverse if outputs <= size else _forward

    @jax.jit
    def of_all(points):
        if batch_size == count:
            return linearized(fn, points)
        blocks = -(-count // batch_size)
        padded = jnp.pad(points, ((0, blocks * batch_size - count), (0, 0)))
        blocked = padded.reshape(blocks, batch_size, size)
        found = jax.lax.map(lambda block: linearized(fn, block), blocked)
        return found.reshape(-1, outputs, size)[:count]

    return of_all(points)


def _reverse(fn, points):
    out, pull = jax.vjp(fn, points)

    def row(direction):
        return pull(jnp.broadcast_to(direction[None, :], out.shape))[0]

    return jax.vmap(row, out_axes=1)(jnp.eye(out.shape[1], dtype=out.dtype))


def _forward(fn, points):
    _, push = jax.linearize(fn, points)

    def column(direction):
        return push(jnp.broadcast_to(direction[None, :], points.shape))

    return jax.vmap(column, out_axes=2)(jnp.eye(points.shape[1], dtype=points.dtype))
