"""A variational autoencoder that is given the label, and a classifier that guesses it."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from recon_jax.models.vae import VAE, VAEOutput


class SemiSupervisedVAE(nn.Module):
    """The model M2: q(y|x) by a classifier, q(z|x, y) and p(x|y, z) by a `VAE` with classes.

    Parameters lie under "vae" and "classifier", each as if it were alone.

    Attributes:
      vae: with `num_classes` of at least 2.
      classifier: pixels in [-1, 1] -> logits (N, num_classes), with `train`.

    Raises:
      ValueError: if the two differ in the number of classes.

    Source: Kingma et al. 2014 (arXiv 1406.5298), M2; Zhang et al. 2022 (arXiv 2205.14539) put a
    local decoder into it.
    """

    vae: VAE
    classifier: nn.Module

    def __post_init__(self):
        classes = (self.vae.num_classes, getattr(self.classifier, "num_classes", None))
        if classes[0] < 2 or classes[0] != classes[1]:
            raise ValueError(
                f"the VAE has num_classes={classes[0]} and the classifier {classes[1]}; both need "
                "the number of classes of the data, 2 or more"
            )
        super().__post_init__()

    def classify(self, pixels: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of q(y|x) for pixels (N, H, W, C) in [-1, 1]."""
        return self.classifier(jnp.asarray(pixels), train=train)

    def __call__(
        self,
        pixels: ArrayLike,
        noise: ArrayLike | None = None,
        labels: Integer[ArrayLike, " n"] | None = None,
        *,
        train: bool = False,
    ) -> VAEOutput:
        """What the VAE makes of the images with their labels, or with the likeliest ones if None.

        Args:
          pixels: (N, H, W, C) in [-1, 1].
          noise: (N, Z), standard normal; None for the posterior's mean.
          labels: (N,).
          train: use and update batch statistics.
        """
        guessed = jnp.argmax(self.classify(pixels, train=train), 1)
        return self.vae(pixels, noise, guessed if labels is None else labels, train=train)
