"""The fully connected autoencoder of the spectrum experiment."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from recon_jax.checks import check_integer
from recon_jax.models.autoencoding import Autoencoder
from recon_jax.models.layers import DenseBlock, flatten, linear_widths, torch_uniform


class DenseStack(nn.Module):
    """Linear without bias, batch norm, ReLU for each width but the last, which is Linear alone.

    Attributes:
      widths: output widths of the layers.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    widths: tuple[int, ...]
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Num[Array, "n ..."], *, train: bool = False) -> Float[Array, "n k"]:
        """Rows of the last width."""
        block = partial(DenseBlock, dtype=self.dtype, axis_name=self.axis_name)
        x = flatten(x)
        for i, width in enumerate(self.widths[:-1], start=1):
            x = block(width, name=f"hidden{i}")(x, train=train)
        last = nn.Dense(self.widths[-1], dtype=self.dtype, kernel_init=torch_uniform, name="last")
        return last(x)


class MLPAutoencoder(Autoencoder):
    """Perceptron encoder and decoder whose widths change in equal steps, with sigmoid output.

    Encoder widths are linspace(H W C, latent_size, depth) rounded down, the decoder's the same
    upwards: 3072-1792-512-1792-3072 for CIFAR at depth 3 and 512 latents. Kernels begin as
    `torch_uniform`. Representations: "encoder/hidden1", ..., "latent", "decoder/hidden1", ...,
    "reconstruction".

    Attributes:
      image_shape: (H, W, C).
      latent_size: entries of the latent, >= 1.
      depth: number of widths of the encoder, pixels and latent included, >= 2; 2 is linear.
      decoder_depth: the same for the decoder; as the encoder if None.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code; depths 3 and 5, and 2 to 12
    on each side.
    """

    latent_size: int = 512
    depth: int = 3
    decoder_depth: int | None = None
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_integer("depth", self.depth, 2)
        if self.decoder_depth is not None:
            check_integer("decoder_depth", self.decoder_depth, 2)
        super().__post_init__()

    def setup(self):
        """Both stacks."""
        pixels = math.prod(self.image_shape)
        down = linear_widths(pixels, self.latent_size, self.depth)
        up = linear_widths(self.latent_size, pixels, self.decoder_depth or self.depth)
        stack = partial(DenseStack, dtype=self.dtype, axis_name=self.axis_name)
        self.encoder = stack(tuple(down[1:]))
        self.decoder = stack(tuple(up[1:]))
