"""Decoder heads that predict each pixel from the pixels before it and from features of its own."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float

from recon_jax.checks import check_integer
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32, torch_uniform
from recon_jax.models.masked_convolution import MaskedConv, check_odd, context_mask


class PixelLayer(nn.Module):
    """One layer on maps: linear at each pixel (kernel 1), or a masked convolution of kind B.

    Attributes:
      features: output channels.
      kernel_size: odd, pixels a side.
      use_bias: add a bias a channel, zero at first.
      dtype: of the computation.
    """

    features: int
    kernel_size: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w k"]:
        """Maps of `features` channels."""
        options = {"use_bias": self.use_bias, "dtype": self.dtype}
        if self.kernel_size > 1:
            return MaskedConv(self.features, self.kernel_size, "B", **options, name="conv")(x)
        dense = nn.Dense(self.features, kernel_init=torch_uniform, **options, name="dense")
        # As rows: on the CPU the gradient takes 0.75 of the time that it takes on maps.
        return dense(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:3], self.features)


class PixelBlock(nn.Module):
    """u + ReLU(W3 ReLU(W2 ReLU(W1 u))).

    Attributes:
      kernel_size: of the three layers.
      dtype: of the computation.
    """

    kernel_size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, u: Float[Array, "n h w k"]) -> Float[Array, "n h w k"]:
        """Maps of the same width."""
        y = u
        for i in (1, 2, 3):
            layer = PixelLayer(u.shape[-1], self.kernel_size, dtype=self.dtype, name=f"layer{i}")
            y = nn.relu(layer(y))
        return record(self, u + y)


class PixelTrunk(nn.Module):
    """ReLU, residual blocks, linear, ReLU, linear: from joined branches to numbers for each pixel.

    Attributes:
      num_params: output channels.
      num_blocks: residual blocks, >= 0.
      kernel_size: of their layers.
      dtype: of the computation.
    """

    num_params: int
    num_blocks: int
    kernel_size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, u: Float[Array, "n h w k"]) -> Float[Array, "n h w params"]:
        """Maps of `num_params` channels."""
        u = nn.relu(u)
        for i in range(1, self.num_blocks + 1):
            u = PixelBlock(self.kernel_size, self.dtype, name=f"block{i}")(u)
        u = nn.relu(PixelLayer(u.shape[-1], dtype=self.dtype, name="hidden")(u))
        return PixelLayer(self.num_params, dtype=self.dtype, name="output")(u)


def _reach(sizes: list[int]) -> Bool[np.ndarray, "rows columns"]:
    """What is seen through a stack of masked kernels, the first of kind A, the others of kind B."""
    half = sum(size // 2 for size in sizes)
    reach = np.zeros((half + 1, 2 * half + 1), bool)
    reach[-1, half] = True
    for kind, size in zip("A" + "B" * (len(sizes) - 1), sizes, strict=True):
        grown = np.zeros_like(reach)
        for row, column in np.argwhere(context_mask(size, kind)):
            up, right = size // 2 - row, column - size // 2
            # What would wrap around lies beyond the reach, which the array holds whole.
            grown |= np.roll(reach, (-up, right), axis=(0, 1))
        reach = grown
    return reach


class PixelCNN(nn.Module):
    """Numbers for each pixel from its features and from the pixels before it, in raster order.

    u = ReLU([a, b]), a = masked convolution of kind A of the image, b = linear of the features;
    then residual blocks u + ReLU(W3 ReLU(W2 ReLU(W1 u))), linear, ReLU, linear. By horizon:

    - 0, factorised: no image branch, the pixels are independent given the features;
    - h, local: one kernel of (2 h + 1)^2, all later layers at the pixel alone; pixel (i, j) sees
      rows i - h .. i - 1 of columns j - h .. j + h, and (i, j - h .. j - 1): 2 h (h + 1) pixels;
    - None, full: kernels of `first_kernel`, then masked kernels of `inner_kernel` and kind B in the
      blocks. One stack of masked kernels has a blind spot to the upper right that widens with the
      distance, and its reach is finite: `context` has what is seen.

    Without features it is an autoregressive model of the image alone. Representations:
    "trunk/block1", ..., "params".

    Attributes:
      num_params: numbers a pixel, >= 1.
      horizon: see above.
      width: channels of each branch, >= 1; the blocks are as wide as what is joined.
      num_blocks: residual blocks, >= 0.
      first_kernel: odd, >= 3; of the full head.
      inner_kernel: odd; of the full head.
      dtype: of the computation; parameters are float32, the output float32 at least.

    Raises:
      ValueError: for an option out of range.

    Source: Zhang et al. 2022 (arXiv 2205.14539), released code; Zhang et al. 2021 (arXiv
    2109.02639) without features. The blind spot: van den Oord et al. 2016 (arXiv 1606.05328).
    """

    num_params: int
    horizon: int | None
    width: int = 128
    num_blocks: int = 5
    first_kernel: int = 7
    inner_kernel: int = 3
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.horizon is not None:
            check_integer("horizon", self.horizon, 0, "None sees all earlier pixels")
        for name, least in (("num_params", 1), ("width", 1), ("num_blocks", 0)):
            check_integer(name, getattr(self, name), least)
        check_odd("first_kernel", self.first_kernel)
        check_odd("inner_kernel", self.inner_kernel)
        check_integer("first_kernel", self.first_kernel, 3)
        super().__post_init__()

    def setup(self):
        """The branches and what follows them."""
        if self.horizon != 0:
            self.image_branch = MaskedConv(
                self.width, self._sizes()[0], "A", use_bias=False, dtype=self.dtype
            )
        self.feature_branch = PixelLayer(self.width, use_bias=False, dtype=self.dtype)
        inner = self.inner_kernel if self.horizon is None else 1
        self.trunk = PixelTrunk(self.num_params, self.num_blocks, inner, self.dtype)

    def _sizes(self) -> list[int]:
        if self.horizon is not None:
            return [2 * self.horizon + 1]
        return [self.first_kernel, *[self.inner_kernel] * (3 * self.num_blocks)]

    def context(self) -> Bool[np.ndarray, "rows columns"]:
        """Which pixels the numbers of a pixel depend on.

        Returns:
          True where a pixel is seen, (R + 1, 2 R + 1) for a reach of R: entry (r, c) is the pixel
          r - R rows and c - R columns away, so the last row is the pixel's own.
        """
        return _reach(self._sizes())

    def check_sides(self, height: int, width: int) -> None:
        """Raise ValueError if the horizon of a local head is as large as the image."""
        if self.horizon is not None and self.horizon >= max(height, width):
            raise ValueError(
                f"horizon={self.horizon} does not fit images of {height} x {width}; choose at most "
                f"{max(height, width) - 1}, or None to see all earlier pixels"
            )

    def _join(self, image: Array | None, features: Array | None) -> Float[Array, "n h w params"]:
        branches = [] if image is None else [image]
        if features is not None:
            branches.append(self.feature_branch(features))
        if not branches:
            raise ValueError(
                "horizon=0 sees no pixels and needs features; give them, or choose horizon >= 1 "
                "or None"
            )
        params = at_least_float32(self.trunk(jnp.concatenate(branches, axis=-1)))
        return record(self, params, "params")

    def __call__(
        self,
        pixels: Float[ArrayLike, "n h w c"] | None,
        features: Float[ArrayLike, "n2 h2 w2 f"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "n h w params"]:
        """The numbers of every pixel.

        Args:
          pixels: (N, H, W, C) in [-1, 1]; not looked at, and may be None, if the horizon is 0.
          features: (N, H, W, F), or None.
          train: changes nothing; models are called with it.

        Raises:
          ValueError: if the horizon does not fit the image, or is 0 without features.
        """
        pixels = None if pixels is None else jnp.asarray(pixels)
        features = None if features is None else jnp.asarray(features)
        for given in (pixels, features):
            if given is not None:
                self.check_sides(*given.shape[1:3])
        if self.horizon == 0:
            return self._join(None, features)
        if pixels is None:
            raise ValueError(f"horizon={self.horizon} needs pixels; only horizon=0 does without")
        if features is not None and features.shape[:3] != pixels.shape[:3]:
            raise ValueError(
                f"features {features.shape} and pixels {pixels.shape} must agree in N, H, W"
            )
        return self._join(self.image_branch(pixels), features)

    def at(
        self,
        contexts: Float[Array, "m rows columns c"] | None,
        features: Float[Array, "m f"] | None = None,
    ) -> Float[Array, "m params"]:
        """The numbers of single pixels, those of `__call__` up to the order of sums.

        Args:
          contexts: (M, h + 1, 2 h + 1, C) in [-1, 1]: rows i - h .. i and columns j - h .. j + h
            around each pixel (i, j), 0 outside the image; the pixel itself and what lies right of
            it may be anything finite. Not looked at if the horizon is 0.
          features: of the pixels (M, F), or None.

        Raises:
          ValueError: if the head is full, which needs whole images, or contexts have another size.
        """
        if self.horizon is None:
            raise ValueError("the full head needs whole images: call it with them")
        image = None
        if self.horizon:
            window = (self.horizon + 1, 2 * self.horizon + 1)
            if contexts is None or contexts.shape[1:3] != window:
                found = None if contexts is None else contexts.shape
                raise ValueError(
                    f"contexts must have shape (M, {window[0]}, {window[1]}, C), got {found}"
                )
            image = self.image_branch(contexts, windows=True)
        if features is not None:
            features = features[:, None, None, :]
        return self._join(image, features)[:, 0, 0]
