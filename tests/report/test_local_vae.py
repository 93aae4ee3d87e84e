import math

import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import local_vae as words
from recon_jax.report import vae_outcomes

D = 12
NAT = math.log(2) * D  # nats of one bit per dimension


def outcome(horizon, linear, *, size=4, bits=3.0, kl=2.0, collapse=("", "", ""), **measures):
    """Bits and KL are means over seeds; bits 0.1 and KL 0.5 apart."""
    seeds = len(linear)
    steps = np.arange(seeds) - (seeds - 1) / 2
    kls = kl + 0.5 * steps
    others = dict.fromkeys(("knn", "few_linear", "few_knn"), np.array(linear, float))
    return words.Outcome(
        horizon=horizon,
        latent_size=size,
        dimensions=D,
        nll=(bits + 0.1 * steps) * NAT - kls,
        kl=kls,
        active=np.full(seeds, 3.0),
        information=np.full(seeds, 1.5),
        linear=np.array(linear, float),
        kept=np.tile(np.linspace(1, 0, 6), (seeds, 1)),
        seconds=np.full(seeds, 41.6),
        collapse=tuple(collapse[:seeds]),
        **{name: np.array(measures.get(name, value), float) for name, value in others.items()},
    )


def baseline(name, size, value=70.0, kept=None):
    return words.Baseline(name, size, *(np.array([value]) for _ in range(4)), kept)


FACTORISED = outcome(0, (60, 61, 62), bits=4.0, kl=9.0)
LOCAL = outcome(1, (80, 81, 82.3), kl=5.0, knn=(60, 61, 62), few_knn=(50, 51, 52.2))
WIDE = outcome(2, (95, 96, 97), kl=4.0)
FULL = outcome(None, (80, 82, 81), bits=2.5, kl=3.0)
PIXELS = baseline("pixels", 0)
PCA = baseline("PCA, 4", 4, kept=np.array([1.0, 1, 1, 1, 0, 0]))


def first_seed(item):
    arrays = {n: v[:1] for n, v in item._asdict().items() if isinstance(v, np.ndarray | tuple)}
    return item._replace(**arrays)


def test_names_and_bits():
    assert [item.name for item in (FACTORISED, LOCAL, FULL)] == [
        "factorised", "local, h = 1", "full",
    ]  # fmt: skip
    item = LOCAL._replace(nll=np.array([10.0, 20]), kl=np.array([2.0, 4]))
    np.testing.assert_allclose(item.bits, [12 / 12 / np.log(2), 2 / np.log(2)], rtol=1e-14)


def test_the_table_has_the_one_published_number_in_its_row_alone():
    items = [outcome(h, (70, 71, 72), size=64, bits=3.0) for h in (0, 1, None)]
    rows = words.local_vae_table(items, [PIXELS, PCA], 10, "our setting", "CIFAR-10").rows
    assert rows[1] == [
        "local, h = 1", "64", "3.000 ± 0.100", "2.0 ± 0.5", "3.0 ± 0.0", "1.5 ± 0.0",
        *["71.0 ± 1.0"] * 4, "not published here", "42",
    ]  # fmt: skip
    assert [("71.46" in row[-2], "3.0328" in row[-2]) for row in rows] == [
        (False, False), (False, False), (True, True), (False, False), (False, False),
    ]  # fmt: skip
    assert "75.24" in rows[2][-2]
    assert rows[3][:2] == ["pixels", "-"]
    assert rows[4] == ["PCA, 4", "4", *"----", *["70.0"] * 4, "not published here", "-"]


@pytest.mark.parametrize(("dataset", "size"), [("MNIST", 64), ("CIFAR-10", 32)])
def test_other_settings_are_not_published(dataset, size):
    table = words.local_vae_table([outcome(None, (70, 71), size=size)], [], 7, "ours", dataset)
    assert [row[-2] for row in table.rows] == ["not published here"]
    assert len(table.rows[0]) == len(table.columns)
    assert "linear, 7 labels a class" in table.columns
    assert table.note.startswith(dataset)
    assert table.note.endswith("ours")


