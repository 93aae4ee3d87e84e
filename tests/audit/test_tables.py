import math

import numpy as np
import pytest

from audit.made import boot, made_comparison, made_report, made_row, seeds
from recon_jax.audit import Estimate, Invariance
from recon_jax.audit.tables import audit_tables, setting_words, tell
from recon_jax.report import write_table

NAN = math.nan


@pytest.mark.parametrize(
    ("estimate", "options", "text"),
    [
        (Estimate(81.25, 79.5, 82.875, "bootstrap"), (".1f",), "81.2 [79.5, 82.9]"),
        (Estimate(0.8125, 0.795, 0.83, "bootstrap"), (".1f", 100), "81.2 [79.5, 83.0]"),
        (Estimate(0.5, 0.25, 0.75, "seeds"), (".2f",), "0.50 ± 0.25"),
        (Estimate(0.5, 0.25, 0.75, "seeds"), (".0f", 100), "50 ± 25"),
        (Estimate(0.5), (".3g",), "0.5"),
        (Estimate(1.2345, 1.2222, 1.2468, "seeds"), (".3g",), "1.23 ± 0.01"),
        (Estimate(1.0, 1 - 1e-8, 1 + 1e-8, "seeds"), (".3g",), "1.00 ± 0.00"),
        (Estimate(0.02, 0.0195, 0.0205, "seeds"), (".3g",), "0.0200 ± 0.0005"),
        (Estimate(1234.5, 1224.5, 1244.5, "seeds"), (".3g",), "1.23e+03 ± 10"),
        (Estimate(0.0, -0.1, 0.1, "seeds"), (".3g",), "0 ± 0.1"),
        (Estimate(0.125, 0.0, 0.25, "seeds"), ("+.1f", 100), "+12.5 ± 12.5"),
        (Estimate(0.5, NAN, NAN, "seeds"), (".3g",), "0.5"),  # one seed has no deviation
        (Estimate(NAN, NAN, NAN, "none", "no labels"), (".3g",), "-"),
        (Estimate(-0.0001, -0.2, 0.0, "bootstrap"), (".1f",), "0.0 [-0.2, 0.0]"),
        (Estimate(math.inf), (".3g",), "inf"),
        (Estimate(0.0001, -0.0001, 0.2, "bootstrap"), ("+.1f",), "0.0 [0.0, +0.2]"),
        (Estimate(12.0), ("+.1f",), "+12.0"),
    ],
)
def test_estimates_in_words(estimate, options, text):
    assert tell(estimate, *options) == text


def test_every_family_has_a_table_with_every_row():
    tables = audit_tables(made_comparison())
    families = ["spectrum", "labels", "probes", "stability", "invariance", "geometry"]
    assert list(tables) == families
    names = ["net", "other", "pixels", "PCA of 16"]
    for family, table in tables.items():
        assert table.name == family
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert list(dict.fromkeys(row[0] for row in table.rows)) == names
        assert "95 % bootstrap" in table.note
        assert table.note.endswith("200 test images of 28 x 28 x 1, 10 classes.")


def test_cells_are_what_was_measured():
    tables = audit_tables(made_report())

    def cells(family, row=0):
        table = tables[family]
        return dict(zip(table.columns, table.rows[row], strict=True))

    spectrum = cells("spectrum")
    assert spectrum["role"] == "encoder"
    assert spectrum["K"] == 16
    assert spectrum["all"] == "80.0 [79.0, 81.0]"
    assert spectrum["99-100 % (43 directions)"] == "-10.0 [-11.0, -9.0]"
    assert "3 directions without variance" in tables["spectrum"].note
    labels = cells("labels")
    assert labels["R² of labels"] == "60.0 [59.0, 61.0]"
    assert labels["R² from PCA of K"] == "50.0 [49.0, 51.0]"
    assert labels["difference"] == "10.0 [9.0, 11.0]"
    assert labels["ratio (not in %)"] == "1.20 [1.19, 1.21]"
    assert cells("probes")["linear, 5 a class"] == "60.0 ± 2.0"
    assert cells("invariance")["strength 0.6"] == "0.400 ± 0.010"
    assert cells("geometry")["intrinsic, TwoNN"] == "6.25 [5.75, 6.75]"
    assert cells("spectrum", 1)["role"] == "baseline"
    layers = [tuple(row[:2]) for row in tables["stability"].rows]
    assert layers[:3] == [("net", "conv1"), ("net", "conv2"), ("net", "output")]
    assert cells("stability", 2)["R = D / G"] == "0.333 ± 0.010"


def test_reasons_of_empty_cells_stand_in_the_note():
    note = audit_tables(made_comparison())["geometry"].note
    # Four rows have the same reason.
    reason = (
        "net, intrinsic, local PCA; other, intrinsic, local PCA; pixels, intrinsic, local PCA and "
        "1 more: fewer than 17 images."
    )
    assert reason in note
    labels = made_row().labels._replace(ratio=Estimate(NAN, note="PCA explains nothing"))
    note = audit_tables(made_report(labels=labels))["labels"].note
    assert "net, ratio (not in %): PCA explains nothing." in note


def test_what_was_not_measured_has_no_table():
    report = made_report()
    families = {"spectrum": None, "spectrum_directions": None, "stability": None, "labels": None}
    rows = [row._replace(**families) for row in report.rows]
    report = report._replace(encoder=rows[0], baselines=tuple(rows[1:]))
    assert list(audit_tables(report)) == ["probes", "invariance", "geometry"]
    # One row without a family does not take it from the others.
    table = audit_tables(made_report(probes=None))["probes"]
    assert [row[0] for row in table.rows] == ["pixels", "PCA of 16"]


def test_setting_without_labels():
    report = made_report()
    report = report._replace(source={**report.source, "classes": 0})
    assert setting_words(report).endswith("28 x 28 x 1, without labels.")


def test_strengths_name_the_columns_of_a_single_row():
    invariance = Invariance((0.05,), (seeds(0.2),))
    report = made_report(invariance=invariance)._replace(baselines=())
    assert audit_tables(report)["invariance"].columns[-1] == "strength 0.05"


def test_tables_are_written(tmp_path):
    for table in audit_tables(made_report(probes=None)).values():
        write_table(tmp_path, table)
        assert (tmp_path / f"{table.name}.csv").stat().st_size > 50


def test_a_shift_of_the_numbers_shows():
    kept = made_row().spectrum._replace(total=boot(np.float64(0.5)))
    assert audit_tables(made_report(spectrum=kept))["spectrum"].rows[0][3] == "50.0 [49.0, 51.0]"
