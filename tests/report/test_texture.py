import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import texture as words

from .test_local_vae import baseline, first_seed, outcome

SEEDS = np.array([0, 1, 2.1])


def point(strength, gain):
    """The local decoder is better than the others by the gain."""
    noise = np.array([0.0, 0.3, -0.2])
    return words.Point(
        strength,
        [
            outcome(0, 60 + SEEDS, bits=3 + strength, kl=5 + 10 * strength),
            outcome(1, 60 + SEEDS + gain + noise, bits=2 + strength, kl=5.0),
            outcome(2, 90 + SEEDS, bits=2 + strength, kl=5.0),
            outcome(None, 60 + SEEDS + noise[::-1], bits=1 + strength, kl=4.0),
        ],
        [baseline("pixels", 0, 75.0 - 100 * strength), baseline("PCA, 4", 4, 50.0)],
    )


POINTS = [point(0.3, 10), point(0.0, -5), point(0.15, 0)]  # in no order


def test_the_table_has_every_strength():
    table = words.texture_table(POINTS, 10, "our setting")
    assert [row[0] for row in table.rows] == ["0.3"] * 6 + ["0"] * 6 + ["0.15"] * 6
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[0][1:4] == ["factorised", "4", "3.300 ± 0.100"]
    assert table.rows[4][1] == "pixels"
    assert {row[-2] for row in table.rows} == {"not published here"}
    assert table.note.endswith("our setting")
    assert "have no such experiment" in table.note


def test_strengths_are_sorted_by_verdict():
    lines = words.texture_answer(POINTS)
    assert "more than twice the spread" in lines[0]
    assert lines[1] == (
        "Latent of 4: local, h = 1 against factorised, linear probe: better at 0.3 (+10.0 ± 0.3); "
        "worse at 0 (-5.0 ± 0.3); tie at 0.15 (+0.0 ± 0.3)."
    )
    assert len([line for line in lines if " against factorised, " in line]) == 4
    assert len([line for line in lines if " against full, " in line]) == 4
    pixels = [line for line in lines if " against pixels, kNN" in line]
    assert len(pixels) == 1
    # 61 + gain against 75, 60, 45.
    assert "better at 0.3 (+26.1 ± 1.0)" in pixels[0]
    assert "worse at 0 (-18.9" in pixels[0]
    assert "tie at 0.15 (+1.1 ± 1.0)" in pixels[0]
    assert lines[-1] == (
        "Latent of 4: KL in nats by strength: factorised 5.0 ± 0.5 at 0, 6.5 ± 0.5 at 0.15, 8.0 ± "
        "0.5 at 0.3; local, h = 1 5.0 ± 0.5 at 0, 5.0 ± 0.5 at 0.15, 5.0 ± 0.5 at 0.3; local, h = "
        "2 5.0 ± 0.5 at 0, 5.0 ± 0.5 at 0.15, 5.0 ± 0.5 at 0.3; full 4.0 ± 0.5 at 0, 4.0 ± 0.5 at "
        "0.15, 4.0 ± 0.5 at 0.3."
    )


def test_one_seed_has_no_verdict():
    points = [item._replace(outcomes=[first_seed(o) for o in item.outcomes]) for item in POINTS]
    lines = words.texture_answer(points)[1:]
    assert lines[0] == (
        "Latent of 4: local, h = 1 against factorised, linear probe: one seed, spread unknown, at "
        "0 (-5.0), 0.15 (+0.0), 0.3 (+10.0)."
    )
    assert not any("better" in line or "tie" in line for line in lines)


def test_what_was_not_trained_at_a_strength_is_left_out():
    points = [POINTS[0], POINTS[1]._replace(outcomes=POINTS[1].outcomes[1:], baselines=[])]
    lines = words.texture_answer(points)
    assert lines[1].endswith("linear probe: better at 0.3 (+10.0 ± 0.3).")
    assert "against full, linear probe: better at 0.3 (+10.0 ± 0.2); worse at 0" in lines[5]
    without = [item._replace(outcomes=item.outcomes[:1]) for item in points]
    assert [line[:20] for line in words.texture_answer(without)[1:]] == ["Latent of 4: KL in n"]


def test_collapse_is_said_with_its_strength():
    full = POINTS[0].outcomes[3]._replace(collapse=("", "", "All gone."))
    lines = words.texture_answer([POINTS[0]._replace(outcomes=[full])])
    assert "Latent of 4: at strength 0.3, full, 1 of 3 runs, the worst: All gone." in lines


@pytest.fixture(scope="module")
def two_sizes():
    more = outcome(1, 80 + SEEDS, size=16)
    return [item._replace(outcomes=[*item.outcomes, more]) for item in POINTS]


def test_one_row_of_read_outs_a_latent_size(two_sizes, tmp_path):
    figure = words.texture_figure(two_sizes)
    assert len(figure.axes) == 8
    assert figure.axes[1].get_title() == "kNN, latent of 4"
    assert figure.axes[7].get_title() == "few-label 1-NN, latent of 16"
    lines = {item.get_label(): item.lines[0] for item in figure.axes[0].containers}
    assert list(lines) == ["factorised", "local, h = 1", "local, h = 2", "full"]
    np.testing.assert_allclose(lines["local, h = 1"].get_xdata(False), [0, 0.15, 0.3])
    middle = 60 + SEEDS.mean() + 0.1 / 3
    np.testing.assert_allclose(
        lines["local, h = 1"].get_ydata(False), middle + np.array([-5, 0, 10])
    )
    dashed = {line.get_label(): line for line in figure.axes[0].lines if line.get_color() == "gray"}
    assert set(dashed) == {"pixels", "PCA of the same size"}
    np.testing.assert_allclose(dashed["pixels"].get_ydata(False), [75, 60, 45])
    # There is no PCA of 16.
    gray = [line.get_label() for line in figure.axes[4].lines if line.get_color() == "gray"]
    assert gray == ["pixels"]
    assert report.save_figure(tmp_path, "texture", figure).stat().st_size > 1000


def test_kl_and_bits_against_strength(two_sizes):
    figure = words.kl_figure(two_sizes)
    left, right, *_ = figure.axes
    assert "nats" in left.get_ylabel()
    assert right.get_ylabel() == "bits per dimension"
    np.testing.assert_allclose(left.containers[0].lines[0].get_ydata(False), [5, 6.5, 8])
    np.testing.assert_allclose(right.containers[0].lines[0].get_ydata(False), [3, 3.15, 3.3])
    assert left.get_ylim()[0] == 0
    assert len(figure.axes[2].containers) == 1
