import numpy as np
import pytest
from scipy import stats

from recon_jax.report import mask_sweep as words

RANKS = (1, 2, 3)


def cell(name, kind, alignment, probe, knn=None, neutral=False):
    alignment = np.asarray(alignment, float)
    probe = np.asarray(probe, float)
    return words.Cell(
        name=name,
        kind=kind,
        alignment=alignment,
        impact=alignment / 0.5 - 1,
        is_neutral=neutral,
        drops_patches=kind not in ("none", "Gaussian noise"),
        linear_probe=probe,
        knn=probe - 3 if knn is None else np.asarray(knn, float),
        error=np.full(len(probe), 0.25),
        seconds=12.4,
    )


def make_cells(noise=(50.5, 49.5, 50.0)):
    return [
        cell("none", "none", [0.5, 0.6, 0.7], [50, 50, 50]),
        cell("gaussian(1)", "Gaussian noise", [0.5 + 1e-12, 0.6, 0.7], noise, neutral=True),
        cell("patch_subset(0.5, 4x4)", "random patches", [0.6, 0.5, 0.8], [55, 56, 54]),
        cell("patch_subset(0.9, 4x4)", "random patches", [0.7, 0.4, 0.9], [60, 58, 62]),
        cell("grid_mask(2, 4x4)", "regular grid", [0.4, 0.7, 0.6], [40, 41, 39]),
    ]


REFERENCES = {
    "untrained": np.array([[52.0, 40], [53, 41], [51, 42]]),
    "pixels": np.array([[70.0, 60]] * 3),
}


def test_correlations_are_those_of_scipy_with_ties():
    cells = make_cells()
    whole = words.agreements(cells, RANKS)
    found = {(a.read_out, a.rank): a for a in whole if a.group == "all"}
    probe = [c.linear_probe.mean() for c in cells]
    for rank in RANKS:
        # What differs by rounding alone is tied.
        alignment = [round(c.alignment[rank - 1], 9) for c in cells]
        item = found["linear_probe", rank]
        assert item.correlation == pytest.approx(stats.spearmanr(alignment, probe).statistic)
        by_seed = [
            stats.spearmanr(alignment, [c.linear_probe[s] for c in cells]).statistic
            for s in range(3)
        ]
        np.testing.assert_allclose(item.by_seed, by_seed)
        assert item.num_cells == 5
    alike = [a for a in whole if a.group == "dropping patches"]
    assert {a.num_cells for a in alike} == {3}
    assert [a.correlation for a in alike if a.read_out == "linear_probe"] == [1, -1, 1]
    assert found["linear_probe", 1].correlation > 0.9 > -0.9 > found["knn", 2].correlation


@pytest.mark.parametrize(
    ("correlation", "count", "low", "high"),
    [
        # Bonett & Wright 2000 worked by hand: sd = sqrt((1 + r^2 / 2) / (n - 3)).
        (0.5, 12, -0.1427, 0.8461),
        (0.0, 39, -0.3155, 0.3155),
        (-0.8, 20, -0.9281, -0.5024),
    ],
)
def test_intervals_by_hand(correlation, count, low, high):
    found = words.spearman_interval(correlation, count)
    np.testing.assert_allclose(found, (low, high), atol=1e-4)


def test_intervals_cover_what_they_should():
    # Over many samples of 15 pairs of correlated normals, near 95%.
    rng = np.random.default_rng(0)
    rho = 0.5
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of bivariate normals
    inside = 0
    for _ in range(400):
        x = rng.standard_normal(15)
        y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(15)
        low, high = words.spearman_interval(stats.spearmanr(x, y).statistic, 15)
        inside += low <= truth <= high
    assert 0.9 < inside / 400 < 0.99


def test_intervals_at_the_edges():
    assert words.spearman_interval(0.9, 3) == (-1, 1)
    assert words.spearman_interval(float("nan"), 12) == (-1, 1)
    low, high = words.spearman_interval(1.0, 12)
    assert 0.99 < low <= high <= 1


