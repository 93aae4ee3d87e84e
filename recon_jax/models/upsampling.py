"""Transposed convolutions that give back exactly the size a strided convolution took away."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

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


def upsampling_conv(
    x: Float[Array, "n h w c"],
    features: int,
    kernel_size: int,
    size: tuple[int, int],
    *,
    use_bias: bool,
    kernel_init: Initializer = he_normal,
    dtype: DTypeLike = jnp.float32,
    name: str = "conv",
) -> Float[Array, "n h2 w2 k"]:
    """Transposed convolution of stride 2 that gives exactly `size`, within a compact module.

    The mirror of a stride-2 convolution padded by kernel_size // 2, which takes both 2 n - 1 and
    2 n pixels to n: PyTorch's `output_padding` of 0 or 1 chooses between the two, so that images
    of any size come back in their own. The kernel is applied as in Flax, not flipped.
    """
    border = kernel_size // 2
    padding = [(border, border + extra) for extra in output_padding(x.shape[1:3], size)]
    return nn.ConvTranspose(
        features,
        (kernel_size,) * 2,
        (2, 2),
        padding=padding,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )(x)


def halved(size: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width after a convolution of stride 2: ceil(n / 2)."""
    return tuple(-(-length // 2) for length in size)
