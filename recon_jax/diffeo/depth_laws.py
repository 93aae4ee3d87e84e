"""How sensitivity to deformations falls with depth and that to noise grows, in closed form.

The networks are stacks of constant filters: every layer averages F sites along each axis and
rectifies, has no bias and keeps or divides the number of sites (stride 1 or F). An image has one
active pixel, a deformation moves it by one pixel along an axis, and the noise is white with the
squared norm of that change, 2. What such a network says of a pixel is p_k, the k-fold convolution
of the uniform distribution on F sites, and only the first ReLU matters: later layers see no
negative number.

Everything is computed on the host in float64.

Source: Tomasini et al. 2022 (arXiv 2210.01506), scalings of D and G with depth; the sums at finite
depth and finite size are derived here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from recon_jax.checks import check_integer
from recon_jax.diffeo.sensitivity import Sensitivity

# N times the variance over sites below which rounding decides what is left of p_k.
_FLAT = 1e-16


class _Layer(NamedTuple):
    """What D and G at one depth are made of; d axes, N^d sites.

    Attributes:
      moved: half the mean squared distance of the features of an image and of its deformation.
      power: squared norm of the features of an image.
      spread: half the mean squared distance of the features of two images.
      correlations: of the first layer's noise at two sites, each listed once.
      weights: how much the pairs of sites with this correlation add to the noise of this layer.
    """

    moved: float
    power: float
    spread: float
    correlations: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]


def exact(
    num_layers: int,
    filter_size: int,
    stride: int = 1,
    dimensions: int = 1,
    num_sites: int | None = None,
    *,
    relu: bool = True,
    rectified: bool = False,
) -> Sensitivity:
    """D_k, G_k and R_k = D_k / G_k of layers k = 1 .. K of a constant-filter network.

    With d axes, N sites along each, S = sum_i p_k(i)^2, the sums running over a ring of N sites,

      stride 1:  D_k = 1/2 sum_i (p_k(i + 1) - p_k(i))^2 S^(d-1) / (S^d - N^-d)
                 G_k = [F^-d E A + N^-d E (r + r A - 2 A)] / (S^d - N^-d)
      stride F:  D_k = F^-k / (1 - (F^k / N)^d)
                 G_k = [1/2 + (Q - 1) / 2 pi + (F / N)^d (1/2 - (Q - 1) / pi)] / (1 - (F^k / N)^d)

    where Q = F^(d (k - 1)), r = prod over axes of (1 - |m| / F)_+, the correlation of the first
    layer's noise at two sites m apart, A = [sqrt(1 - r^2) + r (pi - arccos r)] / 2 pi, and E sums
    over m with weights p_2(k-1)(m). Without ReLU G_k = S^d / (S^d - N^-d), for both strides with
    S = F^-k: 1 where there are many sites. If negative noise is cut off before it enters, then
    G_k = [S^d / 2 + (1 - S^d) / 2 pi] / (S^d - N^-d), with or without ReLU.

    D is exact. G is that of noise of squared norm 2, whether each draw has this norm or draws have
    it on average. With ReLU it leaves out that noise may switch the active pixel itself off, of
    probability Phi(-sqrt(N^d / 2 F^d)): measured G is lower by 1.5% where N^d = 7 F^d, by 5% where
    it is 4 F^d.

    Args:
      num_layers: K, at least 1.
      filter_size: F, sites along each axis of a filter, at least 2; odd or even.
      stride: of every layer, 1 or F.
      dimensions: d, axes of the image, 1 or 2.
      num_sites: N, sites along each axis, without border; at least 2 F, for stride F a multiple of
        F^K that leaves two sites. None is the limit of many sites.
      relu: False for the linear control.
      rectified: noise is cut off at 0 before it is added, as in the released 1-D code.

    Returns:
      `Sensitivity` of float64 arrays (K,).

    Raises:
      ValueError: if a number is out of range, the stride is another one, or at some depth all
        images have the same features.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), scalings with depth; derived here.

    >>> exact(3, filter_size=3).D.round(3).tolist()
    [0.333, 0.158, 0.106]
    """
    check_net(num_layers, filter_size, stride, dimensions)
    check_sites(num_sites, num_layers, filter_size, stride)
    layers = _uniform_layers if stride == 1 else _strided_layers
    field = filter_size**-dimensions
    pixel = 0.0 if num_sites is None else float(num_sites) ** -dimensions
    found = []
    for layer in layers(num_layers, filter_size, dimensions, num_sites):
        if rectified:
            noise = layer.power / 2 + (1 - layer.power) / (2 * np.pi)
        elif relu:
            r, weights = layer.correlations, layer.weights
            both = rectified_product(r)
            noise = field * weights @ both + pixel * weights @ (r + r * both - 2 * both)
        else:
            noise = layer.power
        found.append((layer.moved / layer.spread, noise / layer.spread))
    deformation, noise = np.array(found).T
    return Sensitivity(deformation, noise, deformation / noise)


def asymptotic(
    num_layers: int,
    filter_size: int,
    stride: int = 1,
    dimensions: int = 1,
    *,
    relu: bool = True,
    rectified: bool = False,
) -> Sensitivity:
    """What D_k, G_k and R_k tend to as k grows, in the limit of many sites.

    With s^2 = (F^2 - 1) / 12, the variance of the uniform distribution on F sites,

      stride 1:  D_k ~ 1 / (4 k s^2) = 3 / (k (F^2 - 1)),   G_k ~ (2 sqrt(pi k s^2) / F)^d / 2 pi
      stride F:  D_k = F^-k,                                G_k ~ F^(d (k - 1)) / 2 pi

    so that R_k ~ k^(-1 - d/2) or F^(-k (1 + d)). Without ReLU G_k = 1. Noise that is rectified
    before it enters has F^d times the G_k. At stride 1 the approach is slow: G_k is 1.7 times its
    asymptote for F = 3, d = 1, k = 10.

    Args:
      num_layers: K, at least 1.
      filter_size: F, at least 2.
      stride: 1 or F.
      dimensions: d, 1 or 2.
      relu: False for the linear control.
      rectified: noise is cut off at 0 before it is added.

    Returns:
      `Sensitivity` of float64 arrays (K,), for k = 1 .. K.

    Raises:
      ValueError: if a number is out of range or the stride is another one.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), scalings with depth; prefactors derived here.
    """
    check_net(num_layers, filter_size, stride, dimensions)
    depth = np.arange(1, num_layers + 1, dtype=float)
    size = float(filter_size)
    if stride == 1:
        deformation = 3 / (depth * (size**2 - 1))
        width = np.sqrt(np.pi * depth * (size**2 - 1) / 3)  # 2 sqrt(pi k s^2)
    else:
        deformation = size**-depth
        width = size**depth
    if rectified or relu:
        noise = (width if rectified else width / size) ** dimensions / (2 * np.pi)
    else:
        noise = np.ones(num_layers)
    return Sensitivity(deformation, noise, deformation / noise)


def path_counts(filter_size: int, stride: int, num_layers: int) -> list[Int[np.ndarray, " n"]]:
    """How many paths lead from each input site to one site of layer l = 1 .. K, without border.

    n^1 = (1, ..., 1) of length F, n^{l+1}_i = sum_{j < F} n^l_{i - j s^l}. They are even, so that
    deep layers see a bump of smooth shape, where s divides F, and uneven otherwise.

    Args:
      filter_size: F, at least 2.
      stride: s of every layer, at least 1.
      num_layers: K, at least 1; (F s)^K must fit 63 bits.

    Returns:
      One int64 array a layer, of length `receptive_field` and sum F^l.

    Raises:
      ValueError: if a number is out of range.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), released code.
    """
    check_integer("filter_size", filter_size, 2)
    check_integer("stride", stride, 1)
    check_integer("num_layers", num_layers, 1)
    if num_layers * np.log2(filter_size) >= 63:
        raise ValueError(
            f"filter_size={filter_size} and num_layers={num_layers} give F^K paths, more than 63 "
            "bits hold; take fewer layers"
        )
    counts = [np.ones(filter_size, np.int64)]
    for layer in range(1, num_layers):
        step = stride**layer
        spaced = np.zeros((filter_size - 1) * step + 1, np.int64)
        spaced[::step] = 1
        counts.append(np.convolve(counts[-1], spaced))
    return counts


def receptive_field(filter_size: int, stride: int, num_layers: int) -> int:
    """Input sites along an axis that reach one site of the last layer: F + (F-1) sum_{m<K} s^m.

    The sum starts at m = 1.

    Args:
      filter_size: F, at least 2.
      stride: s of every layer, at least 1.
      num_layers: K, at least 1.

    Raises:
      ValueError: if a number is out of range.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), released code.
    """
    check_integer("filter_size", filter_size, 2)
    check_integer("stride", stride, 1)
    check_integer("num_layers", num_layers, 1)
    return 1 + (filter_size - 1) * sum(stride**layer for layer in range(num_layers))


def rectified_product(correlation: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """E ReLU(z) ReLU(z') of standard normal z and z' of a correlation r: the A(r) of `exact`.

    [sqrt(1 - r^2) + r (pi - arccos r)] / 2 pi: 1/2 at r = 1, 1 / 2 pi at r = 0.
    """
    angle = np.arccos(correlation)
    return (np.sqrt(1 - correlation**2) + correlation * (np.pi - angle)) / (2 * np.pi)


def check_net(num_layers: int, filter_size: int, stride: int, dimensions: int) -> None:
    """Raise ValueError for a network that has no depth law: see `exact`."""
    check_integer("num_layers", num_layers, 1)
    check_integer("filter_size", filter_size, 2)
    if stride not in (1, filter_size):
        raise ValueError(
            f"stride={stride} must be 1 or filter_size={filter_size}: otherwise the windows of a "
            "layer overlap unevenly, sites have different numbers of paths to the output "
            "(path_counts), and D follows no law of this kind; it need not even fall"
        )
    if dimensions not in (1, 2):
        raise ValueError(f"dimensions={dimensions} must be 1 (a line of sites) or 2 (an image)")


def check_sites(
    num_sites: int | None, num_layers: int, filter_size: int, stride: int, name: str = "num_sites"
) -> None:
    """Raise ValueError unless an axis of `num_sites` sites suits the network: see `exact`."""
    if num_sites is None:
        return
    check_integer(name, num_sites, 2 * filter_size)
    smallest = 2 * filter_size**num_layers
    if stride > 1 and (num_sites < smallest or num_sites % (smallest // 2)):
        raise ValueError(
            f"{name}={num_sites} must be a multiple of F^K = {smallest // 2} (filter_size="
            f"{filter_size}, num_layers={num_layers}), at least {smallest}, so that every layer "
            "has whole windows and the last one two sites; take fewer layers or more sites"
        )


def _strided_layers(
    num_layers: int, filter_size: int, dimensions: int, num_sites: int | None
) -> Iterator[_Layer]:
    """Windows that do not overlap: the noise of two different ones is uncorrelated."""
    pixel = 0.0 if num_sites is None else float(num_sites) ** -dimensions
    for depth in range(1, num_layers + 1):
        power = float(filter_size) ** (-dimensions * depth)
        alone = float(filter_size) ** (-dimensions * (depth - 1))
        # A move of one pixel crosses into the next window with probability F^-k.
        moved = power * float(filter_size) ** -depth
        weights = np.array([alone, 1 - alone])
        yield _Layer(moved, power, power - pixel, np.array([1.0, 0.0]), weights)


def _uniform_layers(
    num_layers: int, filter_size: int, dimensions: int, num_sites: int | None
) -> Iterator[_Layer]:
    """Windows that overlap: p_k on a ring, or on one so long that its ends never meet."""
    length = num_sites or num_layers * (filter_size - 1) + 2 * filter_size
    pixel = 0.0 if num_sites is None else 1 / num_sites
    offsets = np.arange(1 - filter_size, filter_size)
    near = 1 - np.abs(offsets) / filter_size
    correlations = _over_axes(near, dimensions)
    bump = np.zeros(length)
    bump[0] = 1
    for depth in range(1, num_layers + 1):
        overlaps = np.array([bump @ np.roll(bump, offset) for offset in offsets])
        weights = _over_axes(overlaps, dimensions)
        bump = np.mean([np.roll(bump, j) for j in range(filter_size)], axis=0)
        # Differences from the mean first: S - 1 / N would lose digits where they are small.
        power, spread = bump @ bump, np.sum((bump - pixel) ** 2)
        if spread * length < _FLAT:
            raise ValueError(
                f"num_sites={num_sites} is so small that from layer {depth} on every image has "
                "the same features; take fewer layers or more sites"
            )
        moved = np.sum((np.roll(bump, 1) - bump) ** 2) / 2
        yield _Layer(
            moved * power ** (dimensions - 1),
            power**dimensions,
            spread * (power + pixel) ** (dimensions - 1),
            np.append(correlations, 0.0),
            np.append(weights, 1 - weights.sum()),
        )


def _over_axes(values: Float[np.ndarray, " m"], dimensions: int) -> Float[np.ndarray, " n"]:
    """Products over the axes of an image of what is given along one axis."""
    return values if dimensions == 1 else np.outer(values, values).ravel()
