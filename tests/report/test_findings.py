import numpy as np
import pytest

from recon_jax.report import findings as words

SETTING = words.Setting(
    [2, 4], np.array([0.5, 0.6, 0.8, 1.0]), np.array([0.7, 0.9, 0.95, 1]), 0.3, "x"
)
NEUTRAL = words.Finding(
    "gaussian(1)", SETTING.clean, np.zeros(4), np.zeros(2), np.zeros(4), True, True, 1.0
)
HELPFUL = NEUTRAL._replace(
    name="patch_mask(0.5, 2x2)",
    impact=np.array([0, 0.05, 0, -0.01]),
    error=np.array([0.01, 0.001]),
    max_sine=np.array([0, 0.5, 0.25, 0]),
    is_neutral=False,
    commutes=False,
)
HARMFUL = HELPFUL._replace(name="blur(1)", impact=np.full(4, -0.1))
NO_MASK = words.MaskSweep(np.full((1, 2, 2), -0.1), (0.5, 0.9), (2,))


def test_words_follow_the_numbers():
    lines = words.recommend([NEUTRAL, HELPFUL, HARMFUL], SETTING, NO_MASK)
    text = "\n".join(lines)
    assert "2 latents hold 90% of the pixel variance and reach 60% alignment" in text
    assert "At K = 2, the best of the listed corruptions is patch_mask(0.5, 2x2): it" in text
    assert "+5.00 ± 1.00%" in text
    assert "At K = 4, no listed corruption raises alignment" in text
    assert "No mask of the sweep raises it" in text
    assert "Can never help, whatever the labels: gaussian(1)." in text
    assert "Lower alignment at every K listed: blur(1)." in text


def test_a_gain_within_its_spread_is_not_recommended():
    unsure = HELPFUL._replace(error=np.array([0.03, 0.03]))
    lines = words.recommend([unsure], SETTING, NO_MASK)
    assert not any("patch_mask" in line for line in lines)
    assert not any("Gaussian" in line for line in lines)


def test_best_mask_of_the_sweep_is_named():
    impacts = np.zeros((2, 2, 2))
    impacts[1, 0, 1] = 0.02
    masks = words.MaskSweep(impacts, (0.5, 0.9), (1, (2, 4)))
    assert (
        "dropping 50% of the 2x4 patches is best (+2.00%)" in words.recommend([], SETTING, masks)[3]
    )


def test_reasons():
    assert words.reason(NEUTRAL) == "keeps the principal components and their order"
    assert "reorders" in words.reason(NEUTRAL._replace(is_neutral=False))
    assert words.reason(HELPFUL) == "turns the latent space by up to 30 degrees (at K = 2)"
    lossy = HELPFUL._replace(curve=np.array([0.5, 0.6, 0.7, 0.7]))
    assert words.reason(lossy) == "removes directions of the images for good"


def test_tables():
    table = words.impact_table([HELPFUL], SETTING)
    assert table.rows[0] == ["none", "a = 60.0%", "a = 100.0%", "-"]
    assert table.rows[1] == ["patch_mask(0.5, 2x2)", "+5.00 ± 1.00", "-1.00 ± 0.10", "1.0"]
    table = words.neutrality_table([NEUTRAL, HELPFUL], SETTING)
    assert [row[2] for row in table.rows] == ["yes", "no"]
    assert table.rows[1][1] == "0.500"
    assert words.percent(0.01) == "+1.00"


def test_what_pixels_say_of_labels_is_said():
    def line(label_r2):
        return words.recommend([], SETTING._replace(label_r2=label_r2), NO_MASK)[1]

    assert "explains 30.0% of the label variance" in line(0.3)
    assert "next to nothing" not in line(0.3)
    assert "0.1% of the label variance. That is next to nothing" in line(0.001)
    assert "fits any labels" in line(float("nan"))


def test_comparison_of_sources():
    curves = np.stack([np.linspace(0.01, 1, 100), np.linspace(0.03, 1, 100)])
    two = words.Compared("drawn", curves, np.array([0.1, 0.3]))
    one = words.Compared("real", np.linspace(0.1, 1, 10)[None], np.array([0.5]))
    table = words.comparison_table([two, one], [1, 50], "Over seeds 0, 1.")
    assert table.columns[3:] == ["K = 1", "K = 50", "K = 1% of D", "K = 5% of D", "K = 20% of D"]
    assert table.rows[0][:4] == ["drawn", 100, "20.0 ± 14.1", "2.0 ± 1.4"]
    assert table.rows[0][3] == table.rows[0][5]
    assert table.rows[1] == ["real", 10, "50.0", "10.0", "-", "10.0", "10.0", "20.0"]
    assert "45% at 20% of D" in table.note
    assert "Over seeds 0, 1." in table.note


def test_sources_are_named_by_what_tells_them_apart():
    curves, readable = np.full((2, 100), 0.5), np.array([0.1, 0.3])
    names = [
        f"scenes:image_size={size}&pose=0.2&noise={noise}" for size in (8, 16) for noise in (0, 1)
    ]
    compared = [words.Compared(name, curves, readable) for name in names]
    table = words.comparison_table(compared, [10], "Note.")
    assert [row[0] for row in table.rows] == [
        "image_size=8, noise=0",
        "image_size=8, noise=1",
        "image_size=16, noise=0",
        "image_size=16, noise=1",
    ]
    assert "All sources: scenes, pose=0.2." in table.note
    assert table.rows[0][2:4] == ["20.0 ± 14.1", "50.0 ± 0.0"]


@pytest.mark.parametrize(
    "names",
    [["embedded"], ["embedded", "tfds:mnist"], ["scenes:a=1", "scenes:a=1&b=2"], ["x:a", "x:a"]],
)
def test_sources_that_parts_do_not_tell_apart_keep_their_names(names):
    compared = [words.Compared(name, np.full((1, 10), 0.5), np.array([0.1])) for name in names]
    table = words.comparison_table(compared, [2], "Note.")
    assert [row[0] for row in table.rows] == names
    assert "All sources" not in table.note
