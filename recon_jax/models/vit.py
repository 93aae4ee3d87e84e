"""Vision transformer: images as patches, fixed positions, pre-norm blocks, an encoder."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Num, Shaped

from recon_jax.models.checks import as_image_shape, as_images, check_at_least
from recon_jax.models.intermediates import record

# As in He et al. 2022: Glorot-uniform kernels, tokens N(0, 0.02^2), epsilon 1e-6 in layer norms.
glorot = nn.initializers.xavier_uniform()
token_init = nn.initializers.normal(0.02)
EPSILON = 1e-6


def check_patch_size(patch_size: int, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless square patches of this side divide the image (H, W, C)."""
    check_at_least("patch_size", patch_size, 1)
    height, width = image_shape[:2]
    for name, side in (("height", height), ("width", width)):
        if side % patch_size:
            common = math.gcd(height, width)
            sides = ", ".join(str(k) for k in range(1, common + 1) if common % k == 0)
            raise ValueError(
                f"patch_size={patch_size} does not divide image {name} {side}; choose one of "
                f"{sides}"
            )


def check_attention(name: str, width: int, depth: int, heads: int) -> None:
    """Raise ValueError unless tokens of `width` can be cut into heads and hold 2-D positions."""
    check_at_least(f"{name} depth", depth, 1)
    check_at_least(f"{name} heads", heads, 1)
    check_at_least(f"{name} width", width, 4)
    if width % heads or width % 4:
        step = math.lcm(heads, 4)
        raise ValueError(
            f"{name} width={width} must be a multiple of its {heads} heads and of 4, for sines "
            f"and cosines of two coordinates; such as {-(-width // step) * step}"
        )


def patchify(images: Num[ArrayLike, "n h w c"], patch_size: int) -> Num[Array, "n p k"]:
    """Patches of images, row by row, each flattened over its height, width and channel.

    Args:
      images: (N, H, W, C).
      patch_size: side in pixels; must divide H and W.

    Returns:
      (N, P, K) with P = H W / patch_size^2 and K = patch_size^2 C.

    Raises:
      ValueError: if the patches do not divide the images.
    """
    images = as_images(images)
    count, height, width, channels = images.shape
    check_patch_size(patch_size, images.shape[1:])
    rows, columns = height // patch_size, width // patch_size
    cut = images.reshape(count, rows, patch_size, columns, patch_size, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * columns, -1)


