"""Whether features tell two views of one image from views of different images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import is_concrete
from recon_jax.features import check_features, unit_rows


def non_invariance(
    view_a: Float[ArrayLike, "n d"], view_b: Float[ArrayLike, "n d"]
) -> Float[Array, ""]:
    """mean_i |a_i - b_i|^2 / mean_{i != j} |a_i - b_j|^2: 0 invariant, about 1 strangers.

    Rows are centred by the mean over both views, without which features after a ReLU would all
    point one way, and then scaled to length 1; a row at the mean stays zero. Strangers are all
    N (N - 1) ordered pairs, in closed form from the sums of rows. Were views paired at random, both
    means would have the same expectation. Compare models at one strength of the augmentation, the
    same for all of them.

    Args:
      view_a: features (N, D) of one view of each image, at least two rows.
      view_b: features of another view of the same images in the same order.

    Returns:
      A number >= 0, to about 1e-6 in float32; infinite if all strangers are the same, twins not.

    Raises:
      ValueError: if the shapes or dtypes differ, there are fewer than two rows, entries are not
        finite, or all features of both views are the same (values: outside jit).

    Source: Cosentino et al. 2022 (arXiv 2205.06926) compare the invariance of encoder and
    projector; this ratio was defined for this library.

    >>> view = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> round(float(non_invariance(view, view)), 6)
    0.0
    """
    a, b = jnp.asarray(view_a), jnp.asarray(view_b)
    check_features(a, "view_a")
    check_features(b, "view_b")
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"view_a {a.dtype}{list(a.shape)} and view_b {b.dtype}{list(b.shape)} must be features "
            "of the same images in the same order"
        )
    if len(a) < 2:
        raise ValueError(f"{len(a)} image has no strangers; non_invariance needs at least 2")
    if is_concrete(a, b):
        first = np.asarray(a[:1])
        if (np.asarray(a) == first).all() and (np.asarray(b) == first).all():
            raise ValueError(
                "features are constant: both views of all images are the same point, so invariance "
                "means nothing; look for a collapsed network"
            )
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    return _non_invariance(a.astype(dtype), b.astype(dtype))


@jax.jit
def _non_invariance(a, b):
    count = len(a)
    # Differences from one row first: the mean of a large constant is not that constant in float32.
    origin = a[:1]
    a, b = a - origin, b - origin
    centre = (a.mean(0, keepdims=True) + b.mean(0, keepdims=True)) / 2
    a, b = unit_rows(a - centre), unit_rows(b - centre)
    twins = jnp.square(a - b).sum()
    squares = jnp.square(a).sum() + jnp.square(b).sum()
    everyone = count * squares - 2 * jnp.sum(a.sum(0) * b.sum(0))
    return twins * (count - 1) / (everyone - twins)
