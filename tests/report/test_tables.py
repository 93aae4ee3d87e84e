import csv

import pytest

from recon_jax.report import Table, write_table

TABLE = Table("t", "Title (%)", ("name", "value"), [["a & b", 1.23456], ["c", "-"]], "A note.", 3)


def test_three_formats_hold_the_same_cells(tmp_path):
    write_table(tmp_path, TABLE)
    markdown = (tmp_path / "t.md").read_text()
    assert markdown.startswith("**Title (%)**")
    assert "1.23 " in markdown
    assert markdown.rstrip().endswith("A note.")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "value"], ["a & b", "1.23456"], ["c", "-"]]
    latex = (tmp_path / "t.tex").read_text()
    assert r"a \& b" in latex
    assert r"\toprule" in latex


def test_cells_are_what_a_reader_sees():
    assert TABLE.cells() == [["a & b", "1.23"], ["c", "-"]]


def test_ragged_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 2 columns, a row has 1"):
        write_table(tmp_path, TABLE._replace(rows=[["alone"]]))
