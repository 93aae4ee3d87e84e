"""Noise of the size of a deformation: what sensitivity to deformations is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from recon_jax.diffeo.checks import as_floats, as_keys, image_keys


def matched_noise(
    key: jax.Array, images: Shaped[ArrayLike, "..."], deformed: Shaped[ArrayLike, "..."]
) -> Float[Array, "n ..."]:
    """Gaussian noise of each image's own deformation norm: ||eta|| = ||deformed - image||.

    eta = g ||deformed - image|| / ||g||, g of independent N(0, 1): uniform on that sphere. An image
    that was not changed gets no noise.

    Args:
      key: one key, of which image i takes fold_in(key, i), or keys (N,), as in `deform`; not the
        ones that drew the deformations.
      images: (N, ...), such as (N, H, W, C). With "gaussian" interpolation their `reference`.
      deformed: the same images deformed, of the same shape.

    Returns:
      eta, to be added to the images, of their shape; float32, or float64 if the images are.

    Raises:
      ValueError: if the shapes differ or have no axis of images.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code of the measurements, which matches
      the norms image by image.
    """
    images, deformed = as_floats(images), as_floats(deformed)
    if images.shape != deformed.shape or images.ndim < 1:
        raise ValueError(
            f"images and deformed must have one shape (N, ...), got {images.shape} and "
            f"{deformed.shape}"
        )
    return _matched_noise(as_keys(key, len(images)), images, deformed)


@jax.jit
def _matched_noise(key, images, deformed):
    def one(key, image, deformed):
        noise = jax.random.normal(key, image.shape, image.dtype)
        squared = jnp.square(deformed.astype(image.dtype) - image).sum()
        # The root has no derivative at 0, where the noise is 0 whatever its direction.
        norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
        return noise * (norm / jnp.sqrt(jnp.square(noise).sum()))

    return jax.vmap(one)(image_keys(key, len(images)), images, deformed)
