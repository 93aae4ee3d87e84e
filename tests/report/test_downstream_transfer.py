import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax import report
from recon_jax.report import downstream_transfer as words
from recon_jax.report.claims import FAILS, HOLDS, UNKNOWN

OVERLAPS = (0.0, 0.5, 1.0)
COVERS, PART, SEEN, KEEPS, MULTI, SINGLE, TRANSFER, SCRATCH, RANDOM = range(9)
BEHIND, HALF, RISES, NONE = range(9, 13)


def rows(*values):
    """Two seeds (2, O)."""
    return np.array(values)[None] + 0.001 * np.array([[-1.0], [1.0]])


def make(overlaps=OVERLAPS, **changes):
    """Numbers with which every claim holds, in the order of the overlaps given."""
    values = {
        f"{key}.{name}": (0.0, 0.5, 0.9) for key in words.NAMES for name in ("before", "after")
    }
    values |= {f"{key}.kept": (np.nan, 1.0, 0.99) for key in words.NAMES}
    for key, single in {
        "pretrained": (0.6, 0.85, 0.97),
        "pretrained_frozen": (0.6, 0.85, 0.97),
        "transferred": (0.6, 0.7, 0.75),
        "scratch": (0.6, 0.6, 0.6),
        "random_tuned": (0.62, 0.62, 0.62),
        "random_frozen": (0.61, 0.61, 0.61),
    }.items():
        values |= {f"{key}.multi": (0.9, 0.95, 0.99), f"{key}.single": single}
    values |= {"pretraining_covered": (0.98,), "supervised_covered": (0.5,)} | changes
    order = [OVERLAPS.index(overlap) for overlap in overlaps]
    arrays = {
        name: rows(*value)[:, 0] if len(value) == 1 else rows(*value)[:, order]
        for name, value in values.items()
    }
    return words.gather(arrays | {"seconds": np.array(3.0)}, overlaps)


def verdicts(found):
    return [item.verdict for item in words.find_claims(found)]


def but(verdict, *places):
    return [verdict if place in places else HOLDS for place in range(13)]


@pytest.mark.parametrize("overlaps", [OVERLAPS, (1.0, 0.0, 0.5)])
def test_all_claims_hold_where_they_should(overlaps):
    found = make(overlaps)
    assert_allclose(found.overlaps, OVERLAPS)
    assert verdicts(found) == [HOLDS] * 13
    claims = words.find_claims(found)
    assert claims[SEEN].measured == "0.0 ± 0.0 at 0, 0.500 ± 0.001 at 0.5, 0.900 ± 0.001 at 1"
    assert claims[KEEPS].measured == "1.00 ± 0.00 at 0.5, 0.990 ± 0.001 at 1"
    assert claims[SCRATCH].measured == "37.0 ± 0.0 at 1"
    assert claims[NONE].measured == "-1.00 ± 0.00 at 0"


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"pretraining_covered": (0.92,)}, [COVERS]),
        ({"supervised_covered": (0.8,)}, [PART]),
        ({"pretrained.before": (0.2, 0.5, 1.0)}, [SEEN]),
        ({"pretrained.kept": (np.nan, 0.9, 1.0)}, [KEEPS]),
        ({"pretrained.multi": (0.9, 0.95, 0.96)}, [MULTI, BEHIND]),
        ({"pretrained.single": (0.6, 0.8, 0.89), "transferred.single": (0.6, 0.7, 0.7)}, [SINGLE]),
        ({"transferred.single": (0.6, 0.7, 0.83)}, [TRANSFER]),
        ({"scratch.single": (0.6, 0.6, 0.83)}, [SCRATCH]),
        ({"scratch.single": (0.6, 0.86, 0.6)}, [HALF]),
        ({"scratch.multi": (1.0, 1.0, 1.02)}, [BEHIND]),
        ({"random_frozen.single": (0.61, 0.61, 0.94)}, [RANDOM]),
        ({"pretrained.single": (0.6, 0.57, 0.97), "scratch.single": (0.5,) * 3}, [RISES]),
        (
            {"pretrained.single": (0.9, 0.9, 0.97), "random_frozen.single": (0.9, 0.61, 0.61)},
            [RISES],
        ),
        ({"random_frozen.single": (0.5, 0.61, 0.61)}, [NONE]),
        ({"random_frozen.single": (0.7, 0.61, 0.61)}, [NONE]),
    ],
)
def test_every_rule_can_fail(changes, places):
    assert verdicts(make(**changes)) == but(FAILS, *places)


def test_missing_overlaps_cannot_be_told():
    assert verdicts(make((0.0, 1.0))) == but(UNKNOWN, HALF)
    at = but(UNKNOWN, MULTI, SINGLE, TRANSFER, SCRATCH, RANDOM, BEHIND, RISES, NONE)
    assert verdicts(make((0.5,))) == at
    claims = words.find_claims(make((0.0,)))
    assert claims[KEEPS].verdict == UNKNOWN
    assert claims[KEEPS].measured == "no such overlap"


def test_table_figure_and_answer(tmp_path):
    found = make()
    table = words.transfer_table(found, "our setting")
    assert len(table.rows) == 3 * 6
    assert table.rows[0][:2] == ["0", "pretraining + fine-tuning"]
    assert table.rows[0][4] == "-"
    assert table.rows[12][2:] == [
        "0.900 ± 0.001", "0.900 ± 0.001", "0.990 ± 0.001", "99.0 ± 0.1", "97.0 ± 0.1",
        "not published here",
    ]  # fmt: skip
    report.write_table(tmp_path, table)
    figure = words.transfer_figure(found)
    single = figure.axes[1]
    assert_allclose(single.containers[0].lines[0].get_data(False), [OVERLAPS, (60, 85, 97)])
    assert report.save_figure(tmp_path, "transfer", figure).stat().st_size > 1000
    claims = words.find_claims(found)
    lines = words.answer(found, claims)
    assert lines[0] == "Of 13 claims 13 hold, 0 do not, 0 cannot be told."
    assert lines[1] == (
        "On single-view images pretraining + fine-tuning is ahead of supervised pretraining + "
        "fine-tuning from overlap 0.5 on; of supervision from scratch from overlap 0.5 on; of "
        "random kernels + fine-tuning from overlap 0.5 on; of random kernels + head from overlap "
        "0.5 on."
    )
    assert len(lines) == 15
    single_seed = found._replace(pretraining_covered=found.pretraining_covered[:1])
    assert words.answer(single_seed, claims)[2].startswith("One seed")


def test_overlaps_from_which_on_pretraining_is_ahead():
    found = make(**{
        "scratch.single": (0.5, 0.9, 0.9),
        "transferred.single": (0.5, 0.6, 0.98),
        "random_tuned.single": (0.5, 0.6, 0.9),
    })  # fmt: skip
    assert words.ahead_from(found, "scratch") == 1
    assert words.ahead_from(found, "transferred") is None
    assert words.ahead_from(found, "random_tuned") == 0
    assert "supervised pretraining + fine-tuning at no overlap" in words.answer(found, [])[1]
