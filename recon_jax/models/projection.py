"""An encoder that is kept and a projector that is dropped after contrastive training."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer
from recon_jax.models.checks import as_images
from recon_jax.models.feature_encoders import ConvEncoder, MLPEncoder, ResNetEncoder
from recon_jax.models.intermediates import record
from recon_jax.models.layers import DenseBlock, at_least_float32, batch_norm, torch_uniform
from recon_jax.models.resnet import PUBLISHED_WIDTH


class Projection(NamedTuple):
    """What an encoder and its projector make of images.

    Attributes:
      features: h = f(x) (N, D), what is kept.
      projection: z = g(h) (N, P), what the loss sees.
    """

    features: Float[Array, "n d"]
    projection: Float[Array, "n p"]


class ProjectionHead(nn.Module):
    """Perceptron with ReLU between its linear layers and none after the last.

    Depth 0 hands the features on, depth 1 is linear: D-outputs, depth 2: D-width-outputs. Kernels
    begin as `torch_uniform`. Representations: "dense1", ..., "dense{depth - 1}"; the last is the
    projection.

    Attributes:
      depth: number of linear layers, >= 0.
      width: of the hidden layers; 0 for the width of the features.
      outputs: width of the projection, >= 1; at depth 0 that of the features instead.
      use_norm: batch norm in hidden layers, in place of their bias.
      norm_last: batch norm without shift after the last linear layer, in place of its bias; at
        depth 0 there is none.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: Chen et al. 2020 (arXiv 2002.05709), released code: depth 2, batch norm everywhere,
    hidden layers as wide as the features.
    """

    depth: int = 2
    width: int = 128
    outputs: int = 64
    use_norm: bool = False
    norm_last: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_integer("head_depth", self.depth, 0)
        check_integer("head_width", self.width, 0)
        check_integer("outputs", self.outputs, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Float[Array, "n d"], *, train: bool = False) -> Array:
        """Projections (N, P) of features; batch statistics are used and updated if `train`."""
        if self.depth == 0:
            return features
        x, width = features, self.width or features.shape[1]
        for i in range(1, self.depth):
            block = DenseBlock(
                width, self.use_norm, dtype=self.dtype, axis_name=self.axis_name, name=f"dense{i}"
            )
            x = block(x, train=train)
        last = nn.Dense(
            self.outputs,
            use_bias=not self.norm_last,
            dtype=self.dtype,
            kernel_init=torch_uniform,
            name="last",
        )
        x = last(x)
        if self.norm_last:
            x = batch_norm(train, self.dtype, self.axis_name, "last_norm", use_bias=False)(x)
        return x


class Projected(nn.Module):
    """An encoder h = f(x), then a projector z = g(h).

    Parameters lie under "encoder" and "head", each as if it were alone. Both outputs come back in
    float32 at least. Representations: "encoder/...", "features", "head/dense1", ..., "projection".
    `model.apply(variables, features, method="project")` is the projector alone, in evaluation mode.

    Attributes:
      encoder: images (N, H, W, C) -> features (N, D), with `train`, such as `MLPEncoder`.
      head: features -> projections, with `train`, such as `ProjectionHead`.
      dtype: that both parts compute in; None leaves it to them. Parameters are float32.
      axis_name: devices over which both parts average batch statistics; what the parts themselves
        name does not count.

    Source: Chen et al. 2020 (arXiv 2002.05709); Cosentino et al. 2022 (arXiv 2205.06926) ask what
    each part keeps.
    """

    encoder: nn.Module
    head: nn.Module
    dtype: DTypeLike | None = None
    axis_name: str | None = None

    def __post_init__(self):
        wanted = {"axis_name": self.axis_name}
        if self.dtype is not None:
            wanted["dtype"] = self.dtype
        self.encoder = _with_options(self.encoder, wanted)
        self.head = _with_options(self.head, wanted)
        super().__post_init__()

    def encode(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n d"]:
        """Features of images (N, H, W, C)."""
        features = at_least_float32(self.encoder(as_images(images), train=train))
        return record(self, features, "features")

    def project(self, features: ArrayLike, *, train: bool = False) -> Float[Array, "n p"]:
        """Projections of features (N, D)."""
        projection = at_least_float32(self.head(jnp.asarray(features), train=train))
        return record(self, projection, "projection")

    def __call__(self, images: ArrayLike, *, train: bool = False) -> Projection:
        """Features and projections of images; batch statistics used and updated if `train`."""
        features = self.encode(images, train=train)
        return Projection(features, self.project(features, train=train))


def _with_options(module: nn.Module, wanted: dict) -> nn.Module:
    """The module with those of the options that it has and that differ."""
    changes = {
        name: value
        for name, value in wanted.items()
        if hasattr(module, name) and getattr(module, name) != value
    }
    return module.clone(**changes) if changes else module


def simclr_mlp(
    *,
    widths: tuple[int, ...] = (256, 128),
    use_norm: bool = False,
    head_depth: int = 2,
    head_width: int = 128,
    outputs: int = 64,
    head_norm: bool = False,
    norm_last: bool = False,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> Projected:
    """`MLPEncoder` and `ProjectionHead`; options as theirs, `head_norm` the head's `use_norm`."""
    head = ProjectionHead(head_depth, head_width, outputs, head_norm, norm_last)
    return Projected(MLPEncoder(widths, use_norm), head, dtype, axis_name)


def simclr_conv(
    *,
    width: int = 32,
    use_norm: bool = True,
    head_depth: int = 2,
    head_width: int = 0,
    outputs: int = 64,
    head_norm: bool = True,
    norm_last: bool = False,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> Projected:
    """`ConvEncoder` and `ProjectionHead`; options as theirs, `head_norm` the head's `use_norm`."""
    head = ProjectionHead(head_depth, head_width, outputs, head_norm, norm_last)
    return Projected(ConvEncoder(width, use_norm), head, dtype, axis_name)


def simclr_resnet(
    depth: int,
    *,
    stem: str = "cifar",
    width: int = PUBLISHED_WIDTH,
    head_depth: int = 2,
    head_width: int = 0,
    outputs: int = 128,
    head_norm: bool = True,
    norm_last: bool = True,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> Projected:
    """`ResNetEncoder` and `ProjectionHead`, its defaults those of the released code of SimCLR.

    Options as theirs, `head_norm` the head's `use_norm`.

    Source: Chen et al. 2020 (arXiv 2002.05709), released code: outputs 128.
    """
    head = ProjectionHead(head_depth, head_width, outputs, head_norm, norm_last)
    return Projected(ResNetEncoder(depth, stem, width), head, dtype, axis_name)
