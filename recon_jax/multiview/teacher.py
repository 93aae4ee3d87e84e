"""How much larger than the student a teacher must be for features to grow and noise not to.

Source: Pan et al. 2023 (arXiv 2206.03826); the growth condition is derived here.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import ArrayLike

from recon_jax.checks import check_integer, check_numbers, is_concrete
from recon_jax.multiview.checks import as_power, check_keep

# Rounding that may push a scale, computed in float32, over the end of the window it sits on.
_SLACK = 1e-6


def teacher_scale_bounds(
    keep: ArrayLike, patches_per_feature: int, power: float = 4
) -> tuple[ArrayLike, ArrayLike]:
    """Window of tau in which features grow and the noise of single patches does not.

    In the curved part of the rectifier, what is spread equally over n patches grows if and only if
    tau^q > 1 + (1 - theta) / (theta n). With n = C_p for features and n = 1 for noise,
    low < tau <= high, low^q = 1 + (1 - theta) / (theta C_p) and high^q = 1 / theta.

    The two features of a class occur together, on 2 C_p patches: from
    tau^q > 1 + (1 - theta) / (2 theta C_p) on, below the window, kernels along their sum grow, and
    each feature alone does not.

    Args:
      keep: theta, probability that a patch stays visible to the student, in (0, 1].
      patches_per_feature: C_p, at least 1; at 1 the window is empty, as it is at theta = 1.
      power: q >= 1 of the rectifier.

    Returns:
      (low, high).

    Raises:
      ValueError: if a number is out of range (theta: checked outside jit).

    Source: derived here from the expectation over masks, `mask_reconstruction_loss`.

    >>> [round(float(bound), 3) for bound in teacher_scale_bounds(0.5, 2)]
    [1.107, 1.189]
    """
    check_keep(keep)
    check_integer("patches_per_feature", patches_per_feature, 1, "C_p")
    power = as_power(power)
    low = (1 + (1 - keep) / (keep * patches_per_feature)) ** (1 / power)
    return low, (1 / keep) ** (1 / power)


def default_teacher_scale(keep: ArrayLike, patches_per_feature: int, power: float = 4) -> ArrayLike:
    """(1 + 1 / (theta C_p))^(1/q): a teacher scale tau of the theory's order of magnitude.

    At theta = 1/2 and C_p = 2 it is the upper end of the window; for larger theta it lies above.

    Args:
      keep: theta in (0, 1].
      patches_per_feature: C_p, at least 1.
      power: q >= 1.

    Raises:
      ValueError: if a number is out of range (theta: checked outside jit).

    Source: Pan et al. 2023 (arXiv 2206.03826): tau = 1 + Theta((1 / (theta C_p) + 1)^(1/q)) as
      recalled, with the constants chosen here.
    """
    check_keep(keep)
    check_integer("patches_per_feature", patches_per_feature, 1, "C_p")
    return (1 + 1 / (keep * patches_per_feature)) ** (1 / as_power(power))


def warn_outside(
    teacher_scale: ArrayLike, keep: ArrayLike, patches_per_feature: int, power: float
) -> None:
    """Warn if a teacher scale lies outside the window of growth. Skipped inside jit."""
    check_numbers(
        "teacher_scale", teacher_scale, "(0, inf)", "teacher weights over student weights"
    )
    if not is_concrete(teacher_scale, keep):
        return
    low, high = (float(np.min(b)) for b in teacher_scale_bounds(keep, patches_per_feature, power))
    scales = np.asarray(teacher_scale, np.float64)
    outside = scales[(scales <= low) | (scales > high * (1 + _SLACK))]
    if outside.size:
        tau = float(outside.flat[0])
        happens = "features shrink" if tau <= low else "the noise of single patches grows too"
        warnings.warn(
            f"teacher_scale={tau:.6g} lies outside the window of growth {low:.6g} < tau <= "
            f"{high:.6g} of keep={keep}, patches_per_feature={patches_per_feature}, power={power}: "
            f"{happens}",
            stacklevel=3,
        )
