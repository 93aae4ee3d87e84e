"""Multinomial logistic regression: the linear probe of the literature."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, ArrayLike, Float, Integer

from recon_jax.checks import check_integer, check_numbers
from recon_jax.probes.checks import check_training_set
from recon_jax.probes.linear import LinearProbe
from recon_jax.probes.standardize import Standardizer, fit_standardizer, standardize

_BLOCK_BYTES = 2**20  # features of a block, so that they stay in cache for both products


class Convergence(NamedTuple):
    """How an iterative fit ended.

    Attributes:
      converged: True if the gradient norm came down to the tolerance.
      iterations: L-BFGS iterations taken.
      gradient_norm: max-abs gradient of the objective at the end.
      loss: objective at the end, penalty included.
    """

    converged: bool
    iterations: int
    gradient_norm: float
    loss: float


class _Blocks(NamedTuple):
    """Rows in blocks of equal length, the last one padded with rows of weight 0."""

    features: Float[Array, "b r d"]
    labels: Integer[Array, "b r"]
    weights: Float[Array, "b r"]


@jax.jit
def _into_blocks(features: Array, labels: Array) -> _Blocks:
    count, size = features.shape
    limit = max(64, _BLOCK_BYTES // (size * features.dtype.itemsize))
    blocks = -(-count // limit)
    rows = -(-count // blocks)
    padding = blocks * rows - count
    weights = jnp.full((count,), 1 / count, features.dtype)
    return _Blocks(
        jnp.pad(features, ((0, padding), (0, 0))).reshape(blocks, rows, size),
        jnp.pad(labels, (0, padding)).reshape(blocks, rows),
        jnp.pad(weights, (0, padding)).reshape(blocks, rows),
    )


@jax.jit
def _data_term(parameters: Float[Array, "c _"], blocks: _Blocks):
    """Log loss of each block, and the gradient of their sum (C, D + 1), bias last.

    One pass over the features: written out, because the derivative of a loss over all rows reads
    them a second time, through a transposed left operand, which XLA's CPU matmul is slow on.
    """
    weights, bias = parameters[:, :-1], parameters[:, -1]
    classes = jnp.arange(len(bias))

    def step(gradient, block):
        x, y, w = block
        scores = jnp.matmul(x, weights.T, precision="highest") + bias[None, :]
        log_p = jax.nn.log_softmax(scores)
        one_hot = (y[:, None] == classes[None, :]).astype(x.dtype)
        # Classes first: only this small matrix is transposed.
        residual = jax.lax.optimization_barrier(((jnp.exp(log_p) - one_hot) * w[:, None]).T)
        columns = jnp.matmul(residual, x, precision="highest")
        gradient = gradient + jnp.concatenate([columns, residual.sum(1, keepdims=True)], 1)
        return gradient, -jnp.sum(log_p * one_hot * w[:, None])

    gradient, losses = jax.lax.scan(step, jnp.zeros_like(parameters), blocks)
    return losses, gradient


def _minimize(blocks: _Blocks, num_classes, regularization, tolerance, max_iterations):
    """L-BFGS on the host's float64 parameters; the two products with the features on the device."""
    shape = (num_classes, blocks.features.shape[-1] + 1)
    dtype = blocks.features.dtype

    def objective(flat):
        parameters = flat.reshape(shape)
        losses, gradient = _data_term(parameters.astype(dtype), blocks)
        # Summed in float64: near the optimum the line search compares values that float32 sums
        # cannot tell apart.
        loss, gradient = np.asarray(losses, np.float64).sum(), np.array(gradient, np.float64)
        gradient[:, :-1] += regularization * parameters[:, :-1]
        return loss + regularization / 2 * np.sum(parameters[:, :-1] ** 2), gradient.ravel()

    result = scipy.optimize.minimize(
        objective,
        np.zeros(shape).ravel(),
        jac=True,
        method="L-BFGS-B",
        # No stop at a flat value: only the gradient decides. Line searches end by themselves when
        # rounding leaves nothing to gain.
        options={
            "maxiter": max_iterations,
            "maxfun": 20 * max_iterations,
            "maxls": 50,
            "gtol": tolerance,
            "ftol": 0.0,
        },
    )
    norm = float(np.abs(result.jac).max())
    report = Convergence(norm <= tolerance, int(result.nit), norm, float(result.fun))
    return result.x.reshape(shape), report


def _unstandardized(parameters: np.ndarray, standardizer: Standardizer | None, dtype):
    weights, bias = parameters[:, :-1].T, parameters[:, -1]
    if standardizer is not None:
        weights = np.asarray(standardizer.inverse_std, np.float64)[:, None] * weights
        bias = bias - np.asarray(standardizer.mean, np.float64) @ weights
    return LinearProbe(jnp.asarray(weights, dtype), jnp.asarray(bias, dtype))


def _require_all_classes(labels, num_classes: int) -> None:
    absent = np.flatnonzero(np.bincount(np.asarray(labels), minlength=num_classes) == 0)
    if absent.size:
        raise ValueError(
            f"{absent.size} of {num_classes} classes have no example, the first is class "
            f"{absent[0]}: their unpenalised bias would run to minus infinity; relabel to the "
            "classes that occur, or use ridge_probe"
        )


def logistic_probe(
    features: Float[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    num_classes: int,
    *,
    regularization: float,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    standardize_features: bool = True,
) -> tuple[LinearProbe, Convergence]:
    """Multinomial logistic regression with an unpenalised intercept, by L-BFGS.

    min over W, b of -(1/N) sum_n log softmax(x_n W + b)[y_n] + (regularization / 2) ||W||^2.
    scikit-learn's `LogisticRegression(solver="lbfgs")` minimises the same with
    C = 1 / (N regularization). With two classes it fits one vector w = W[:, 1] - W[:, 0], whose
    ||w||^2 is 2 ||W||^2 at the optimum, so there C = 2 / (N regularization).

    SciPy's L-BFGS-B drives a compiled pass over the features, so this cannot itself be jitted.

    Args:
      features: (N, D), float32 or float64.
      labels: class indices (N,) in 0 .. C - 1; every class must occur.
      num_classes: C, at least 2.
      regularization: >= 0. With 0 and separable classes the weights grow until the tolerance is
        met.
      tolerance: on the max-abs gradient with respect to W and b, as scikit-learn's `tol`. In
        float32 the line search sees rounding only from about 1e-5 downwards; the fit then ends
        there, and says so.
      max_iterations: of L-BFGS, at least 1.
      standardize_features: fit on standardised features, to which the penalty and the gradient then
        refer. The returned probe takes raw features either way. False is what scikit-learn does.

    Returns:
      The LinearProbe, in the dtype of the features, and its Convergence: check `converged`.

    Raises:
      ValueError: if the arrays are empty, of different length, or not finite, a label is out of
        range, a class has no example, regularization < 0, tolerance <= 0, or max_iterations < 1.
    """
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    check_training_set(features, labels, num_classes)
    _require_all_classes(labels, num_classes)
    check_numbers("regularization", regularization, "[0, inf)")
    check_numbers("tolerance", tolerance, "(0, inf)")
    check_integer("max_iterations", max_iterations, 1)
    standardizer = fit_standardizer(features) if standardize_features else None
    rows = features if standardizer is None else standardize(standardizer, features)
    parameters, report = _minimize(
        _into_blocks(rows, labels), num_classes, regularization, tolerance, max_iterations
    )
    return _unstandardized(parameters, standardizer, features.dtype), report
