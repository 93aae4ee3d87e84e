"""Ridge regression on one-hot labels: the linear probe in closed form."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from recon_jax.checks import check_numbers
from recon_jax.linalg import default_tolerance, eigh_descending
from recon_jax.probes.checks import check_training_set
from recon_jax.probes.linear import LinearProbe


def _regularized_inverse(gram: Array, penalty: Array):
    """Function B -> (gram + penalty I)^+ B, leaving out what rounding drowns."""
    values, vectors = eigh_descending(gram)
    shifted = values + penalty
    keep = shifted > default_tolerance(gram.dtype) * shifted[0]
    inverse = jnp.where(keep, 1 / jnp.where(keep, shifted, 1), 0)
    return lambda right: vectors @ (inverse[:, None] * (vectors.T @ right))


@partial(jax.jit, static_argnames="num_classes")
def _ridge(features, labels, num_classes, regularization):
    count, size = features.shape
    dtype = features.dtype
    penalty = count * jnp.asarray(regularization, dtype)
    mean = features.mean(0)
    centred = features - mean[None, :]
    # Behind a barrier: XLA's CPU matmul is much slower on a transposed left operand.
    transposed = jax.lax.optimization_barrier(centred.T)
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    priors = one_hot.mean(0)
    targets = one_hot - priors[None, :]
    if count >= size:
        solve = _regularized_inverse(transposed @ centred, penalty)
        weights = solve(transposed @ targets)
        # Forming X^T X squares the condition number; a step of refinement against X itself gives
        # the digits back.
        residual = targets - centred @ weights
        weights = weights + solve(transposed @ residual - penalty * weights)
    else:
        solve = _regularized_inverse(centred @ transposed, penalty)
        dual = solve(targets)
        dual = dual + solve(targets - centred @ (transposed @ dual) - penalty * dual)
        weights = transposed @ dual
    return LinearProbe(weights, priors - mean @ weights)


def ridge_probe(
    features: Float[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    num_classes: int,
    regularization: float | Float[ArrayLike, ""],
) -> LinearProbe:
    """Least squares on one-hot labels Y with an unpenalised intercept, in closed form.

    min over W, b of (1/N) ||Y - X W - 1 b^T||^2 + regularization ||W||^2, so with centred X, Y:
    W = (X^T X + N regularization I)^-1 X^T Y, or W = X^T (X X^T + N regularization I)^-1 Y if
    N < D, and b = mean(Y) - mean(X) W. scikit-learn's `Ridge` is the same with
    alpha = N regularization. Usable under jit with `num_classes` static.

    Args:
      features: X (N, D), float32 or float64.
      labels: class indices (N,) in 0 .. C - 1; a class may have no example.
      num_classes: C, at least 2.
      regularization: >= 0, in units of the features' variance. With 0 the solution of least norm is
        taken. Directions whose variance, with the regularization added, lies below 16 eps of the
        largest (2e-6 in float32) are left out.

    Returns:
      The LinearProbe.

    Raises:
      ValueError: if the arrays are empty, of different length, or not finite, a label is out of
        range, there is one class only, or regularization < 0 (values: outside jit).
    """
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    check_training_set(features, labels, num_classes)
    check_numbers("regularization", regularization, "[0, inf)")
    with jax.default_matmul_precision("highest"):
        return _ridge(features, labels, num_classes, regularization)
