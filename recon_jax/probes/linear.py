"""The linear probe: an affine map from features to class scores."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


class LinearProbe(NamedTuple):
    """Affine classifier, scores = x W + b; a pytree.

    Attributes:
      weights: W (D, C).
      bias: b (C,).
    """

    weights: Float[Array, "d c"]
    bias: Float[Array, " c"]

    def logits(self, features: Float[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Class scores (N, C) of features (N, D)."""
        features = jnp.asarray(features)
        if features.shape[1] != self.weights.shape[0]:
            raise ValueError(
                f"{features.shape[1]} features, but the probe was fitted on {self.weights.shape[0]}"
            )
        return jnp.matmul(features, self.weights, precision="highest") + self.bias[None, :]
