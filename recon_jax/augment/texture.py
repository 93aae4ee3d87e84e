"""Texture of a known strength and correlation over images: a nuisance that is local by design."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from recon_jax.augment.policies import Policy


def texture(
    image_shape: tuple[int, int, int],
    strength: float = 0.15,
    correlation: float = 0.85,
    brightness: float = 0.3,
    contrast: float = 0.4,
) -> Policy:
    """Images of lower contrast under a random field: clip(b + c x + s t, 0, 1).

    t is Gaussian of mean 0 and variance 1, the same in all channels, with
    E t[y, x] t[y', x'] = r^(|y - y'| + |x - x'|): an autoregressive process along each axis, drawn
    exactly by two matrix products.

    Args:
      image_shape: (H, W, C) of images in [0, 1].
      strength: s, standard deviation of the field in units of the pixels, >= 0.
      correlation: r of neighbours, in [0, 1); 0 is white noise.
      brightness: b, of a black pixel without texture, in [0, 1].
      contrast: c, in (0, 1 - b].

    Returns:
      The `Policy`.

    Raises:
      ValueError: if a number is out of range.
    """
    if not strength >= 0:
        raise ValueError(f"strength={strength} must be at least 0; 0 draws no texture")
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation={correlation} must lie in [0, 1); 0 is white noise")
    if not (0 <= brightness <= 1 and 0 < contrast <= 1 - brightness):
        raise ValueError(
            f"brightness={brightness} and contrast={contrast} must keep b + c x in [0, 1]: b in "
            "[0, 1], c in (0, 1 - b]"
        )
    vertical, horizontal = (_autoregressive_root(side, correlation) for side in image_shape[:2])

    def one(key, image):
        white = jax.random.normal(key, image.shape[:2], image.dtype)
        field = vertical.astype(image.dtype) @ white @ horizontal.T.astype(image.dtype)
        return jnp.clip(brightness + contrast * image + strength * field[:, :, None], 0, 1)

    return jax.vmap(one)


def _autoregressive_root(side: int, correlation: float) -> np.ndarray:
    """L with L L^T = r^|i - j|."""
    distance = np.abs(np.arange(side)[:, None] - np.arange(side)[None, :])
    return np.linalg.cholesky(float(correlation) ** distance)
