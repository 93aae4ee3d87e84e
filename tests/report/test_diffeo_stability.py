import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from recon_jax import diffeo, report
from recon_jax.report import diffeo_stability as words
from recon_jax.report import stability_claims as claims
from recon_jax.report import stability_figures as figures

NAMES = ("fc2", "lenet", "alexnet", "vgg11", "vgg11_bn", "resnet18")
CONVOLUTIONAL = NAMES[1:]


def sensitivities(seeds, d, g, rng):
    """(seeds, 3, 4): D and G reach d and g at the output."""
    fall = np.linspace(0, 1, 4)
    D, G = (0.1 ** (1 - fall) * value**fall for value in (d, g))
    noise = np.exp(0.02 * rng.standard_normal((2, seeds, 4)))
    D, G = D * noise[0], G * noise[1]
    return np.stack([D, G, D / G], 1)


def make_rows(index, seeds=3, noise=0.0, fall=0.05, power=0.5, seed=0, shuffled=0.4, gain=2.0):
    """A network in which all claims hold, with arrays as a run leaves them, a seed each."""
    rng = np.random.default_rng([seed, index])
    ratio = fall * 3.0**-index
    d, g = ratio**0.5, ratio**-0.5
    rows = []
    states = {"trained": (0.1 * d, 0.1 * g)}
    if not noise:
        states["initial"] = (0.1, 0.1)
    convolutional = not noise and NAMES[index] in CONVOLUTIONAL
    if convolutional:
        middle = 0.1 * d**shuffled
        states |= {"shuffled0": (middle, 0.1), "shuffled1": (middle, 0.1)}
    for _ in range(seeds):
        row = {"error": 100 * 0.2 * ratio**power, "noisy_error": 40.0 if noise else np.nan}
        row["seconds"] = 100.0
        for name, (a, b) in states.items():
            mean = sensitivities(1, a, b, rng)[0]
            row |= {f"{name}_mean": mean, f"{name}_median": 0.5 * mean[:, -1]}
            row[f"{name}_layers"] = np.array(["conv1", "pool1", "dense1", "logits"])
        if convolutional:
            modes = diffeo.laplacian_modes(3).values
            spectrum = np.full((2, 9), 0.5)
            row |= {"initial_kernels": np.array(["conv1/conv", "conv2/conv"])}
            row |= {"initial_modes": modes, "initial_spectra": spectrum}
            row["trained_spectra"] = spectrum * np.where(modes == 0, gain, 1)[None, :]
        rows.append(row)
    return rows


def make_outcomes(count=6, noisy=(), **options):
    found = [words.gather(NAMES[i], 0.0, make_rows(i, **options)) for i in range(count)]
    return found + [
        words.gather(NAMES[i], 10.0, make_rows(i, noise=10.0, seed=1, **options)) for i in noisy
    ]


def verdicts(outcomes):
    return [claim.verdict for claim in claims.find_claims(outcomes)]


def test_seeds_are_gathered():
    rows = make_rows(1, seeds=2)
    rows[1]["error"] = 30.0
    rows[0]["shuffled1_mean"] = 4 * rows[0]["shuffled0_mean"]
    found = words.gather("lenet", 0.0, rows)
    assert found.error[1] == 30
    assert set(found.states) == {"initial", "trained", "shuffled"}
    assert_allclose(found.states["trained"].mean[1], rows[1]["trained_mean"], rtol=0)
    assert_allclose(found.states["shuffled"].mean[0], 2 * rows[0]["shuffled0_mean"], rtol=1e-12)
    assert found.layers[-1] == "logits"
    assert found.kernels == ("conv1/conv", "conv2/conv")
    noisy = words.gather("lenet", 10.0, make_rows(1, noise=10.0))
    assert (set(noisy.states), noisy.spectra, noisy.label) == ({"trained"}, {}, "lenet, noise 10")


def test_points_are_geometric_means_of_the_output():
    [item] = make_outcomes(1)
    x, y = words.point(item, "G")
    assert_allclose(x, stats.gmean(item.states["trained"].mean[:, 1, -1]), rtol=1e-12)
    assert_allclose(y, stats.gmean(item.error), rtol=1e-12)
    rng = np.random.default_rng(0)
    outcomes = [
        item._replace(error=item.error * rng.uniform(0.8, 1.2, 3)) for item in make_outcomes()
    ]
    points = np.log([words.point(item, "R") for item in outcomes])
    found = words.correlation(outcomes, "R")
    assert_allclose(found.r, stats.pearsonr(*points.T)[0], rtol=1e-9)
    # Errors are fractions in the power law.
    line = stats.linregress(points[:, 0], points[:, 1] - np.log(100))
    assert_allclose([found.slope, found.factor], [line.slope, np.exp(line.intercept)], rtol=1e-9)


def test_all_claims_hold_where_they_should():
    found = claims.find_claims(make_outcomes(noisy=(1,)))
    assert [claim.verdict for claim in found] == [claims.REPRODUCED] * 9
    assert "in 6 of 6 networks" in found[1].measured
    assert "with noise-trained ones" in found[2].measured
    assert found[3].measured.startswith("0.2 R_f^0.5")
    assert "in 5 of 5 networks" in found[6].measured


