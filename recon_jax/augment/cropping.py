"""Windows of random area and aspect ratio within images."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def window(
    area: Float[Array, ""], log_ratio: Float[Array, ""], place: Float[Array, "2"]
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Start and shape of a window as fractions of the image's height and width.

    The shape is sqrt(a r) and sqrt(a / r), each cut to 1, so that a window which does not fit
    loses area.

    Args:
      area: a, fraction of the image's area, in (0, 1].
      log_ratio: log r, of height to width.
      place: 0 puts the window at the top or the left, 1 at the bottom or the right, (2,).

    Returns:
      The upper left corner (2,) and the shape (2,).
    """
    shape = jnp.sqrt(area * jnp.exp(jnp.stack([log_ratio, -log_ratio])))
    shape = jnp.minimum(shape, 1)
    return place * (1 - shape), shape
