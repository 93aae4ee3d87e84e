"""Layers that the models share, with the padding and batch norm of PyTorch, which the papers used.

Parameters and batch statistics are float32; `dtype` is what is computed in. Batch norm has
momentum 0.9 (PyTorch calls it 0.1) and epsilon 1e-5, PyTorch's defaults. One difference remains:
the running variance averages the biased variance of the batches, PyTorch's the unbiased one, n /
(n - 1) times as large for n = N H W. With `axis_name`, batches are normalised by the statistics of
all devices together.

Biases begin at zero, kernels as the models say: `he_normal` is N(0, 2 / fan_out), `torch_uniform`
is U(-b, b) with b = 1 / sqrt(fan_in), PyTorch's default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from recon_jax.models.convolution import conv_general_dilated, shifts
from recon_jax.models.intermediates import record

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def batch_norm(
    train: bool, dtype: DTypeLike, axis_name: str | None, name: str, use_bias: bool = True
) -> nn.BatchNorm:
    """Batch norm as the module docstring has it; batch statistics if `train`, else running ones."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        use_bias=use_bias,
        dtype=dtype,
        axis_name=axis_name,
        name=name,
    )


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The array in float32 or, if it was wider, as it was: losses need the precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def flatten(x: Num[Array, "n ..."]) -> Num[Array, "n d"]:
    """One row for each image, running over height, width, channel."""
    return x.reshape(x.shape[0], -1)


def pad_to_side(images: Num[Array, "n h w c"], side: int) -> Num[Array, "n h2 w2 c"]:
    """Zero borders, equal to within a pixel, up to `side` x `side`; larger sides stay."""
    missing = [max(0, side - length) for length in images.shape[1:3]]
    borders = [(total // 2, total - total // 2) for total in missing]
    return jnp.pad(images, [(0, 0), *borders, (0, 0)])


def adaptive_avg_pool(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n side side c"]:
    """Means over side x side windows that cover any image, as PyTorch's AdaptiveAvgPool2d.

    Window i of a length L runs from floor(i L / side) to ceil((i + 1) L / side).
    """

    def windows(length):
        i, position = np.arange(side)[:, None], np.arange(length)[None, :]
        inside = (position >= i * length // side) & (position < -(-(i + 1) * length // side))
        return jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)

    return jnp.einsum("ih,nhwc,jw->nijc", windows(x.shape[1]), x, windows(x.shape[2]))


class MaxPool(nn.Module):
    """Maximum over windows; the padding never wins.

    Attributes:
      window: pixels a side.
      stride: pixels.
      padding: pixels on each side.
    """

    window: int = 2
    stride: int = 2
    padding: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        """Pooled maps."""
        sides = ((self.padding, self.padding),) * 2
        # A maximum of shifted maps: XLA's window reduction has a slow gradient on the CPU.
        shifted = shifts(x, (self.window,) * 2, (self.stride,) * 2, sides, fill=-jnp.inf)
        return record(self, functools.reduce(jnp.maximum, shifted))


class ConvBlock(nn.Module):
    """Convolution, then batch norm and ReLU, or another activation, as asked.

    Attributes:
      features: output channels.
      kernel_size: odd, pixels a side.
      stride: pixels; n pixels become ceil(n / stride) with the default padding.
      padding: pixels on each side; kernel_size // 2 if None.
      use_bias: of the convolution.
      use_norm: batch norm after the convolution.
      use_relu: ReLU, or the `activation`, at the end.
      activation: what takes the place of ReLU.
      depthwise: each channel by a kernel of its own; `features` is then the number of channels.
      kernel_init: initialiser of the kernel.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = False
    use_norm: bool = True
    use_relu: bool = True
    activation: Callable[[Array], Array] = nn.relu
    depthwise: bool = False
    kernel_init: Initializer = he_normal
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Num[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels."""
        x = nn.Conv(
            self.features,
            (self.kernel_size,) * 2,
            self.stride,
            # Not SAME, which for stride 2 pads even sides at the end only.
            padding=self.kernel_size // 2 if self.padding is None else self.padding,
            feature_group_count=self.features if self.depthwise else 1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            conv_general_dilated=conv_general_dilated,
            name="conv",
        )(x)
        if self.use_norm:
            x = batch_norm(train, self.dtype, self.axis_name, "norm")(x)
        return record(self, self.activation(x) if self.use_relu else x)


class KeyedDropout(nn.Dropout):
    """Dropout by a key of each image, so that any number of devices drops the same.

    An entry is kept with probability 1 - rate and then divided by it. Axes in `broadcast_dims` are
    dropped together: with all but the first of them an image's branch as a whole.
    """

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "n ..."], keys: Key[Array, " n"] | None
    ) -> Float[Array, "n ..."]:
        """What is left of the inputs; ValueError without keys."""
        if not self.rate:
            return inputs
        if keys is None or keys.shape != inputs.shape[:1]:
            raise ValueError(
                f"a dropout of rate {self.rate} needs `keys=` in training, one an image, "
                f"({len(inputs)},), got {None if keys is None else keys.shape}; or set it to 0"
            )
        shape = [
            1 if axis in self.broadcast_dims else length
            for axis, length in enumerate(inputs.shape[1:], start=1)
        ]
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, shape))(keys)
        return jnp.where(kept, inputs / jnp.asarray(1 - self.rate, inputs.dtype), 0)


class DenseBlock(nn.Module):
    """Linear layer, batch norm if asked, ReLU. Without batch norm the linear layer has a bias.

    Attributes:
      features: output width.
      use_norm: batch norm after the linear layer.
      kernel_init: initialiser of the kernel.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    use_norm: bool = True
    kernel_init: Initializer = torch_uniform
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Num[Array, "n d"], *, train: bool = False) -> Float[Array, "n k"]:
        """Rows of `features` entries."""
        x = nn.Dense(
            self.features,
            use_bias=not self.use_norm,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="dense",
        )(x)
        if self.use_norm:
            x = batch_norm(train, self.dtype, self.axis_name, "norm")(x)
        return record(self, nn.relu(x))


def linear_widths(start: int, stop: int, count: int) -> list[int]:
    """`count` whole widths from `start` to `stop` in equal steps, rounded down."""
    # In exact integers: truncating NumPy's linspace loses 1 where it lands just below a whole.
    low, high = min(start, stop), max(start, stop)
    widths = [low + (high - low) * i // (count - 1) for i in range(count)]
    return widths if start <= stop else widths[::-1]


def classify(
    module: nn.Module, features: Float[Array, "n d"], kernel_init: Initializer = torch_uniform
) -> Float[Array, "n classes"]:
    """Linear head of a classifier with `num_classes` and `dtype`, recorded as its logits."""
    head = nn.Dense(module.num_classes, dtype=module.dtype, kernel_init=kernel_init, name="head")
    return record(module, at_least_float32(head(features)), "logits")
