"""Log-probabilities that the logistic and the normal law give to bins, however small they are.

Everything is measured in half bins. A bin has its centre `distance` half bins above the mean, and
h = exp(log_half_bin) is half a bin over the scale of the law, so the bin reaches from
b = (distance - 1) h to a = (distance + 1) h in standard units. The lowest bin reaches down to
-infinity, the highest one up to +infinity. Mean and distance in these units make the upper edge of
a bin and the lower edge of the next one the same float, so that the bins add up to 1.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Below it 1 - exp(-2 h) is 2 h exp(-h) in float64 as well, and h may underflow.
_NARROW_LOGISTIC = 5e-6
_LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


def _logistic_terms(distance, log_half_bin, lowest, highest):
    """Log-mass, and its derivatives with respect to distance and log_half_bin.

    With sigmoid' = sigmoid (1 - sigmoid), sigmoid(a) - sigmoid(b) is
    sigmoid(a) sigmoid(-b) (1 - exp(b - a)) without cancellation.
    """
    h = jnp.exp(log_half_bin)
    a, b = (distance + 1) * h, (distance - 1) * h
    inner = ~(lowest | highest)
    narrow = inner & (h < _NARROW_LOGISTIC)
    wide = inner & ~narrow
    at_a = jnp.where(highest, 0, jnp.exp(-jnp.abs(a)))
    at_b = jnp.where(lowest, 0, jnp.exp(-jnp.abs(b)))
    gap = jnp.where(wide, -jnp.expm1(jnp.where(wide, -2 * h, -1)), 1)
    inverse_a, inverse_b = 1 / (1 + at_a), 1 / (1 + at_b)
    # One logarithm for three factors that are all far from underflow.
    log_mass = (
        jnp.log(gap * inverse_a * inverse_b)
        + jnp.where(highest, 0, jnp.minimum(a, 0))
        - jnp.where(lowest, 0, jnp.maximum(b, 0))
        + jnp.where(narrow, math.log(2) + log_half_bin - h, 0)
    )
    above = jnp.where(highest, 0, jnp.where(a > 0, at_a, 1) * inverse_a)  # sigmoid(-a)
    below = jnp.where(lowest, 0, jnp.where(b > 0, 1, at_b) * inverse_b)  # sigmoid(b)
    of_gap = jnp.where(wide, 2 * h * (1 - gap) / gap, jnp.where(narrow, 1 - h, 0))
    return log_mass, (above - below) * h, a * above - b * below + of_gap


@jax.custom_jvp
def log_logistic_mass(
    distance: Float[Array, "*shape"],
    log_half_bin: Float[Array, "*shape"],
    lowest: Bool[Array, "*shape"],
    highest: Bool[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """log(sigmoid(a) - sigmoid(b)), a and b = (distance +- 1) exp(log_half_bin); exact in tails.

    It equals log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)); the lowest bin has the first
    term alone, the highest one the second alone. The derivatives are given, as they need the same
    three exponentials as the value: differentiating through the formula takes twice as long.

    Args:
      distance: (centre of the bin - mean) / half a bin.
      log_half_bin: log(half a bin / scale).
      lowest: bins that reach to -infinity.
      highest: bins that reach to +infinity.
    """
    return _logistic_terms(distance, log_half_bin, lowest, highest)[0]


@log_logistic_mass.defjvp
def _log_logistic_mass_jvp(primals, tangents):
    log_mass, of_distance, of_half_bin = _logistic_terms(*primals)
    return log_mass, of_distance * tangents[0] + of_half_bin * tangents[1]


def _mills_ratio(v: Array) -> Array:
    """(1 - Phi(v)) / phi(v) for v >= 0, to 1e-6 relative in float32 and 1e-13 in float64."""
    far_from = 7.0 if v.dtype == jnp.float32 else 14.0
    far = v > far_from
    near = jnp.where(far, 1, v)
    by_erfc = (
        math.sqrt(math.pi / 2) * jnp.exp(near**2 / 2) * jax.scipy.special.erfc(near / math.sqrt(2))
    )
    v = jnp.where(far, v, far_from)
    # The asymptotic series 1 - 1/v^2 + 1*3/v^4 - 1*3*5/v^6 + ..., by Horner's rule.
    series = jnp.ones_like(v)
    for factor in range(19, 0, -2):
        series = 1 - factor / v**2 * series
    return jnp.where(far, series / v, by_erfc)


def _upper_tail(v: Array) -> Array:
    """1 - Phi(v)."""
    return jax.scipy.special.erfc(v / math.sqrt(2)) / 2


def _narrow_normal(distance, h, log_half_bin):
    """Log-mass of a bin so narrow that h^4 is less than rounding, anywhere.

    The density at the centre c times the integral of exp(-c t - t^2 / 2) over |t| < h. With
    u = |c| h the integral of the first factor is 2 h sinh(u) / u; the second one is replaced by the
    exponential of its mean, -h^2 / 2 times the mean of (t / h)^2 under that first factor.
    """
    u = jnp.abs(distance) * h**2
    small = u < 0.1
    safe = jnp.where(small, 1, u)
    log_sinhc = jnp.where(
        small,
        u**2 / 6 - u**4 / 180 + u**6 / 2835,
        u + jnp.log(-jnp.expm1(-2 * safe) / (2 * safe)),
    )
    second_moment = jnp.where(
        small,
        1 / 3 + 2 * u**2 / 45 - 4 * u**4 / 945,
        1 - 2 * (1 / jnp.tanh(safe) - 1 / safe) / safe,
    )
    log_density = -jnp.square(distance * h) / 2 - _LOG_SQRT_2_PI
    return log_density + math.log(2) + log_half_bin + log_sinhc - h**2 / 2 * second_moment


def _wide_normal(top, h, inner, distance):
    """Log-mass of (bottom, top) with the mean above its centre, or of (-infinity, top)."""
    bottom = -(1 + jnp.abs(distance)) * h
    tail = top <= 0
    # In the tail, phi(top) times a difference of Mills' ratios, neither of which underflows.
    ratio = jnp.exp(-2 * jnp.abs(distance) * h**2)  # phi(bottom) / phi(top)
    v = jnp.where(tail, -top, 1)
    mills = _mills_ratio(v) - jnp.where(inner, _mills_ratio(-bottom) * ratio, 0)
    in_tail = -jnp.square(v) / 2 - _LOG_SQRT_2_PI + jnp.log(jnp.where(tail, mills, 1))
    # Around the mean, 1 less what lies above and what lies below.
    outside = _upper_tail(jnp.where(tail, 1, top)) + jnp.where(inner, _upper_tail(-bottom), 0)
    return jnp.where(tail, in_tail, jnp.log1p(-jnp.where(tail, 0, outside)))


def log_normal_mass(
    distance: Float[Array, "*shape"],
    log_half_bin: Float[Array, "*shape"],
    lowest: Bool[Array, "*shape"],
    highest: Bool[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """log(Phi(a) - Phi(b)), a and b = (distance +- 1) exp(log_half_bin); exact in tails.

    The bin is mirrored to lie below the mean. A tail is phi(a) (R(-a) - R(-b) phi(b) / phi(a)) with
    Mills' ratio R; a bin around the mean is 1 less both tails; where a - b is so small that both
    would cancel, the density at the centre is integrated over the bin by its series.

    Args:
      distance: (centre of the bin - mean) / half a bin.
      log_half_bin: log(half a bin / standard deviation).
      lowest: bins that reach to -infinity.
      highest: bins that reach to +infinity.
    """
    inner = ~(lowest | highest)
    h = jnp.exp(log_half_bin)
    narrow = inner & (h < (8 * float(jnp.finfo(h.dtype).eps)) ** 0.25)
    wide_h = jnp.where(narrow, 1, h)
    mirrored = jnp.where(lowest, distance, jnp.where(highest, -distance, -jnp.abs(distance)))
    wide = _wide_normal((mirrored + 1) * wide_h, wide_h, inner, distance)
    narrow_h = jnp.where(narrow, h, 0)
    return jnp.where(narrow, _narrow_normal(distance, narrow_h, log_half_bin), wide)
