import numpy as np
import pytest

from recon_jax import report
from recon_jax.report import depth_laws as words

DEPTH = np.arange(1, 9.0)
TINY = np.full((2, 8), 1e-3)
NOISE = np.array([[1.01], [0.99]])  # two seeds around the exact value


def outcome(stride=1, kind="relu", dimensions=1, d_factor=1.0, g_factor=1.0, error=TINY):
    """D and G that are exact powers, times a factor in the last layer."""
    size = 3
    base = DEPTH if stride == 1 else size**DEPTH
    deformation, noise = base**-1.0, base**0.5 if kind == "relu" else np.ones(8)
    last = np.where(np.arange(8) == 7, 1.0, 0.0)
    return words.Outcome(
        filter_size=size,
        stride=stride,
        dimensions=dimensions,
        num_sites=99,
        kind=kind,
        D=deformation * (1 + (d_factor - 1) * last),
        G=noise * (1 + (g_factor - 1) * last) * NOISE,
        error=error * noise,
        exact=(deformation, noise),
        limit=(deformation, noise / 2),
        seconds=1.25,
    )


FIT = words.Exponents(
    network="1-D, stride 1, F = 3, N = 99",
    panel="1-D, stride 1",
    layers=(2, 8),
    measured=np.array([[-1.0, -1.0], [0.41, 0.43], [-1.41, -1.43]]),
    exact=np.array([-1.0, 0.42, -1.42]),
    deep_layers=(16, 64),
    deep=np.array([-1.0, 0.47, -1.47]),
    predicted=(-1.0, 0.5, -1.5),
)


def test_the_table_has_powers_of_two_and_the_last_layer():
    assert words.shown_layers(8) == [1, 2, 4, 8]
    assert words.shown_layers(10) == [1, 2, 4, 8, 10]
    assert words.shown_layers(1) == [1]
    table = words.depth_table([outcome(g_factor=1.02), outcome(kind="linear")], "our setting")
    assert [row[1] for row in table.rows] == [1, 2, 4, 8]
    assert all(len(row) == len(table.columns) for row in table.rows)
    last = dict(zip(table.columns, table.rows[-1], strict=True))
    assert last["network"] == "1-D, stride 1, F = 3, N = 99"
    assert last["D exact"] == "0.125"
    assert last["rel. difference"] == "0"
    # 8 ** 0.5 times 1.02, a percent apart in two seeds.
    assert last["G measured"] == "2.885 ± 0.04"
    assert last["G exact"] == "2.828"
    assert last["difference (%)"] == "+2.00"
    assert last["G asymptotic"] == "1.414"
    # 1e-3 of G in each of two seeds.
    assert last["standard error"] == "0.002"
    assert last["paper"] == "not published here"
    assert table.note == "our setting"


def test_one_seed_has_no_spread():
    item = outcome()
    single = item._replace(G=item.G[:1], error=item.error[:1])
    row = words.depth_table([single], "").rows[0]
    assert row[5] == "1.010"
    assert "±" not in "".join(map(str, row))


def test_agreement_names_the_worst_layer():
    table = words.agreement_table([outcome(g_factor=0.97, d_factor=1.001)], "")
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["D, largest relative difference"] == "1e-03"
    assert row["G, largest difference (%)"] == "3.00 (k = 8)"
    # 3 percent over 0.1 percent / sqrt(2).
    assert float(row["in standard errors"]) == pytest.approx(0.03 / (1e-3 / 2**0.5), abs=0.05)


def test_exponents_are_shown_with_their_range():
    table = words.exponent_table([FIT], "")
    assert table.rows[0] == [
        *("1-D, stride 1, F = 3, N = 99", "D", "2-8", "-1.000", "-1.000", "16-64", "-1.000", "-1")
    ]
    assert table.rows[1][3] == "0.4200 ± 0.01"
    assert table.rows[1][-1] == "0.5"


def test_agreement_is_said_where_it_was_found():
    lines = words.answer([outcome(g_factor=1.01), outcome(kind="linear")], [FIT])
    assert lines[0].startswith("D agrees with the exact sums to 1e-06: ")
    assert lines[1].startswith("G, ReLU: agrees with the exact sums to 2%; the largest difference")
    assert "is 1.00% (1-D, stride 1, F = 3, N = 99, layer 8, standard error 0.07%)" in lines[1]
    assert lines[2].startswith("G, no ReLU: agrees")
    assert "lies between 1.000 and 1.000" in lines[3]
    assert lines[4] == (
        "Exponents of D, G, R, 1-D, stride 1, F = 3, N = 99: measured -1.00, 0.42, -1.42 at k = 2 "
        "to 8 (exact -1.00, 0.42, -1.42); exact sums of many sites -1.00, 0.47, -1.47 at k = 16 to "
        "64; predicted for k to infinity -1, 0.5, -1.5."
    )
    assert len(lines) == 5


def test_disagreement_is_said_and_so_is_ignorance():
    wrong = words.answer([outcome(), outcome(dimensions=2, d_factor=1 + 2e-6, g_factor=1.03)], [])
    assert wrong[0].startswith("D does not agree with the exact sums")
    assert "2-D, stride 1, F = 3, N = 99, layer 8" in wrong[0]
    assert wrong[1].startswith("G, ReLU: does not agree with the exact sums to 2%")
    rough = words.answer([outcome(g_factor=1.03, error=20 * TINY)], [])
    assert rough[1].startswith("G, ReLU: was measured too roughly to tell")
    # Seeds may differ by more than their mean differs from the exact sum.
    assert "agrees" in words.answer([outcome()], [])[1]


def test_every_group_has_its_column(tmp_path):
    items = [outcome(), outcome(kind="linear"), outcome(3, "rectified"), outcome(3, dimensions=2)]
    figure = words.depth_figure([*items, outcome(3)])
    assert [ax.get_title() for ax in figure.axes[:3]] == [
        *("1-D, stride 1", "1-D, stride F", "2-D, stride F")
    ]
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["D", "G", "R = D / G"]
    noise = figure.axes[3]
    assert (noise.get_xscale(), figure.axes[4].get_xscale()) == ("log", "linear")
    dashed = [line for line in noise.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[0].get_ydata(), DEPTH**0.5 / 2)
    measured = {item.lines[0].get_color(): item.lines[0] for item in noise.containers}
    np.testing.assert_allclose(measured["gray"].get_ydata(), 1, rtol=1e-12)
    # The controls have no panel of D; rectified noise is in the tables alone.
    assert [len(ax.containers) for ax in figure.axes] == [1, 1, 1, 2, 1, 1, 1, 1, 1]
    relative = figure.axes[6].containers[0].lines[0]
    np.testing.assert_allclose(relative.get_ydata()[-1], 8**-1.5, rtol=1e-3)
    assert report.save_figure(tmp_path, "depth", figure).stat().st_size > 1000
