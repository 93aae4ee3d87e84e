import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import pretraining_figures as figures
from recon_jax.report import pretraining_helps as words

ACCURACY = {
    "finetuned": (80, 81, 82),
    "scratch": (70, 71.5, 72),
    "scratch_long": (84, 85, 86.5),
    "probe": (75, 74, 77),
    "probe_new": (75, 76, 75),
}


def outcome(method, fraction=1.0, accuracy=None, needed=((10, 20), (12, 22), (11, 24)), pieces=2.0):
    accuracy = np.array(ACCURACY[method] if accuracy is None else accuracy, float)
    needed = np.array(needed, float)[: len(accuracy)]
    if method not in words.TRAINED:
        needed = np.full_like(needed, np.nan)
    seen = (needed, 0 * needed + pieces, 49 - needed)
    return words.Outcome(method, fraction, round(1000 * fraction), accuracy, *seen, accuracy)


FEWER = ((5, 10), (6, 11), (7, 10))


def outcomes(fractions=(1.0, 0.1), **changes):
    return [
        changes.get(method, outcome(method))._replace(fraction=fraction)
        for fraction in fractions
        for method in words.METHODS
    ]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((1.0, 1.1, 0.9), words.HOLDS),
        ((-1.0, -1.1, -0.9), words.REVERSED),
        # Mean 1, deviation 1: standard error 0.58 of three, 0.71 of two.
        ((0.0, 1.0, 2.0), words.UNDECIDED),
        ((0.2, 1.0, 1.8), words.HOLDS),
        ((0.0, 0.0, 0.0), words.UNDECIDED),
        ((5.0,), words.ONE_SEED),
        ((1.0, np.nan), words.UNMEASURED),
        ((np.nan,), words.UNMEASURED),
    ],
)
def test_a_difference_counts_beyond_two_standard_errors(differences, verdict):
    if differences == (0.0, 1.0, 2.0):
        assert words.ERRORS * 1 / 3**0.5 > 1.0
    assert words.judge(np.array(differences)) == verdict


def test_differences_are_of_pairs():
    # Seeds differ by 10, methods by 1: only pairs can tell.
    first, second = np.array([1.0, 11.0, 21.1]), np.array([0.0, 10.0, 20.0])
    assert words.judge(first - second) == words.HOLDS
    expected = "11.0 ± 10.1% against 10.0 ± 10.0%: +1.0 ± 0.1, standard error 0.0"
    assert words.told(first, second, "%") == expected
    assert words.told(first[:1], second[:1]) == "1.0 against 0.0: +1.0"


def test_every_claim_has_its_own_rival_and_direction():
    items = outcomes(scratch=outcome("scratch", needed=FEWER, pieces=1.0))
    claims = words.find_claims(items)
    assert len(claims) == 3 * 2 + 3 * 2
    verdicts = [(claim.of, claim.verdict) for claim in claims[:6]]
    assert verdicts == [
        ("10% of labels", words.HOLDS), ("100% of labels", words.HOLDS),
        ("10% of labels", words.REVERSED), ("100% of labels", words.REVERSED),
        ("10% of labels", words.UNDECIDED), ("100% of labels", words.UNDECIDED),
    ]  # fmt: skip
    needed, _, pieces, _, unordered, _ = claims[6:]
    assert {claim.of for claim in claims[6:]} == {"100% of labels"}
    assert needed.verdict == words.HOLDS
    assert needed.measured.startswith("16.5 ± 1.3 against 8.2 ± 0.6: +8.3")
    assert (pieces.verdict, unordered.verdict) == (words.HOLDS, words.REVERSED)
    assert pieces.measured == "2.0 ± 0.0 against 1.0 ± 0.0: +1.0 ± 0.0, standard error 0.0"
    # The same network as a rival: no difference.
    assert [claim.verdict for claim in claims[7::2]] == [words.UNDECIDED] * 3


def test_claims_about_images_are_of_the_most_labels():
    changed = outcome("finetuned", needed=FEWER)
    items = [
        changed._replace(fraction=item.fraction)
        if (item.method, item.fraction) == ("finetuned", 0.1)
        else item
        for item in outcomes()
    ]
    assert words.find_claims(items)[6:] == words.find_claims(outcomes())[6:]


