import pytest

from audit.made import made_report, seeds
from recon_jax.audit import Invariance
from recon_jax.audit.overview import overview_table


def test_overview_holds_one_number_of_each_family():
    table = overview_table(made_report())
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells == {
        "name": "net",
        "role": "encoder",
        "K": 16,
        "pixels kept (%)": "80.0",
        "R² of labels (%)": "60.0",
        "over PCA (points)": "+10.0",
        "linear probe (%)": "81.5",
        "neighbours (%)": "79.0",
        "few labels (%)": "60.0",
        "R at the output": "0.333",
        "non-invariance": "0.400",
        "effective rank": "7.5",
    }
    assert "Non-invariance: at strength 0.6." in table.note


@pytest.mark.parametrize(("count", "at"), [(1, 0), (2, 1), (3, 1), (5, 2)])
def test_the_middle_strength_is_shown(count, at):
    strengths = tuple(0.1 * (i + 1) for i in range(count))
    invariance = Invariance(strengths, tuple(seeds(0.01 * i) for i in range(count)))
    table = overview_table(made_report(invariance=invariance)._replace(baselines=()))
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["non-invariance"] == f"{0.01 * at:.3f}"
    assert f"at strength {strengths[at]:g}." in table.note


def test_what_was_not_measured_is_a_dash():
    families = dict.fromkeys(("spectrum", "stability", "labels", "invariance"))
    table = overview_table(made_report(**families)._replace(baselines=()))
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["pixels kept (%)"] == cells["R at the output"] == cells["non-invariance"] == "-"
    assert "strength" not in table.note
