"""Balanced random subsets of a labelled set."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Integer, PRNGKeyArray, UInt32

from recon_jax.checks import check_integer, is_concrete
from recon_jax.probes.checks import check_labels


@partial(jax.jit, static_argnames=("shots", "num_classes"))
def _draw(key, labels, shots, num_classes):
    order = jax.random.permutation(key, len(labels))
    # A stable sort by label keeps the random order within a class.
    by_class = order[jnp.argsort(labels[order], stable=True)]
    counts = jnp.sum(labels[None, :] == jnp.arange(num_classes)[:, None], 1)
    starts = jnp.cumsum(counts) - counts
    return by_class[(starts[:, None] + jnp.arange(shots)[None, :]).ravel()].astype(jnp.int32)


def few_shot_split(
    key: PRNGKeyArray | UInt32[Array, "2"],
    labels: Integer[ArrayLike, " n"],
    shots: int,
    num_classes: int,
) -> Int[Array, " m"]:
    """Indices of a random subset with the same number of examples of every class.

    A pure function of (key, labels): with the same key, more shots only add examples.

    Args:
      key: random key.
      labels: class indices (N,) in 0 .. C - 1.
      shots: examples of each class, at least 1.
      num_classes: C, at least 2.

    Returns:
      C * shots different indices, int32, grouped by class in ascending order.

    Raises:
      ValueError: if a class has fewer examples than `shots`, a label is out of range, or `shots` is
        smaller than 1 (values: outside jit).
    """
    labels = jnp.asarray(labels)
    check_labels(labels, num_classes)
    check_integer("shots", shots, 1)
    if is_concrete(labels):
        counts = np.bincount(np.asarray(labels), minlength=num_classes)
        if counts.min() < shots:
            raise ValueError(
                f"class {counts.argmin()} has {counts.min()} example(s), fewer than shots={shots}; "
                f"ask for at most {counts.min()} or leave the class out"
            )
    return _draw(key, labels, shots, num_classes)
