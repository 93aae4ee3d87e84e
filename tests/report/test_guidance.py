import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import guidance as words


def outcome(latents, guidance, error, probe, linear=(0.5, 0.6), mlp=(0.7, 0.8)):
    error = np.array(error)
    arrays = (np.array(values) for values in (linear, mlp, probe))
    return words.Outcome(latents, guidance, error, error / 0.05, *arrays)


PLAIN = outcome(4, 0.0, (0.020, 0.022), (0.60, 0.62))
EQUAL = outcome(4, 0.01, (0.0202, 0.02222), (0.70, 0.722), mlp=(0.75, 0.86))
WORSE = outcome(4, 0.1, (0.030, 0.033), (0.80, 0.82))
OTHER = outcome(16, 0.0, (0.010, 0.010), (0.70, 0.72))
FRONTIER = words.Frontier(
    4,
    np.array([0.001, 0.1, 1.0]),
    np.array([0.040, 0.0208, 0.020]),
    np.array([0.8, 0.416, 0.4]),
    np.array([0.9, 0.7, 0.5]),
    np.array([0.039, 0.0205, 0.019]),
    np.array([0.3, 0.5, 0.6]),
)


def test_changes_are_seed_by_seed_against_the_least_guidance():
    found = words.changes([WORSE, OTHER, EQUAL, PLAIN])
    assert [(item.latents, item.guidance) for item in found] == [(4, 0.1), (4, 0.01)]
    np.testing.assert_allclose(found[1].error, [0.01, 0.01])
    np.testing.assert_allclose(found[1].linear_probe, [0.1, 0.102])
    np.testing.assert_allclose(found[1].mlp_head, [0.05, 0.06])


def test_the_table_has_means_and_spreads():
    table = words.guidance_table([PLAIN, EQUAL], "the setting")
    assert table.rows[0][:5] == ["4", "0", "not published here", "21.00 ± 1.41", "42.0 ± 2.8"]
    assert table.rows[0][5:] == ["55.0 ± 7.1", "75.0 ± 7.1", "61.0 ± 1.4", "-", "-"]
    assert table.rows[1][8] == "+1.0 ± 0.0"
    assert table.rows[1][9] == f"+10.1 ± {100 * np.std([0.1, 0.102], ddof=1):.1f}"
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.note == "the setting"


def test_one_seed_has_no_spread():
    single = PLAIN._replace(
        **{name: getattr(PLAIN, name)[:1] for name in words.Outcome._fields[2:]}
    )
    row = words.guidance_table([single], "").rows[0]
    assert row[3] == "20.00"
    assert not any("±" in cell for cell in row)


def test_the_table_of_the_closed_form():
    table = words.frontier_table([FRONTIER], "exact")
    assert table.rows[1] == ["4", "0.1", "20.80", "41.6", "70.0", "20.50", "0.500"]
    assert len(table.rows) == 3
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_equal_errors_that_hide_a_difference_are_said():
    first, theory, *effects = words.answer([PLAIN, EQUAL, WORSE], [FRONTIER])
    assert first.startswith("Equal reconstruction errors do hide different perception")
    assert "+10.1 ± 0.1 points" in first
    assert "4 latents, guidance 0.01, errors +1.0 ± 0.0% apart, 2 seeds" in first
    # The weight 0.001 classifies better but costs more than 5% of the error.
    assert "from 50.0 to 70.0% with 4 latents" in theory
    assert len(effects) == 2
    assert "guidance 0.1 changes the reconstruction error by +50.0 ± 0.0%" in effects[1]
    assert "by +20.0 ± 0.0 points" in effects[1]
    assert "MLP +5.5 ± 0.7" in effects[0]


@pytest.mark.parametrize("probe", [(0.605, 0.625), (0.50, 0.90), (0.40, 0.42)])
def test_gains_within_their_spread_are_not_claimed(probe):
    guided = EQUAL._replace(linear_probe=np.array(probe))
    assert "no guided accuracy is higher beyond its spread" in words.answer([PLAIN, guided], [])[0]


def test_unequal_errors_are_an_exchange():
    line = words.answer([PLAIN, WORSE], [])[0]
    assert "No guided autoencoder has a reconstruction error within 5%" in line
    assert "4 latents with guidance 0.1, differs by +50.0" in line
    assert "exchange" in line


def test_one_guidance_has_nothing_to_compare():
    assert words.answer([PLAIN, OTHER], []) == [
        "Only one guidance was tried: there is nothing to compare."
    ]


def test_the_figure_joins_the_guidances_of_a_size(tmp_path):
    figure = words.guidance_figure([PLAIN, EQUAL, WORSE, OTHER], [FRONTIER])
    left, right = figure.axes
    assert (
        left.get_xlabel() == right.get_xlabel() == "test reconstruction error (MSE per pixel, 1e-3)"
    )
    texts = [text.get_text() for text in left.texts]
    assert sorted(filter(None, texts)) == ["16", "4"]
    assert texts.count("") == 2  # arrows: 0 to 0.01, 0.01 to 0.1
    points = [line.lines[0] for line in left.containers]
    assert [point.get_marker() for point in points] == ["o", "^", "s", "o"]
    assert points[0].get_xydata()[0] == pytest.approx((21.0, 61.0))
    colors = [point.get_color() for point in points]
    assert colors[0] == colors[1] == colors[2] != colors[3]
    assert left.get_xlim() == right.get_xlim()
    assert report.save_figure(tmp_path, "guidance", figure).stat().st_size > 10_000
