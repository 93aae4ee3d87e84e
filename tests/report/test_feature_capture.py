import numpy as np
from numpy.testing import assert_allclose

from recon_jax import report
from recon_jax.report import capture_figures as figures
from recon_jax.report import feature_capture as words

from .test_capture_claims import SETTING, make_point, make_points, make_study


def test_a_study_has_every_way_of_training():
    study = make_study()
    assert list(study.methods) == [*words.NAMES, "ensemble_2", "ensemble_3"]
    assert_allclose(study.methods["frozen"].single, [96.9, 97.1])
    assert_allclose(study.methods["frozen"].purity, [0.899, 0.901])
    assert_allclose(study.methods["ensemble_3"].single, [79.9, 80.1])
    assert_allclose(study.methods["ensemble_2"].multi, [98.9, 99.1])
    assert np.isnan(study.methods["finetuned"].growth).all()
    # Random kernels have captured nothing, whatever the relative rule says.
    assert np.isnan(study.methods["random_encoder"].captured).all()
    assert study.seconds == 12


def test_the_table_of_methods(tmp_path):
    table = words.methods_table(make_study(), "our setting")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["pretraining + head"] == [
        "0.980 ± 0.001", "0.900 ± 0.001", "6.00 ± 0.00", "100 ± 0", "97.0 ± 0.1",
        "not published here",
    ]  # fmt: skip
    assert rows["random kernels + head"][:3] == ["-"] * 3
    assert table.note.endswith("our setting")
    report.write_table(tmp_path, table)


def test_the_table_of_sweeps(tmp_path):
    table = words.sweeps_table(make_points(), SETTING, "our setting")
    predictions = {tuple(row[:2]): row[2] for row in table.rows}
    assert predictions["teacher scale", "1"] == "shrink"
    assert predictions["teacher scale", "1.08"] == "pairs grow"
    assert predictions["teacher scale", "1.189"] == "grow"
    assert predictions["teacher scale", "1.3"] == "grow, noise too"
    assert predictions["kernels a class", "2"] == f"{1 - 0.9**10:.3f}"
    assert predictions["way of pretraining", "MAE-like"] == "-"
    # Ascending, in the order of the sweeps.
    assert [row[1] for row in table.rows[:5]] == ["1", "1.08", "1.12", "1.189", "1.3"]
    assert table.rows[0][-1] == "-"
    [row] = [row for row in table.rows if row[:2] == ["threshold of the rectifier", "0.2"]]
    assert row[-2:] == ["0.950 ± 0.001", "60.0 ± 0.1"]
    report.write_table(tmp_path, table)


def test_cells_say_in_how_many_seeds_a_measure_is_finite():
    assert words.cell(np.array([np.nan, 1.0, 3.0])) == "2.00 ± 1.41 (2 of 3)"
    assert words.cell(np.array([np.nan])) == "-"


def test_bounds_and_coverage():
    low, high = SETTING.window
    assert_allclose([low, high, SETTING.pair_bound], [1.5**0.25, 2**0.25, 1.25**0.25])
    assert_allclose(SETTING.coverage(4), 1 - 0.9**20)


def test_figures_show_the_numbers(tmp_path):
    study, points = make_study(), make_points()
    found = figures.all_figures(study, points, SETTING)
    assert list(found) == ["methods", "threshold", "width", "sensitivity"]
    captured, single = found["methods"][0].axes
    assert_allclose([bar.get_width() for bar in captured.patches], [0.55, 0.5, 0.98, 0.98])
    assert_allclose(single.patches[2].get_width(), 97)
    assert_allclose(single.lines[2].get_xdata(False), [96.9, 97.1])
    growth, share = found["threshold"][0].axes
    labels = {line.get_label(): line for line in growth.get_lines()}
    for name, bound in (("features", 1.5), ("noise", 2.0), ("pairs", 1.25)):
        [line] = [line for label, line in labels.items() if label.startswith(f"predicted: {name}")]
        assert_allclose(line.get_xdata(False), bound**0.25)
    assert_allclose(share.containers[0].lines[0].get_ydata(False), [0.2, 0.2, 1, 1, 1])
    coverage, accuracy = found["width"][0].axes
    formula = coverage.get_lines()[-1]
    assert_allclose(formula.get_ydata(False), 1 - 0.9 ** (5 * np.arange(1, 5)))
    assert_allclose(accuracy.containers[0].lines[0].get_ydata(False), [98, 98])
    top = found["sensitivity"][0].axes[0]
    assert_allclose(top.containers[1].lines[0].get_ydata(False), [0.55, 0.8])
    for name, (figure, _) in found.items():
        assert report.save_figure(tmp_path, name, figure).stat().st_size > 1000


def test_figures_without_numbers_are_left_out(tmp_path):
    assert list(figures.all_figures(make_study(), [], SETTING)) == ["methods"]
    found = figures.all_figures(make_study(), [make_point("steps", 5)], SETTING)
    assert list(found) == ["methods", "sensitivity"]
    assert report.save_figure(tmp_path, "one", found["sensitivity"][0]).stat().st_size > 1000