def test_the_local_decoder_is_the_shortest_not_the_best():
    lines = words.answer([WIDE, FACTORISED, LOCAL, FULL], [PIXELS, PCA])
    assert all(line.startswith("Latent of 4: ") for line in lines)
    assert lines[0] == (
        "Latent of 4: local, h = 1 against factorised: better in 2, worse in 1 of 4 read-outs by "
        "more than twice the spread over seeds, a tie in 1; in points: linear probe +20.1 ± 0.2 "
        "(better), kNN +0.0 ± 0.0 (tie), few-label linear +20.1 ± 0.2 (better), few-label 1-NN "
        "-9.9 ± 0.1 (worse)."
    )
    assert "local, h = 1 against full: better in 0, worse in 2" in lines[1]
    assert "linear probe +0.1 ± 1.2 (tie)" in lines[1]
    assert "local, h = 1 against pixels: better in 2, worse in 2" in lines[2]
    assert not any("against PCA" in line for line in lines)


def test_code_lengths_in_words():
    lines = words.answer([FACTORISED, LOCAL, FULL], [])
    assert lines[2] == (
        "Latent of 4: full has the fewest bits per dimension, 2.500 ± 0.100, 0.500 ± "
        "0.000 below local, h = 1 (more than twice the spread); factorised has the largest KL, "
        "9.0 ± 0.5 nats."
    )
    moved = f"+4.0 ± 0.0 nats (+{4 / NAT:.3f} ± 0.000 bits per dimension)"
    assert f"local, h = 1 {moved}" in lines[4]
    assert f"full +6.0 ± 0.0 nats (+{6 / NAT:.3f} ± 0.000" in lines[4]


def test_a_latent_that_says_more_has_moved_a_negative_number():
    lines = words.answer([FACTORISED, LOCAL._replace(kl=FACTORISED.kl + 1)], [])
    assert "local, h = 1 -1.0 ± 0.0 nats (-0.1" in lines[-1]


@pytest.mark.parametrize(
    ("linear", "others", "verdict"),
    [
        ((50, 51, 52), (50, 51, 52), "does not come with better probes: full has"),
        ((90, 91, 92), (50, 51, 52), "comes in part with better probes: full has"),
        ((90, 91, 92), (90, 91, 92), "comes with better probes: full has"),
    ],
)
def test_fewer_bits_and_better_probes(linear, others, verdict):
    full = outcome(None, linear, bits=2.5, knn=others, few_linear=others, few_knn=others)
    line = words.answer([FACTORISED, full], [])[1]
    assert f"lower bits per dimension {verdict} the fewest bits" in line
    best = "full, +30.0 ± 0.0 on factorised" if linear[0] == 90 else "factorised, +10.0 ± 0.0 on"
    assert f"linear probe: {best}" in line
    assert "4 of 4 leads are more than twice the spread" in line


def test_the_best_probe_leads_the_fewest_bits_not_the_runner_up():
    full = outcome(None, (50, 51, 52), bits=2.5)
    line = words.answer([FACTORISED, LOCAL, full], [])[3]
    assert "linear probe: local, h = 1, +30.1 ± 0.2 on full; kNN: factorised, +10.0 ± 0.0" in line


def test_of_equal_probes_the_fewest_bits_count_as_best():
    line = words.answer([FACTORISED, outcome(None, (60, 61, 62), bits=2.5)], [])[1]
    assert "bits per dimension comes with better probes" in line
    assert "(0 of 4 leads are more than twice the spread" in line


def test_leads_within_the_spread_are_not_counted():
    full = outcome(None, (66, 59, 60), bits=2.5)
    line = words.answer([FACTORISED, full], [])[1]
    assert "0 of 4 leads are more than twice the spread" in line


def test_one_seed_has_no_spread():
    lines = words.answer([first_seed(item) for item in (FACTORISED, LOCAL, FULL)], [PIXELS])
    assert lines[0] == (
        "Latent of 4: local, h = 1 against factorised: one seed, spread unknown, no verdict; in "
        "points: linear probe +20.0, kNN +0.0, few-label linear +20.0, few-label 1-NN -10.0."
    )
    assert "spread unknown" in lines[2]
    assert "spread unknown" in lines[3]
    assert "(one seed, spread unknown)" in lines[4]
    assert not any("better in" in line for line in lines)


def test_collapse_is_said_with_its_run():
    full = FULL._replace(collapse=("", "All gone.", "Half."), active=np.array([4, 0, 2]))
    lines = words.answer([LOCAL, full, outcome(0, (1, 2, 3), size=2)], [])
    assert "Latent of 4: full, 2 of 3 runs, the worst: All gone." in lines
    assert lines[0].startswith("Latent of 2: factorised has the fewest bits")


