import numpy as np
import pytest

from recon_jax.report import projector_claims as claims
from recon_jax.report.claims import FAILS, HOLDS, UNKNOWN

from .test_projector_geometry import failed, make, make_start

BASE = "2 layers"
# From a linear projector on data of known geometry, in no order, two seeds.
FLOW = claims.Flow(
    np.array([3.0, 0.0, 0.3, 1.0]),
    np.array([[4.2, 8.0, 7.9, 5.5], [4.4, 8.0, 7.7, 5.3]]),
    np.array([[0.006, 1.0, 0.81, 0.22], [0.008, 1.0, 0.83, 0.2]]),
    np.array([[0.005, 0.52, 0.023, 0.013]] * 2),
)
# The part of a claim that names it, in the order of the table.
GUARD, RANK_FALLS, RANK_PART, RANK_KEPT = 0, 1, 2, 3
FIXED_FALLS, FIXED_DROP, FIXED_KEPT, AHEAD = 4, 5, 6, 7
TANGENT, RATHER, GAIN, GAP = 8, 9, 10, 11
FLOW_RANK, FLOW_FALLS, FLOW_LAST = 12, 13, 14
DEPTH_LOCAL, DEPTH_RANK, DEPTH_FIXED = 15, 16, 17


def linear(index, **changes):
    changes = {"local_rank": (50.0, 32.0, 30.6)[index]} | changes
    return make(index, projector="linear", depth=1, width=999, **changes)


def good():
    return [make_start(), *(make(i) for i in range(3)), *(linear(i) for i in range(3))]


def find(outcomes, flow=FLOW):
    return claims.find_claims(outcomes, BASE, flow, 0.5)


def verdicts(outcomes, flow=FLOW):
    return [item.verdict for item in find(outcomes, flow)]


def but(expected, *places):
    """All hold, but the places have the verdict `expected`."""
    return [expected if place in places else HOLDS for place in range(18)]


def changed(**by_field):
    """The good outcomes with other values of the base, a field by strength."""
    outcomes = good()
    for index in range(3):
        values = {field: np.full(3, float(v[index])) for field, v in by_field.items()}
        outcomes[1 + index] = outcomes[1 + index]._replace(**values)
    return outcomes


def test_all_claims_hold_where_they_should():
    found = find(good())
    assert [item.verdict for item in found] == [HOLDS] * 18
    assert found[GUARD].measured.startswith("loss over log(2B - 1), 2 layers: 0.353 ± 0.000 at 0.1")
    assert found[RANK_PART].measured == (
        "0.146 of it: 38.4 ± 0.0 at 0.1, 12.7 ± 0.0 at 0.3, 5.61 ± 0.01 at 0.6"
    )
    assert found[FIXED_DROP].measured.startswith("-0.595: 0.893 ± 0.001 at 0.1")
    assert "non-invariance at strength 0.5 of Z" in found[FIXED_DROP].rule
    assert found[AHEAD].measured == "H - Z: 0.289 ± 0.000 at 0.3, 0.536 ± 0.001 at 0.6"
    assert found[TANGENT].measured.endswith("; chance 0.047")
    assert "soft" in found[GAP].rule
    assert found[FLOW_RANK].measured.startswith("-3.7: 8.00 ± 0.00 at 0, 7.80 ± 0.14 at 0.3, 5.40")
    assert "only augmented: 0.520" in found[FLOW_FALLS].measured
    assert found[FLOW_LAST].measured.startswith("0.007: ")
    assert found[DEPTH_LOCAL].measured.startswith("at 0.1: 50.0 ± 0.0 with linear, 26.5")
    assert found[DEPTH_RANK].measured.startswith("largest difference 0; at 0.1: 38.4")


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({"projector_rank": (38, 39, 5)}, [RANK_FALLS, DEPTH_RANK]),
        ({"projector_rank": (38, 38, 5)}, [RANK_FALLS, DEPTH_RANK]),
        ({"projector_rank": (38, 15, 11.5)}, [RANK_PART, DEPTH_RANK]),
        ({"projector_rank": (38, 15, 7.4)}, []),
        ({"projector_rank": (38, 15, 7.6)}, [DEPTH_RANK]),
        ({"encoder_rank": (20, 5, 12.1)}, []),
        ({"encoder_rank": (20, 5, 11.9)}, [RANK_KEPT]),
        ({"projector_fixed": (0.88, 0.53, 0.54)}, [FIXED_FALLS, FIXED_DROP, DEPTH_FIXED]),
        ({"projector_fixed": (0.88, 0.45, 0.39)}, []),
        ({"projector_fixed": (0.79, 0.45, 0.39)}, [DEPTH_FIXED]),
        ({"encoder_fixed": (0.8, 0.99, 0.89)}, []),
        ({"encoder_fixed": (0.8, 0.99, 0.91)}, [FIXED_KEPT]),
        ({"encoder_fixed": (0.8, 0.99, 0.69)}, [FIXED_KEPT]),
        ({"encoder_fixed": (0.8, 0.66, 0.8)}, []),
        ({"encoder_fixed": (0.8, 0.64, 0.8)}, [AHEAD]),
        ({"tangent_alignment": (0.066, 0.2, 0.2)}, []),
        ({"tangent_alignment": (0.2, 0.2, 0.065)}, [TANGENT]),
        ({"augmentation_alignment": (0, 0.12, 0)}, [RATHER]),
        ({"gain": (2, 2, 1.1)}, [GAIN]),
        ({"projector_probe": (97, 90, 97.4)}, [GAP]),
        ({"local_rank": (26, 40, 17)}, [DEPTH_LOCAL]),
    ],
)
def test_every_part_of_a_rule_fails_alone(values, places):
    assert verdicts(changed(**values)) == but(FAILS, *places)


