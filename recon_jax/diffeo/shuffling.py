"""Networks with shuffled channels: they keep their filters and lose what channels do together."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from recon_jax.diffeo.pooling import is_filter_bank, path_name


def shuffle_channels(key: jax.Array, params: PyTree, outputs: bool = False) -> PyTree:
    """Parameters whose convolutions read their input channels in a random order.

    One permutation for each kernel (FH, FW, C_in, C_out), of its input channels, the same for all
    output channels; the first layer's are permuted too. Pooling over channels, which needs filters
    to meet the right ones, is destroyed; pooling over space, which the filters do on their own, is
    kept. So a trained network against its shuffled one shows channel pooling, and the shuffled one
    against initialisation spatial pooling. Biases, batch norm and dense layers stay. So do
    depthwise kernels (C_in = 1).

    Args:
      key: from which, and from its path, each kernel's permutation is drawn; it does not depend on
        what other layers there are.
      params: of a network, as Flax has them: nested mappings in which kernels are called "kernel".
      outputs: permute the output channels of the kernels too, in another order.

    Returns:
      A tree of the same structure, shapes and dtypes.

    Raises:
      ValueError: if there is no kernel of four axes.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), section 3 and released code.
    """
    banks = [path for path, leaf in jax.tree.leaves_with_path(params) if is_filter_bank(path, leaf)]
    if not banks:
        raise ValueError(
            'params hold no "kernel" of four axes (FH, FW, C_in, C_out): only the channels of '
            "two-dimensional convolutions are shuffled, not those of dense layers"
        )

    def shuffle(path, leaf):
        if not is_filter_bank(path, leaf):
            return leaf
        # Not Python's hash, which differs from process to process.
        own = jax.random.fold_in(key, zlib.crc32(path_name(path).encode()))
        for index, axis in enumerate((2, 3) if outputs else (2,)):
            order = jax.random.permutation(jax.random.fold_in(own, index), leaf.shape[axis])
            leaf = jnp.take(leaf, order, axis=axis)
        return leaf

    return jax.tree.map_with_path(shuffle, params)
