import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import scale_claims, scale_figures
from recon_jax.report import scale_detection as words

NOISE = np.array([0.02, -0.03, 0.01])  # of three seeds, relative
DEPTHS = np.arange(1, 5)


def curve(*by_measure):
    """(seeds, 3, layers) of D and G by layer, with R their ratio, seeds that differ a little."""
    d, g = (np.asarray(values, float) for values in by_measure)
    base = np.stack([d, g, d / g])
    return base[None] * (1 + NOISE)[:, None, None] ** np.array([1, 1, 0])[None, :, None]


def line_outcome(d, g, prediction=None):
    """Four convolutions, a pooling and an output; before training flat at 0.8 and 0.5."""
    flat = curve([0.8] * 6, [0.5] * 6)
    trained = curve([*d, 0.1, 0.1], [*g, 1, 1])
    shares = {"initial": np.full((3, 4), 0.2), "trained": 0.3 + NOISE[:, None] * np.ones((1, 4))}
    return words.Outcome(
        name="circular CNN",
        layers=("conv1", "conv2", "conv3", "conv4", "pooled", "logits"),
        curves={
            "initial": flat,
            "trained": trained,
            "initial, channel mean": flat,
            "trained, channel mean": flat,
        },
        filters=("conv1", "conv2", "conv3", "conv4"),
        fractions=shares,
        train_error=np.zeros(3),
        test_error=2 + 100 * NOISE,
        seconds=np.full(3, 60.0),
        prediction=prediction,
    )


def theory(stride=1, size=5):
    rate = DEPTHS.astype(float) if stride == 1 else float(size) ** DEPTHS
    d, g = 1 / rate, rate**0.5 if stride == 1 else rate
    return words.Prediction(np.stack([d, g, d / g]), size, stride)


def square_outcome(name, error, d_last, g_last, shuffled=0.4):
    ends = {"initial": (0.8, 0.8), "trained": (d_last, g_last), "shuffled": (shuffled, 1.0)}
    curves = {s: curve([d] * 3, [g] * 3) for s, (d, g) in ends.items()}
    curves["trained"][:, :, 0] = curve([0.9] * 1, [0.5] * 1)[:, :, 0]
    return words.Outcome(
        name=name,
        layers=("conv1", "conv2", "logits"),
        curves=curves,
        filters=("conv1", "conv2"),
        fractions={s: np.full((3, 2), 0.11) for s in ("initial", "trained")},
        train_error=np.zeros(3),
        test_error=error + NOISE,
        seconds=np.ones(3),
    )


SQUARES = [square_outcome(f"net {i}", float(i), 0.01 * 2**i, 9.0 - i) for i in range(1, 6)]


def by_text(claims):
    return {(claim.claim, claim.of): claim for claim in claims}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5], "0.500"),
        ([10.0, 20.0, 30.0], "20.0 ± 10.0"),
        ([1234.0, 1236.0], "1235 ± 1"),
        ([0.01, 0.03], "0.0200 ± 0.0141"),
        ([1e-5], "1.00e-05"),
        ([0.0, 0.0], "0.0 ± 0.0"),
        ([np.nan, 1.0], "not finite"),
    ],
)
def test_numbers_are_short(values, text):
    assert words.short(np.array(values)) == text


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([-1.0, -1.2, -0.9], scale_claims.REPRODUCED),
        ([1.0, 1.2, 0.9], scale_claims.FAILED),
        ([-1.0, -0.1, 0.3], scale_claims.UNDECIDED),
        ([-1.0], scale_claims.ONE_SEED),
        ([-1.0, np.nan, -1.0], scale_claims.UNMEASURED),
    ],
)
def test_a_sign_is_judged_by_the_spread(values, verdict):
    assert scale_claims.judge_sign(np.array(values), -1) == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([-1.05, -1.08], scale_claims.REPRODUCED),
        ([-1.15, -1.13], scale_claims.FAILED),
        ([-1.8, -0.9], scale_claims.UNDECIDED),  # a wide spread is no agreement
        ([-1.0], scale_claims.ONE_SEED),
        ([-1.0, -np.inf], scale_claims.UNMEASURED),
    ],
)
def test_an_exponent_is_judged_by_the_prediction(values, verdict):
    assert scale_claims.judge_value(np.array(values), -1.0) == verdict


