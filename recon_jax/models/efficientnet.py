"""EfficientNet-B0, with a stem for small images or for ImageNet."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Key, Num

from recon_jax.checks import check_choice, check_integer, check_numbers
from recon_jax.models.checks import as_images
from recon_jax.models.intermediates import record
from recon_jax.models.layers import ConvBlock, KeyedDropout, classify
from recon_jax.models.resnet import STEMS

# Of each stage: blocks, expansion, channels, side of the depthwise kernels, stride of its first.
STAGES = (
    (1, 1, 16, 3, 1),
    (2, 6, 24, 3, 2),
    (2, 6, 40, 5, 2),
    (3, 6, 80, 3, 2),
    (3, 6, 112, 5, 1),
    (4, 6, 192, 5, 2),
    (1, 6, 320, 3, 1),
)
BLOCKS = sum(stage[0] for stage in STAGES)
PUBLISHED_WIDTH = 32
IMAGENET_FEATURES = 1280  # of the convolution before the pooling


class SqueezeExcite(nn.Module):
    """x sigmoid(W2 swish(W1 mean(x))): channels weighted by what all positions have in common.

    Attributes:
      reduced: width between the two linear layers.
      dtype: of the computation.
    """

    reduced: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Maps of the same shape."""
        dense = partial(nn.Dense, dtype=self.dtype)
        weights = nn.swish(dense(self.reduced, name="squeeze")(jnp.mean(x, axis=(1, 2))))
        weights = nn.sigmoid(dense(x.shape[-1], name="excite")(weights))
        return record(self, x * weights[:, None, None, :])


class MBConv(nn.Module):
    """Inverted residual: widen by 1 x 1, depthwise convolution, squeeze-excite, narrow by 1 x 1.

    Batch norm follows each convolution, swish all but the last. Where the shape stays, x is added.

    Attributes:
      features: channels at the end.
      expansion: channels inside over those of x; at 1 nothing is widened.
      kernel_size: of the depthwise convolution.
      stride: of the depthwise convolution, pixels.
      drop_path: probability of leaving out the branch in training, where x is added.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    expansion: int
    kernel_size: int
    stride: int
    drop_path: float = 0.0
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Num[Array, "n h w c"],
        *,
        train: bool = False,
        keys: Key[Array, " n"] | None = None,
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels."""
        conv = partial(ConvBlock, activation=nn.swish, dtype=self.dtype, axis_name=self.axis_name)
        channels = x.shape[-1]
        inside, y = self.expansion * channels, x
        if self.expansion != 1:
            y = conv(inside, 1, name="expand")(y, train=train)
        depthwise = conv(inside, self.kernel_size, self.stride, depthwise=True, name="depthwise")
        y = depthwise(y, train=train)
        y = SqueezeExcite(max(1, channels // 4), self.dtype, name="squeeze_excite")(y)
        y = conv(self.features, 1, use_relu=False, name="project")(y, train=train)
        if self.stride == 1 and channels == self.features:
            if train:
                y = KeyedDropout(self.drop_path, broadcast_dims=(1, 2, 3))(y, keys)
            y = x + y
        return record(self, y)


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 with a linear head on the mean over all positions.

    Stem "cifar" is a 3 x 3 convolution of stride 1 and the head follows the last stage, as the
    papers on small images have it: 3,598,598 parameters at 10 classes of colour images (code that
    circulates counts 1,088 more, of an idle convolution in the first block). Stem "imagenet" has
    stride 2, and a 1 x 1 convolution to 1,280 channels stands before the pooling: the published
    5,288,548 parameters at 1,000 classes. Convolutions have no bias and begin as
    `he_normal`, the head as `torch_uniform`. Branches are left out in training with a probability
    that rises from 0 at the first block to nearly `drop_path`. Representations: "stem",
    "stage1_block1/depthwise", "stage1_block1/squeeze_excite", "stage1_block1/project",
    "stage1_block1", "stage2_block1/expand", ..., ("top",) "pooled", "logits".

    Attributes:
      num_classes: width of the logits, >= 1.
      stem: "cifar" or "imagenet".
      width: channels of the stem, >= 1; those of all stages are in proportion, rounded down.
      dropout: share of the pooled entries dropped in training, in [0, 1).
      drop_path: see above, in [0, 1). This or `dropout` above 0 needs `keys=` in training.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range, or in training without the keys.

    Source: Tan & Le 2019 (arXiv 1905.11946), Table 1, with squeeze-excite of a quarter of the
    channels before the expansion.
    """

    num_classes: int
    stem: str = "cifar"
    width: int = PUBLISHED_WIDTH
    dropout: float = 0.2
    drop_path: float = 0.2
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_integer("num_classes", self.num_classes, 1)
        check_choice("stem", self.stem, STEMS)
        check_integer("width", self.width, 1)
        check_numbers("dropout", self.dropout, "[0, 1)")
        check_numbers("drop_path", self.drop_path, "[0, 1)")
        super().__post_init__()

    def _channels(self, published: int) -> int:
        return max(1, published * self.width // PUBLISHED_WIDTH)

    def _blocks(self):
        """Name and module of each block."""
        count = 0
        for stage, (blocks, expansion, channels, side, stride) in enumerate(STAGES, start=1):
            for block in range(1, blocks + 1):
                name = f"stage{stage}_block{block}"
                yield MBConv(
                    self._channels(channels),
                    expansion,
                    side,
                    stride if block == 1 else 1,
                    self.drop_path * count / BLOCKS,
                    self.dtype,
                    self.axis_name,
                    name=name,
                )
                count += 1

    @nn.compact
    def __call__(
        self,
        images: ArrayLike,
        *,
        train: bool = False,
        keys: Key[Array, " n"] | None = None,
    ) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C).

        Args:
          images: (N, H, W, C).
          train: drop by the keys; batch statistics are used and updated.
          keys: one an image, in training, as `training.classification_loss` gives them.
        """
        conv = partial(ConvBlock, activation=nn.swish, dtype=self.dtype, axis_name=self.axis_name)
        large = self.stem == "imagenet"
        x = conv(self._channels(PUBLISHED_WIDTH), 3, 2 if large else 1, name="stem")(
            as_images(images), train=train
        )
        for place, block in enumerate(self._blocks()):
            x = block(x, train=train, keys=_folded(keys, place))
        if large:
            x = conv(self._channels(IMAGENET_FEATURES), 1, name="top")(x, train=train)
        x = record(self, jnp.mean(x, axis=(1, 2)), "pooled")
        if train:
            x = KeyedDropout(self.dropout)(x, _folded(keys, BLOCKS))
        return classify(self, x)


def _folded(keys: Key[Array, " n"] | None, place: int) -> Key[Array, " n"] | None:
    """Keys of one place in the network."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, (0, None))(keys, place)
