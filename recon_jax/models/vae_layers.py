"""Layers of the variational autoencoders, with the norm as an option.

Kernels begin as `torch_uniform`, biases at zero. Layer norm is over the channels of each place.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from recon_jax.models.convolution import conv_general_dilated, conv_transpose, shifts
from recon_jax.models.intermediates import record
from recon_jax.models.layers import batch_norm, torch_uniform
from recon_jax.models.upsampling import UpsamplingConv, output_padding

NORMS = ("batch", "layer", "none")


class Layer(nn.Module):
    """Base of what has a norm.

    Attributes:
      features: output channels.
      norm: one of `NORMS`.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def options(self) -> dict[str, Any]:
        """Of a linear layer that the norm follows: it has no bias unless there is no norm."""
        return {
            "use_bias": self.norm == "none",
            "dtype": self.dtype,
            "kernel_init": torch_uniform,
        }

    def normalize(self, x: Array, train: bool, name: str = "norm") -> Array:
        """The maps or rows, normalised as asked."""
        if self.norm == "batch":
            return batch_norm(train, self.dtype, self.axis_name, name)(x)
        if self.norm == "layer":
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x)
        return x


class DenseLayer(Layer):
    """Linear, norm, ReLU or ELU.

    Attributes:
      use_elu: ELU instead of ReLU.
    """

    use_elu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> Float[Array, "n k"]:
        """Rows of `features` entries."""
        x = nn.Dense(self.features, **self.options(), name="dense")(x)
        x = self.normalize(x, train)
        return record(self, nn.elu(x) if self.use_elu else nn.relu(x))


class ConvLayer(Layer):
    """Convolution, norm, ReLU or ELU.

    Attributes:
      kernel_size: odd, pixels a side.
      stride: pixels; n pixels become ceil(n / stride).
      use_elu: ELU instead of ReLU.
    """

    kernel_size: int = 5
    stride: int = 1
    use_elu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels."""
        conv = nn.Conv(
            self.features,
            (self.kernel_size,) * 2,
            self.stride,
            padding=self.kernel_size // 2,
            conv_general_dilated=conv_general_dilated,
            **self.options(),
            name="conv",
        )
        x = self.normalize(conv(x), train)
        return record(self, nn.elu(x) if self.use_elu else nn.relu(x))


class UpLayer(Layer):
    """5 x 5 transposed convolution of stride 2, norm, ReLU.

    Attributes:
      size: output height and width.
    """

    size: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 k"]:
        """Maps of the given size."""
        x = UpsamplingConv(self.features, 5, self.size, **self.options(), name="conv")(x)
        return record(self, nn.relu(self.normalize(x, train)))


class ResidualUnit(Layer):
    """ELU(x + norm(1 x 1 convolution(ELU(norm(5 x 5 convolution(x)))))), of one width."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c"]:
        """Maps of the same shape."""
        options = self.options() | {"conv_general_dilated": conv_general_dilated}
        y = nn.Conv(self.features, (5, 5), padding=2, **options, name="conv1")(x)
        y = nn.elu(self.normalize(y, train, "norm1"))
        y = nn.Conv(self.features, (1, 1), **options, name="conv2")(y)
        return record(self, nn.elu(x + self.normalize(y, train, "norm2")))


class Doubling(nn.Module):
    """4 x 4 transposed convolution of stride 2 that gives exactly `size`, 2 n or 2 n - 1 pixels.

    Attributes:
      features: output channels.
      size: output height and width.
      use_bias: add a bias a channel, zero at first.
      dtype: of the computation.
    """

    features: int
    size: tuple[int, ...]
    use_bias: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        """Maps of the given size."""
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", torch_uniform, shape, jnp.float32).astype(self.dtype)
        padding = [(2, 1 + extra) for extra in output_padding(x.shape[1:3], self.size)]
        x = conv_transpose(x.astype(self.dtype), kernel, (2, 2), padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x


def halve(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Means over windows of 2 x 2; the last one of an odd side holds one row or column."""
    height, width = x.shape[1:3]
    padding = [(0, height % 2), (0, width % 2)]
    counts = [np.minimum(2, side - np.arange(0, side, 2)) for side in (height, width)]
    share = 1 / np.outer(*counts)
    # As shifted maps: XLA's window reduction has a slow gradient on the CPU.
    return sum(shifts(x, (2, 2), (2, 2), padding)) * share.astype(x.dtype)[None, :, :, None]


class DoublingLayer(Layer):
    """`Doubling`, norm, ELU.

    Attributes:
      size: output height and width.
    """

    size: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 k"]:
        """Maps of the given size."""
        use_bias = self.norm == "none"
        x = Doubling(self.features, self.size, use_bias, self.dtype, name="conv")(x)
        return record(self, nn.elu(self.normalize(x, train)))