@pytest.mark.parametrize("stride", [1, 5])
def test_networks_that_follow_the_theory_reproduce_it(stride):
    expected = theory(stride)
    item = line_outcome(expected.curves[0], expected.curves[1], expected)
    claims = by_text(scale_claims.find_claims([item]))
    unit = "k" if stride == 1 else "5^k"
    for measure, exponents in (("D", (-1, -1)), ("G", (0.5, 1)), ("R", (-1.5, -2))):
        found = claims[
            f"exponent of {measure}_k in {unit} is that of constant filters",
            "circular CNN, all channels",
        ]
        assert found.verdict == scale_claims.REPRODUCED
        exponent = exponents[stride > 1]
        assert found.paper == f"{exponent:g} at large k; {exponent:.2f} at these"
        assert found.measured == f"{words.short(np.full(3, exponent))}".replace("-0.00", "0.00")
    for text in ("D_k falls", "G_k rises"):
        for end in ("with depth after training", "by more than before training"):
            found = claims[f"{text} {end}", "circular CNN, all channels"]
            assert found.verdict == scale_claims.REPRODUCED
            # Flat over depth in the mean over channels.
            mean = claims[f"{text} {end}", "circular CNN, channel mean"]
            assert mean.verdict != scale_claims.REPRODUCED
    assert claims["filters become more homogeneous", "circular CNN"].verdict == "reproduced"


def test_networks_that_do_the_opposite_do_not():
    expected = theory()
    item = line_outcome(expected.curves[1], expected.curves[0], expected)
    claims = by_text(scale_claims.find_claims([item]))
    texts = ("D_k falls", "G_k rises", "exponent of D_k in k is that of constant filters")
    found = [c for (text, where), c in claims.items() if text.startswith(texts) and "all" in where]
    assert len(found) == 5
    assert {claim.verdict for claim in found} == {scale_claims.FAILED}


def test_without_a_prediction_there_are_no_exponents():
    item = line_outcome(1 / DEPTHS, DEPTHS)
    assert not [c for c in scale_claims.find_claims([item]) if "exponent" in c.claim]


def test_a_layer_that_sees_nothing_has_no_verdict():
    expected = theory()
    item = line_outcome([1, 0.5, 0.3, 0.0], [1, 1, 1, np.nan], expected)
    claims = by_text(scale_claims.find_claims([item]))
    where = "circular CNN, all channels"
    assert claims["D_k falls with depth after training", where].verdict == scale_claims.UNMEASURED
    assert claims["G_k rises with depth after training", where].verdict == scale_claims.UNMEASURED
    text = "exponent of D_k in k is that of constant filters"
    assert claims[text, where].verdict == scale_claims.UNMEASURED


def test_errors_are_ranked_against_the_sensitivity_of_the_output():
    claims = by_text(scale_claims.find_claims(SQUARES))
    where = "5 networks"
    for text in (
        "test error rises with D_f over networks",
        "test error falls with G_f over networks",
        "test error rises with R_f over networks",
    ):
        assert claims[text, where].verdict == scale_claims.REPRODUCED
    found = claims["test error falls with G_f over networks", where]
    assert found.measured == "rank correlation -1.00, between -1.00 and -1.00 without one network"
    opposite = [item._replace(test_error=10 - item.test_error) for item in SQUARES]
    found = by_text(scale_claims.find_claims(opposite))
    assert found["test error rises with D_f over networks", where].verdict == scale_claims.FAILED
    # One network that carries the correlation alone.
    errors = [1.0, 1.1, 1.05, 1.02, 9.0]
    items = [i._replace(test_error=np.full(3, e)) for i, e in zip(SQUARES, errors, strict=True)]
    items[1] = items[1]._replace(test_error=np.full(3, 1.2))
    found = by_text(scale_claims.find_claims(items))
    claim = found["test error rises with D_f over networks", where]
    assert claim.verdict == scale_claims.FEW_DECIDE
    assert claim.measured.startswith("rank correlation +0.60, between +0.20 and +0.80 without")
    few = by_text(scale_claims.find_claims(SQUARES[:3]))
    assert few["test error rises with D_f over networks", "3 networks"].verdict == (
        scale_claims.FEW_NETS
    )


def test_claims_about_all_networks_count_those_that_hold():
    claims = by_text(scale_claims.find_claims(SQUARES))
    assert claims["training lowers D_f", "5 networks"].verdict == scale_claims.REPRODUCED
    worse = SQUARES[0]._replace(
        curves={**SQUARES[0].curves, "initial": SQUARES[0].curves["trained"]}
    )
    mixed = by_text(scale_claims.find_claims([worse, *SQUARES[1:]]))
    assert mixed["training lowers D_f", "5 networks"].verdict == "reproduced in 4 of 5 networks"
    assert (
        "net 2 0.800 ± 0.021 to 0.0400 ± 0.0011"
        in mixed["training lowers D_f", "5 networks"].measured
    )


