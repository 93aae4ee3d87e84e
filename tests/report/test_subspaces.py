import numpy as np
import pytest

from recon_jax.report import subspaces as words
from recon_jax.spectral import subspaces_of

TOPS, BOTTOMS = (0.5, 0.9), (0.5, 0.8, 0.95)
ACCURACY = {
    "top 50%": (10, 14),
    "top 90%": (40, 44),
    "bottom 5%": (20, 20),
    "bottom 20%": (50, 52),
    "bottom 50%": (56, 60),
    "all": (60, 64),
}


def outcomes(changes=()):
    accuracy = ACCURACY | dict(changes)
    return [
        words.Outcome(cell, 3, cell.percent, np.array(accuracy[cell.label]), np.array([99.0, 99.0]))
        for cell in subspaces_of(TOPS, BOTTOMS)
    ]


def test_spread_over_seeds():
    assert words.spread(np.array([40, 44])) == "42.0 ± 2.8"
    assert words.spread(np.array([41.26])) == "41.3"


def test_curves_end_with_all_images():
    kept, found = words.curve_of(outcomes(), "bottom")
    np.testing.assert_allclose(kept, [5, 20, 50, 100])
    np.testing.assert_allclose(found, [20, 51, 58, 62])
    assert words.accuracy_at(outcomes(), "top", 70) == pytest.approx(27)
    assert np.isnan(words.accuracy_at(outcomes(), "top", 20))


def test_bottoms_are_compared_with_tops_of_no_less_variance():
    found = outcomes()
    assert words.advantages(found) == pytest.approx({"top 50%": 46, "top 90%": 16})
    # A bottom that keeps 52% does not stand beside a top of 50%.
    more = [o._replace(variance=52.0) if o.cell.label == "bottom 50%" else o for o in found]
    assert words.advantages(more) == pytest.approx({"top 50%": 39, "top 90%": 16})
    # One that keeps everything is no bottom.
    whole = [o._replace(variance=100.0) if o.cell.label == "bottom 50%" else o for o in found]
    assert words.advantages(whole) == pytest.approx({"top 50%": 39, "top 90%": 9})
    np.testing.assert_allclose(words.curve_of(whole, "bottom")[0], [5, 20, 100])
    alone = [o for o in found if o.cell.side != "bottom"]
    assert all(np.isnan(gap) for gap in words.advantages(alone).values())


def test_where_the_top_draws_level():
    # 51 lies between 42 at 90% and 62 at 100%.
    assert words.crossing(outcomes(), 51) == pytest.approx(94.5)
    assert words.crossing(outcomes(), 12) == 0
    assert words.crossing(outcomes(), 63) == np.inf


def test_tables():
    setups = {"net": outcomes(), "other": outcomes({"top 90%": (70, 70)})}
    table = words.accuracy_table(setups, False, "note")
    assert [row[0] for row in table.rows] == list(ACCURACY)
    assert table.columns[3:] == ("net", "other", "paper")
    assert table.rows[1][3:] == ("42.0 ± 2.8", "70.0 ± 0.0", "not published")
    compared = words.comparison_table(setups, (90.0, 20.0), "note")
    assert compared.rows[0] == ("net", "+46.0", "+16.0", "42.0", "51.0", "94% of variance")
    assert compared.rows[-1][-3:] == ("45", "55", "not published")
    assert all(len(row) == len(compared.columns) for row in compared.rows)


def test_the_papers_numbers_stand_beside_its_dataset():
    table = words.accuracy_table({"net": outcomes()}, True, "")
    paper = {row[0]: row[-1] for row in table.rows}
    # Between 85.2: 32.2 and 92.6: 50.0, as the sheet interpolates.
    assert paper["top 90%"] == "43.7"
    assert paper["all"] == "58.7"
    assert paper["bottom 20%"] == "55.0"


def test_summary_says_which_side_and_from_where():
    (line,) = words.summarize({"net": outcomes()}, (90.0, 20.0))
    assert "51.0% from the bottom 20% against 42.0% from the top 90%, as the paper says" in line
    assert "better than top 50%, top 90% (of top 50%, top 90%)" in line
    assert "needs 94% of the variance to classify as well as the bottom 20%" in line
    (line,) = words.summarize({"net": outcomes({"top 90%": (70, 70)})}, (90.0, 20.0))
    assert "against the paper" in line
    (line,) = words.summarize({"net": outcomes({"bottom 20%": (90, 90)})}, (90.0, 20.0))
    assert "At no threshold does the top" in line
    (line,) = words.summarize({"net": outcomes({"bottom 20%": (3, 3)})}, (90.0, 20.0))
    assert "already with 50% of variance" in line


@pytest.mark.parametrize(("count", "published"), [(1, True), (3, False)])
def test_figures_draw(count, published):
    setups = {f"net{i}": outcomes() for i in range(count)}
    figure = words.accuracy_figure(setups, published)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len(shown) == count
    figure.canvas.draw()
    strips = {"all": np.random.default_rng(0).random((3, 8, 8, 3))}
    words.strip_figure(strips).canvas.draw()