def test_no_claim_holds_where_it_should_not():
    outcomes = make_outcomes(fall=20.0, power=-0.5, shuffled=-1.0, gain=0.5)
    changed = []
    for item in outcomes:
        states = dict(item.states)
        first = states["initial"].mean * np.array([1, 1 / 3, 3])[:, None]
        states["initial"] = words.State(first, states["initial"].median)
        changed.append(item._replace(states=states))
    found = claims.find_claims(changed)
    # R_f = 3 at the start; networks 0 and 1 rise to 20 and 20 / 3, the others fall below 3.
    assert [claim.verdict for claim in found[:4]] == [claims.NOT, claims.PARTLY, *[claims.NOT] * 2]
    assert "not in fc2, lenet" in found[1].measured
    assert found[4].verdict == found[5].verdict == found[8].verdict == claims.NOT


def test_pooling_needs_shuffled_networks_between_the_others():
    def poolings(shuffled):
        return verdicts(make_outcomes(fall=1e-3, shuffled=shuffled))[6:8]

    assert poolings(0.5) == [claims.REPRODUCED, claims.REPRODUCED]
    assert poolings(-0.5) == [claims.NOT, claims.REPRODUCED]
    assert poolings(1.5) == [claims.REPRODUCED, claims.NOT]


def test_a_change_within_the_spread_of_seeds_does_not_count():
    outcomes = make_outcomes()
    [first] = [item for item in outcomes if item.name == "fc2"]
    trained = first.states["trained"].mean.copy()
    trained[:, 2, -1] = [0.1, 0.8, 3.0]  # falls in the mean, and not reliably
    states = {**first.states, "trained": words.State(trained, first.states["trained"].median)}
    found = claims.find_claims([first._replace(states=states), *outcomes[1:]])[1]
    assert found.verdict == claims.PARTLY
    assert found.measured.endswith("not in fc2")
    single = claims.find_claims(make_outcomes(seeds=1))[1]
    assert single.verdict == claims.REPRODUCED


def test_few_networks_give_no_verdict_on_correlations():
    assert verdicts(make_outcomes(3))[2:6] == [claims.UNKNOWN] * 4
    assert verdicts(make_outcomes(1))[2:6] == [claims.UNKNOWN] * 4


def test_a_loose_correlation_is_uncertain():
    outcomes = make_outcomes()
    rng = np.random.default_rng(3)
    loose = [item._replace(error=rng.uniform(20, 60) * np.ones(3)) for item in outcomes]
    found = claims.find_claims(loose)[2:6]
    assert {claim.verdict for claim in found} <= {claims.UNCERTAIN, claims.NOT, claims.REPRODUCED}
    r = words.correlation(loose, "R")
    assert r.low < 0 < r.high
    assert found[0].verdict == (claims.UNCERTAIN if r.r > 0 else claims.NOT)


def test_a_dead_network_is_left_out():
    outcomes = make_outcomes(noisy=(2,))
    dead = outcomes[-1]
    nothing = words.State(np.full((3, 3, 4), np.nan), np.full((3, 3), np.nan))
    outcomes[-1] = dead._replace(states={"trained": nothing})
    found = claims.find_claims(outcomes)
    assert [claim.verdict for claim in found] == [claims.REPRODUCED] * 9
    lines = claims.answer(outcomes, found)
    assert lines[-1].endswith("make the same of all images: alexnet, noise 10.")
    assert len(claims.answer(make_outcomes(), found)) == 9
    assert claims.find_claims(outcomes[-1:]) == []
    figures.error_figure(outcomes)
    assert "nan" in words.nets_table(outcomes, "").render("github")


def test_table_of_networks():
    table = words.nets_table(make_outcomes(noisy=(1,)), "note")
    cells = table.cells()
    assert [row[:2] for row in cells[-2:]] == [["resnet18", "0"], ["lenet", "10"]]
    assert cells[-1][3] == "40 ± 0"
    assert cells[-1][4:8] == ["-"] * 4
    assert cells[0][3] == "-"
    assert all(len(row) == len(table.columns) for row in cells)
    assert {row[-2] for row in cells} == {"not published here"}


def test_gained_shares_are_of_whole_eigenvalues():
    rows = make_rows(1, gain=4.0)
    values, shares = words.gained_shares(words.gather("lenet", 0.0, rows))
    assert_allclose(values, [0, 1, 2, 3, 4, 6], atol=1e-9)
    assert_allclose(shares, np.array([[4, 1, 1, 1, 1, 1]] * 2) * 9 / 12, rtol=1e-9)


def test_figures_are_drawn(tmp_path):
    outcomes = make_outcomes(noisy=(1, 2))
    error = figures.error_figure(outcomes)
    assert [len(ax.containers) for ax in error.axes] == [8] * 3
    (line,) = error.axes[2].get_lines()[-1:]
    x, y = line.get_data()
    assert_allclose(y, 20 * np.sqrt(x))
    depth = figures.depth_figure(outcomes, 0.05)
    assert len(depth.axes) == 15
    initial, shuffled, trained = (line.get_ydata() for line in depth.axes[0].get_lines())
    assert initial[0] == shuffled[0] == trained[0] == pytest.approx(0.05)
    assert trained[-1] < shuffled[-1] < initial[-1]
    assert len(depth.axes[0].get_lines()[0].get_xdata()) == 5
    filters = figures.filter_figure(outcomes)
    assert sum(ax.get_visible() for ax in filters.axes) == 5
    for name, figure in {"error": error, "depth": depth, "filters": filters}.items():
        assert report.save_figure(tmp_path, name, figure).stat().st_size > 1000
