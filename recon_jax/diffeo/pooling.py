"""Spatial pooling by filters: how much of them is constant over their places, or varies slowly.

A filter whose entries are all equal sums over its window, and so forgets shifts within it without a
pooling layer. The modes of the grid of its places, ordered from smooth to rough, say how near to
that filters are; at initialisation they hold equal energy.
"""

from __future__ import annotations

from collections import OrderedDict
from numbers import Integral
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Shaped

from recon_jax.diffeo.checks import as_floats


class Modes(NamedTuple):
    """Orthonormal patterns on the grid of a filter, from smooth to rough, in float64.

    Attributes:
      values: (M,) eigenvalues of the grid's Laplacian, ascending from 0; M = FH FW.
      vectors: (M, FH, FW), the first one constant; each is positive at its first place.
    """

    values: np.ndarray
    vectors: np.ndarray


def _sides(filter_size: object) -> tuple[int, int]:
    sides = (filter_size, filter_size) if isinstance(filter_size, Integral) else filter_size
    if (
        not isinstance(sides, tuple | list)
        or len(sides) != 2
        or not all(isinstance(side, Integral) and side >= 1 for side in sides)
    ):
        raise ValueError(
            f"filter_size={filter_size!r} must be one side or (height, width), each an integer of "
            "at least 1; a filter on a line of F places is (1, F)"
        )
    return int(sides[0]), int(sides[1])


def laplacian_modes(filter_size: int | tuple[int, int]) -> Modes:
    """Eigenvectors of the Laplacian of an FH x FW grid with four neighbours and free borders.

    psi_kl[i, j] ~ cos(pi k (i + 1/2) / FH) cos(pi l (j + 1/2) / FW) with the eigenvalue
    4 sin^2(pi k / (2 FH)) + 4 sin^2(pi l / (2 FW)). For 3 x 3: 0, 1, 1, 2, 3, 3, 4, 4, 6.

    Modes of one eigenvalue could be exchanged for any rotation of them: only what they hold
    together has a meaning; see `degenerate_sums`. They lie here in the order of k.

    Args:
      filter_size: side F, or (FH, FW).

    Raises:
      ValueError: if a side is not an integer of at least 1.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), section 3 and released code.
    """
    sides = _sides(filter_size)
    values, tables = [], []
    for side in sides:
        wave = np.arange(side)
        table = np.cos(np.pi / side * wave[:, None] * (wave[None, :] + 0.5))
        tables.append(table / np.linalg.norm(table, axis=1, keepdims=True))
        values.append(4 * np.sin(np.pi * wave / (2 * side)) ** 2)
    total = (values[0][:, None] + values[1][None, :]).reshape(-1)
    vectors = np.einsum("ki,lj->klij", *tables).reshape(-1, *sides)
    # Rounding must not decide the order of equal eigenvalues.
    order = np.argsort(total.round(9), kind="stable")
    return Modes(total[order], vectors[order])


def filter_spectrum(kernels: Shaped[ArrayLike, "..."]) -> Float[Array, " modes"]:
    """Mean energy of filters in each mode: c_l^2 = mean over filters of (sum_ij w_ij psi_l,ij)^2.

    The sum over the modes is the mean squared norm of a filter. Every mode holds the same where
    weights are independent and of one variance.

    Args:
      kernels: (FH, FW, C_in, C_out), one filter for each pair of channels. Kernels (F, C_in, C_out)
        on a line are kernels[None].

    Returns:
      (M,), in the order of `laplacian_modes`; float32, or float64 if the kernels are.

    Raises:
      ValueError: if the kernels do not have these four axes, or one of them is empty.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), section 3 and released code.
    """
    kernels = as_floats(kernels)
    if kernels.ndim != 4 or 0 in kernels.shape:
        raise ValueError(
            f"kernels must have shape (FH, FW, C_in, C_out), none of them 0, got {kernels.shape}; "
            "kernels (F, C_in, C_out) on a line are kernels[None]"
        )
    vectors = jnp.asarray(laplacian_modes(kernels.shape[:2]).vectors, kernels.dtype)
    found = jnp.einsum("mij,ijab->mab", vectors, kernels, precision="highest")
    return jnp.square(found).mean((1, 2))


def path_name(path: tuple) -> str:
    """The names on the way to a leaf of a tree: "block1/conv1/conv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_filter_bank(path: tuple, leaf: object) -> bool:
    """Whether a leaf of parameters is the kernel of a convolution over two axes."""
    return path_name(path[-1:]) == "kernel" and np.ndim(leaf) == 4


def filter_spectra(params: PyTree) -> OrderedDict[str, Float[Array, " modes"]]:
    """`filter_spectrum` of all convolutions of a network whose filters have more than one place.

    Args:
      params: of a network, as Flax has them.

    Returns:
      A spectrum for the path of each convolution, such as "block1/conv1/conv", in the order of the
      tree, which is alphabetical and need not be that of the computation.
    """
    return OrderedDict(
        (path_name(path[:-1]), filter_spectrum(leaf))
        for path, leaf in jax.tree.leaves_with_path(params)
        if is_filter_bank(path, leaf) and max(leaf.shape[:2]) > 1
    )


def degenerate_sums(
    values: Shaped[ArrayLike, "..."], spectrum: Shaped[ArrayLike, "..."]
) -> tuple[np.ndarray, np.ndarray]:
    """Energy in all modes of one eigenvalue together, which no choice of the modes changes.

    Args:
      values: (M,) eigenvalues of `laplacian_modes`.
      spectrum: energies (..., M) in their order, as of `filter_spectrum`.

    Returns:
      The distinct eigenvalues (K,), ascending, and the sums (..., K).

    Raises:
      ValueError: if there is not one energy for each eigenvalue.
    """
    values, spectrum = np.asarray(values), np.asarray(spectrum)
    if spectrum.shape[-1:] != values.shape:
        raise ValueError(
            f"a spectrum of shape {spectrum.shape} does not fit {len(values)} eigenvalues; take "
            "those of laplacian_modes for the sides of the filters"
        )
    distinct, which = np.unique(values.round(9), return_inverse=True)
    return distinct, spectrum @ (which[:, None] == np.arange(len(distinct))[None, :])
