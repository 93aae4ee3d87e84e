"""Discretised mixture of logistics: pixels whose channels share one mixture component.

The parameters of a pixel come in blocks of M numbers, component by component: the logits of the
mixture; C blocks of means; C blocks of log-scales; with coupled channels C (C - 1) / 2 blocks of
coefficients, in the order (1, 0), (2, 0), (2, 1), ... of (channel, earlier channel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Key

from recon_jax.losses.bins import log_logistic_mass
from recon_jax.losses.levels import from_levels, half_bins, nearest_level


class MixtureShape(NamedTuple):
    """What the parameters of a mixture of logistics mean.

    Attributes:
      channels: C.
      levels: L.
      num_components: M.
      coupled: whether the mean of a channel depends on the earlier channels of the pixel.
      min_log_scale: log-scales below it count as it.
    """

    channels: int
    levels: int
    num_components: int
    coupled: bool
    min_log_scale: float

    @property
    def num_pairs(self) -> int:
        """Number of coefficients a component: pairs of channels, 0 if they are not coupled."""
        return self.channels * (self.channels - 1) // 2 if self.coupled else 0

    @property
    def num_params(self) -> int:
        """M (1 + 2 C + pairs): parameters a pixel."""
        return self.num_components * (1 + 2 * self.channels + self.num_pairs)


class _Parameters(NamedTuple):
    logits: Array  # (..., M)
    means: Array  # (..., C M)
    log_scales: Array  # (..., C M)
    coefficients: Array  # (..., pairs M)


def _split(shape: MixtureShape, params: Array) -> _Parameters:
    m, c = shape.num_components, shape.channels
    logits, means, log_scales, raw = jnp.split(params, [m, m + c * m, m + 2 * c * m], axis=-1)
    return _Parameters(logits, means, jnp.maximum(log_scales, shape.min_log_scale), jnp.tanh(raw))


def _shift(coefficients: Array, earlier: Sequence[Array], size: int) -> Array:
    """Sum over the earlier channels of coefficient times value: what a mean moves by.

    Args:
      coefficients: all of the pixel, blocks of `size`.
      earlier: values of the channels before, (..., size) each, in [-1, 1].
      size: components a block.
    """
    channel = len(earlier)
    first = channel * (channel - 1) // 2
    return sum(
        coefficients[..., (first + j) * size : (first + j + 1) * size] * value
        for j, value in enumerate(earlier)
    )


def mixture_log_prob(
    shape: MixtureShape, params: Float[Array, "*pixels k"], values: Integer[Array, "*pixels c"]
) -> Float[Array, "*pixels"]:
    """Nats log sum_m pi_m prod_c P(bin of x_c | mean_mc, scale_mc).

    The channels lie side by side in the last axis, since XLA vectorises over it and M alone is too
    short.

    Args:
      shape: of the mixture.
      params: K numbers a pixel.
      values: levels of the C channels.
    """
    size, levels = shape.num_components, shape.levels
    logits, means, log_scales, coefficients = _split(shape, params)
    position = jnp.repeat(half_bins(values, levels, params.dtype), size, axis=-1)
    if shape.num_pairs:
        pixels = jnp.split(position / (levels - 1), shape.channels, axis=-1)
        shifts = [_shift(coefficients, pixels[:c], size) for c in range(1, shape.channels)]
        means = means + jnp.concatenate([jnp.zeros_like(logits), *shifts], axis=-1)
    log_mass = log_logistic_mass(
        position - means * (levels - 1),
        -log_scales - math.log(levels - 1),
        position == 1 - levels,
        position == levels - 1,
    )
    joint = log_mass.reshape(*logits.shape[:-1], shape.channels, size).sum(-2)
    return jax.nn.logsumexp(logits + joint, axis=-1) - jax.nn.logsumexp(logits, axis=-1)


def mixture_sample(
    shape: MixtureShape, key: Key[Array, ""], params: Float[Array, "*pixels k"]
) -> Int[Array, "*pixels c"]:
    """Levels drawn exactly: the component, then channel by channel given the earlier levels.

    Args:
      shape: of the mixture.
      key: of all the draws.
      params: K numbers a pixel.
    """
    size = shape.num_components
    logits, *blocks = _split(shape, params)
    component_key, noise_key = jax.random.split(key)
    component = jax.random.categorical(component_key, logits, axis=-1)
    means, log_scales, coefficients = (
        jnp.take_along_axis(
            block.reshape(*logits.shape[:-1], block.shape[-1] // size, size),
            component[..., None, None],
            axis=-1,
        )[..., 0]
        for block in blocks
    )
    noise = jax.random.logistic(noise_key, means.shape, params.dtype)
    values, earlier = [], []
    for channel in range(shape.channels):
        mean = means[..., channel]
        if shape.num_pairs and earlier:
            mean = mean + _shift(coefficients, [x[..., None] for x in earlier], 1)[..., 0]
        draw = mean + jnp.exp(log_scales[..., channel]) * noise[..., channel]
        values.append(nearest_level(draw, shape.levels))
        earlier.append(from_levels(values[-1], shape.levels, params.dtype))
    return jnp.stack(values, axis=-1)


def mixture_mean(
    shape: MixtureShape, params: Float[Array, "*pixels k"]
) -> Float[Array, "*pixels c"]:
    """Mean over the components of their means, each clipped to [-1, 1], as a pixel in [0, 1].

    The means of coupled channels are computed in turn, with the means found for the earlier
    channels in the place of their values. It is not exactly the expectation of the pixel, which
    rounding, clipping and what earlier channels tell of the component would move.

    Args:
      shape: of the mixture.
      params: K numbers a pixel.
    """
    size = shape.num_components
    logits, means, _, coefficients = _split(shape, params)
    weights = jax.nn.softmax(logits, axis=-1)
    found: list[Array] = []
    for channel in range(shape.channels):
        mean = means[..., channel * size : (channel + 1) * size]
        if shape.num_pairs and found:
            mean = mean + _shift(coefficients, [x[..., None] for x in found], size)
        found.append((weights * jnp.clip(mean, -1, 1)).sum(-1))
    return (jnp.stack(found, axis=-1) + 1) / 2
