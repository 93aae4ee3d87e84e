"""Two views of the same images: what losses that compare them ask of their embeddings."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import is_concrete
from recon_jax.features import check_features


class ViewPairs(NamedTuple):
    """Embeddings of two views, row i of both from the same image.

    Attributes:
      view_a: (n, D), zero where the pair does not count.
      view_b: likewise.
      counts: (n,) 1 for pairs that count, 0 for padding.
    """

    view_a: Float[Array, "n d"]
    view_b: Float[Array, "n d"]
    counts: Float[Array, " n"]


def view_pairs(
    view_a: ArrayLike, view_b: ArrayLike, mask: ArrayLike | None, axis_name: str | None
) -> ViewPairs:
    """The pairs in float32 or float64, checked; ValueError if they cannot be compared.

    There must be two pairs or more over all devices; values, and how many pairs a mask leaves, are
    checked outside jit only.
    """
    view_a, view_b = jnp.asarray(view_a), jnp.asarray(view_b)
    if view_a.ndim != 2 or view_a.shape != view_b.shape:
        raise ValueError(
            "view_a and view_b must be matrices (n, D) of one shape, row i of both from the same "
            f"image; got {view_a.shape} and {view_b.shape}"
        )
    counts = np.ones(len(view_a), bool) if mask is None else mask
    if jnp.shape(counts) != view_a.shape[:1]:
        raise ValueError(
            f"mask must have one entry a pair, ({len(view_a)},), got {jnp.shape(counts)}"
        )
    _check_number(view_a, counts, axis_name)
    counts = jnp.asarray(counts, bool)
    dtype = jnp.promote_types(jnp.result_type(view_a, view_b), jnp.float32)
    views = [jnp.where(counts[:, None], view, 0).astype(dtype) for view in (view_a, view_b)]
    for name, view in zip(("view_a", "view_b"), views, strict=True):
        check_features(view, name)
    return ViewPairs(*views, counts.astype(dtype))


def _check_number(view_a: Array, counts: ArrayLike, axis_name: str | None) -> None:
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    pairs = devices * len(view_a)
    if axis_name is None and is_concrete(counts):
        pairs = int(np.asarray(counts, bool).sum())
    if pairs < 2:
        raise ValueError(
            f"{pairs} pair(s) of views have no other image to be compared with; a batch needs two "
            "images or more that count"
        )
