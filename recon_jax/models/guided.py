"""An autoencoder whose latent two classifiers read while it is trained."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer
from recon_jax.models.intermediates import record
from recon_jax.models.layers import DenseBlock, at_least_float32, flatten, torch_uniform


class Guided(NamedTuple):
    """What a guided autoencoder makes of images.

    Attributes:
      reconstruction: (N, H, W, C), in (0, 1).
      latent: (N, K), flattened where the autoencoder's is a map.
      linear_logits: of the linear head (N, classes).
      mlp_logits: of the MLP head (N, classes).
    """

    reconstruction: Float[Array, "n h w c"]
    latent: Float[Array, "n k"]
    linear_logits: Float[Array, "n classes"]
    mlp_logits: Float[Array, "n classes"]


class ProbeHead(nn.Module):
    """Linear without bias, batch norm, ReLU for each hidden width, then Linear.

    Attributes:
      hidden: widths of the hidden layers; none makes the head linear.
      num_classes: width of the logits.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    hidden: tuple[int, ...]
    num_classes: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, latent: Float[Array, "n k"], *, train: bool = False
    ) -> Float[Array, "n classes"]:
        """Logits."""
        x = latent
        for i, width in enumerate(self.hidden, start=1):
            block = DenseBlock(width, dtype=self.dtype, axis_name=self.axis_name, name=f"hidden{i}")
            x = block(x, train=train)
        last = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=torch_uniform, name="last")
        return record(self, at_least_float32(last(x)))


class GuidedAutoencoder(nn.Module):
    """An autoencoder, and a linear and an MLP head on its latent: K-C and K-1024-1024-C.

    The parameters of the autoencoder are under its own name, "autoencoder", those of the heads
    under "linear_head" and "mlp_head"; with one key the autoencoder begins the same whatever the
    heads are. Representations: those of the autoencoder under "autoencoder/", then "linear_head",
    "mlp_head/hidden1", ..., "mlp_head".

    Attributes:
      autoencoder: an `Autoencoder`, such as `ResNetAutoencoder`.
      num_classes: width of the logits, >= 1.
      hidden: widths of the hidden layers of the MLP head, at least one.
      detach: stop the gradient at the latent, so that the heads learn and the autoencoder does not
        notice them.
      dtype: of the heads' computation; parameters are float32.
      axis_name: devices over which the MLP head's batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code, guidance experiment.
    """

    autoencoder: nn.Module
    num_classes: int
    hidden: Any = (1024, 1024)
    detach: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_integer("num_classes", self.num_classes, 1)
        self.hidden = tuple(self.hidden)
        check_integer("number of hidden layers", len(self.hidden), 1)
        for width in self.hidden:
            check_integer("hidden width", width, 1)
        super().__post_init__()

    def encode(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n k"]:
        """Latents of images (N, H, W, C), one row an image."""
        return flatten(self.autoencoder.encode(images, train=train))

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Guided:
        """Reconstruction, latent, logits; batch statistics are used and updated if `train`."""
        latent = self.autoencoder.encode(images, train=train)
        rows = flatten(latent)
        seen = jax.lax.stop_gradient(rows) if self.detach else rows
        shared = {"dtype": self.dtype, "axis_name": self.axis_name}
        linear = ProbeHead((), self.num_classes, **shared, name="linear_head")
        mlp = ProbeHead(self.hidden, self.num_classes, **shared, name="mlp_head")
        linear_logits, mlp_logits = linear(seen, train=train), mlp(seen, train=train)
        return Guided(self.autoencoder.decode(latent, train=train), rows, linear_logits, mlp_logits)
