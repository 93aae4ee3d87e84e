import json

import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import learning_figures as plots
from recon_jax.report import learning_order as words

EPOCHS = (0, 1, 2, 4)
VALUES = np.array([8.0, 4.0, 2.0, 1.0, 0.0])
SETTING = words.LearningSetting(
    epochs=EPOCHS,
    second=VALUES + np.array([20.0, 0, 0, 0, 0]),
    values=VALUES,
    predicted=np.array([1 / 8, 1 / 4, 1 / 2, 1.0, np.inf]),
    num_images=100,
    initial=1e-3,
    fraction=0.5,
    arrival=0.95,
    baselines={"raw pixels": 0.8},
    note="setting",
)
LEARNED = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, np.nan],
        [1.0, 0.25, 0.0, 0.0, np.nan],
        [1.0, 0.75, 0.25, 0.0, np.nan],
        [1.0, 1.0, 0.75, 0.25, np.nan],
    ]
)
RUN = words.LearningRun(
    model="MLP, depth 3",
    seed=0,
    energy=np.outer([0.1, 0.5, 0.8, 1.0], SETTING.second) + 1e-6,
    learned=LEARNED,
    explained=np.array([-1.0, 0.475, 0.5, 0.5]),
    accuracy=np.array([0.2, 0.3, 0.4, 0.5]),
    seconds=12.0,
)
SECOND = RUN._replace(seed=1, accuracy=np.array([0.3, 0.4, 0.5, 0.5]))


def test_outcome_by_hand():
    found = words.learning_outcome(RUN, SETTING)
    np.testing.assert_allclose(found.learned_at, [0.5, 1.5, 3, np.inf, np.inf])
    np.testing.assert_array_equal(found.front, [0, 1, 2, 3])
    assert found.agreement.num_modes == 4
    assert found.agreement.rank_correlation == pytest.approx(1)
    assert found.reconstruction_at == pytest.approx(1)
    assert found.perception_at == pytest.approx(2 + 2 * 0.75)
    assert found.perception_later == pytest.approx(2.5)


def test_what_is_below_zero_never_arrives():
    found = words.learning_outcome(RUN._replace(explained=np.full(4, -0.5)), SETTING)
    assert np.isinf(found.reconstruction_at)
    assert np.isnan(found.perception_later)
    [_, line] = words.learning_findings([RUN._replace(explained=np.full(4, -0.5))], SETTING)
    assert "no variance of the test images is explained by epoch 4" in line


def test_record_is_strict_json_without_seconds():
    record = words.learning_record(RUN._replace(learned=0 * LEARNED), SETTING)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["rank_correlation"] is None
    assert record["learned_modes"] == [0, 0, 0, 0]
    assert "seconds" not in record


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.25], "1.2"),
        ([1.0, 3.0], "2.0 ± 1.4"),
        ([np.inf, np.inf], "never"),
        ([np.nan, 1.0], "never in 1 of 2 seeds"),
    ],
)
def test_mean_and_spread(values, text):
    assert words.mean_and_spread(values, 1, "never") == text


def test_tables(tmp_path):
    runs = [RUN, SECOND]
    front = words.front_table(runs, SETTING, "note")
    assert front.rows[0][1:] == ["50 to 100", "-", "-", "450 to 500"]
    assert front.rows[1] == ["MLP, depth 3", "0 ± 0", "1 ± 0", "2 ± 0", "3 ± 0"]
    order = words.order_table(runs, SETTING, "note")
    [row] = order.rows
    assert row[:3] == ["MLP, depth 3", "3 ± 0", "1.000 ± 0.000"]
    assert row[3:6] == [4, "1.000 ± 0.000", "1.000 ± 0.000"]
    # log of 0.5, 1.5, 3 on log of 1, 2, 4: slopes 1.58, 1 and 1.29 between the pairs.
    assert row[6] == "1.29 ± 0.00"
    perception = words.perception_table(runs, SETTING, "note")
    assert perception.rows[0][1:5] == ["25.0 ± 7.1", "50.0 (4)", "50.0 ± 0.0", "50.0 ± 0.0"]
    assert perception.rows[0][5:7] == ["1.00 ± 0.00", "2.62 ± 1.24"]
    assert perception.rows[1] == ["raw pixels", "-", "-", "80.0", "-", "-", "-", "-"]
    for table in (front, order, perception):
        assert table.note.endswith("note")
        report.write_table(tmp_path, table)


def test_words_follow_the_numbers():
    order, perception = words.learning_findings([RUN], SETTING)
    assert "3 of 4 modes are learned by epoch 4" in order
    assert "rank correlation of 1.00" in order
    assert perception.startswith("MLP, depth 3: perception comes last.")
    assert "at epoch 1.00, the accuracy of the probe at epoch 3.50" in perception
    early = RUN._replace(accuracy=np.full(4, 0.5))
    _, perception = words.learning_findings([early], SETTING)
    assert "perception does not come last" in perception
    assert "untrained network" in perception
    _, perception = words.learning_findings([RUN, early._replace(seed=1)], SETTING)
    assert "seeds differ" in perception
    order, _ = words.learning_findings([RUN._replace(learned=0 * LEARNED)], SETTING)
    assert "too few to speak of an order" in order


def test_gradient_flow_in_epochs():
    scale = 3.0
    for epoch, value in ((1.0, 8.0), (3.0, 2.0)):
        flow = plots.flow_fractions(SETTING, scale, epoch)
        expected = 1 / (1 + 999 * np.exp(-2 * value * 100 * epoch / scale))
        np.testing.assert_allclose(flow[list(VALUES).index(value)], expected)


def test_figures_are_drawn():
    runs = [RUN, SECOND]
    # One that has learned nothing.
    runs.append(RUN._replace(model="none", learned=0 * LEARNED))
    for name in ("spectrum", "learned", "times", "perception"):
        figure = getattr(plots, f"{name}_figure")(runs, SETTING)
        figure.canvas.draw()
        panels = [axes for axes in figure.axes if axes.get_visible()]
        assert len(panels) == 2
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in panels)