def test_one_seed_and_constant_accuracies():
    cells = [cell(f"c{i}", "none", [i, 1, 1], [50.0]) for i in range(4)]
    found = words.agreements(cells, (1, 2))
    assert all(np.isnan(item.correlation) for item in found)
    table = words.agreement_table(found, 1, "note.")
    assert table.rows[0][:4] == ["linear probe", "all", "1 (chosen beforehand)", "+nan"]
    assert table.rows[0][5] == "-"


def test_tables():
    table = words.cell_table(make_cells(), REFERENCES, 1, "Note.")
    rows = {row[0]: row for row in table.rows}
    assert rows["patch_subset(0.9, 4x4)"] == [
        "patch_subset(0.9, 4x4)", "70.0", "+40.00", "no", "60.0 ± 2.0", "57.0 ± 2.0",
        "0.250 ± 0.000", "12",
    ]  # fmt: skip
    assert rows["gaussian(1)"][3] == "yes"
    assert rows["untrained"][4:6] == ["52.0 ± 1.0", "41.0 ± 1.0"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "The paper trains none." in table.note


def test_words_follow_the_numbers():
    cells = make_cells()
    found = words.agreements(cells, RANKS)
    lines = words.summarize(cells, found, REFERENCES, 1)
    assert "Spearman +1.00" in lines[0]
    assert "the closed form predicts the order" in lines[0]
    assert "(dropping patches)" in lines[2]
    assert "Predicted best: patch_subset(0.9, 4x4)" in lines[4]
    assert "Trained best: patch_subset(0.9, 4x4), 60.0 ± 2.0%" in lines[4]
    assert "3 of 5 trained encoders are below the untrained one" in lines[-1]
    reverse = words.summarize(cells, found, REFERENCES, 2)
    assert "the reverse of the closed form's" in reverse[0]
    middle = [
        c._replace(linear_probe=c.linear_probe[::-1] * 0 + i % 2) for i, c in enumerate(cells)
    ]
    none = words.summarize(middle, words.agreements(middle, RANKS), REFERENCES, 1)
    assert "no evidence" in none[0]


def test_noise_is_judged_by_its_spread():
    quiet = words.noise_line(make_cells(), "linear_probe")
    assert "gaussian(1) +0.0 ± 0.3: no more than the spread over seeds explains" in quiet
    loud = words.noise_line(make_cells(noise=(53.0, 53.2, 52.8)), "knn")
    assert "Change of kNN in points" in loud
    assert "gaussian(1) +3.0 ± 0.1: more than the spread" in loud
    single = [c._replace(linear_probe=c.linear_probe[:1], knn=c.knn[:1]) for c in make_cells()]
    assert "one seed has no spread" in words.noise_line(single, "knn")
    silent = [c for c in make_cells() if c.kind != "Gaussian noise"]
    assert words.noise_line(silent, "knn") == ""


def test_kinds_of_the_catalogue():
    assert words.kind_of("patch_subset") == words.kind_of("patch_mask") == "random patches"
    assert words.kind_of("blur") == "other"
    assert {words.kind_of(name) for name in ("identity", "grid_mask")} <= set(words.KINDS)


def test_the_figure_has_every_point_and_reference():
    figure = words.scatter_figure(make_cells(), REFERENCES, 1)
    left = figure.axes[0]
    drawn = {c.get_label(): c for c in left.containers}
    assert set(drawn) == {"none", "Gaussian noise", "random patches", "regular grid"}
    x, y = (np.asarray(a, float) for a in drawn["random patches"].lines[0].get_data())
    np.testing.assert_allclose(x, [60, 70])
    np.testing.assert_allclose(y, [55, 60])
    heights = {line.get_label(): line.get_ydata()[0] for line in left.lines}
    assert heights["untrained, no training"] == 52
    strips = words.strips({"a": np.zeros((2, 4, 4, 1)), "b": np.ones((2, 4, 4, 1))})
    assert [ax.get_ylabel() for ax in strips.axes] == ["a", "b"]
