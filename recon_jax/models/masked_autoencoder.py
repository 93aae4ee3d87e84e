"""Masked autoencoder: a ViT sees some of the patches, a light decoder predicts the rest."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num

from recon_jax.checks import is_concrete
from recon_jax.models.checks import as_image_shape, as_images, require_shape
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32
from recon_jax.models.vit import (
    TokenDense,
    TokenMixer,
    ViTEncoder,
    check_attention,
    check_patch_size,
    grid_positions,
    patchify,
    take_tokens,
    token_init,
)


class MaskedAutoencoding(NamedTuple):
    """What a masked autoencoder makes of images.

    Attributes:
      reconstruction: (N, P, K), a prediction of the pixels of every patch, as `patchify` has them.
      mask: (N, P), True where the encoder did not see the patch.
      latent: (N, 1 + m, width): the class token, then the m visible patches in the order given.
    """

    reconstruction: Float[Array, "n p k"]
    mask: Bool[Array, "n p"]
    latent: Float[Array, "n t d"]


def ranks_of(kept: Int[Array, "n m"], num_patches: int) -> Int[Array, "n p"]:
    """Where each of P patches stands once the visible ones come first, in the order of `kept`.

    A hidden patch has rank m: all hidden ones carry the same token.
    """
    matches = kept[:, None, :] == jnp.arange(num_patches)[None, :, None]
    order = jnp.arange(kept.shape[1])[None, None, :]
    return jnp.min(jnp.where(matches, order, kept.shape[1]), axis=2)


class MAEDecoder(nn.Module):
    """Pixels of every patch from the latents of the visible ones.

    Attributes:
      grid: rows and columns of patches.
      outputs: numbers in a patch.
      width: of a token.
      depth: blocks.
      heads: of each block.
      dtype: of the computation.
      remat: see `TokenMixer`.
      position_grid: see `ViTEncoder`.
    """

    grid: tuple[int, int]
    outputs: int
    width: int
    depth: int
    heads: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    position_grid: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self, latent: Float[Array, "n t d"], rank: Int[Array, "n p"]
    ) -> Float[Array, "n p k"]:
        """Predictions, all patches in their places."""
        x = TokenDense(self.width, self.dtype, name="embed")(latent)
        hidden = self.param("mask_token", token_init, (1, 1, self.width), jnp.float32)
        hidden = jnp.broadcast_to(hidden.astype(self.dtype), (len(x), 1, self.width))
        first, visible = x[:, :1], jnp.concatenate([x[:, 1:], hidden], axis=1)
        positions = grid_positions(self.grid, self.width, self.position_grid)
        positions = jnp.asarray(positions, self.dtype)
        x = jnp.concatenate([first, take_tokens(visible, rank) + positions[None]], axis=1)
        blocks = TokenMixer(self.depth, self.heads, self.dtype, self.remat, name="blocks")
        return TokenDense(self.outputs, self.dtype, name="pixels")(blocks(x)[:, 1:])


class MaskedAutoencoder(nn.Module):
    """ViT encoder of the visible patches, light ViT decoder of all of them.

    Which patches are visible is given with the images: draw them from a mask of `spectral`, such as
    `patch_subset(0.75, 16, image_shape).mask.visible`, as `training.masked_autoencoder_loss` does.
    The prediction is linear: train it by `losses.masked_squared_error` on `patchify(images)`.
    Kernels begin Glorot-uniform, biases at zero, class and mask token as N(0, 0.02^2). ViT-Base
    with the default decoder has 111,655,680 parameters at 224 x 224 in patches of 16; those of all
    blocks are stacked, with a leading axis. Representations: "encoder/tokens",
    "encoder/blocks/block1/attention", "encoder/blocks/block1", ..., "latent",
    "decoder/blocks/block1/attention", ..., "reconstruction".

    Attributes:
      image_shape: (H, W, C).
      patch_size: side in pixels; must divide H and W.
      width: of the encoder's tokens, a multiple of 4 and of `heads`.
      depth: blocks of the encoder.
      heads: of each block of the encoder.
      decoder_width: of the decoder's tokens, a multiple of 4 and of `decoder_heads`.
      decoder_depth: blocks of the decoder.
      decoder_heads: of each block of the decoder.
      dtype: of the computation, such as bfloat16; parameters and outputs are float32.
      remat: recompute the inside of blocks in the backward pass: memory for time.
      position_grid: rows and columns of the grid whose positions are resized to the model's, for
        weights trained on images of another size; the model's own if None.

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
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    position_grid: tuple[int, int] | None = None

    def __post_init__(self):
        self.image_shape = as_image_shape(self.image_shape)
        check_patch_size(self.patch_size, self.image_shape)
        check_attention("encoder", self.width, self.depth, self.heads)
        check_attention("decoder", self.decoder_width, self.decoder_depth, self.decoder_heads)
        super().__post_init__()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return tuple(side // self.patch_size for side in self.image_shape[:2])

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def setup(self):
        """Both halves."""
        shared = {"dtype": self.dtype, "remat": self.remat, "position_grid": self.position_grid}
        self.encoder = ViTEncoder(self.grid, self.width, self.depth, self.heads, **shared)
        self.decoder = MAEDecoder(
            self.grid,
            self.patch_size**2 * self.image_shape[-1],
            self.decoder_width,
            self.decoder_depth,
            self.decoder_heads,
            **shared,
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
        kept: ArrayLike | None = None,
        *,
        train: bool = False,
    ) -> MaskedAutoencoding:
        """Predict all patches of images (N, H, W, C) from the visible ones.

        Args:
          images: in the range the model is trained on.
          kept: different indices of the visible patches of each image (N, m), rows of the grid
            first, in any order; all patches if None.
          train: nothing here differs in training.

        Raises:
          ValueError: if the images are not of `image_shape`, there is not one row of 1 to P patches
            for each, or (checked outside jit) an index occurs twice or is none of a patch.
        """
        patches = self.patches_of(images)
        if kept is None:
            kept = jnp.broadcast_to(jnp.arange(self.num_patches), patches.shape[:2])
        kept = self._checked(jnp.asarray(kept), len(patches))
        latent = record(self, at_least_float32(self.encoder(patches, kept)), "latent")
        rank = ranks_of(kept, self.num_patches)
        predicted = record(self, at_least_float32(self.decoder(latent, rank)), "reconstruction")
        return MaskedAutoencoding(predicted, rank == kept.shape[1], latent)

    def _checked(self, kept: Array, count: int) -> Array:
        if kept.ndim != 2 or len(kept) != count or not 1 <= kept.shape[1] <= self.num_patches:
            raise ValueError(
                f"kept must hold 1 to {self.num_patches} patches for each of {count} images, got "
                f"shape {kept.shape}; jax.vmap(mask.visible)(keys) draws them"
            )
        if not jnp.issubdtype(kept.dtype, jnp.integer):
            raise ValueError(f"kept must hold indices, got {kept.dtype}")
        if is_concrete(kept):
            for i, row in enumerate(np.asarray(kept).tolist()):
                if len(set(row)) < len(row) or min(row) < 0 or max(row) >= self.num_patches:
                    raise ValueError(
                        f"kept must hold different indices from 0 to {self.num_patches - 1}, got "
                        f"{row} for image {i}"
                    )
        return kept
