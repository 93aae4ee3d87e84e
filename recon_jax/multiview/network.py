"""The network of the theory: kernels that slide over patches, a smoothed ReLU, a sum, a head.

Inside, patches are stored as (d, P, N) and responses as (R, P, N): then the response is one plain
matrix product, its gradient another, and all sums over patches run along contiguous images.

Source: Pan et al. 2023 (arXiv 2206.03826), section 3; Allen-Zhu & Li 2020 (arXiv 2012.09816).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer, check_numbers
from recon_jax.multiview.checks import (
    as_floats,
    as_network_input,
    as_power,
)


def smoothed_relu(
    x: Float[ArrayLike, "*shape"], threshold: ArrayLike = 1.0, power: float = 4
) -> Float[Array, "*shape"]:
    """0 below 0, x^q / (q rho^(q - 1)) up to rho, and x - (1 - 1/q) rho above: slope continuous.

    Args:
      x: of any shape.
      threshold: rho > 0, where the linear part begins.
      power: q >= 1, a number fixed before compilation; 1 is the ReLU.

    Raises:
      ValueError: if rho (checked outside jit) or q is out of range.

    Source: Allen-Zhu & Li 2020 (arXiv 2012.09816), section 3; Pan et al. 2023 (arXiv 2206.03826).
    """
    check_numbers("threshold", threshold, "(0, inf)", "where the rectifier becomes linear")
    x = jnp.asarray(x)
    return rectify(x, jnp.asarray(threshold, x.dtype), as_power(power))


def rectify(x: Array, threshold: Array, power: int | float) -> Array:
    """`smoothed_relu` without checks; the threshold has the dtype of x."""
    # Two parts whose slopes sum to that of the whole everywhere, so that no branch is chosen.
    curved = jnp.clip(x, 0, threshold)
    linear = jnp.maximum(x, threshold) - threshold
    return curved * (curved / threshold) ** (power - 1) / power + linear


def init_kernels(
    key: Array,
    num_kernels: int,
    dim: int,
    scale: ArrayLike = 0.05,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "r d"]:
    """Gaussian kernels (R, d) of standard deviation `scale`, sigma_0 of the theory.

    Args:
      key: of the draw.
      num_kernels: R, at least 1; the theory has k m, m for each of k classes.
      dim: d, at least 1.
      scale: sigma_0 > 0. It must leave the responses well inside the curved part of the rectifier,
        or no kernel wins over the others.
      dtype: float32 or float64.

    Raises:
      ValueError: if a number is out of range.
    """
    check_integer("num_kernels", num_kernels, 1, "kernels of the encoder")
    check_integer("dim", dim, 1, "entries of a patch")
    check_numbers("scale", scale, "(0, inf)", "standard deviation of the initial kernels")
    return jnp.asarray(scale, dtype) * jax.random.normal(key, (num_kernels, dim), dtype)


def block_head(
    num_classes: int, num_kernels: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "c r"]:
    """The head of supervised learning (k, R): class c sums kernels c m .. (c + 1) m - 1, m = R / k.

    Args:
      num_classes: k.
      num_kernels: R, a multiple of k.
      dtype: of the head.

    Raises:
      ValueError: if k does not divide R.
    """
    check_integer("num_classes", num_classes, 1, "k")
    check_integer("num_kernels", num_kernels, 1, "R")
    if num_kernels % num_classes:
        raise ValueError(
            f"num_kernels={num_kernels} is not a multiple of num_classes={num_classes}; every "
            "class has as many kernels of its own"
        )
    per_class = num_kernels // num_classes
    owner = jnp.arange(num_kernels) // per_class
    return (owner[None, :] == jnp.arange(num_classes)[:, None]).astype(dtype)


def encode(
    kernels: Float[ArrayLike, "r d"],
    patches: Float[ArrayLike, "n p d"],
    threshold: ArrayLike = 1.0,
    power: float = 4,
) -> Float[Array, "n r"]:
    """Activations h_r(X) = sum_p smoothed_relu(<w_r, x_p>), one row an image.

    Args:
      kernels: w, rows (R, d).
      patches: x (N, P, d).
      threshold: rho > 0.
      power: q >= 1.

    Raises:
      ValueError: if an array has another shape, is not finite (checked outside jit), or rho or q is
        out of range.
    """
    kernels, patches = as_network_input(kernels, patches)
    check_numbers("threshold", threshold, "(0, inf)", "where the rectifier becomes linear")
    threshold = jnp.asarray(threshold, kernels.dtype)
    return activations(kernels, lay_out(patches), threshold, as_power(power)).T


def class_scores(
    kernels: Float[ArrayLike, "r d"],
    head: Float[ArrayLike, "c r"],
    patches: Float[ArrayLike, "n p d"],
    threshold: ArrayLike = 1.0,
    power: float = 4,
) -> Float[Array, "n c"]:
    """Logits F_c(X) = sum_r u_cr h_r(X).

    Args:
      kernels: rows (R, d).
      head: u (k, R).
      patches: (N, P, d).
      threshold: rho > 0.
      power: q >= 1.

    Raises:
      ValueError: as `encode`, and if the head has another number of kernels.
    """
    found = encode(kernels, patches, threshold, power)
    head = as_floats("head", head, 2, "number of classes, number of kernels")
    if head.shape[1] != found.shape[1]:
        raise ValueError(f"the head reads {head.shape[1]} kernels, there are {found.shape[1]}")
    return found @ head.T.astype(found.dtype)


def lay_out(patches: Array) -> Array:
    """Patches (N, P, d) as (d, P, N)."""
    return patches.transpose(2, 1, 0)


def responses(kernels: Array, columns: Array) -> Array:
    """<w_r, x_p> as (R, P, N), of patches as `lay_out` returns them."""
    return jnp.tensordot(kernels, columns, 1, precision="highest")


def activations(kernels: Array, columns: Array, threshold: Array, power: int | float) -> Array:
    """`encode` as (R, N), of patches as `lay_out` returns them."""
    return rectify(responses(kernels, columns), threshold, power).sum(1)
