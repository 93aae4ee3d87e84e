"""Masked autoencoder: a ViT sees a random quarter of the patches, a light decoder the rest."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, Num

from recon_jax.models.checks import as_image_shape, as_images, check_fraction, require_shape
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32
from recon_jax.models.vit import (
    TokenMixer,
    ViTEncoder,
    check_attention,
    check_patch_size,
    glorot,
    patchify,
    sincos_positions,
    take_tokens,
    token_init,
)


class MaskedAutoencoding(NamedTuple):
    """What a masked autoencoder makes of images.

    Attributes:
      reconstruction: (N, P, K), a prediction of the pixels of every patch, as `patchify` has them.
      mask: (N, P), True where the encoder did not see the patch.
      latent: (N, 1 + m, width): the class token, then the m visible patches from top left on.
    """

    reconstruction: Float[Array, "n p k"]
    mask: Bool[Array, "n p"]
    latent: Float[Array, "n t d"]


class PatchSplit(NamedTuple):
    """Which patches are seen.

    Attributes:
      kept: indices of the visible patches, ascending (N, m).
      rank: (N, P), where each patch stands once the visible ones come first.
    """

    kept: Int[Array, "n m"]
    rank: Int[Array, "n p"]


def split_patches(keys: Key[Array, " n"], num_patches: int, num_kept: int) -> PatchSplit:
    """Keep `num_kept` of `num_patches` patches of each image, all subsets equally likely.

    A uniform number a patch is drawn; the patches with the smallest are kept.

    Args:
      keys: one for each image (N,), such as `training.example_keys`.
      num_patches: P.
      num_kept: m, in [1, P].
    """
    noise = jax.vmap(lambda key: jax.random.uniform(key, (num_patches,)))(keys)
    order = jnp.argsort(noise, axis=1)
    kept = jnp.sort(order[:, :num_kept], axis=1)
    rank = jnp.argsort(jnp.concatenate([kept, order[:, num_kept:]], axis=1), axis=1)
    return PatchSplit(kept, rank)


class MAEDecoder(nn.Module):
    """Pixels of every patch from the latents of the visible ones.

    Attributes:
      grid: rows and columns of patches.
      outputs: numbers in a patch.
      width: of a token.
      depth: blocks.
      heads: of each block.
      dtype: of the computation.
    """

    grid: tuple[int, int]
    outputs: int
    width: int
    depth: int
    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, latent: Float[Array, "n t d"], rank: Int[Array, "n p"]
    ) -> Float[Array, "n p k"]:
        """Predictions, all patches in their places."""
        dense = {"dtype": self.dtype, "kernel_init": glorot}
        x = nn.Dense(self.width, **dense, name="embed")(latent)
        first, visible = x[:, :1], x[:, 1:]
        hidden = self.param("mask_token", token_init, (1, 1, self.width), jnp.float32)
        hidden = hidden.astype(self.dtype)
        missing = (len(x), rank.shape[1] - visible.shape[1], self.width)
        x = jnp.concatenate([visible, jnp.broadcast_to(hidden, missing)], axis=1)
        positions = jnp.asarray(sincos_positions(*self.grid, self.width), self.dtype)
        x = jnp.concatenate([first, take_tokens(x, rank) + positions[None]], axis=1)
        x = TokenMixer(self.depth, self.heads, self.dtype, name="blocks")(x)
        return nn.Dense(self.outputs, **dense, name="pixels")(x[:, 1:])


class MaskedAutoencoder(nn.Module):
    """ViT encoder of a random subset of patches, light ViT decoder of all of them.

    Exactly m = round((1 - mask_ratio) P) patches are visible, a random subset for every image. The
    prediction is linear: train it by `losses.masked_squared_error` on `patchify(images)`. Kernels
    begin Glorot-uniform, biases at zero, class and mask token as N(0, 0.02^2). ViT-Base with the
    default decoder has 111,655,680 parameters at 224 x 224 in patches of 16. Representations:
    "encoder/tokens", "encoder/blocks/block1/attention", "encoder/blocks/block1", ..., "latent",
    "decoder/blocks/block1/attention", ..., "reconstruction".

    Attributes:
      image_shape: (H, W, C).
      patch_size: side in pixels; must divide H and W.
      width: of the encoder's tokens, a multiple of 4 and of `heads`.
      depth: blocks of the encoder.
      heads: of each block of the encoder.
      mask_ratio: fraction of hidden patches, in [0, 1); at least one patch must stay visible.
      decoder_width: of the decoder's tokens, a multiple of 4 and of `decoder_heads`.
      decoder_depth: blocks of the decoder.
      decoder_heads: of each block of the decoder.
      dtype: of the computation, such as bfloat16; parameters and outputs are float32.

    Raises:
      ValueError: for an option out of range, or patches that do not divide the image.

    Source: He et al. 2022 (arXiv 2111.06377): patches of 16, ratio 0.75, decoder of 8 blocks of
    width 512 with 16 heads for every encoder.
    """

    image_shape: Any
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mask_ratio: float = 0.75
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        self.image_shape = as_image_shape(self.image_shape)
        check_patch_size(self.patch_size, self.image_shape)
        check_attention("encoder", self.width, self.depth, self.heads)
        check_attention("decoder", self.decoder_width, self.decoder_depth, self.decoder_heads)
        check_fraction("mask_ratio", self.mask_ratio)
        if self.num_visible < 1:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} leaves none of the {self.num_patches} patches "
                f"visible; choose at most {1 - 1 / self.num_patches:.3g}, or smaller patches"
            )
        super().__post_init__()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return tuple(side // self.patch_size for side in self.image_shape[:2])

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    @property
    def num_visible(self) -> int:
        """M = round((1 - mask_ratio) P)."""
        return round((1 - self.mask_ratio) * self.num_patches)

    def setup(self):
        """Both halves."""
        self.encoder = ViTEncoder(self.grid, self.width, self.depth, self.heads, self.dtype)
        self.decoder = MAEDecoder(
            self.grid,
            self.patch_size**2 * self.image_shape[-1],
            self.decoder_width,
            self.decoder_depth,
            self.decoder_heads,
            self.dtype,
        )

    def patches_of(self, images: ArrayLike) -> Num[Array, "n p k"]:
        """`patchify`, for images of the model's shape; ValueError for others."""
        images = require_shape("images", as_images(images), self.image_shape)
        return patchify(images, self.patch_size)

    def encode(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n t d"]:
        """Class token and all P patches (N, 1 + P, width), nothing masked: features for probes.

        Raises:
          ValueError: if the images are not of `image_shape`.
        """
        del train  # nothing here differs in training
        return record(self, at_least_float32(self.encoder(self.patches_of(images))), "latent")

    def __call__(
        self,
        images: ArrayLike,
        keys: Key[Array, " n"] | None = None,
        *,
        train: bool = False,
    ) -> MaskedAutoencoding:
        """Predict the patches of images (N, H, W, C) from a random subset.

        Args:
          images: in the range the model is trained on.
          keys: one for each image (N,), from which its subset is drawn. Without them image i has
            the subset of fold_in(key(0), i), so that an evaluation can be repeated.
          train: nothing here differs in training.

        Raises:
          ValueError: if the images are not of `image_shape`, or there is not one key for each.
        """
        patches = self.patches_of(images)
        if keys is None:
            fold = jax.vmap(jax.random.fold_in, (None, 0))
            keys = fold(jax.random.key(0), jnp.arange(len(patches)))
        if keys.shape != (len(patches),):
            raise ValueError(
                f"keys must hold one key for each of {len(patches)} images, got {keys.shape}; "
                "jax.random.split(key, len(images)) makes them"
            )
        kept, rank = split_patches(keys, self.num_patches, self.num_visible)
        latent = record(self, at_least_float32(self.encoder(patches, kept)), "latent")
        predicted = record(self, at_least_float32(self.decoder(latent, rank)), "reconstruction")
        return MaskedAutoencoding(predicted, rank >= self.num_visible, latent)
