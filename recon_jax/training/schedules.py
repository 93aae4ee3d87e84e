"""Learning rates as functions of the step."""

from __future__ import annotations

import math

import jax.numpy as jnp
import optax

from recon_jax.checks import check_integer


def _warm_up(step, peak: float, warmup_steps: int):
    return peak * step / max(warmup_steps, 1)


def _constant(peak, total_steps, warmup_steps, options):
    def schedule(step):
        return jnp.where(step < warmup_steps, _warm_up(step, peak, warmup_steps), peak)

    return schedule


def _cosine(peak, total_steps, warmup_steps, options):
    final, half_period = options["final_fraction"], options["half_period"]

    def schedule(step):
        done = jnp.clip((step - warmup_steps) / (total_steps - warmup_steps), 0, 1)
        wave = (1 + jnp.cos(math.pi * done / half_period)) / 2
        decayed = peak * (final + (1 - final) * wave)
        return jnp.where(step < warmup_steps, _warm_up(step, peak, warmup_steps), decayed)

    return schedule


def _one_cycle(peak, total_steps, warmup_steps, options):
    initial = peak / options["div_factor"]
    final = initial / options["final_div_factor"]
    # PyTorch's boundary: not rounded, and counted from the first step as 0.
    turn = options["pct_start"] * total_steps - 1

    def schedule(step):
        rise = jnp.clip(step / turn, 0, 1)
        fall = jnp.clip((step - turn) / (total_steps - 1 - turn), 0, 1)
        rising = peak + (initial - peak) * (1 + jnp.cos(math.pi * rise)) / 2
        falling = final + (peak - final) * (1 + jnp.cos(math.pi * fall)) / 2
        return jnp.where(step <= turn, rising, falling)

    return schedule


SCHEDULES = {"constant": _constant, "cosine": _cosine, "one_cycle": _one_cycle}


def make_schedule(
    name: str,
    peak: float,
    total_steps: int,
    warmup_steps: int = 0,
    *,
    final_fraction: float = 0.0,
    half_period: float = 1.0,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> optax.Schedule:
    """A learning-rate schedule, a function of the number of steps already taken (0, 1, ...).

    constant: peak. cosine: peak (f + (1 - f) (1 + cos(pi t / h)) / 2), with t from 0 to 1 over the
    steps after the warm-up, f = final_fraction, h = half_period. Both start with a linear warm-up
    peak * step / warmup_steps. one_cycle: half a cosine from peak / div_factor up to peak at step
    pct_start * total_steps - 1, then half a cosine down to peak / (div_factor * final_div_factor)
    at the last step; the defaults are those of PyTorch's OneCycleLR.

    Args:
      name: constant, cosine or one_cycle.
      peak: the highest learning rate, above 0.
      total_steps: length of the training, at least 1.
      warmup_steps: in [0, total_steps); 0 for one_cycle, whose rise is its warm-up.
      final_fraction: of the peak, where cosine is lowest, in [0, 1].
      half_period: part of the steps of cosine after which it is lowest, in (0, 1]; below 1 the rate
        rises again until the end.
      pct_start: fraction of the steps in which one_cycle rises, in (0, 1).
      div_factor: one_cycle starts at peak / div_factor, at least 1.
      final_div_factor: and ends that many times below its start, at least 1.

    Returns:
      A function of the step, for use in or outside jit. Past the end it stays at its last value.

    Raises:
      ValueError: an unknown name, or a number outside its range.

    Source: cosine, Loshchilov & Hutter 2017 (arXiv 1608.03983); one cycle, Smith & Topin 2018
      (arXiv 1708.07120).

    >>> schedule = make_schedule("cosine", peak=1.0, total_steps=100, warmup_steps=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 55)]
    [0.0, 0.5, 1.0, 0.5]
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; choose one of {', '.join(SCHEDULES)}")
    if not 0 < peak < math.inf:
        raise ValueError(f"peak={peak} must be a finite learning rate above 0")
    check_integer("total_steps", total_steps, 1)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} must be in 0..{total_steps - 1}, below "
            f"total_steps={total_steps}"
        )
    if not 0 <= final_fraction <= 1:
        raise ValueError(f"final_fraction={final_fraction} must lie in [0, 1]")
    if not 0 < half_period <= 1:
        raise ValueError(f"half_period={half_period} must lie in (0, 1]; 1 ends at the lowest rate")
    if name == "one_cycle":
        _check_one_cycle(total_steps, warmup_steps, pct_start, div_factor, final_div_factor)
    options = {
        "final_fraction": final_fraction,
        "half_period": half_period,
        "pct_start": pct_start,
        "div_factor": div_factor,
        "final_div_factor": final_div_factor,
    }
    return SCHEDULES[name](peak, total_steps, warmup_steps, options)


def _check_one_cycle(total_steps, warmup_steps, pct_start, div_factor, final_div_factor) -> None:
    if warmup_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} must be 0 for one_cycle, whose rise over "
            f"pct_start={pct_start} of the steps is its warm-up"
        )
    if not 0 < pct_start < 1:
        raise ValueError(f"pct_start={pct_start} must lie strictly between 0 and 1")
    if pct_start * total_steps <= 1:
        raise ValueError(
            f"pct_start={pct_start} of total_steps={total_steps} is less than two steps to rise "
            f"in; use at least {math.floor(1 / pct_start) + 1} steps"
        )
    for option, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        if not 1 <= value < math.inf:
            raise ValueError(f"{option}={value} must be a finite number, 1 or more")
