"""Networks of constant filters and their measured D and G: what `depth_laws` says, put to the test.

Every layer averages F sites along each axis, without bias and border, at stride 1 or F, and
rectifies. Nothing here uses the laws: images are drawn, sent through the layers and compared.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.diffeo import depth_laws

# Numbers that a batch of images holds by default: a megabyte or two, which caches keep.
_BATCH_VALUES = 2**17
# Part of D and G that rounding may make up.
_TOLERANCE = 1e-3
# What numbers are raised to, with a ReLU and without.
_FLOORS = {True: 0.0, False: -jnp.inf}


class Deformation(NamedTuple):
    """What was measured on images of one active pixel and on their deformations.

    Attributes:
      D: mean squared distance of an image and its deformation over that of two images, (K,).
      spread: half the mean squared distance of the features of two images, (K,).
    """

    D: Float[Array, " k"]
    spread: Float[Array, " k"]


class Noise(NamedTuple):
    """What was measured on images of one active pixel and on the same with noise.

    Attributes:
      G: mean squared distance of an image and its noisy copy over that of two images, (K,).
      error: standard error of G over the draws, (K,).
    """

    G: Float[Array, " k"]
    error: Float[Array, " k"]


class _Net(NamedTuple):
    """A network and its images; hashable, so that it can be a static argument."""

    num_layers: int
    filter_size: int
    stride: int
    dimensions: int
    num_sites: int


def constant_filter_features(
    images: Float[Array, "n *sites"],
    num_layers: int,
    filter_size: int,
    stride: int = 1,
    *,
    relu: bool = True,
) -> tuple[Float[Array, "n *out"], OrderedDict[str, Float[Array, "n ..."]]]:
    """f_k = ReLU(mean of f_{k-1} over windows of F sites along each axis), k = 1 .. K, on rings.

    At stride 1 the window of site i runs from i - (F - 1) / 2 to i + (F - 1) /
    2, for even F from i - F / 2 + 1 to i + F / 2; at stride F from F i to F i + F - 1.

    Args:
      images: (N, L) or (N, H, W), of one channel.
      num_layers: K, at least 1.
      filter_size: F, at least 2.
      stride: 1 or F.
      relu: False leaves out the rectification.

    Returns:
      The last layer, and all layers by name, "layer1", "layer2", ...: (N, L), or (N, L / F^k) at
      stride F, and so along each axis.

    Raises:
      ValueError: if there are not one or two axes of sites, a number is out of range, or an axis
        does not suit the network (see `depth_laws.exact`).

    Source: Tomasini et al. 2022 (arXiv 2210.01506), constant filters; padding as in released code.
    """
    sides = images.shape[1:]
    if len(sides) not in (1, 2):
        raise ValueError(f"images must have shape (N, L) or (N, H, W), got {images.shape}")
    depth_laws.check_net(num_layers, filter_size, stride, len(sides))
    for side in sides:
        depth_laws.check_sites(side, num_layers, filter_size, stride, "side of the images")
    layers: OrderedDict[str, Array] = OrderedDict()
    features = images
    for depth in range(1, num_layers + 1):
        features = _layer(features, filter_size, stride, _FLOORS[relu])
        layers[f"layer{depth}"] = features
    return features, layers


def measure_deformation(
    num_layers: int,
    filter_size: int,
    stride: int = 1,
    dimensions: int = 1,
    num_sites: int = 64,
    *,
    batch_size: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Deformation:
    """D of every layer: all N^d images of one active pixel, each moved by one pixel along an axis.

    D_k = mean_x ||f_k(tau x) - f_k(x)||^2 / mean_{x,x'} ||f_k(x) - f_k(x')||^2, the pairs x = x'
    included. ReLU changes nothing here, as no number is negative. There is no sampling: the only
    error is rounding, some 1e-13 relative in float64 and 1e-5 in float32 where features of
    different images do not agree to many digits.

    Args:
      num_layers: K, at least 1.
      filter_size: F, at least 2.
      stride: 1 or F.
      dimensions: d, axes of the image, 1 or 2; with two, the pixel moves along the second.
      num_sites: N, sites along each axis; see `depth_laws.exact`.
      batch_size: images at a time; by default as many as caches hold.
      dtype: float32 or float64 (with x64 enabled).

    Returns:
      The `Deformation`.

    Raises:
      ValueError: if a number is out of range, or features of different images would be equal but
        for rounding.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), constant filters.
    """
    net = _Net(num_layers, filter_size, stride, dimensions, num_sites)
    dtype = _check(net, batch_size, dtype)
    return _measure_deformation(net, _batch(batch_size, net, num_sites**dimensions), dtype)


def measure_noise(
    key: jax.Array,
    spread: Float[Array, " k"],
    num_layers: int,
    filter_size: int,
    stride: int = 1,
    dimensions: int = 1,
    num_sites: int = 64,
    *,
    repeats: int = 256,
    relu: bool = True,
    rectified: bool = False,
    batch_size: int | None = None,
) -> Noise:
    """G of every layer: images of one active pixel somewhere, with white noise of squared norm 2.

    G_k = mean_x ||f_k(x + eta) - f_k(x)||^2 / mean_{x,x'} ||f_k(x) - f_k(x')||^2. Each repeat has a
    position and noise of its own; the first ones are the same however many there are.

    Args:
      key: PRNG key.
      spread: (K,), from `measure_deformation` for the same network; noise is drawn in its dtype.
      num_layers: K, at least 1.
      filter_size: F, at least 2.
      stride: 1 or F.
      dimensions: d, axes of the image, 1 or 2.
      num_sites: N, sites along each axis.
      repeats: draws, at least 2.
      relu: False for a linear network.
      rectified: max(eta, 0) is added, as in the released 1-D code.
      batch_size: repeats at a time; by default as many as caches hold.

    Returns:
      The `Noise`.

    Raises:
      ValueError: if a number is out of range, or the spread is not one number a layer.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), constant filters.
    """
    net = _Net(num_layers, filter_size, stride, dimensions, num_sites)
    _check(net, batch_size, spread.dtype)
    if repeats < 2:
        raise ValueError(f"repeats={repeats} must be at least 2, to have a standard error")
    if spread.shape != (num_layers,):
        raise ValueError(
            f"spread has shape {spread.shape}, not ({num_layers},): pass that of "
            "measure_deformation for the same network"
        )
    batch = _batch(batch_size, net, repeats)
    # Numbers, not flags: one program serves all kinds.
    return _measure_noise(key, spread, _FLOORS[relu], _FLOORS[rectified], net, repeats, batch)


def check_measurable(
    num_layers: int,
    filter_size: int,
    stride: int,
    dimensions: int,
    num_sites: int,
    dtype: DTypeLike = jnp.float32,
) -> None:
    """Raise ValueError for a network whose D and G have no law, or drown in the dtype's rounding.

    See `measure_deformation` for the arguments.
    """
    # How much larger the squared features are than their spread, from which D and G are made.
    ratio = depth_laws.exact(num_layers, filter_size, stride, dimensions, num_sites, relu=False).G
    blurred = ratio * float(jnp.finfo(dtype).eps) > _TOLERANCE
    if blurred.any():
        raise ValueError(
            f"num_sites={num_sites} is so small that from layer {int(blurred.argmax()) + 1} on "
            f"{jnp.dtype(dtype)} can hardly tell the features of two images apart; take fewer "
            "layers, more sites or float64"
        )


def _check(net: _Net, batch_size: int | None, dtype: DTypeLike) -> jnp.dtype:
    """The dtype; ValueError for what cannot be measured."""
    dtype = jnp.dtype(dtype)
    if dtype not in (jnp.float32, jnp.float64) or jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"dtype={dtype} must be float32, or float64 inside `with jax.enable_x64(True)`"
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1, or None")
    check_measurable(*net, dtype)
    return dtype


def _batch(batch_size: int | None, net: _Net, wanted: int) -> int:
    return min(batch_size or max(1, _BATCH_VALUES // net.num_sites**net.dimensions), wanted)


def _layer(features: Array, filter_size: int, stride: int, floor: ArrayLike) -> Array:
    for axis in range(1, features.ndim):
        average = _disjoint_average if stride > 1 else _sliding_average
        features = average(features, axis, filter_size)
    return jnp.maximum(features, floor)


def _disjoint_average(features: Array, axis: int, filter_size: int) -> Array:
    shape = features.shape
    windows = (*shape[:axis], shape[axis] // filter_size, filter_size, *shape[axis + 1 :])
    return features.reshape(windows).mean(axis + 1)


def _sliding_average(features: Array, axis: int, filter_size: int) -> Array:
    before, length = (filter_size - 1) // 2, features.shape[axis]
    margins = [(0, 0)] * features.ndim
    margins[axis] = (before, filter_size - 1 - before)
    padded = jnp.pad(features, margins, mode="wrap")
    shifted = (jax.lax.slice_in_dim(padded, j, j + length, axis=axis) for j in range(filter_size))
    return sum(shifted) / filter_size


def _every_layer(
    net: _Net, features: Array, floor: ArrayLike, statistic: Callable[[Array], Any]
) -> Any:
    """The statistic of the features of each layer; the features themselves are not kept.

    Stacked along a leading axis at stride 1, where all layers are of one size; else a list.
    """

    def step(features, _):
        features = _layer(features, net.filter_size, net.stride, floor)
        return features, statistic(features)

    if net.stride == 1:
        return jax.lax.scan(step, features, length=net.num_layers)[1]
    found = []
    for _ in range(net.num_layers):
        features, value = step(features, None)
        found.append(value)
    return found


def _stack(net: _Net, found: Any, number: Callable[[Any], Any]) -> Any:
    """Numbers made of the statistic of each layer, as arrays with a leading axis of layers."""
    if net.stride == 1:
        return jax.vmap(number)(found)
    return jax.tree.map(lambda *values: jnp.stack(values), *map(number, found))


def _active(net: _Net, sites: Array, dtype: DTypeLike) -> Array:
    """Images of one active pixel; of none for a site beyond the last."""
    count = net.num_sites**net.dimensions
    images = jax.nn.one_hot(sites, count, dtype=dtype)
    return images.reshape(-1, *(net.num_sites,) * net.dimensions)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _measure_deformation(net: _Net, batch: int, dtype: jnp.dtype) -> Deformation:
    count = net.num_sites**net.dimensions

    def statistic(features):
        plain, moved = features[:batch], features[batch:]
        return jnp.sum((moved - plain) ** 2), jnp.sum(plain**2), plain.sum(0)

    def of_batch(start):
        images = _active(net, start + jnp.arange(batch), dtype)
        both = jnp.concatenate([images, jnp.roll(images, 1, axis=-1)])
        return _every_layer(net, both, _FLOORS[True], statistic)

    starts = jnp.arange(0, count, batch)
    # Sites beyond the last give images of zeros, which add nothing to any sum.
    sums = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_batch, starts[0]))
    sums, _ = jax.lax.scan(
        lambda sums, start: (jax.tree.map(jnp.add, sums, of_batch(start)), None), sums, starts
    )

    def numbers(layer):
        distance, power, total = layer
        return distance / count, power / count - jnp.sum((total / count) ** 2)

    distance, spread = _stack(net, sums, numbers)
    return Deformation(distance / (2 * spread), spread)


@partial(jax.jit, static_argnums=(4, 5, 6))
def _measure_noise(key, spread, floor, noise_floor, net, repeats, batch):
    count, dtype = net.num_sites**net.dimensions, spread.dtype

    def draw(index):
        where, what = jax.random.split(jax.random.fold_in(key, index))
        noise = jax.random.normal(what, (net.num_sites,) * net.dimensions, dtype)
        noise *= jnp.sqrt(2 / jnp.sum(noise**2))
        return jax.random.randint(where, (), 0, count), noise

    def statistic(features):
        plain, noisy = features[:batch], features[batch:]
        return jnp.sum((noisy - plain) ** 2, axis=tuple(range(1, plain.ndim)))

    def of_batch(start):
        sites, noise = jax.vmap(draw)(start + jnp.arange(batch))
        images = _active(net, sites, dtype)
        both = jnp.concatenate([images, images + jnp.maximum(noise, noise_floor)])
        found = _every_layer(net, both, floor, statistic)
        return _stack(net, found, lambda distances: distances).T

    distances = jax.lax.map(of_batch, jnp.arange(0, repeats, batch)).reshape(-1, net.num_layers)
    found = distances[:repeats] / (2 * spread[None, :])
    return Noise(found.mean(0), found.std(0, ddof=1) / repeats**0.5)
