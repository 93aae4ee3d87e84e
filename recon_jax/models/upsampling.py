"""Transposed convolutions that give back exactly the size a strided convolution took away."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from recon_jax.models.convolution import conv_transpose
from recon_jax.models.layers import he_normal


def output_padding(inputs: tuple[int, ...], size: tuple[int, ...]) -> list[int]:
    """Extra rows and columns, 0 or 1, that take a stride-2 transposed convolution to `size`."""
    extra = [target - (2 * length - 1) for length, target in zip(inputs, size, strict=True)]
    if not set(extra) <= {0, 1}:
        raise ValueError(
            f"maps of {tuple(inputs)} cannot be doubled to {tuple(size)}; each side n can become "
            "2 n - 1 or 2 n"
        )
    return extra


class UpsamplingConv(nn.Module):
    """Transposed convolution of stride 2 that gives exactly `size`.

    The mirror of a stride-2 convolution padded by kernel_size // 2, which takes both 2 n - 1 and
    2 n pixels to n: PyTorch's `output_padding` of 0 or 1 chooses between the two, so that images
    of any size come back in their own. The kernel is applied as in Flax, not flipped.

    Attributes:
      features: output channels.
      kernel_size: odd, pixels a side.
      size: output height and width.
      use_bias: add a bias a channel, zero at first.
      kernel_init: initialiser of the kernel.
      dtype: of the computation.
    """

    features: int
    kernel_size: int
    size: tuple[int, int]
    use_bias: bool
    kernel_init: Initializer = he_normal
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        """Maps of the given size."""
        border = self.kernel_size // 2
        padding = [(border, border + extra) for extra in output_padding(x.shape[1:3], self.size)]
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = conv_transpose(x.astype(self.dtype), kernel, (2, 2), padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x


def halved(size: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width after a convolution of stride 2: ceil(n / 2)."""
    return tuple(-(-length // 2) for length in size)
