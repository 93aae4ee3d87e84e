import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import spectral_targets as words

NAN = np.full(3, np.nan)


def outcome(target, finetuned, linear, knn=(50, 51, 52), variance=100.0, error=(0.1, 0.2, 0.3)):
    arrays = (np.array(values, float) for values in (finetuned, linear, knn, error))
    return words.Outcome(target, 7, variance, *arrays)


ALL = outcome("all", (80, 81, 82), (70, 71, 72))
BETTER = outcome("bottom 25%", (84, 85, 86.1), (75, 76, 77.1), variance=25.4)
HALF = outcome("bottom 25%", (84, 85, 86.1), (70, 71.5, 71), variance=25.4)
WORSE = outcome("bottom 25%", (84, 85, 86.1), (60, 61, 62.1), variance=25.4)
SMALLER = outcome("bottom 10%", (90, 91, 92.1), (90, 91, 92.1), variance=10.0)
TOP = outcome("top 75%", (79, 82, 81), (70, 70, 73), variance=73.2)
NONE = outcome("none", (70, 71, 72), (50, 51, 52), variance=np.nan, error=NAN)


def test_the_table_stands_beside_the_third_party():
    table = words.target_table([ALL, BETTER, TOP, NONE], "CIFAR-10", "our setting")
    assert table.rows[0] == [
        "original", "7", "100.0", "20.0 ± 10.0", "81.0 ± 1.0", "71.0 ± 1.0", "51.0 ± 1.0",
        "88.5", "61.5",
    ]  # fmt: skip
    assert table.rows[1][-2:] == ["90.2", "63.8"]
    assert table.rows[2][2] == "73.2"
    assert table.rows[3][:4] == ["no pretraining", "-", "-", "-"]
    assert table.rows[3][-2:] == ["81.3", "not published here"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "third party" in table.note
    assert "not the paper" in table.note
    assert table.note.endswith("our setting")


def test_other_data_have_other_numbers():
    rows = words.target_table([ALL, SMALLER], "CIFAR-100", "").rows
    assert rows[0][-2:] == ["67.1", "37.0"]
    assert rows[1][-2:] == ["not published here"] * 2


@pytest.mark.parametrize(
    ("bottom", "verdict"),
    [
        (BETTER, "Yes: bottom 25% beats the original by more than twice the spread."),
        (HALF, "In part: bottom 25% beats the original by more than twice the spread in "
               "fine-tuned; the rest is within the spread."),
        (WORSE, "In part: bottom 25% beats the original by more than twice the spread in "
                "fine-tuned; worse: linear probe."),
        (ALL._replace(target="bottom 25%"),
         "No: bottom 25% does not beat the original; no gap exceeds twice the spread over seeds."),
        (WORSE._replace(finetuned=ALL.finetuned),
         "No: bottom 25% does not beat the original; it is worse by more than twice the spread in "
         "linear probe."),
    ],
)  # fmt: skip
def test_the_verdict_is_on_the_largest_bottom(bottom, verdict):
    assert words.answer([ALL, TOP, SMALLER, bottom, NONE])[0] == verdict


def test_one_seed_gives_no_verdict():
    def first(item):
        fields = {name: getattr(item, name)[:1] for name in (*words.MEASURES, "error")}
        return item._replace(**fields)

    lines = words.answer([first(ALL), first(BETTER)])
    assert "cannot be said from one seed" in lines[0]
    assert "--seeds=0,1,2" in lines[0]
    assert "fine-tuned +4.0 (one seed, spread unknown)" in lines[1]


def test_every_target_is_compared_with_the_original():
    lines = words.answer([ALL, TOP, NONE])
    assert len(lines) == 2  # no bottom, no verdict
    assert lines[0].startswith("top 75% against original, in points: fine-tuned -0.3 ± 1.2 (within")
    assert "linear probe -20.0 ± 0.0 (worse by more than it)" in lines[1]


def test_the_figure_marks_only_what_the_third_party_has(tmp_path):
    figure = words.target_figure([TOP, ALL, NONE], "CIFAR-10")
    axes = figure.axes
    assert [ax.get_title() for ax in axes] == list(words.MEASURES.values())
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == ["original", "top 75%", "no pretraining"]  # the original first
    diamonds = [[line for line in ax.lines if line.get_marker() == "D"] for ax in axes]
    assert [len(found) for found in diamonds] == [3, 2, 0]
    assert [line.get_xdata()[0] for line in diamonds[0]] == [88.5, 89.4, 81.3]
    assert [line.get_xdata()[0] for line in diamonds[1]] == [61.5, 60.7]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(legend) == ["ours", "third party, CIFAR-10"]
    assert report.save_figure(tmp_path, "accuracy", figure).stat().st_size > 1000


def test_one_strip_a_target():
    strips = {name: np.random.default_rng(0).random((3, 8, 8, 1)) for name in ("original", "top")}
    figure = words.strip_figure(strips)
    assert [ax.get_ylabel() for ax in figure.axes] == ["original", "top"]
