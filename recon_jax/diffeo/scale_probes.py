"""Deformations and noise of the scale-detection tasks: their images are too sparse to be warped.

A deformation moves each active pixel to a neighbour; noise has the size of what that changed.

Source: Tomasini et al. 2022 (arXiv 2210.01506), released code.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Shaped

from recon_jax.diffeo.checks import as_floats, image_keys
from recon_jax.diffeo.noise import matched_noise
from recon_jax.diffeo.scale_detection import check_sites, render_1d, render_2d
from recon_jax.diffeo.sensitivity import Probes


@partial(jax.jit, static_argnums=(2, 3))
def _move_1d(keys, sites, size, block):
    steps = 2 * jax.vmap(lambda key: jax.random.bernoulli(key, shape=(2,)))(keys) - 1
    moved = jnp.clip(sites + steps.astype(sites.dtype), 0, size - 1)
    return moved if block is None else jnp.where(moved // block == sites // block, moved, sites)


def move_sites_1d(
    key: Array, sites: Shaped[ArrayLike, "..."], size: int, block: int | None = None
) -> Int[Array, "n 2"]:
    """Each site one step to the left or to the right, at random; those at the ends may stay.

    Args:
      key: one key, of which image i takes fold_in(key, i), or keys (N,).
      sites: (N, 2) in 0 .. L - 1.
      size: L.
      block: length of the blocks of task 2; a step into another block is not taken, so the label
        stays. None for task 1.

    Returns:
      The sites moved, clipped to 0 .. L - 1.

    Raises:
      ValueError: for sites of another shape or dtype, out of range (outside jit), or a block that
        does not divide L.
    """
    sites = check_sites(sites, size, (2,))
    if block is not None and (block < 1 or size % block):
        raise ValueError(f"block={block} does not divide size={size}; use the scale of task 2")
    return _move_1d(image_keys(key, len(sites)), sites, size, block)


@partial(jax.jit, static_argnums=2)
def _move_2d(keys, sites, size):
    def one(key):
        angle = jax.random.uniform(key, (2,), maxval=2 * math.pi)
        return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=1)

    steps = jnp.round(jax.vmap(one)(keys)).astype(sites.dtype)
    return jnp.clip(sites + steps, 0, size - 1)


def move_sites_2d(key: Array, sites: Shaped[ArrayLike, "..."], size: int) -> Int[Array, "n 2 2"]:
    """Each pixel by round(u), u a unit vector of random direction: to one of its 8 neighbours.

    Each neighbour at a side has probability 1/6, each at a corner 1/12. What would leave the image
    stays at its border.

    Args:
      key: one key, of which image i takes fold_in(key, i), or keys (N,).
      sites: (N, 2, 2), (row, column) of each pixel, in 0 .. d - 1.
      size: d.

    Returns:
      The sites moved, clipped to 0 .. d - 1.

    Raises:
      ValueError: for sites of another shape or dtype, or (outside jit) out of range.
    """
    sites = check_sites(sites, size, (2, 2))
    return _move_2d(image_keys(key, len(sites)), sites, size)


@jax.jit
def _rectified_noise(keys, images, deformed):
    scale = jnp.sqrt(jnp.square(deformed.astype(images.dtype) - images).mean())
    white = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return jax.nn.relu(scale * white)


def rectified_noise(
    key: Array, images: Shaped[ArrayLike, "..."], deformed: Shaped[ArrayLike, "..."]
) -> Float[Array, "n ..."]:
    """ReLU(s g), g of independent N(0, 1), s^2 the mean over pixels and images of the change.

    So half the pixels get nothing, no pixel falls, and the norm is below that of the deformation by
    a factor of sqrt(2) on average. The noise of the one-dimensional tasks; elsewhere it is
    `matched_noise`.

    Args:
      key: one key, of which image i takes fold_in(key, i), or keys (N,).
      images: (N, ...).
      deformed: the same images deformed, of the same shape.

    Returns:
      The noise, to be added to the images.

    Raises:
      ValueError: if the shapes differ.
    """
    images, deformed = as_floats(images), as_floats(deformed)
    if images.shape != deformed.shape:
        raise ValueError(
            f"images and deformed must have one shape, got {images.shape} and {deformed.shape}"
        )
    return _rectified_noise(image_keys(key, len(images)), images, deformed)


def probe_sites_1d(
    key: Array, sites: Shaped[ArrayLike, "..."], size: int, block: int | None = None
) -> Probes:
    """Images of pairs on a line, deformed by `move_sites_1d`, and under `rectified_noise`.

    Args:
      key: of all draws.
      sites: (N, 2) in 0 .. L - 1.
      size: L.
      block: length of the blocks in task 2; None for task 1.

    Raises:
      ValueError: as `move_sites_1d`.
    """
    first, second = jax.random.split(key)
    images = render_1d(sites, size)
    deformed = render_1d(move_sites_1d(first, sites, size, block), size)
    return Probes(images, deformed, images + rectified_noise(second, images, deformed))


def probe_sites_2d(key: Array, sites: Shaped[ArrayLike, "..."], size: int) -> Probes:
    """Images of pairs on a square, deformed by `move_sites_2d`, and under `matched_noise`.

    Args:
      key: of all draws.
      sites: (N, 2, 2), (row, column) of each pixel, in 0 .. d - 1.
      size: d.

    Raises:
      ValueError: as `move_sites_2d`.
    """
    first, second = jax.random.split(key)
    images = render_2d(sites, size)
    deformed = render_2d(move_sites_2d(first, sites, size), size)
    return Probes(images, deformed, images + matched_noise(second, images, deformed))
