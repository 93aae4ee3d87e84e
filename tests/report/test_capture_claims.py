import numpy as np
import pytest

from recon_jax.report import capture_claims as claims
from recon_jax.report import feature_capture as words
from recon_jax.report.claims import FAILS, HOLDS, UNKNOWN

SETTING = words.Setting(5, 10, 0.5, 2, 4)
# The places of the claims in the table.
(
    CAPTURES, GROWS, PART, MORE, MULTI, SINGLE, BEHIND, RANDOM, HEAD, FROZEN, KEEPS, PURE, HALF,
    SHRINK, END, INSIDE, ALIGNED, UNALIGNED, PAIRS, NOTHING,
    FORETOLD, CHANCE, ENSEMBLE, WIDTH, STAYS, MIXES, AHEAD, TEACHES, LONG, SHORT, WAYS, PIXELS,
) = range(32)  # fmt: skip


def rows(value, spread=0.001):
    return value + spread * np.array([-1.0, 1.0])


def make_study(**changes):
    """Two seeds of numbers with which every claim about the methods holds."""
    values = {
        "supervised.captured": 0.55, "supervised.multi_view": 1.0, "supervised.single_view": 0.52,
        "supervised_head.captured": 0.5, "supervised_head.multi_view": 0.99,
        "supervised_head.single_view": 0.6, "frozen.captured": 0.98, "frozen.multi_view": 1.0,
        "frozen.single_view": 0.97, "finetuned.captured": 0.98, "finetuned.multi_view": 0.99,
        "finetuned.single_view": 0.98, "random_encoder.captured": 1.0,
        "random_encoder.multi_view": 1.0, "random_encoder.single_view": 0.8, "purity": 0.9,
        "growth": 6.0, "aligned": 1.0, "predicted_winners": 0.9, "agreeing_winners": 0.52,
    } | changes  # fmt: skip
    arrays = {name: rows(value) for name, value in values.items()}
    arrays["ensemble_multi_view"] = np.stack([rows(1.0), rows(0.99), rows(0.98)], 1)
    ensemble = changes.get("ensemble", 0.8)
    arrays["ensemble_single_view"] = np.stack([rows(0.52), rows(0.7), rows(ensemble)], 1)
    return words.gather(arrays | {"seconds": 12.0})


def make_point(sweep, value, **changes):
    measures = {"captured": 0.98, "purity": 0.8, "growth": 5.0, "largest": 7.0, "aligned": 1.0}
    measures |= {"multi": 1.0, "single": 0.98} | changes
    return words.Point(sweep, value, {name: rows(v) for name, v in measures.items()})


def make_points(*changed):
    """Points of every sweep with which every claim holds, but for those that are replaced."""
    low = {"growth": 0.8, "aligned": 0.2}
    behind = {"supervised_captured": 0.55, "supervised_single": 0.6, "supervised_multi": 1.0}
    points = [
        make_point("teacher_scale", 1.189),
        make_point("teacher_scale", 1.0, **low, largest=0.9),
        make_point("teacher_scale", 1.08, **low, largest=1.2),
        make_point("teacher_scale", 1.12, growth=1.1),
        make_point("teacher_scale", 1.3, growth=0.5),  # above the window nothing is asked
        make_point("width", 4, captured=0.88),
        make_point("width", 2, captured=0.7),
        make_point("single_view", 0.0, **behind),
        make_point("single_view", 0.05, **behind | {"supervised_captured": 0.8}),
        make_point("threshold", 0.2, **behind | {"supervised_captured": 0.95}),
        make_point("threshold", 1.0, **behind),
        make_point("steps", 200, purity=0.9),
        make_point("steps", 1200, purity=0.1),
        make_point("variant", "expected masks"),
        make_point("variant", "MAE-like"),
    ]
    for change in changed:
        points = [p for p in points if p[:2] != change[:2]] + [change]
    return points


def find(study=None, points=None):
    study = make_study() if study is None else study
    return claims.find_claims(study, make_points() if points is None else points, SETTING)


def but(verdict, *places):
    return [verdict if place in places else HOLDS for place in range(32)]


def verdicts(*args):
    return [item.verdict for item in find(*args)]


