"""Convolution as a matrix product, for the shapes on which XLA's CPU kernels are slow.

On the CPU, jaxlib 0.10 needs 70 times the time of the product for 3 x 3 kernels on maps of 2 x 2,
and several times for 1 x 1 kernels and, with its gradient, for strided, depthwise and transposed
convolutions. Accelerators keep XLA's own convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_jax import parallel

SMALL_SIDE = 2


def shifts(
    x: Float[Array, "n h w c"],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    fill: float = 0.0,
) -> list[Float[Array, "n h2 w2 c"]]:
    """One map for each place in a window, row by row: what every output pixel finds there.

    Args:
      x: maps (N, H, W, C).
      window: height and width.
      strides: from one output pixel to the next.
      padding: pixels before and after, for height and width.
      fill: value of the padding.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    spans = [
        (length - size) // stride * stride + 1
        for length, size, stride in zip(x.shape[1:3], window, strides, strict=True)
    ]
    return [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _as_product(x: Array, kernel: Array, strides, padding) -> Array:
    height, width, channels, features = kernel.shape
    seen = jnp.concatenate(shifts(x, (height, width), strides, padding), axis=-1)
    # Where a sum runs over two axes, places and channels, and not over one that joins them, XLA
    # computes the gradient of the kernel with its features as rows. With many pixels that product
    # takes 0.7 of the time of its transpose; with fewer than there are features, 1.1 times.
    many = seen.size > seen.shape[-1] * features
    inner = (height * width, channels) if many else (height * width * channels,)
    product = jnp.tensordot(
        seen.reshape(-1, *inner), kernel.reshape(*inner, features), axes=len(inner)
    )
    return product.reshape(*seen.shape[:-1], features)


def _depthwise(x: Array, kernel: Array, strides, padding) -> Array:
    """Each channel by a kernel of its own: a sum of shifted maps."""
    height, width, _, channels = kernel.shape
    weights = kernel.reshape(height * width, 1, 1, 1, channels)
    seen = shifts(x, (height, width), strides, padding)
    terms = [each * weight for each, weight in zip(seen, weights, strict=True)]
    return functools.reduce(jnp.add, terms)


def _pays(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides) -> bool:
    return kernel_shape[:2] == (1, 1) or set(strides) != {1} or max(x_shape[1:3]) <= SMALL_SIDE


def conv_general_dilated(
    lhs: Float[Array, "n h w c"],
    rhs: Float[Array, "kh kw c2 k"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "n h2 w2 k"]:
    """`jax.lax.conv_general_dilated`, as a matrix product where that is faster on the CPU.

    For `flax.linen.Conv(conv_general_dilated=...)`: NHWC images and HWIO kernels. Both ways agree
    up to the order of the sums.

    Args:
      lhs: images (N, H, W, C).
      rhs: kernel (KH, KW, C / groups, K).
      window_strides: (SH, SW).
      padding: as for `jax.lax`.
      **options: as for `jax.lax`; dilations and groups of several channels are left to it.
    """
    groups = options.get("feature_group_count", 1)
    plain = not isinstance(padding, str) and all(
        set(options.get(name) or (1,)) == {1} for name in ("lhs_dilation", "rhs_dilation")
    )
    if not plain or not parallel.is_cpu():
        return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    if groups == 1 and _pays(lhs.shape, rhs.shape, window_strides):
        return _as_product(lhs, rhs, window_strides, padding)
    if groups > 1 and groups == lhs.shape[-1] == rhs.shape[-1]:
        return _depthwise(lhs, rhs, window_strides, padding)
    return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def _spread(sent: list[Array], window, strides, padding) -> Array:
    """Overlap-add of the maps that each pixel sends to the places of the kernel around it.

    Pixel i sends through place k to output s i + before - k. The outputs s q + r of one remainder r
    are gathered at a time: padding with gaps would look at every place for every output.
    """
    batch, *size, features = sent[0].shape
    sides = [
        stride * (length - 1) + sum(border) - places + 2
        for length, places, stride, border in zip(size, window, strides, padding, strict=True)
    ]
    counts = [-(-side // stride) for side, stride in zip(sides, strides, strict=True)]

    def borders(axis, place, remainder):
        """Rows before and after that bring pixel i to q, or None if this place serves others."""
        shift, rest = divmod(padding[axis][0] - place - remainder, strides[axis])
        return None if rest else (shift, counts[axis] - size[axis] - shift, 0)

    def outputs(row, column):
        total = jnp.zeros((batch, *counts, features), sent[0].dtype)
        zero = jnp.zeros((), sent[0].dtype)
        for i in range(window[0]):
            for j in range(window[1]):
                vertical, horizontal = borders(0, i, row), borders(1, j, column)
                if vertical and horizontal:
                    around = ((0, 0, 0), vertical, horizontal, (0, 0, 0))
                    total += jax.lax.pad(sent[i * window[1] + j], zero, around)
        return total

    rows = [
        jnp.stack([outputs(row, column) for column in range(strides[1])], axis=3)
        for row in range(strides[0])
    ]
    whole = jnp.stack(rows, axis=2)
    whole = whole.reshape(batch, counts[0] * strides[0], counts[1] * strides[1], features)
    return whole[:, : sides[0], : sides[1]]


def conv_transpose(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c k"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "n h2 w2 k"]:
    """`jax.lax.conv_transpose`, on the CPU as a matrix product and an overlap-add.

    The kernel is not flipped: output o is the sum over s i + before - k = o of x[i] kernel[k].

    Args:
      x: maps (N, H, W, C).
      kernel: (KH, KW, C, K).
      strides: (SH, SW).
      padding: of the maps after zeros were put between their pixels, for height and width.
    """
    if not parallel.is_cpu():
        return jax.lax.conv_transpose(x, kernel, strides, padding)
    height, width, channels, _ = kernel.shape
    columns = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    product = x.reshape(-1, channels) @ columns
    # Split, not indexed: the gradient is then one concatenation, not a sum over padded places.
    sent = jnp.split(product.reshape(*x.shape[:3], -1), height * width, axis=-1)
    return _spread(sent, (height, width), strides, padding)