def test_one_seed_has_no_verdict_and_missing_counts_are_said():
    single = {name: outcome(name, accuracy=values[:1]) for name, values in ACCURACY.items()}
    claims = words.find_claims(outcomes((1.0,), **single))
    assert {claim.verdict for claim in claims} == {words.ONE_SEED}
    broken = outcome("finetuned")
    broken = broken._replace(needed=broken.needed * np.nan)
    claims = words.find_claims(outcomes((1.0,), finetuned=broken))
    assert [claim.verdict for claim in claims[3:5]] == [words.UNMEASURED] * 2


def test_the_table_has_every_method_and_what_it_needs():
    table = words.accuracy_table(outcomes(), 49, "our setting")
    assert len(table.rows) == 10
    assert table.rows[0] == [
        "100% of labels", 1000, "pretrained, fine-tuned", "81.0 ± 1.0", "not published here",
        "16.5 ± 1.3", "2.0 ± 0.0", "32.5 ± 1.3", "81",
    ]  # fmt: skip
    assert table.rows[3][5:8] == ["-", "-", "-"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "regions needed, of 49" in table.columns
    assert table.note.endswith("our setting")


def test_the_claims_table_and_the_answer_say_the_same(tmp_path):
    claims = words.find_claims(outcomes())
    table = words.claims_table(claims, "our setting")
    assert table.rows[2][0] == "pretraining beats scratch"
    assert words.RULE in table.note
    report.write_table(tmp_path, table)
    lines = words.answer(claims)
    assert len(lines) == 3 + 6
    assert lines[1] == (
        "Pretraining beats scratch (test accuracy; scratch, as long in all). 10% of labels: the "
        "opposite holds (81.0 ± 1.0% against 85.2 ± 1.3%: -4.2 ± 0.3, standard error 0.2); 100% of "
        "labels: the opposite holds (81.0 ± 1.0% against 85.2 ± 1.3%: -4.2 ± 0.3, standard error "
        "0.2)."
    )


def test_accuracy_rises_with_labels_from_left_to_right(tmp_path):
    figure = figures.accuracy_figure(outcomes((1.0, 0.1, 0.01)))
    [ax] = figure.axes
    assert len(ax.containers) == 5
    for method, bars in zip(words.METHODS, ax.containers, strict=True):
        line = bars.lines[0]
        np.testing.assert_allclose(line.get_ydata(orig=False), [np.mean(ACCURACY[method])] * 3)
        np.testing.assert_allclose(line.get_xdata(orig=False), [1, 10, 100], rtol=0.07)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "10", "100"]
    assert len(figure.legends[0].get_texts()) == 5
    assert report.save_figure(tmp_path, "accuracy", figure).stat().st_size > 1000


def test_the_share_of_images_is_of_all_seeds():
    figure = figures.regions_figure(outcomes(), 49)
    left, right = figure.axes
    ordered, unordered = left.lines[0], left.lines[1]
    np.testing.assert_array_equal(ordered.get_xdata(orig=False), np.arange(50))
    found = ordered.get_ydata(orig=False)
    # Needed: 10, 11, 12, 20, 22, 24.
    np.testing.assert_allclose(found[[9, 10, 12, 23, 24, 49]], np.array([0, 1, 3, 5, 6, 6]) / 6)
    np.testing.assert_allclose(
        unordered.get_ydata(orig=False)[[24, 25, 38, 39]], [0, 1 / 6, 5 / 6, 1]
    )
    assert len(left.lines) == 6
    np.testing.assert_allclose(right.containers[0].lines[0].get_ydata(orig=False), [16.5, 16.5])


def test_maps_lie_over_their_images():
    rng = np.random.default_rng(0)
    images, maps = rng.random((3, 8, 12, 1)), rng.random((3, 2, 3))
    kept = maps > 0.5
    needed = np.array([1.0, 3.0, np.nan])
    look = figures.Look(maps, kept, needed, needed)
    figure = figures.maps_figure(images, {"finetuned": look, "scratch": look})
    axes = np.array(figure.axes).reshape(3, 3)
    assert [ax.get_title() for ax in axes[1]] == ["1 in 1", "3 in 3", "-"]
    assert [row[0].get_ylabel() for row in axes] == ["image", "pretrained", "scratch"]
    shown, over = axes[2, 1].get_images()
    np.testing.assert_array_equal(shown.get_array(), images[1, ..., 0])
    np.testing.assert_array_equal(over.get_array()[::4, ::4], maps[1])
    cover = over.get_alpha()[::4, ::4]
    assert cover[kept[1]].max() < cover[~kept[1]].min()
