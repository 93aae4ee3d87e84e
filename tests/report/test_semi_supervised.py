import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import semi_supervised as words

NAN = np.full(3, np.nan)
LOCAL = "M2, local, h = 1"
NOISE = np.array([-1.0, 0, 1])


def outcome(method, shots, mean, spread=NOISE, bits=2.5):
    values = mean + np.asarray(spread, float)
    bits = np.full(len(values), bits)
    return words.Outcome(method, shots, values, bits, np.full(len(values), 12.4))


def supervised(*means, shots=(1, 10, 100)):
    pairs = zip(shots, means, strict=True)
    return [outcome("supervised only", n, mean, bits=np.nan) for n, mean in pairs]


def test_the_table_has_dashes_where_there_is_no_decoder():
    table = words.semi_supervised_table([*supervised(60, 70, 80), outcome(LOCAL, 10, 75)], "ours")
    assert table.rows[0] == [
        "supervised only", 1, "60.0 ± 1.0", "not published here", "-", "12",
    ]  # fmt: skip
    assert table.rows[3][-2:] == ["2.500 ± 0.000", "12"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "10 labels a class" in table.note
    assert "SVHN with 100" in table.note
    assert "seeds 0 to 4" in table.note
    assert table.note.endswith("ours")


def test_labels_needed_by_interpolation_in_log_shots():
    shots, accuracy = np.array([1, 10, 1000]), np.array([50.0, 60, 80])
    assert words.labels_needed(shots, accuracy, 55) == pytest.approx(10**0.5)
    assert words.labels_needed(shots, accuracy, 60) == pytest.approx(10)
    assert words.labels_needed(shots, accuracy, 70) == pytest.approx(100)
    assert words.labels_needed(shots, accuracy, 80) == pytest.approx(1000)
    assert words.labels_needed(shots, accuracy, 50) == 1
    assert np.isnan(words.labels_needed(shots, accuracy, 49.9))
    assert np.isnan(words.labels_needed(shots, accuracy, 80.1))
    # The first crossing of a curve that falls again.
    falling = np.array([50.0, 70, 60])
    assert words.labels_needed(shots, falling, 60) == pytest.approx(10**0.5)


def test_labels_are_saved_where_the_gap_is_more_than_the_spread():
    lines = words.answer(
        [*supervised(60, 70, 80), outcome(LOCAL, 10, 75, NOISE + np.array([0, 0.1, -0.1]))]
    )
    assert lines == [
        "10 labels a class: M2, local, h = 1 saves labels: 75.0 ± 1.0%, +5.0 ± 0.1 points on "
        "supervised only (better by more than twice the spread); labels saved: supervised only "
        "reaches 75.0% with 31.6 labels a class, 21.6 saved (3.2 times as many)."
    ]


@pytest.mark.parametrize(
    ("mean", "spread", "starts", "ends"),
    [
        (75, -5 * NOISE, "no evidence that M2, local, h = 1 saves labels: 75.0 ± 5.0%",
         "by the means alone: supervised only reaches 75.0% with 31.6 labels a class, 21.6 saved "
         "(3.2 times as many)."),
        (65, NOISE, "M2, local, h = 1 saves no labels, it costs some: 65.0",
         "reaches 65.0% with 3.16 labels a class, 6.84 lost (0.32 times as many)."),
        (85, NOISE, "M2, local, h = 1 saves labels: 85.0",
         "beyond the measured range, with more than 100 labels a class."),
        (55, NOISE, "M2, local, h = 1 saves no labels, it costs some: 55.0",
         "beyond the measured range, with fewer than 1 labels a class."),
        (75, [0], "whether M2, local, h = 1 saves labels cannot be said from one seed: 75.0%, +5.0",
         "by this seed alone: supervised only reaches 75.0% with 31.6 labels a class, 21.6 saved "
         "(3.2 times as many)."),
    ],
)  # fmt: skip
def test_verdicts_on_saving_labels(mean, spread, starts, ends):
    known = [
        item._replace(accuracy=item.accuracy if len(spread) > 1 else item.accuracy[1:2])
        for item in supervised(60, 70, 80)
    ]
    (line,) = words.answer([*known, outcome(LOCAL, 10, mean, spread)])
    assert line.startswith(f"10 labels a class: {starts}")
    assert line.endswith(ends)


def test_every_other_method_is_compared_at_as_many_labels():
    lines = words.answer(
        [
            outcome("M2, factorised", 10, 70),
            outcome("M2, full", 10, 75, -NOISE),
            outcome("M2, local, h = 3", 10, 99),
            outcome(LOCAL, 10, 75),
            outcome(LOCAL, 1, 65),
            outcome("probe of a frozen VAE, full", 10, 80),
            outcome("probe of a frozen VAE, full", 100, 99),
        ]
    )
    assert lines == [
        "10 labels a class: M2, local, h = 1, in points: +5.0 ± 0.0 (better by more than twice the "
        "spread) on M2, factorised; +0.0 ± 2.0 (within twice the spread) on M2, full; -24.0 ± 0.0 "
        "(worse by more than twice the spread) on M2, local, h = 3; -5.0 ± 0.0 (worse by more than "
        "twice the spread) on probe of a frozen VAE, full."
    ]


def test_without_a_local_decoder_there_is_nothing_to_say():
    assert words.answer(supervised(60, 70, 80)) == [
        "No M2 with a local decoder was trained: nothing to compare."
    ]


def test_one_label_is_singular_and_numbers_ascend():
    items = [*supervised(60, 70, 80), outcome(LOCAL, 10, 75), outcome(LOCAL, 1, 65)]
    assert [line[:8] for line in words.answer(items)] == ["1 label ", "10 label"]


def test_one_line_a_method_over_labels(tmp_path):
    probe = "probe of a frozen VAE, local, h = 1"
    items = [
        *supervised(60, 70, 80),
        outcome(LOCAL, 100, 85),
        outcome(LOCAL, 1, 65),
        outcome(probe, 10, 71),
        outcome("something else", 10, 72),
    ]
    figure = words.semi_supervised_figure(items)
    (ax,) = figure.axes
    lines = {item.get_label(): item.lines[0] for item in ax.containers}
    assert list(lines) == ["supervised only", LOCAL, probe, "something else"]
    np.testing.assert_allclose(lines[LOCAL].get_ydata(False), [65, 85])
    np.testing.assert_allclose(lines[LOCAL].get_xdata(False), [1, 100], rtol=0.05)
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "10", "100"]
    assert lines[LOCAL].get_color() == lines[probe].get_color()
    assert lines[LOCAL].get_linestyle() != lines[probe].get_linestyle()
    assert report.save_figure(tmp_path, "semi", figure).stat().st_size > 1000
