"""How subspaces lie to each other, and what a map does to their directions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import is_concrete
from recon_jax.geometry.checks import as_stack, check_nonzero


def _check_orthonormal(name: str, basis: Array) -> None:
    """ValueError unless Q^T Q is the identity, up to columns that are zero."""
    if not is_concrete(basis):
        return
    found = np.asarray(basis)
    gram = np.swapaxes(found, -1, -2) @ found
    kept = np.diagonal(gram, axis1=-2, axis2=-1) > 0
    expected = np.eye(gram.shape[-1]) * kept[..., None, :]
    error = float(np.abs(gram - expected).max())
    # Bases in use are orthonormal to some 100 eps; half the digits catch those that are no bases.
    if error > float(np.sqrt(np.finfo(found.dtype).eps)):
        raise ValueError(
            f"columns of {name} must be orthonormal, but Q^T Q is off by {error:.3g}; take "
            "displacement_basis, row_space or jnp.linalg.qr(...)[0]"
        )


def subspace_alignment(
    basis_a: Float[ArrayLike, "..."], basis_b: Float[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """||Q_a^T Q_b||_F^2 / min(K_a, K_b): mean squared cosine of the principal angles.

    1 if one subspace holds the other, 0 if they are orthogonal. Chance: two random subspaces of
    R^D have max(K_a, K_b) / D on average, which is K / D for subspaces of one dimension K. Columns
    that are zero, as of `displacement_basis` where there are fewer than K directions, count as
    directions that do not overlap.

    Args:
      basis_a: orthonormal columns (..., D, K_a).
      basis_b: orthonormal columns (..., D, K_b); leading axes broadcast, so that many subspaces can
        be compared with one.

    Returns:
      One number in [0, 1] a pair (...), to about K eps.

    Raises:
      ValueError: if the shapes do not fit, or columns are not orthonormal (outside jit).

    Source: Cosentino et al. 2022 (arXiv 2205.06926) compare a projector's row space with the
    tangent plane; principal angles: Bjorck & Golub 1973.

    >>> round(float(subspace_alignment(jnp.eye(3)[:, :2], jnp.eye(3)[:, 1:])), 3)
    0.5
    """
    a = as_stack("basis_a", basis_a, "D, K")
    b = as_stack("basis_b", basis_b, "D, K")
    if a.shape[-2] != b.shape[-2]:
        raise ValueError(
            f"basis_a and basis_b live in different spaces: {a.shape[-2]} and {b.shape[-2]} rows"
        )
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"leading axes of basis_a {a.shape} and basis_b {b.shape} do not fit; give one "
            "subspace or equally many"
        ) from None
    _check_orthonormal("basis_a", a)
    _check_orthonormal("basis_b", b)
    return _alignment(a, b)


@jax.jit
def _alignment(a, b):
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(basis, (*leading, *basis.shape[-2:])) for basis in (a, b))
    inner = jnp.matmul(jnp.swapaxes(a, -1, -2), b, precision="highest")
    return jnp.square(inner).sum((-2, -1)) / min(inner.shape[-2:])


def gain_ratio(
    jacobian: Float[ArrayLike, "*batch p d"],
    tangents: Float[ArrayLike, "*batch m d"],
    displacements: Float[ArrayLike, "*batch l d"],
) -> Float[Array, "*batch"]:
    """(||A T||_F / ||T||_F) / (||A Delta||_F / ||Delta||_F): how much more A stretches T.

    1 without preference, as for an isometry; above 1 the map keeps the tangent directions T and
    shrinks the displacements Delta. Vectors are weighted by their squared length.

    Args:
      jacobian: A (..., P, D), as from `local_jacobian`.
      tangents: vectors along the data as rows (..., M, D), as from `neighbor_differences`.
      displacements: vectors along an augmentation as rows (..., L, D).

    Returns:
      One number a point (...), to about 1e-6 in float32; infinite where A Delta = 0, NaN where A T
      is 0 too.

    Raises:
      ValueError: if the shapes do not fit, or tangents or displacements are zero throughout at one
        of the points (outside jit; NaN within).

    Source: Cosentino et al. 2022 (arXiv 2205.06926), the claim that projectors drop what
    augmentations move; this ratio was defined for this library.
    """
    a = as_stack("jacobian", jacobian, "P, D")
    t = as_stack("tangents", tangents, "M, D")
    delta = as_stack("displacements", displacements, "L, D")
    for name, rows in (("tangents", t), ("displacements", delta)):
        if rows.shape[:-2] != a.shape[:-2] or rows.shape[-1] != a.shape[-1]:
            raise ValueError(
                f"{name} {rows.shape} must have the leading axes and the last one of jacobian "
                f"{a.shape}; vectors are rows"
            )
    check_nonzero("tangents", t, "drop points whose neighbours are all duplicates")
    check_nonzero("displacements", delta, "augment with a strength above 0, and drop dead points")
    return _gain(a, t) / _gain(a, delta)


@jax.jit
def _gain(a, rows):
    # Scaled first, so that squares neither overflow nor vanish.
    rows = rows / jnp.abs(rows).max((-2, -1), keepdims=True)
    image = jnp.matmul(rows, jnp.swapaxes(a, -1, -2), precision="highest")
    return jnp.sqrt(jnp.square(image).sum((-2, -1)) / jnp.square(rows).sum((-2, -1)))