@pytest.mark.parametrize(("shuffled", "holds"), [(0.4, True), (0.9, False), (0.05, False)])
def test_both_poolings_need_shuffled_networks_in_between(shuffled, holds):
    items = [square_outcome("net", 1.0, 0.05, 2.0, shuffled)]
    claim = scale_claims.pooling_claim(items)
    assert (claim.verdict == scale_claims.REPRODUCED) == holds
    assert f"{shuffled:.3f}" in claim.measured or f"{shuffled:.4f}" in claim.measured


def test_the_summary_counts_verdicts():
    claims = scale_claims.find_claims(SQUARES)
    lines = scale_claims.answer(claims)
    assert lines[0].startswith(f"{len(claims)} claims: ")
    assert len(lines) == len(claims) + 1
    assert lines[1] == (
        "test error rises with D_f over networks (5 networks): reproduced; rank correlation +1.00, "
        "between +1.00 and +1.00 without one network."
    )


@pytest.mark.parametrize(
    "outcomes", [[line_outcome(1 / DEPTHS, DEPTHS, theory())], SQUARES[:2]], ids=["line", "square"]
)
def test_tables_and_figures(outcomes, tmp_path):
    claims = scale_claims.find_claims(outcomes)
    tables = [
        scale_claims.claims_table(claims, "our setting"),
        words.nets_table(outcomes, "our setting"),
        words.layers_table(outcomes, "our setting"),
    ]
    for table in tables:
        report.write_table(tmp_path, table)
        assert table.note.endswith("our setting")
        assert "Tomasini et al. 2022" in table.note
    rows = {tuple(row[:3]): row[3:] for row in tables[2].rows}
    if outcomes[0].is_square:
        assert rows["net 1", "all channels", "logits"][:3] == [
            "0.800 ± 0.021",
            "0.0200 ± 0.0005",
            "0.400 ± 0.011",
        ]
    else:
        assert rows["circular CNN", "all channels", "conv2"][:3] == [
            "0.800 ± 0.021",
            "0.500 ± 0.013",
            "0.5",
        ]
        assert rows["circular CNN", "channel mean", "pooled"][2] == "-"
    drawn = scale_figures.draw(outcomes)
    assert set(drawn) <= set(scale_figures.TITLES)
    assert ("error" in drawn) == outcomes[0].is_square
    for path, caption in report.save_figures(tmp_path, drawn).values():
        assert path.stat().st_size > 1000
        assert caption
    axes = drawn["depth"][0].axes
    lines = {line.get_label() for line in axes[0].lines}
    assert ("constant filters" in lines) != outcomes[0].is_square
    shown = axes[0].containers[1].lines[0].get_ydata()
    np.testing.assert_allclose(shown, outcomes[0].curves["trained"][:, 0].mean(0)[: len(shown)])


def test_what_is_not_finite_leaves_a_gap(tmp_path):
    dead = {**SQUARES[0].curves, "trained": np.full((3, 3, 3), np.nan)}
    items = [SQUARES[0]._replace(curves=dead), SQUARES[1]]
    line = line_outcome([1, 0.5, 0.3, 0.0], [1, 1, np.inf, np.nan])
    figure = scale_figures.depth_figure([line])
    report.save_figure(tmp_path, "line", figure)
    report.save_figure(tmp_path, "square", scale_figures.error_figure(items))
    shown = figure.axes[1].containers[1].lines[0].get_ydata()
    np.testing.assert_array_equal(np.isfinite(shown), [True, True, False, False])


def test_one_seed_has_no_verdict_and_no_bars():
    def first(item):
        cut = {f: getattr(item, f)[:1] for f in ("train_error", "test_error", "seconds")}
        return item._replace(
            curves={k: v[:1] for k, v in item.curves.items()},
            fractions={k: v[:1] for k, v in item.fractions.items()},
            **cut,
        )

    line = [first(line_outcome(1 / DEPTHS, DEPTHS, theory()))]
    assert {c.verdict for c in scale_claims.find_claims(line)} == {scale_claims.ONE_SEED}
    assert set(scale_figures.draw(line)) == {"depth", "filters"}
    scale_figures.draw([first(item) for item in SQUARES])
    assert words.nets_table(line, "").rows[0][1:3] == ["0.0", "4.00"]
