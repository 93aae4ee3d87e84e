"""How far a sketch can be from the spectrum it stands for."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax.linalg import default_tolerance
from recon_jax.spectral.sketch import Sketch


def eigenvalue_bounds(
    sketch: Sketch, *, certain: bool = False
) -> tuple[Float[Array, " l"], Float[Array, " l"]]:
    """Bounds between which the L largest eigenvalues of S lie.

    With beta = ||S Q - Q T||_2 and tau not less than the largest eigenvalue of the rest:
    theta_j <= lambda_j <= theta_j + tau (Cauchy; Aronszajn), and from the Schur complement
    (lambda_j - theta_j)(lambda_j - tau) <= beta^2 where lambda_j > tau, hence
    lambda_j <= (theta_j + tau) / 2 + sqrt((theta_j - tau)^2 / 4 + beta^2).
    tau = min(trace(S) - sum_k theta_k, sketch.rest). Rounding, 16 eps of the trace, is added.

    Args:
      sketch: of any accuracy.
      certain: let tau be what is left of the trace, which no draw can make wrong. Otherwise the
        bounds fail for one draw in a million.

    Returns:
      lower (L,) and upper (L,), in the units of the eigenvalues of S. They meet where L is not
      less than the rank.

    Source: Halko, Martinsson & Tropp 2011, Lemma 4.1; Horn & Johnson 2013, Section 4.3; derived.
    """
    slack = default_tolerance(sketch.values.dtype) * sketch.total
    rest = jnp.maximum(sketch.total - jnp.sum(sketch.values), 0) + slack
    if not certain:
        rest = jnp.minimum(rest, sketch.rest + slack)
    half_gap = (sketch.values - rest) / 2
    root = (sketch.values + rest) / 2 + jnp.sqrt(half_gap**2 + (sketch.coupling + slack) ** 2)
    upper = jnp.minimum(sketch.values + rest, root)
    return jnp.maximum(sketch.values - slack, 0), upper + slack


def expected_range_error(
    values: Float[ArrayLike, " d"], rank: int, oversampling: int
) -> Float[Array, ""]:
    """Bound on the mean over Omega of ||S - Q Q^T S||_2, from the eigenvalues alone.

    (1 + sqrt(k / (p - 1))) lambda_{k+1} + e sqrt(k + p) / p sqrt(sum_{j > k} lambda_j^2), for
    Q from one pass; any split k + p = L gives a bound.

    Args:
      values: eigenvalues of S, descending (D,).
      rank: k, in [1, D - p].
      oversampling: p, at least 2.

    Raises:
      ValueError: if a number is out of range.

    Source: Halko, Martinsson & Tropp 2011, Theorem 10.6.
    """
    values = jnp.asarray(values)
    if oversampling < 2 or not 1 <= rank <= len(values) - oversampling:
        raise ValueError(
            f"the bound holds for oversampling >= 2 and rank in 1..{len(values)} - oversampling, "
            f"got oversampling={oversampling} and rank={rank}"
        )
    rest = values[rank:]
    first = 1 + math.sqrt(rank / (oversampling - 1))
    second = math.e * math.sqrt(rank + oversampling) / oversampling
    return first * rest[0] + second * jnp.sqrt(jnp.sum(rest**2))


def sketched_variance(sketch: Sketch) -> Float[Array, " l"]:
    """Fraction of the pixel variance along the first k vectors, k = 1 .. L.

    sum_{j <= k} theta_j / trace(S): exact for these vectors, and the closest lower bound on
    `explained_variance` of as many principal components that they allow.

    Args:
      sketch: with L vectors.
    """
    return jnp.cumsum(sketch.values) / sketch.total
