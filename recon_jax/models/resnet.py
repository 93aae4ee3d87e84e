"""Residual networks of 18, 34 and 50 layers, with a stem for small images or for ImageNet."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Num

from recon_jax.checks import check_choice, check_integer
from recon_jax.models.checks import as_images
from recon_jax.models.intermediates import record
from recon_jax.models.layers import ConvBlock, MaxPool, classify

# Blocks in each of the four stages, by number of layers with weights.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
BOTTLENECKS = (50,)
WIDTHS = (64, 128, 256, 512)
PUBLISHED_WIDTH = 64
STEMS = ("cifar", "imagenet")


class ResidualBlock(nn.Module):
    """ReLU(f(x) + shortcut(x)), the shortcut a 1 x 1 convolution where the shape changes.

    f is two 3 x 3 convolutions, or a bottleneck of 1 x 1, 3 x 3 and 1 x 1 with 4 times as many
    channels at the end. The stride is in the first 3 x 3 convolution.

    Attributes:
      features: channels of the 3 x 3 convolutions.
      stride: pixels.
      bottleneck: which form f has.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    stride: int = 1
    bottleneck: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Num[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels, or 4 times as many from a bottleneck."""
        conv = partial(ConvBlock, dtype=self.dtype, axis_name=self.axis_name)
        outputs = 4 * self.features if self.bottleneck else self.features
        if self.bottleneck:
            y = conv(self.features, 1, name="conv1")(x, train=train)
            y = conv(self.features, 3, self.stride, name="conv2")(y, train=train)
            y = conv(outputs, 1, use_relu=False, name="conv3")(y, train=train)
        else:
            y = conv(self.features, 3, self.stride, name="conv1")(x, train=train)
            y = conv(outputs, 3, use_relu=False, name="conv2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != outputs:
            shortcut = conv(outputs, 1, self.stride, use_relu=False, name="shortcut")
            x = shortcut(x, train=train)
        return record(self, nn.relu(x + y))


def residual_stages(
    images: Num[Array, "n h w c"],
    *,
    depth: int,
    stem: str,
    width: int = PUBLISHED_WIDTH,
    train: bool,
    dtype: DTypeLike,
    axis_name: str | None,
) -> Float[Array, "n h2 w2 k"]:
    """All of a residual network up to its pooling, within a compact module.

    `width` channels leave the stem; the stages have `WIDTHS` times width / 64.
    """
    shared = {"dtype": dtype, "axis_name": axis_name}
    if stem == "imagenet":
        x = ConvBlock(width, 7, 2, **shared, name="stem")(images, train=train)
        x = MaxPool(3, 2, 1, name="stem_pool")(x)
    else:
        x = ConvBlock(width, **shared, name="stem")(images, train=train)
    for stage, (count, full) in enumerate(zip(BLOCKS[depth], WIDTHS, strict=True), start=1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            features = full * width // PUBLISHED_WIDTH
            layer = ResidualBlock(features, stride, depth in BOTTLENECKS, **shared, name=name)
            x = layer(x, train=train)
    return x


class ResNet(nn.Module):
    """Residual network with a linear head on the mean over all positions.

    Stem "cifar" is a 3 x 3 convolution, stem "imagenet" a 7 x 7 one of stride 2 and a 3 x 3 maximum
    pooling of stride 2. With the latter and 1,000 classes, 18, 34 and 50 layers have the published
    11,689,512, 21,797,672 and 25,557,032 parameters. Convolutions have no bias and begin as
    `he_normal`, batch norms at scale 1, the head as `torch_uniform`, as in torchvision.
    Representations: "stem", ("stem_pool",) "stage1_block1/conv1", "stage1_block1/conv2",
    "stage1_block1", ..., "pooled", "logits".

    Attributes:
      depth: 18, 34 or 50.
      num_classes: width of the logits, >= 1.
      stem: "cifar" or "imagenet".
      width: channels of the stem and the first stage, >= 1; the next have 2, 4 and 8 times as many.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: He et al. 2016 (arXiv 1512.03385), with the stride of bottlenecks in the 3 x 3
    convolution.
    """

    depth: int
    num_classes: int
    stem: str = "cifar"
    width: int = PUBLISHED_WIDTH
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_choice("depth", self.depth, BLOCKS)
        check_integer("num_classes", self.num_classes, 1)
        check_choice("stem", self.stem, STEMS)
        check_integer("width", self.width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C); batch statistics are used and updated if `train`."""
        x = residual_stages(
            as_images(images),
            depth=self.depth,
            stem=self.stem,
            width=self.width,
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        return classify(self, record(self, jnp.mean(x, axis=(1, 2)), "pooled"))
