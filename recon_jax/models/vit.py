"""Vision transformer: images as patches, their positions, pre-norm blocks, an encoder."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Key, Num, Shaped

from recon_jax.checks import check_integer
from recon_jax.models.checks import as_image_shape, as_images
from recon_jax.models.intermediates import COLLECTION, record
from recon_jax.models.positions import resize_positions, sincos_positions

# As in He et al. 2022: Glorot-uniform kernels, tokens N(0, 0.02^2), epsilon 1e-6 in layer norms.
glorot = nn.initializers.xavier_uniform()
token_init = nn.initializers.normal(0.02)
EPSILON = 1e-6
KEPT = "kept"


def check_patch_size(patch_size: int, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless square patches of this side divide the image (H, W, C)."""
    check_integer("patch_size", patch_size, 1)
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
    check_integer(f"{name} depth", depth, 1)
    check_integer(f"{name} heads", heads, 1)
    check_integer(f"{name} width", width, 4)
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

    >>> patchify(jnp.zeros((2, 8, 8, 3)), patch_size=4).shape
    (2, 4, 48)
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


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact GELU, x Phi(x) = x (1 + erf(x / sqrt(2))) / 2."""
    # Not jax.nn.gelu, whose erfc takes twice as long on the CPU for digits that x Phi(x) only
    # shows where it is below 1e-6.
    half = np.asarray(0.5, x.dtype)
    return half * x * (1 + jax.lax.erf(np.asarray(np.sqrt(0.5), x.dtype) * x))


def keep(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mark what a block keeps for its backward pass, unless all is recomputed (`remat`)."""
    return checkpoint_name(x, KEPT)


class TokenDense(nn.Module):
    """A linear map of tokens (N, T, D) to (N, T, features), with a bias.

    Attributes:
      features: width of the result.
      dtype: of the computation; parameters are float32.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Num[Array, "n t d"]) -> Float[Array, "n t k"]:
        """Mapped tokens."""
        kernel = self.param("kernel", glorot, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        # As one matrix: XLA's gradient of a product over two axes at once is slow on the CPU.
        rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        rows = rows @ kernel.astype(self.dtype) + bias.astype(self.dtype)[None]
        return rows.reshape(*x.shape[:-1], self.features)


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
        qkv = keep(TokenDense(3 * width, self.dtype, name="qkv")(x))
        # Heads first: the products over tokens are then plain batched matrix products. The barrier
        # has the transpose done once; else XLA's CPU backend repeats it inside what follows.
        qkv = qkv.reshape(count, tokens, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = jax.lax.optimization_barrier(qkv)
        q = q * np.asarray(q.shape[-1] ** -0.5, q.dtype)
        scores = jnp.matmul(q, k.swapaxes(-1, -2))
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        weights = jax.nn.softmax(scores.astype(wide), axis=-1).astype(v.dtype)
        mixed = keep(jnp.matmul(weights, v).transpose(0, 2, 1, 3).reshape(x.shape))
        return TokenDense(width, self.dtype, name="out")(mixed)


def drop_path(
    branch: Float[Array, "n t d"], rate: Float[Array, ""], keys: Key[Array, " n"]
) -> Float[Array, "n t d"]:
    """A residual branch, left out of an image with probability `rate`, else over 1 - rate.

    Source: stochastic depth, Huang et al. 2016 (arXiv 1603.09382).
    """
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys)
    scale = (kept / (1 - rate)).astype(branch.dtype)
    return branch * scale[:, None, None]


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP is linear, GELU (exact), linear.

    Attributes:
      heads: of the attention.
      dtype: of the computation.
      mlp_ratio: hidden width of the MLP over that of the tokens.
      inspect: return the representations on the way too.
    """

    heads: int
    dtype: DTypeLike = jnp.float32
    mlp_ratio: int = 4
    inspect: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t d"],
        rate: Float[Array, ""],
        drop_keys: Key[Array, " n 2"] | None = None,
    ) -> tuple[Float[Array, "n t d"], dict[str, Array]]:
        """Tokens of the same shape, and {name: representation} if `inspect`: a step of a scan."""
        width = x.shape[-1]
        y = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm1")(x)
        mixed = Attention(self.heads, self.dtype, name="attention")(y)
        x = keep(x + (mixed if drop_keys is None else drop_path(mixed, rate, drop_keys[:, 0])))
        y = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm2")(x)
        y = keep(TokenDense(self.mlp_ratio * width, self.dtype, name="mlp1")(y))
        y = TokenDense(width, self.dtype, name="mlp2")(gelu(y))
        x = x + (y if drop_keys is None else drop_path(y, rate, drop_keys[:, 1]))
        return x, ({"attention": mixed, "output": x} if self.inspect else {})