def test_other_numbers_of_seeds_are_not_paired():
    with pytest.raises(ValueError, match="3 and 1 seeds cannot be paired"):
        words.answer([LOCAL, first_seed(FULL)], [])


def test_the_code_length_is_stacked_and_what_moved_is_hatched(tmp_path):
    items = [FACTORISED, LOCAL, outcome(None, (1, 2, 3), kl=11.0), outcome(1, (1, 2, 3), size=8)]
    figure = words.code_length_figure(items)
    top, other, bottom, _ = figure.axes
    assert [ax.get_title() for ax in (top, other)] == ["latent of 4", "latent of 8"]
    latent, pixels = top.patches[:3], top.patches[3:]
    np.testing.assert_allclose([bar.get_height() for bar in latent], np.array([9, 5, 11]) / NAT)
    np.testing.assert_allclose([bar.get_y() for bar in pixels], np.array([9, 5, 11]) / NAT)
    tops = [bar.get_y() + bar.get_height() for bar in pixels]
    np.testing.assert_allclose(tops, [4, 3, 3])
    hatched = [bar for bar in bottom.patches if bar.get_hatch()]
    assert [(bar.get_y(), bar.get_height()) for bar in hatched] == [(5, 4)]
    assert [text.get_text() for text in bottom.texts] == ["9.0", "5.0\n(-4.0)", "11.0\n(+2.0)"]
    assert bottom.get_ylim()[1] > 11.5
    assert [tick.get_text() for tick in bottom.get_xticklabels()][1] == "local\nh = 1"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == len(set(legend)) == 3
    assert report.save_figure(tmp_path, "code", figure).stat().st_size > 1000


def test_accuracy_by_decoder_with_baselines_as_lines():
    items = [FACTORISED, LOCAL, outcome(1, (1, 2, 3), size=8)]
    figure = words.accuracy_figure(items, [PIXELS, PCA])
    assert [ax.get_title() for ax in figure.axes] == list(words.READ_OUTS.values())
    ax = figure.axes[1]  # kNN
    small, large = (found.lines[0] for found in ax.containers)
    np.testing.assert_allclose(small.get_ydata(False), [61, 61])
    np.testing.assert_allclose(large.get_ydata(False), [2])
    assert small.get_color() != large.get_color()
    assert small.get_marker() != large.get_marker()
    assert round(large.get_xdata(False)[0]) == round(small.get_xdata(False)[1]) == 1
    lines = {line.get_label(): line for line in ax.lines if line.get_label()[0] != "_"}
    assert set(lines) == {"pixels", "PCA, 4"}
    assert lines["PCA, 4"].get_color() == small.get_color()
    assert list(lines["pixels"].get_ydata(False)) == [70, 70]


def test_directions_have_a_panel_a_size_and_the_pca_of_that_size():
    items = [FACTORISED, LOCAL, outcome(1, (1, 2, 3), size=8)]
    first, second = words.directions_figure(items, [PIXELS, PCA]).axes
    labels = ["PCA of the same size", "factorised", "local, h = 1"]
    assert [line.get_label() for line in first.lines] == labels
    assert [line.get_label() for line in second.lines] == ["local, h = 1"]
    np.testing.assert_allclose(first.lines[0].get_ydata(False), PCA.kept)
    np.testing.assert_allclose(first.lines[1].get_ydata(False), np.linspace(1, 0, 6))
    assert first.get_xscale() == "log"


def test_bins_are_of_equal_width_in_log_index():
    index, values = words.log_bins(np.arange(1.0, 49))
    np.testing.assert_array_equal(index, values)
    assert len(index) == 48
    index, values = words.log_bins(np.arange(1.0, 5), num_bins=1)
    np.testing.assert_allclose(index, [24 ** (1 / 4)])
    np.testing.assert_allclose(values, [2.5])
    index, values = words.log_bins(np.arange(1.0, 100), num_bins=2)  # 1 .. 9, 10 .. 99
    np.testing.assert_allclose(values, [5, 54.5])
    np.testing.assert_allclose(index[0], math.factorial(9) ** (1 / 9))
    index, values = words.log_bins(np.ones(3072))
    np.testing.assert_allclose(values, 1)
    assert np.all(np.diff(np.log(index)) > 0)


def test_decoders_are_told_apart_without_colour():
    names = ["factorised", "full", *(f"local, h = {h}" for h in range(1, 6))]
    styles = [vae_outcomes.decoder_style(name) for name in names]
    for field in ("color", "marker"):
        assert len({style[field] for style in styles}) == len(names)
