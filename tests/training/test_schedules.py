import math

import numpy as np
import pytest

from recon_jax.training import SCHEDULES, make_schedule


def curve(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_constant():
    np.testing.assert_allclose(curve(make_schedule("constant", 0.3, 10), range(12)), 0.3)
    warm = curve(make_schedule("constant", 0.3, 10, 3), range(6))
    np.testing.assert_allclose(warm, [0, 0.1, 0.2, 0.3, 0.3, 0.3], atol=1e-12)


def test_cosine_with_warm_up():
    total, warm, peak, final = 40, 8, 2.0, 0.1
    ours = curve(make_schedule("cosine", peak, total, warm, final_fraction=final), range(50))
    expected = [
        peak * s / warm
        if s < warm
        else peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min((s - 8) / 32, 1))))
        for s in range(50)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9)
    assert ours[warm] == pytest.approx(peak)
    assert ours[total] == ours[-1] == pytest.approx(peak * final)


def test_cosine_rises_again_after_its_half_period():
    ours = curve(make_schedule("cosine", 1.0, 100, half_period=0.8), range(105))
    assert np.argmin(ours) == 80
    np.testing.assert_allclose(ours[80], 0, atol=1e-7)
    np.testing.assert_allclose(ours[100:], (1 + math.cos(1.25 * math.pi)) / 2, rtol=1e-5)
    plain = curve(make_schedule("cosine", 1.0, 80), range(81))
    np.testing.assert_allclose(ours[:81], plain, atol=1e-6)


@pytest.mark.parametrize(("total", "pct"), [(100, 0.3), (37, 0.3), (20, 0.45)])
def test_one_cycle_is_pytorchs(total, pct):
    def between(start, end, fraction):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

    peak = 0.5
    turn = pct * total - 1
    expected = [
        between(peak / 25, peak, s / turn)
        if s <= turn
        else between(peak, peak / 25 / 1e4, (s - turn) / (total - 1 - turn))
        for s in range(total)
    ]
    ours = curve(make_schedule("one_cycle", peak, total, pct_start=pct), range(total))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-9)
    assert ours[0] == pytest.approx(peak / 25)
    assert ours[-1] == pytest.approx(peak / 25 / 1e4, rel=1e-4)


# PyTorch 2.13, OneCycleLR(max_lr=1, total_steps=10).
TORCH = [0.04, 0.52, 1.0, 0.950485, 0.811746, 0.611262, 0.388742, 0.188258, 0.049519, 4e-06]


def test_one_cycle_against_numbers_of_pytorch():
    ours = curve(make_schedule("one_cycle", 1.0, 10), range(10))
    np.testing.assert_allclose(ours, TORCH, atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("linear", 1.0, 10), {}, "unknown schedule 'linear'; choose one of constant, cosine, one"),
        (("cosine", 0.0, 10), {}, "peak=0.0 must be a finite learning rate above 0"),
        (("cosine", math.inf, 10), {}, "peak=inf must be"),
        (("cosine", 1.0, 0), {}, "total_steps=0 must be an integer of at least 1"),
        (("cosine", 1.0, 10, 10), {}, r"warmup_steps=10 must be in 0\.\.9, below total_steps=10"),
        (("constant", 1.0, 10, -1), {}, r"warmup_steps=-1 must be in 0\.\.9"),
        (("cosine", 1.0, 10), {"final_fraction": 1.5}, r"final_fraction=1.5 must lie in \[0, 1\]"),
        (("cosine", 1.0, 10), {"half_period": 0.0}, r"half_period=0.0 must lie in \(0, 1\]"),
        (("cosine", 1.0, 10), {"half_period": 1.5}, r"half_period=1.5 must lie in \(0, 1\]"),
        (("one_cycle", 1.0, 10, 2), {}, "warmup_steps=2 must be 0 for one_cycle"),
        (("one_cycle", 1.0, 10), {"pct_start": 1.0}, "pct_start=1.0 must lie strictly between"),
        (("one_cycle", 1.0, 3), {}, "pct_start=0.3 of total_steps=3 .* use at least 4 steps"),
        (("one_cycle", 1.0, 10), {"div_factor": 0.5}, "div_factor=0.5 must be a finite number"),
        (("one_cycle", 1.0, 10), {"final_div_factor": 0}, "final_div_factor=0 must be a finite"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(*arguments, **options)


@pytest.mark.parametrize("name", SCHEDULES)
def test_shortest_training(name):
    total = 4
    assert np.isfinite(curve(make_schedule(name, 1.0, total), range(total))).all()
