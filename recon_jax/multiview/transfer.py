"""Features of a downstream task, a stated part of which the pretraining data holds too.

Source: Pan et al. 2023 (arXiv 2206.03826), the claim that a large pretraining set covers most
features of downstream classes; how features are shared is chosen here.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float

from recon_jax.checks import check_numbers, is_concrete
from recon_jax.multiview.data_model import MultiViewSpec, sample_features


class TransferFeatures(NamedTuple):
    """Features of two tasks, rows of one orthonormal set.

    Attributes:
      pretraining: of the pretraining classes (2 k, d).
      downstream: of the downstream classes (2 c, d).
      shared: which downstream features are pretraining features too (2 c,).
    """

    pretraining: Float[Array, "f d"]
    downstream: Float[Array, "g d"]
    shared: Bool[Array, " g"]


def sample_transfer_features(
    key: Array,
    pretraining: MultiViewSpec,
    downstream: MultiViewSpec,
    overlap: ArrayLike,
    dtype: DTypeLike = jnp.float32,
) -> TransferFeatures:
    """Features of both tasks: round(overlap * 2 c) downstream features come from pretraining.

    Shared features come from different pretraining classes, either view with probability 1/2, and
    go to random places downstream. So no downstream class is a pretraining class: each of its
    features was seen beside another one. All other downstream features are new.

    With one key, pretraining features do not depend on the overlap, and what is shared at a small
    overlap stays shared at a larger one.

    Args:
      key: of the draw.
      pretraining: its k classes.
      downstream: its c classes, with patches of the same dimension d >= 2 k + 2 c.
      overlap: share of the downstream features that pretraining sees, in [0, 1]; at most k of them.
      dtype: float32 or float64.

    Raises:
      ValueError: if the dimensions differ or are too small, or the overlap is out of range or asks
        for more than k features (values: outside jit; inside, the last ones are new).

    Source: chosen here, for Pan et al. 2023 (arXiv 2206.03826).
    """
    check_numbers("overlap", overlap, "[0, 1]", "share of the features seen in pretraining")
    classes, needed = pretraining.num_classes, downstream.num_features
    if pretraining.dim != downstream.dim:
        raise ValueError(
            f"pretraining has patches of dim={pretraining.dim} and downstream of "
            f"{downstream.dim}; one encoder sees both, so give both specs the same dim"
        )
    total = pretraining.num_features + needed
    if pretraining.dim < total:
        raise ValueError(
            f"dim={pretraining.dim} cannot hold {pretraining.num_features} features of pretraining "
            f"and {needed} downstream, which may all be new; take dim >= {total}"
        )
    if is_concrete(overlap):
        shared = int(np.max(np.round(np.asarray(overlap) * needed)))
        if shared > classes:
            raise ValueError(
                f"overlap={overlap} shares {shared} of {needed} downstream features, but "
                f"{classes} pretraining classes give one each; take overlap <= "
                f"{classes / needed:.3g} or more pretraining classes"
            )
    everything = dataclasses.replace(pretraining, num_classes=classes + downstream.num_classes)
    basis_key, class_key, view_key, place_key = jax.random.split(key, 4)
    basis = sample_features(basis_key, everything, dtype)
    source = 2 * jax.random.permutation(class_key, classes)
    source = source + jax.random.bernoulli(view_key, 0.5, (classes,))
    rank = jax.random.permutation(place_key, needed)
    count = jnp.minimum(jnp.round(jnp.asarray(overlap) * needed), classes)
    shared = rank < count
    seen = basis[source[jnp.minimum(rank, classes - 1)]]
    old, new = basis[: pretraining.num_features], basis[pretraining.num_features :]
    return TransferFeatures(old, jnp.where(shared[:, None], seen, new), shared)
