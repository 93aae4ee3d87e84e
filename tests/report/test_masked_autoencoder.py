import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import masked_autoencoder as words


def readout(key, name, pretrained, without):
    return words.ReadOut(key, name, np.array(pretrained, float), np.array(without, float))


READOUTS = [
    readout("finetuned", "fine-tuned", (88, 90), (80, 80)),
    readout("lars", "LARS", (70, 71), (69, 73)),
    readout("logistic", "logistic", (75, 77), (60, 62)),
    readout("knn", "neighbours", (65, 65), (50, 51)),
]


def test_rows_have_means_spreads_and_the_published_numbers():
    table = words.readout_table(READOUTS, 1600, "the setting")
    assert table.rows[0] == ["fine-tuned", "89.0 ± 1.4", "80.0 ± 0.0", "+9.0 ± 1.4", "83.6", "82.3"]
    # Differences are seed by seed: 1 and -2.
    assert table.rows[1][3:] == ["-0.5 ± 2.1", "68.0", "not published here"]
    assert [row[4:] for row in table.rows[2:]] == [["not published here"] * 2] * 2
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "ViT-B" in table.note
    assert "1600 epochs" in table.note
    assert table.note.endswith("the setting")


def test_after_800_epochs_the_paper_has_no_such_number():
    rows = words.readout_table(READOUTS, 800, "").rows
    assert rows[0][4:] == ["not published here (third party: 83.3)", "82.3"]
    assert rows[1][4] == "not published here (third party: 65.1)"
    assert rows[3][4] == "not published here"


def test_one_seed_has_no_spread():
    single = [item._replace(pretrained=item.pretrained[:1], without=item.without[:1])
              for item in READOUTS]  # fmt: skip
    assert words.readout_table(single, 1600, "").rows[0][1:4] == ["88.0", "80.0", "+8.0"]
    assert all("one seed, spread unknown" in line for line in words.answer(single)[:4])


def test_a_difference_counts_from_twice_its_spread():
    # Mean 2, standard deviation 1 and a little less.
    assert words.is_more_than_spread(np.array([1, 2, 3.0])) is False
    assert words.is_more_than_spread(np.array([1.1, 2, 3.0])) is True
    assert words.is_more_than_spread(np.array([-1.1, -2, -3.0])) is True
    assert words.is_more_than_spread(np.array([5.0])) is None


def test_the_answer_in_words():
    lines = words.answer(READOUTS)
    assert len(lines) == 5
    assert "+9.0 ± 1.4 points (more than twice the spread" in lines[0]
    assert "-0.5 ± 2.1 points (within twice the spread" in lines[1]
    assert "differs by -5.5 ± 0.7 points" in lines[4]
    assert len(words.answer(READOUTS[:1])) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_in_one_range(channels, tmp_path):
    rows = {
        "original": np.linspace(0, 0.4, 3 * 8 * 8 * channels).reshape(3, 8, 8, channels),
        "masked": np.full((3, 8, 8, channels), 0.5),
        "reconstruction": np.full((3, 8, 8, channels), -1.0),
    }
    figure = words.reconstruction_figure(rows)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(rows)
    drawn = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    assert [ax.images[0].get_clim() for ax in figure.axes] == [(0, 1)] * 3
    assert drawn[0].shape[:2] == (10, 30)
    assert drawn[0][1:-1, 1:9].max() <= 0.4 / 3 + 1e-9  # not stretched
    assert (drawn[1][1:-1, 1:9] == 0.5).all()
    assert (drawn[2][1:-1, 1:9] == 0).all()
    assert report.save_figure(tmp_path, "pictures", figure).stat().st_size > 1000