class TokenMixer(nn.Module):
    """Pre-norm blocks and a last layer norm: what encoder and decoder are made of.

    The parameters of all blocks are stacked, with a leading axis of length depth, and one block is
    compiled and looped over, so that compile time does not grow with depth.

    Attributes:
      depth: blocks, "block1", ...
      heads: of each.
      dtype: of the computation.
      remat: keep only the input of each block for the backward pass, and recompute the rest: memory
        for time. Without it the results of the large products are kept too.
      drop_path: probability that the last block's branches are left out of an image in training,
        rising linearly from 0 at the first block.
    """

    depth: int
    heads: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t d"], *, drop_keys: Key[Array, " n"] | None = None
    ) -> Float[Array, "n t d"]:
        """Tokens of the same shape. With `drop_keys`, one an image, branches are left out."""
        # Norms, GELU and softmax are cheaper computed again than stored by a scan and loaded.
        kept = None if self.remat else jax.checkpoint_policies.save_only_these_names(KEPT)
        stack = nn.scan(
            nn.remat(TransformerBlock, prevent_cse=False, policy=kept),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, 0),
            length=self.depth,
        )
        rates, keys = jnp.linspace(0, self.drop_path, self.depth, dtype=jnp.float32), None
        if drop_keys is not None and self.drop_path:
            keys = jax.vmap(lambda key: jax.random.split(key, (self.depth, 2)), out_axes=1)(
                drop_keys
            )
        inspect = self.is_mutable_collection(COLLECTION)
        stacked = stack(self.heads, self.dtype, inspect=inspect, name="block")
        x, inside = stacked(x, rates, keys)
        for i in range(self.depth if inspect else 0):
            record(self, inside["attention"][i], f"block{i + 1}/attention")
            record(self, inside["output"][i], f"block{i + 1}")
        return nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm")(x)


def take_tokens(tokens: Shaped[Array, "n t d"], index: Num[Array, "n m"]) -> Shaped[Array, "n m d"]:
    """tokens[i, index[i, j]] for every image i."""
    return jnp.take_along_axis(tokens, index[:, :, None], axis=1)


def grid_positions(
    grid: tuple[int, int], width: int, position_grid: tuple[int, int] | None
) -> np.ndarray:
    """Positions of a grid of patches; those of `position_grid` resized to it, if it is given."""
    if position_grid is None:
        return sincos_positions(*grid, width)
    return resize_positions(sincos_positions(*position_grid, width), position_grid, grid)


class ViTEncoder(nn.Module):
    """Class token and patches, linearly embedded with positions, through pre-norm blocks.

    Attributes:
      grid: rows and columns of patches.
      width: of a token.
      depth: blocks.
      heads: of each block.
      dtype: of the computation; parameters are float32.
      remat: see `TokenMixer`, as for the next.
      drop_path: in training.
      position_grid: the grid whose positions the weights were trained with, resized to `grid`.
      learned_positions: the positions of the patches are parameters, which begin as N(0, 0.02^2),
        in place of fixed sines and cosines; `position_grid` then has no effect. (A learned position
        of the class token would be one with the token itself.)

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929); the fixed positions are of He et al. 2022.
    """

    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    drop_path: float = 0.0
    position_grid: tuple[int, int] | None = None
    learned_positions: bool = False

    @nn.compact
    def __call__(
        self,
        patches: Num[Array, "n p k"],
        kept: Num[Array, "n m"] | None = None,
        *,
        drop_keys: Key[Array, " n"] | None = None,
    ) -> Float[Array, "n t d"]:
        """Class token, then the tokens of the patches `kept`, in that order; of all if None."""
        if self.learned_positions:
            shape = (math.prod(self.grid), self.width)
            positions = self.param("positions", token_init, shape, jnp.float32)
        else:
            positions = grid_positions(self.grid, self.width, self.position_grid)
        positions = jnp.asarray(positions, self.dtype)[None]
        positions = jnp.broadcast_to(positions, (len(patches), *positions.shape[1:]))
        if kept is not None:  # before the embedding: what is masked must cost nothing
            patches, positions = take_tokens(patches, kept), take_tokens(positions, kept)
        embed = TokenDense(self.width, self.dtype, name="embed")
        first = self.param("class_token", token_init, (1, 1, self.width), jnp.float32)
        first = jnp.broadcast_to(first.astype(self.dtype), (len(patches), 1, self.width))
        x = record(self, jnp.concatenate([first, embed(patches) + positions], axis=1), "tokens")
        blocks = TokenMixer(
            self.depth, self.heads, self.dtype, self.remat, self.drop_path, name="blocks"
        )
        return blocks(x, drop_keys=drop_keys)
