"""A vision transformer as a classifier: the encoder of a masked autoencoder with a linear head."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Key

from recon_jax.checks import check_choice, check_integer, check_numbers
from recon_jax.models.checks import (
    as_image_shape,
    as_images,
    require_shape,
)
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32
from recon_jax.models.vit import (
    EPSILON,
    ViTEncoder,
    check_attention,
    check_patch_size,
    patchify,
)

POOLINGS = ("class_token", "mean")
HEAD_NORMS = ("none", "batch", "layer")


class ViTClassifier(nn.Module):
    """ViT encoder, the class token or the mean over patches, a norm if asked, a linear head.

    The parameters of the encoder are under "encoder", as those of `MaskedAutoencoder` are, so that
    pretrained ones take their place (`training.start_from`). Two uses, with `patch_size`, `width`,
    `depth` and `heads` of the pretrained model:

    - linear probe: frozen=True, head_norm="batch", and an optimizer that `training.freeze` keeps
      from the encoder. The encoder then runs in evaluation mode, without a gradient.
    - fine-tuning: pooling="mean", head_norm="layer", drop_path=0.1, head_std=2e-5, and an
      optimizer with `layer_decay`.

    With the mean over patches, He et al.'s released code puts the last norm behind the pooling
    instead of before it. Here the encoder keeps its own norm, pretrained, and "layer" is one more
    behind the pooling: every patch enters the mean with the same norm. With the class token nothing
    differs. The head has weights N(0, head_std^2) and biases of zero. Representations:
    "encoder/tokens", "encoder/blocks/block1/attention", "encoder/blocks/block1", ..., "pooled",
    ("normed",) "logits".

    Attributes:
      num_classes: width of the logits, >= 1.
      image_shape: (H, W, C).
      patch_size: side in pixels; must divide H and W.
      width: of the tokens, a multiple of 4 and of `heads`.
      depth: blocks.
      heads: of each block.
      pooling: "class_token", or "mean" over the patches without it.
      head_norm: before the head: "none"; "batch", batch norm without scale and bias (momentum 0.9,
        epsilon 1e-6); "layer", layer norm.
      head_std: standard deviation of the head's weights at the start.
      drop_path: stochastic depth, the probability of leaving out the last block's branches in
        training, rising linearly from 0 at the first; in [0, 1).
      frozen: stop the gradient at the encoder's output.
      dtype: of the computation, such as bfloat16; parameters and logits are float32.
      axis_name: devices over which batch statistics are averaged.
      position_grid: rows and columns of the grid the encoder was pretrained on, whose positions are
        resized; the model's own if None.
      remat: recompute the inside of blocks in the backward pass: memory for time.

    Raises:
      ValueError: for an option out of range, or patches that do not divide the image.

    Source: He et al. 2022 (arXiv 2111.06377), appendix A.1 and released code; the classifier of
    Dosovitskiy et al. 2021 (arXiv 2010.11929).
    """

    num_classes: int
    image_shape: Any
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    pooling: str = "class_token"
    head_norm: str = "none"
    head_std: float = 0.01
    drop_path: float = 0.0
    frozen: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    position_grid: tuple[int, int] | None = None
    remat: bool = False

    def __post_init__(self):
        self.image_shape = as_image_shape(self.image_shape)
        check_integer("num_classes", self.num_classes, 1)
        check_patch_size(self.patch_size, self.image_shape)
        check_attention("encoder", self.width, self.depth, self.heads)
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("head_norm", self.head_norm, HEAD_NORMS)
        check_numbers("drop_path", self.drop_path, "[0, 1)")
        check_numbers("head_std", self.head_std, "(0, inf)")
        if self.frozen and self.drop_path:
            raise ValueError(
                f"drop_path={self.drop_path} has no effect on a frozen encoder, which runs in "
                "evaluation mode; leave it at 0, or frozen at False"
            )
        super().__post_init__()

    def setup(self):
        """The encoder, the norm behind it and the head."""
        self.encoder = ViTEncoder(
            tuple(side // self.patch_size for side in self.image_shape[:2]),
            self.width,
            self.depth,
            self.heads,
            self.dtype,
            remat=self.remat,
            drop_path=self.drop_path,
            position_grid=self.position_grid,
        )
        shared = {"epsilon": EPSILON, "dtype": self.dtype}
        if self.head_norm == "batch":
            self.norm = nn.BatchNorm(
                momentum=0.9, use_bias=False, use_scale=False, axis_name=self.axis_name, **shared
            )
        elif self.head_norm == "layer":
            self.norm = nn.LayerNorm(**shared)
        init = nn.initializers.normal(self.head_std)
        self.head = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=init)

    def _drop_keys(self, count: int, train: bool, keys: Array | None) -> Array | None:
        """The keys, where they are needed."""
        if not (train and self.drop_path):
            return None
        if keys is None or keys.shape != (count,):
            raise ValueError(
                f"drop_path={self.drop_path} needs one key for each of {count} images in training, "
                f"got {None if keys is None else keys.shape}; jax.random.split(key, len(images)) "
                "makes them"
            )
        return keys

    def features(
        self,
        images: ArrayLike,
        *,
        train: bool = False,
        keys: Key[Array, " n"] | None = None,
    ) -> Float[Array, "n d"]:
        """What the head reads (N, width): pooled and normed tokens; arguments as in `__call__`."""
        images = require_shape("images", as_images(images), self.image_shape)
        drop_keys = self._drop_keys(len(images), train, keys)
        tokens = self.encoder(patchify(images, self.patch_size), drop_keys=drop_keys)
        tokens = at_least_float32(jax.lax.stop_gradient(tokens) if self.frozen else tokens)
        pooled = tokens[:, 0] if self.pooling == "class_token" else tokens[:, 1:].mean(1)
        pooled = record(self, pooled, "pooled")
        if self.head_norm == "batch":
            return record(self, self.norm(pooled, use_running_average=not train), "normed")
        return record(self, self.norm(pooled), "normed") if self.head_norm == "layer" else pooled

    def __call__(
        self,
        images: ArrayLike,
        *,
        train: bool = False,
        keys: Key[Array, " n"] | None = None,
    ) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C).

        Args:
          images: in the range the encoder was trained on.
          train: leave out branches by `drop_path`, and use and update batch statistics of the head.
          keys: one for each image (N,), for `drop_path` in training; not used otherwise.

        Raises:
          ValueError: if the images are not of `image_shape`, or keys are needed and not given.
        """
        logits = self.head(self.features(images, train=train, keys=keys))
        return record(self, at_least_float32(logits), "logits")