def test_all_claims_hold_where_they_should():
    found = find()
    assert [item.verdict for item in found] == [HOLDS] * 32
    text, rule = "pretraining captures the features", "1: captured >= 0.93"
    assert found[CAPTURES] == (text, rule, "0.980 ± 0.001", HOLDS, "", "")
    assert found[PART].rule == "1: captured in [0.4, 0.75]"
    assert found[BEHIND].measured == "46.0 ± 0.0"
    assert found[SHRINK].rule == "4: norm growth < 1 at all teacher scales <= 1.107"
    assert found[SHRINK].measured == "0.800 ± 0.001 at 1, 0.800 ± 0.001 at 1.08"
    assert found[PAIRS].rule.endswith("at all 1.057 < teacher scale <= 1.107")
    assert found[INSIDE].measured == "1.10 ± 0.00 at 1.12, 5.00 ± 0.00 at 1.189"
    assert found[WIDTH].measured == "0.700 ± 0.001 at 2, 0.880 ± 0.001 at 4"
    assert found[AHEAD].measured == "38.0 ± 0.0 at 0, 38.0 ± 0.0 at 0.05"
    assert found[WAYS].measured.endswith("0.980 ± 0.001 at MAE-like")


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"frozen.captured": 0.92}, [CAPTURES]),
        ({"growth": 1.9}, [GROWS]),
        ({"supervised.captured": 0.39}, [PART]),
        ({"supervised.captured": 0.74}, [MORE]),
        ({"supervised.captured": 0.76}, [PART, MORE]),
        ({"supervised.multi_view": 0.96}, [MULTI]),
        ({"finetuned.multi_view": 0.96}, [MULTI]),
        ({"finetuned.single_view": 0.89}, [SINGLE, FROZEN]),
        ({"supervised.single_view": 0.84}, [BEHIND, HALF, ENSEMBLE]),
        ({"random_encoder.single_view": 0.94}, [RANDOM]),
        ({"supervised_head.single_view": 0.84}, [HEAD]),
        ({"finetuned.captured": 0.96}, [KEEPS]),
        ({"purity": 0.7}, [PURE]),
        ({"supervised.single_view": 0.44}, [HALF]),
        ({"predicted_winners": 0.7}, [FORETOLD]),
        ({"agreeing_winners": 0.65}, [CHANCE]),
        ({"ensemble": 0.66}, [ENSEMBLE]),
    ],
)
def test_every_rule_about_the_methods_can_fail(changes, places):
    assert verdicts(make_study(**changes)) == but(FAILS, *places)


@pytest.mark.parametrize(
    ("sweep", "value", "changes", "places"),
    [
        ("teacher_scale", 1.08, {"growth": 1.1, "aligned": 0.2, "largest": 1.2}, [SHRINK]),
        ("teacher_scale", 1.08, {"growth": 0.8, "aligned": 0.6, "largest": 1.2}, [UNALIGNED]),
        ("teacher_scale", 1.08, {"growth": 0.8, "aligned": 0.2, "largest": 0.9}, [PAIRS]),
        ("teacher_scale", 1.0, {"growth": 0.8, "aligned": 0.2, "largest": 1.1}, [NOTHING]),
        ("teacher_scale", 1.189, {"growth": 1.9}, [END]),
        ("teacher_scale", 1.12, {"growth": 0.9}, [INSIDE]),
        ("teacher_scale", 1.12, {"growth": 1.1, "aligned": 0.8}, [ALIGNED]),
        ("width", 4, {"captured": 0.76}, [WIDTH]),
        ("steps", 200, {"purity": 0.9, "captured": 0.9}, [STAYS]),
        ("steps", 1200, {"purity": 0.65}, [MIXES]),
        ("single_view", 0.05, {"supervised_captured": 0.8, "supervised_single": 0.9}, [AHEAD]),
        ("single_view", 0.05, {"supervised_captured": 0.7, "supervised_single": 0.6}, [TEACHES]),
        ("threshold", 1.0, {"supervised_captured": 0.8}, [LONG]),
        ("threshold", 0.2, {"supervised_captured": 0.8}, [SHORT]),
        ("variant", "expected masks", {"captured": 0.9}, [WAYS]),
        ("variant", "MAE-like", {"purity": 0.7}, [PIXELS]),
    ],
)
def test_every_rule_about_a_sweep_can_fail(sweep, value, changes, places):
    points = make_points(make_point(sweep, value, **changes))
    assert verdicts(None, points) == but(FAILS, *places)


def test_rounding_does_not_decide():
    # 0.7 - 0.5 in float32 and in float64 is below 0.2.
    pair = [
        make_point("single_view", at, supervised_captured=share, supervised_single=0.6)
        for at, share in ((0.0, 0.5), (0.05, 0.7))
    ]
    for item in pair:
        share = item.found["supervised_captured"].mean().astype(np.float32)
        item.found["supervised_captured"] = np.full(2, share)
    assert verdicts(None, make_points(*pair)) == [HOLDS] * 32


def test_what_was_not_run_cannot_be_told():
    found = find(points=[])
    unknown = {*range(SHRINK, FORETOLD), *range(WIDTH, 32)}
    assert [item.verdict for item in found] == but(UNKNOWN, *unknown)
    assert found[WIDTH].measured == "not run"
    # One number of steps, and no training without single-view images, to compare with.
    few = [p for p in make_points() if p[:2] not in (("steps", 200), ("single_view", 0.0))]
    assert verdicts(None, few) == but(UNKNOWN, MIXES, TEACHES)


def test_what_failed_cannot_be_told():
    study = make_study(purity=np.nan, agreeing_winners=np.nan)
    found = find(study)
    assert [item.verdict for item in found] == but(UNKNOWN, PURE, CHANCE)
    assert found[PURE].measured == "not measured"


def test_answer():
    study = make_study(growth=1.0)
    found = find(study)
    lines = claims.answer(study, found)
    assert lines[0] == "Of 32 claims 31 hold, 1 do not, 0 cannot be told."
    assert lines[1 + GROWS] == (
        "Pretrained kernels grow: does not hold (1: norm growth >= 2). Measured: 1.00 ± 0.00."
    )
    assert len(lines) == 33
    single = study._replace(aligned=study.aligned[:1])
    assert claims.answer(single, found)[1].startswith("One seed")
