"""The convolutional autoencoder of the spectrum experiment."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from recon_jax.checks import check_integer
from recon_jax.models.autoencoding import Autoencoder
from recon_jax.models.intermediates import record
from recon_jax.models.layers import ConvBlock, linear_widths, torch_uniform
from recon_jax.models.upsampling import UpsamplingConv, halved


class DownStack(nn.Module):
    """3 x 3 convolutions of stride 2 with bias, ReLU between them.

    Attributes:
      widths: output channels of the layers.
      dtype: of the computation.
    """

    widths: tuple[int, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Num[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of the last width; `train` changes nothing."""
        for i, width in enumerate(self.widths, start=1):
            x = ConvBlock(
                width,
                stride=2,
                use_bias=True,
                use_norm=False,
                use_relu=i < len(self.widths),
                kernel_init=torch_uniform,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
        return x


class UpBlock(nn.Module):
    """3 x 3 transposed convolution of stride 2 with bias to a given size, ReLU if asked.

    Attributes:
      features: output channels.
      size: output height and width.
      use_relu: ReLU at the end.
      dtype: of the computation.
    """

    features: int
    size: tuple[int, int]
    use_relu: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Num[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        """Maps of the given size."""
        options = {"use_bias": True, "kernel_init": torch_uniform, "dtype": self.dtype}
        x = UpsamplingConv(self.features, 3, self.size, **options, name="conv")(x)
        return record(self, nn.relu(x) if self.use_relu else x)


class UpStack(nn.Module):
    """The mirror of a `DownStack`.

    Attributes:
      widths: output channels of the layers.
      sizes: output height and width of the layers.
      dtype: of the computation.
    """

    widths: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Num[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of the last width and size; `train` changes nothing."""
        for i, (width, size) in enumerate(zip(self.widths, self.sizes, strict=True), start=1):
            use_relu = i < len(self.widths)
            x = UpBlock(width, size, use_relu, self.dtype, name=f"conv{i}")(x)
        return x


class ConvAutoencoder(Autoencoder):
    """Strided convolutions and their mirror, without batch norm, with sigmoid output.

    Channels are linspace(first_width, latent_size, depth) rounded down: 32-272-512 at depth 3,
    32-152-272-392-512 at depth 5. Each convolution halves the side, rounding up; its mirror gives
    back the side it was, so images of any size are reconstructed in their own. The latent is a map
    of latent_size channels: 4 x 4 x 512 from 32 x 32 at depth 3, 1 x 1 x 512 at depth 5. Kernels
    begin as `torch_uniform`. Representations: "encoder/conv1", ..., "latent", "decoder/conv1", ...,
    "reconstruction".

    Attributes:
      image_shape: (H, W, C).
      latent_size: channels of the latent, >= 1.
      depth: convolutions of the encoder, and of the decoder, >= 2.
      first_width: channels of the first convolution, >= 1.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: for an option out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code; depths 3 and 5.
    """

    latent_size: int = 512
    depth: int = 3
    first_width: int = 32
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_integer("depth", self.depth, 2)
        check_integer("first_width", self.first_width, 1)
        super().__post_init__()

    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Height and width of the images and after each convolution."""
        sizes = [self.image_shape[:2]]
        for _ in range(self.depth):
            sizes.append(halved(sizes[-1]))
        return tuple(sizes)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one image: (H', W', latent_size)."""
        return (*self.sizes()[-1], self.latent_size)

    def setup(self):
        """Both stacks."""
        widths = linear_widths(self.first_width, self.latent_size, self.depth)
        self.encoder = DownStack(tuple(widths), self.dtype)
        mirrored = (*widths[-2::-1], self.image_shape[-1])
        self.decoder = UpStack(mirrored, self.sizes()[-2::-1], self.dtype)