def test_the_linear_flow_has_its_own_rule():
    few = FLOW._replace(rank=np.array([[5.1, 8, 7.9, 5.5]]))
    assert verdicts(good(), few) == but(FAILS, FLOW_RANK)
    rising = FLOW._replace(both=np.array([[0.04, 1, 0.2, 0.3]]))
    assert verdicts(good(), rising) == but(FAILS, FLOW_FALLS)
    left = FLOW._replace(both=np.array([[0.06, 1, 0.8, 0.3]]))
    assert verdicts(good(), left) == but(FAILS, FLOW_LAST)
    assert verdicts(good(), None) == but(UNKNOWN, FLOW_RANK, FLOW_FALLS, FLOW_LAST)
    assert find(good(), None)[FLOW_FALLS].measured == "not run"


def test_a_failed_pretext_takes_no_part():
    outcomes = changed(projector_rank=(38, 15, 99), gain=(1.3, 1.3, 0.5))
    assert verdicts(outcomes) == but(FAILS, RANK_FALLS, RANK_PART, GAIN, DEPTH_RANK)
    # One run is enough: those that are left need not be like the others.
    outcomes[3] = failed(outcomes[3], [1])
    found = find(outcomes)
    assert found[GUARD].verdict == FAILS
    assert found[GUARD].measured.endswith(
        "0.514 ± 0.001 at 0.3; left out: 2 layers at 0.6 (2 of 3 runs; failed: 0.996)"
    )
    assert found[RANK_FALLS].verdict == found[GAIN].verdict == found[DEPTH_RANK].verdict == HOLDS
    # The ends are now at 0.1 and 0.3.
    assert found[RANK_PART].verdict == FAILS
    assert found[RANK_PART].measured == "0.395 of it: 38.0 ± 0.0 at 0.1, 15.0 ± 0.0 at 0.3"


def test_a_loss_without_a_collapsed_value_must_be_finite():
    nothing = np.full(3, np.nan)
    outcomes = [item._replace(collapsed=nothing) for item in good()[1:4]]
    guard = find(outcomes)[GUARD]
    assert guard.rule == "guard: a finite loss"
    assert (
        guard.measured
        == "loss, 2 layers: 2.20 ± 0.00 at 0.1, 3.20 ± 0.00 at 0.3, 4.80 ± 0.00 at 0.6"
    )
    outcomes[2] = outcomes[2]._replace(loss=np.array([1, np.inf, np.nan]))
    assert find(outcomes)[GUARD].measured.endswith(
        "2 layers at 0.6 (1 of 3 runs; failed: inf, nan)"
    )


def test_too_few_strengths_tell_nothing():
    at_every = [GUARD, TANGENT, RATHER, GAIN]
    flow = [FLOW_RANK, FLOW_FALLS, FLOW_LAST]
    single = [make(0, seeds=1)]
    assert verdicts(single) == [HOLDS if i in at_every + flow else UNKNOWN for i in range(18)]
    assert find(single)[DEPTH_LOCAL].measured == "no two depths at one strength"
    # Rule 3 asks nothing below 0.3.
    assert find(single)[AHEAD].measured == "H - Z: no valid strength"
    for outcomes in ([failed(make(i), range(3)) for i in range(3)], [make_start()]):
        found = find(outcomes)
        assert {item.verdict for item in found[1:] if item not in found[12:15]} == {UNKNOWN}
    assert found[GUARD].verdict == UNKNOWN


def test_a_failed_measure_tells_nothing():
    outcomes = good()
    nan = outcomes[2].gain.copy()
    nan[1] = np.nan
    outcomes[2] = outcomes[2]._replace(
        projector_rank=nan, chance=nan, augmentation_alignment=nan, local_rank=nan, gain=nan
    )
    found = find(outcomes)
    # The middle of three strengths is not asked where only the ends are.
    expected = but(UNKNOWN, RANK_FALLS, TANGENT, RATHER, GAIN, DEPTH_LOCAL, DEPTH_RANK)
    assert [item.verdict for item in found] == expected
    lines = claims.answer(outcomes, found)
    assert lines[0] == "Of 18 claims 12 hold, 0 do not, 6 cannot be told."
    assert lines[-1].startswith("Not finite: projector rank of 2 layers at 0.3 (1 of 3 runs), ")


def test_the_base_must_be_there():
    with pytest.raises(ValueError, match=r"one of \['2 layers', 'linear'\], got 'deep'"):
        claims.find_claims(good(), "deep", None, 0.5)


def test_table_and_answer():
    outcomes = changed(gain=(2, 2, 1.1))
    found = find(outcomes)
    table = claims.claims_table(found, "our setting")
    assert table.columns == ["claim", "rule", "measured", "verdict"]
    assert len(table.rows) == 18
    assert table.rows[GAIN][-1] == "does not hold"
    assert "The rules are this project's" in table.note
    assert table.note.endswith("our setting")
    lines = claims.answer(outcomes, found)
    assert len(lines) == 21
    assert lines[0] == "Of 18 claims 17 hold, 1 do not, 0 cannot be told."
    assert lines[1].startswith("One seed in some rows")  # untrained
    assert lines[2 + GAIN] == (
        "It amplifies tangent over augmentation directions: does not hold (4: gain ratio >= 1.15 "
        "at every strength). Measured: 2.00 ± 0.00 at 0.1, 2.00 ± 0.00 at 0.3, 1.10 ± 0.00 at 0.6."
    )
    assert lines[-1].startswith(
        "To compare, 2 layers, untrained: encoder rank 20.8, projector rank"
    )
    assert len(claims.answer(outcomes[1:], found)) == 19