def unpatchify(
    patches: Num[ArrayLike, "n p k"], patch_size: int, image_shape: tuple[int, ...]
) -> Num[Array, "n h w c"]:
    """The images of which `patchify` made these patches.

    Args:
      patches: (N, P, K).
      patch_size: side in pixels.
      image_shape: (H, W, C).

    Raises:
      ValueError: if P and K do not fit images of that shape.
    """
    patches, (height, width, channels) = jnp.asarray(patches), as_image_shape(image_shape)
    check_patch_size(patch_size, (height, width, channels))
    rows, columns = height // patch_size, width // patch_size
    expected = (rows * columns, patch_size * patch_size * channels)
    if patches.shape[1:] != expected:
        raise ValueError(
            f"patches must have shape (N, {expected[0]}, {expected[1]}) for images of "
            f"{height} x {width} x {channels}, got {patches.shape}"
        )
    cut = patches.reshape(-1, rows, columns, patch_size, patch_size, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed embeddings of the positions of a grid, (rows * columns, width).

    A coordinate t becomes sin(t w_i), cos(t w_i) with w_i = 10000^(-4 i / width) for
    i = 0 .. width / 4 - 1; the first half of the entries is of the column, the second of the row.

    Args:
      rows: of the grid.
      columns: of the grid.
      width: of a token, a multiple of 4.

    Source: He et al. 2022 (arXiv 2111.06377), released code.
    """
    rates = 10_000.0 ** (-np.arange(width // 4) / (width / 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [t[:, None] * rates[None, :] for t in (column, row)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(width of a head)) v, then a linear map.

    Attributes:
      heads: must divide the width of the tokens.
      dtype: of the computation; the softmax is in float32 at least.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        """Tokens of the same shape."""
        count, tokens, width = x.shape
        dense = {"dtype": self.dtype, "kernel_init": glorot}
        qkv = nn.Dense(3 * width, **dense, name="qkv")(x)
        # Heads first: the products over tokens are then plain batched matrix products.
        qkv = qkv.reshape(count, tokens, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = qkv * jnp.asarray([qkv.shape[-1] ** -0.5, 1, 1], qkv.dtype).reshape(3, 1, 1, 1, 1)
        scores = jnp.matmul(q, k.swapaxes(-1, -2))
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        weights = jax.nn.softmax(scores.astype(wide), axis=-1).astype(v.dtype)
        mixed = jnp.matmul(weights, v).transpose(0, 2, 1, 3).reshape(x.shape)
        return record(self, nn.Dense(width, **dense, name="out")(mixed))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP is linear, GELU (exact), linear.

    Attributes:
      heads: of the attention.
      dtype: of the computation.
      mlp_ratio: hidden width of the MLP over that of the tokens.
    """

    heads: int
    dtype: DTypeLike = jnp.float32
    mlp_ratio: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        """Tokens of the same shape."""
        width, dense = x.shape[-1], {"dtype": self.dtype, "kernel_init": glorot}
        y = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm1")(x)
        x = x + Attention(self.heads, self.dtype, name="attention")(y)
        y = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm2")(x)
        y = nn.Dense(self.mlp_ratio * width, **dense, name="mlp1")(y)
        y = nn.gelu(y, approximate=False)
        return record(self, x + nn.Dense(width, **dense, name="mlp2")(y))


class TokenMixer(nn.Module):
    """Pre-norm blocks and a last layer norm: what encoder and decoder are made of.

    Attributes:
      depth: blocks, "block1", ...
      heads: of each.
      dtype: of the computation.
    """

    depth: int
    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        """Tokens of the same shape."""
        for block in range(1, self.depth + 1):
            x = TransformerBlock(self.heads, self.dtype, name=f"block{block}")(x)
        return nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm")(x)


def take_tokens(tokens: Shaped[Array, "n t d"], index: Num[Array, "n m"]) -> Shaped[Array, "n m d"]:
    """tokens[i, index[i, j]] for every image i."""
    return jnp.take_along_axis(tokens, index[:, :, None], axis=1)


class ViTEncoder(nn.Module):
    """Class token and patches, linearly embedded with fixed positions, through pre-norm blocks.

    Attributes:
      grid: rows and columns of patches.
      width: of a token.
      depth: blocks.
      heads: of each block.
      dtype: of the computation; parameters are float32.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), with the positions of He et al. 2022.
    """

    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, patches: Num[Array, "n p k"], kept: Num[Array, "n m"] | None = None
    ) -> Float[Array, "n t d"]:
        """Class token, then the tokens of the patches `kept`, in that order; of all if None."""
        positions = jnp.asarray(sincos_positions(*self.grid, self.width), self.dtype)[None]
        positions = jnp.broadcast_to(positions, (len(patches), *positions.shape[1:]))
        if kept is not None:  # before the embedding: what is masked must cost nothing
            patches, positions = take_tokens(patches, kept), take_tokens(positions, kept)
        embed = nn.Dense(self.width, dtype=self.dtype, kernel_init=glorot, name="embed")
        first = self.param("class_token", token_init, (1, 1, self.width), jnp.float32)
        first = jnp.broadcast_to(first.astype(self.dtype), (len(patches), 1, self.width))
        x = record(self, jnp.concatenate([first, embed(patches) + positions], axis=1), "tokens")
        return TokenMixer(self.depth, self.heads, self.dtype, name="blocks")(x)
