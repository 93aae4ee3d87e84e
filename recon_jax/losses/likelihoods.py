"""Likelihoods of pixels with a finite number of levels, each a set of pure functions.

A network gives K numbers a pixel. Levels l = 0 .. L - 1 stand at 2 l / (L - 1) - 1 in [-1, 1];
half a bin is 1 / (L - 1) wide, and the bins at the ends are open, so that the L probabilities of a
pixel add up to 1. Log-scales are cut off from below, at -7 by default as PixelCNN++ has it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from recon_jax.checks import check_integer
from recon_jax.losses.bins import log_logistic_mass, log_normal_mass
from recon_jax.losses.levels import (
    check_levels,
    check_values,
    computing_dtype,
    half_bins,
    nearest_level,
)
from recon_jax.losses.logistic_mixture import (
    MixtureShape,
    mixture_log_prob,
    mixture_mean,
    mixture_sample,
)

MIN_LOG_SCALE = -7.0

COUPLINGS = ("autoregressive", "independent")


class Likelihood(NamedTuple):
    """A law of the C channels of a pixel, given K numbers from a network.

    Attributes:
      name: its key in LIKELIHOODS.
      levels: L, how many values a pixel can take.
      channels: C.
      num_params: K.
      log_prob: (params (..., K), levels (..., C)) -> nats (...), joint over the channels. Raises
        ValueError if shapes do not match or a level is out of range (levels: outside jit).
      sample: (one key, params (..., K)) -> levels (..., C), int32; every pixel drawn for itself.
      mean: params (..., K) -> expected pixels (..., C) in [0, 1]; the factory says which mean.
    """

    name: str
    levels: int
    channels: int
    num_params: int
    log_prob: Callable[[Array, Array], Array]
    sample: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]


def _check_min_log_scale(value: float) -> None:
    if not -30 <= value <= 0:
        raise ValueError(
            f"min_log_scale={value} must lie in [-30, 0]; {MIN_LOG_SCALE} is the usual one"
        )


def _checked_params(name: str, num_params: int, params: Any) -> Array:
    params = jnp.asarray(params)
    if not params.ndim or params.shape[-1] != num_params:
        raise ValueError(
            f"{name} takes params of shape (..., {num_params}), got {params.shape}; build the "
            "network with num_params=likelihood.num_params"
        )
    return params.astype(computing_dtype(params))


def _make(name: str, levels: int, channels: int, num_params: int, log_prob, sample, mean):
    """The Likelihood of functions that may trust what they are given."""

    def checked_log_prob(params, values):
        params = _checked_params(name, num_params, params)
        values = check_values(values, levels)
        if values.shape != (*params.shape[:-1], channels):
            raise ValueError(
                f"levels of shape {values.shape} do not belong to params of shape {params.shape}: "
                f"this {name} needs {(*params.shape[:-1], channels)}, channels={channels} last"
            )
        return log_prob(params, values)

    return Likelihood(
        name,
        levels,
        channels,
        num_params,
        checked_log_prob,
        lambda key, params: sample(key, _checked_params(name, num_params, params)),
        lambda params: mean(_checked_params(name, num_params, params)),
    )


def _bernoulli_log_prob(logits, values):
    return jax.nn.log_sigmoid(jnp.where(values == 1, logits, -logits)).sum(-1)


def _bernoulli_sample(key, logits):
    return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.int32)


def bernoulli(channels: int, levels: int = 2) -> Likelihood:
    """Binary pixels: log p = sum over c of log sigmoid(+-logit_c), + for level 1.

    K = C logits. Its mean is exact: sigmoid(logit).

    Args:
      channels: C.
      levels: 2.

    Raises:
      ValueError: if channels < 1 or levels is not 2.
    """
    check_integer("channels", channels, 1)
    check_levels(levels)
    if levels != 2:
        raise ValueError(
            f"levels={levels}, but bernoulli has 2; binarise by to_levels(images, 2), or choose "
            "another likelihood"
        )
    return _make(
        "bernoulli",
        2,
        channels,
        channels,
        _bernoulli_log_prob,
        _bernoulli_sample,
        jax.nn.sigmoid,
    )


def _location_scale(name, log_mass, draw, channels, levels, min_log_scale):
    """Independent channels, each a discretised law of a location family; K = 2 C."""
    check_integer("channels", channels, 1)
    check_levels(levels)
    _check_min_log_scale(min_log_scale)

    def split(params):
        means, log_scales = jnp.split(params, 2, axis=-1)
        return means, jnp.maximum(log_scales, min_log_scale)

    def log_prob(params, values):
        means, log_scales = split(params)
        return log_mass(
            half_bins(values, levels, params.dtype) - means * (levels - 1),
            -log_scales - math.log(levels - 1),
            values == 0,
            values == levels - 1,
        ).sum(-1)

    def sample(key, params):
        means, log_scales = split(params)
        noise = draw(key, means.shape, params.dtype)
        return nearest_level(means + jnp.exp(log_scales) * noise, levels)

    def mean(params):
        return (jnp.clip(split(params)[0], -1, 1) + 1) / 2

    return _make(name, levels, channels, 2 * channels, log_prob, sample, mean)


def discretized_gaussian(
    channels: int, levels: int = 256, *, min_log_scale: float = MIN_LOG_SCALE
) -> Likelihood:
    """Normal law in [-1, 1], rounded to the nearest level: log p = sum_c log(Phi(a_c) - Phi(b_c)).

    a, b = (x -+ mean +- 1 / (L - 1)) / exp(log_scale), log_scale being that of the standard
    deviation; a = infinity at the highest level, b = -infinity at the lowest. K = 2 C: C means in
    the units of [-1, 1], then C log-scales. Exact and with finite gradients however improbable the
    pixel. `mean` is the mean of the normal law, clipped to the range of pixels.

    Args:
      channels: C, which are independent.
      levels: L, in 2 .. 65536.
      min_log_scale: log-scales below it count as it, and get no gradient.

    Raises:
      ValueError: if channels < 1, or levels or min_log_scale is out of range.

    Source: the bins, Ho et al. 2020 (arXiv 2006.11239), section 3.3.
    """
    return _location_scale(
        "discretized_gaussian", log_normal_mass, jax.random.normal, channels, levels, min_log_scale
    )


def discretized_logistic(
    channels: int, levels: int = 256, *, min_log_scale: float = MIN_LOG_SCALE
) -> Likelihood:
    """Logistic law in [-1, 1], rounded to the nearest level.

    log p = sum_c log(sigmoid(a_c) - sigmoid(b_c)), a, b = (x - mean +- 1 / (L - 1)) /
    exp(log_scale); a = infinity at the highest level, b = -infinity at the lowest. K = 2 C: C means
    in the units of [-1, 1], then C log-scales. Exact and with finite gradients however improbable
    the pixel. `mean` is the mean of the logistic law, clipped to the range of pixels.

    Args:
      channels: C, which are independent.
      levels: L, in 2 .. 65536.
      min_log_scale: log-scales below it count as it, and get no gradient.

    Raises:
      ValueError: if channels < 1, or levels or min_log_scale is out of range.

    Source: Kingma et al. 2016 (arXiv 1606.04934), experiments.
    """
    return _location_scale(
        "discretized_logistic",
        log_logistic_mass,
        jax.random.logistic,
        channels,
        levels,
        min_log_scale,
    )


def logistic_mixture(
    channels: int,
    levels: int = 256,
    num_components: int = 10,
    coupling: str = "autoregressive",
    *,
    min_log_scale: float = MIN_LOG_SCALE,
) -> Likelihood:
    """Discretised mixture of M logistics, one component for all channels of a pixel.

    log p = log sum_m pi_m prod_c (sigmoid(a_mc) - sigmoid(b_mc)), bins as `discretized_logistic`
    has them. With `coupling="autoregressive"` the mean of channel c moves by
    sum over j < c of tanh(coefficient_mcj) x_j, x_j the level observed there, in [-1, 1]; three
    channels have the three coefficients of PixelCNN++. K = M (1 + 2 C + C (C - 1) / 2), or
    M (1 + 2 C) with `coupling="independent"`: 30 for grey and 100 or 70 for colour images if
    M = 10. Their order is that of `logistic_mixture.MixtureShape`'s module. Exact, unlike the
    density that PixelCNN++ takes for improbable bins. `mean` is `mixture_mean`, an approximation.

    Args:
      channels: C.
      levels: L, in 2 .. 65536.
      num_components: M.
      coupling: "autoregressive" or "independent"; one channel makes them the same.
      min_log_scale: log-scales below it count as it, and get no gradient.

    Raises:
      ValueError: if channels or num_components < 1, levels or min_log_scale is out of range, or
        the coupling is unknown.

    Source: Salimans et al. 2017 (arXiv 1701.05517), sections 2.1 and 2.2.
    """
    check_integer("channels", channels, 1)
    check_levels(levels)
    check_integer("num_components", num_components, 1)
    _check_min_log_scale(min_log_scale)
    if coupling not in COUPLINGS:
        raise ValueError(f"coupling={coupling!r} is unknown; choose one of {str(COUPLINGS)[1:-1]}")
    coupled = coupling == "autoregressive"
    shape = MixtureShape(channels, levels, num_components, coupled, min_log_scale)
    return _make(
        "logistic_mixture",
        levels,
        channels,
        shape.num_params,
        partial(mixture_log_prob, shape),
        partial(mixture_sample, shape),
        partial(mixture_mean, shape),
    )


LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "bernoulli": bernoulli,
    "discretized_gaussian": discretized_gaussian,
    "discretized_logistic": discretized_logistic,
    "logistic_mixture": logistic_mixture,
}


def make_likelihood(name: str, channels: int, levels: int, **options: Any) -> Likelihood:
    """The likelihood that `LIKELIHOODS` has under the name.

    Args:
      name: a key of LIKELIHOODS.
      channels: C.
      levels: L; `bernoulli` takes 2 only.
      options: further arguments of that factory.

    Raises:
      ValueError: if the name or an option is unknown, or the factory refuses a value.
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood {name!r} is unknown; choose one of {list(LIKELIHOODS)}")
    factory = LIKELIHOODS[name]
    allowed = [p for p in inspect.signature(factory).parameters if p not in ("channels", "levels")]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"{name} has no option {unknown}; its options are {allowed}")
    return factory(channels, levels, **options)
