"""A linear projector trained by contrast where the geometry of the data is known."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key, Num

from recon_jax.checks import as_finite_floats, check_integer, check_numbers, is_concrete
from recon_jax.geometry.rank import effective_rank

# Of 32 dimensions: the first 8 are the tangent plane of the data, and 4 to 15 are augmented.
VARIANCES = (1.0,) * 8 + (0.02**2,) * 24
AUGMENTED = (False,) * 4 + (True,) * 12 + (False,) * 16


class ProjectorFlow(NamedTuple):
    """What training made of a linear projector.

    Attributes:
      weights: W (P, D).
      losses: before each step (S,).
      output_rank: effective rank of the outputs of views, i.e. of W C^(1/2), C the covariance of
        views; the columns of W that see no variance, which keep their first values, do not count.
      gains: |W e_d| for every dimension (D,).
    """

    weights: Float[Array, "p d"]
    losses: Float[Array, " s"]
    output_rank: Float[Array, ""]
    gains: Float[Array, " d"]


def projector_gradient(
    weights: Float[Array, "p d"],
    view_a: Float[Array, "n d"],
    view_b: Float[Array, "n d"],
    temperature: Num[ArrayLike, ""],
    normalize: bool,
) -> tuple[Float[Array, ""], Float[Array, "p d"]]:
    """NT-Xent loss of a linear projector with Gaussian similarity, and its gradient in closed form.

    For views x_1 .. x_2N, partner j(i) and y = W x:

      loss = -mean_i log [exp(s_ij(i)) / sum_{l != i} exp(s_il)],  s_il = -|y_i - y_l|^2 / (2 t)

    With M = W^T W, delta_i = x_i - x_j(i), D_il = x_i - x_l and p_il the softmax over l,

      2 t dloss/dM = mean_i [delta_i delta_i^T - sum_l p_il D_il D_il^T],  dloss/dW = 2 W dloss/dM

    which is computed as (dloss/dy)^T x. If `normalize`, y = W x / |W x|, then s = (cos - 1) / t is
    the similarity of SimCLR, and dloss/dy is taken through the normalisation.

    Args:
      weights: W (P, D).
      view_a: first views (N, D), N >= 2.
      view_b: second views (N, D), row by row of the same points.
      temperature: t > 0.
      normalize: bring outputs to unit length.

    Returns:
      The loss and dloss/dW (P, D).

    Source: Chen et al. 2020 (arXiv 2002.05709) for the loss; the gradient is derived here.
    """
    x = jnp.concatenate([view_a, view_b])
    count = x.shape[0]
    own = jnp.eye(count, dtype=bool)
    partner = jnp.roll(own, count // 2, axis=1)
    y = x @ weights.T
    if normalize:
        lengths = jnp.sqrt(jnp.sum(y**2, 1, keepdims=True))
        y = y / lengths
    halves = jnp.sum(y**2, 1) / 2
    similarity = (y @ y.T - halves[:, None] - halves[None, :]) / temperature
    log_p = jax.nn.log_softmax(jnp.where(own, -jnp.inf, similarity), axis=1)
    loss = -jnp.mean(jnp.sum(jnp.where(partner, log_p, 0), 1))
    # dloss/ds; its rows add up to zero.
    pull = (jnp.exp(log_p) - partner) / count
    slope = ((pull + pull.T) @ y - jnp.sum(pull, 0)[:, None] * y) / temperature
    if normalize:
        slope = (slope - y * jnp.sum(slope * y, 1, keepdims=True)) / lengths
    return loss, slope.T @ x


@partial(jax.jit, static_argnames=("outputs", "batch_size", "steps", "normalize"))
def _flow(
    key, strength, variances, augmented, outputs, temperature, batch_size, steps, rate, normalize
):
    shape, dtype = (batch_size, variances.shape[0]), variances.dtype
    spread = jnp.sqrt(variances)[None, :]
    noise = strength * augmented.astype(dtype)
    init_key, data_key = jax.random.split(key)
    weights = jax.random.normal(init_key, (outputs, shape[1]), dtype) / math.sqrt(shape[1])

    def step(weights, key):
        points, *shifts = (jax.random.normal(k, shape, dtype) for k in jax.random.split(key, 3))
        views = [points * spread + noise[None, :] * shift for shift in shifts]
        loss, gradient = projector_gradient(weights, *views, temperature, normalize)
        return weights - rate * gradient, loss

    weights, losses = jax.lax.scan(step, weights, jax.random.split(data_key, steps))
    rank = effective_rank(weights * jnp.sqrt(variances + noise**2)[None, :])
    return ProjectorFlow(weights, losses, rank, jnp.sqrt(jnp.sum(weights**2, 0)))


def _check_geometry(variances: Array, augmented: Array) -> None:
    if variances.ndim != 1 or augmented.shape != variances.shape:
        raise ValueError(
            "variances and augmented must be vectors (D,) of the same length, got "
            f"{variances.shape} and {augmented.shape}"
        )
    if not is_concrete(variances):
        return
    found = np.asarray(variances)
    if (found < 0).any() or not found.any():
        raise ValueError(
            f"variances run from {found.min():g} to {found.max():g}; they must not be negative, "
            "and one at least must be positive"
        )


def linear_projector_flow(
    key: Key[Array, ""],
    *,
    strength: Num[ArrayLike, ""],
    variances: Float[ArrayLike, " d"] | None = None,
    augmented: Bool[ArrayLike, " d"] | None = None,
    outputs: int = 16,
    temperature: Num[ArrayLike, ""] = 0.2,
    batch_size: int = 128,
    steps: int = 800,
    learning_rate: Num[ArrayLike, ""] = 0.7,
    normalize: bool = True,
) -> ProjectorFlow:
    """Trains a linear projector by NT-Xent on Gaussian features with known augmentation directions.

    Every step draws features h of N(0, diag(variances)) and two views h + strength * noise, noise
    standard normal in the augmented dimensions, and goes down `projector_gradient`. W begins as
    N(0, 1 / D). Gradient descent grows the directions where views of one point differ less than
    neighbouring points do and shrinks the others: at the default geometry, with unit variance on
    dimensions 0-7, standard deviation 0.02 elsewhere and noise on 4-15, the output keeps 8
    dimensions at strength 0 and, at strength 3, the 4 that have variance and no noise.

    With `normalize` the scale of W has no effect on the loss, and |W| only grows: every gradient is
    orthogonal to W. Without it W grows at strength 0 until no softmax weight is left on others,
    since nothing holds it back, and a large step at a large strength diverges.

    Strength, temperature and learning rate may be traced: strengths share one compiled run,

        jax.vmap(lambda s: linear_projector_flow(key, strength=s))(jnp.array([0.0, 0.3, 3.0]))

    Args:
      key: of the first weights and the draws.
      strength: standard deviation of the noise, >= 0.
      variances: of the features (D,), not negative; float64 computes in float64. The default
        geometry, in float32, if None.
      augmented: which dimensions are augmented (D,); 4-15 of 32 if None.
      outputs: P, >= 1.
      temperature: t > 0.
      batch_size: points a step, >= 2.
      steps: >= 1.
      learning_rate: of plain gradient descent, > 0.
      normalize: similarity of SimCLR, between unit outputs; False is that of the derivation.

    Returns:
      A `ProjectorFlow`.

    Raises:
      ValueError: for a number out of range, vectors that do not match, or a run that diverged
        (values: outside jit; NaN within).

    Source: the mechanism that Cosentino et al. 2022 (arXiv 2205.06926) claim, in its simplest
      form; the derivation and the settings are not the paper's.
    """
    for name, value, interval, meaning in (
        ("strength", strength, "[0, inf)", "the standard deviation of the augmentation"),
        ("temperature", temperature, "(0, inf)", "it divides similarities"),
        ("learning_rate", learning_rate, "(0, inf)", "the size of a step"),
    ):
        if jnp.ndim(value):
            raise ValueError(f"{name} must be one number, got shape {jnp.shape(value)}")
        check_numbers(name, value, interval, meaning)
    check_integer("outputs", outputs, 1, "the width of the projection", high=2**16)
    check_integer("batch_size", batch_size, 2, "one point has nothing to contrast", high=2**16)
    check_integer("steps", steps, 1, "of gradient descent", high=2**31 - 1)
    if variances is None:
        variances = np.asarray(VARIANCES, np.float32)
    variances = as_finite_floats("variances", variances)
    augmented = jnp.asarray(AUGMENTED if augmented is None else augmented)
    _check_geometry(variances, augmented)
    numbers = (jnp.asarray(v, variances.dtype) for v in (strength, temperature, learning_rate))
    strength, temperature, rate = numbers
    flow = _flow(
        key,
        strength,
        variances,
        augmented,
        outputs,
        temperature,
        batch_size,
        steps,
        rate,
        normalize,
    )
    if is_concrete(flow.weights) and not np.isfinite(np.asarray(flow.weights)).all():
        raise ValueError(
            f"the weights diverged within {steps} steps: lower learning_rate={float(rate):g}, or "
            f"raise temperature={float(temperature):g}"
        )
    return flow
