import json

import numpy as np
import pytest

from configs import depth_laws as recipe
from experiments import depth_laws
from recon_jax.diffeo import constant_filters
from recon_jax.diffeo import depth_laws as laws
from recon_jax.report import depth_laws as words


def small(**changes):
    config = depth_laws.smoke(recipe.get_config())
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nets": ()}, "nets must be one or more different ones"),
        ({"nets": ((2, 3, 1, 1, 16),) * 2}, "nets must be one or more different ones"),
        ({"nets": ((2, 3, 1, 1),)}, "nets are .layers, filter, stride, axes, sites., got"),
        ({"nets": ((2, 3, 2, 1, 16),)}, "stride=2 must be 1 or filter_size=3"),
        ({"nets": ((3, 2, 2, 1, 12),)}, "num_sites=12 must be a multiple of"),
        ({"nets": ((99, 5, 1, 1, 16),)}, "num_sites=16 is so small"),
        ({"kinds": ("linear",)}, "kinds must be different ones, relu among them"),
        ({"kinds": ("relu", "gelu")}, "kinds must be one of relu, linear, rectified, got 'gelu'"),
        ({"repeats": (1, 100)}, "repeats must be at least 2, got 1"),
        ({"repeats": (100,)}, "repeats must be two numbers, at stride 1 and at stride F"),
        ({"exact_layers": (64, 2)}, "exact_layers must be at least 4, got 2"),
        ({"precision": "bfloat16"}, "precision must be one of float32, float64, got 'bfloat16'"),
    ],
)
def test_bad_config_is_refused_before_anything_is_computed(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("computed in spite of a bad config")

    monkeypatch.setattr(constant_filters, "measure_deformation", forbidden)
    with pytest.raises(ValueError, match=message):
        depth_laws.run(small(**changes), tmp_path, [0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid_and_its_bumps_stay_below_the_ring(variant):
    config = recipe.get_config(variant)
    depth_laws.validate(config)
    depth_laws.validate(depth_laws.smoke(recipe.get_config(variant)))
    for depth, size, stride, _, sites in config.nets:
        assert laws.receptive_field(size, stride, depth) <= sites


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of default, deep"):
        recipe.get_config("paper")


@pytest.mark.parametrize(("stride", "depth"), [(1, 40), (3, 5), (3, 2)])
def test_exponents_of_exact_powers(stride, depth):
    k = np.arange(1, depth + 1.0)
    base = k if stride == 1 else 3**k
    # What is not fitted does not count.
    first = {(1, 40): 10, (3, 5): 3, (3, 2): 1}[stride, depth]
    disturbed = np.where(k < first, 7.0, 1.0)
    item = words.Outcome(
        *(3, stride, 2, 99, "relu"),
        D=disturbed * base**-0.9,
        G=disturbed * np.stack([base**1.2, 5 * base**1.4]),
        error=np.ones((2, depth)),
        exact=(base**-1.0, 2 * base**1.3),
        limit=(base**-1.0, base**1.0),
        seconds=1.0,
    )
    fit = depth_laws.fit_exponents(item, (base**-1.1, base**1.5))
    assert fit.layers == fit.deep_layers == (first, depth)
    np.testing.assert_allclose(fit.measured, [[-0.9, -0.9], [1.2, 1.4], [-2.1, -2.3]], atol=1e-12)
    np.testing.assert_allclose(fit.exact, [-1, 1.3, -2.3], atol=1e-12)
    np.testing.assert_allclose(fit.deep, [-1.1, 1.5, -2.6], atol=1e-12)
    assert fit.predicted == ((-1, 1, -2) if stride == 1 else (-1, 2, -3))


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path, monkeypatch, rules_fit):
    config = small(nets=((6, 3, 1, 1, 32), (3, 2, 2, 1, 32)), repeats=(400, 400))
    results = depth_laws.run(config, tmp_path, [0, 1])
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    tables = ("depth_laws", "agreement", "exponents")
    wanted = {f"tables/{name}.{end}" for name in tables for end in ("md", "csv", "tex")}
    wanted |= {"figures/depth_laws.png", "figures/depth_laws.pdf", "report.html", "config.json"}
    assert wanted <= names
    rules_fit("depth_laws", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 3 * 2
    assert results["summary"][0].startswith("D agrees with the exact sums to 1e-06")
    for line in lines:
        np.testing.assert_allclose(line["D"], line["D_exact"], rtol=1e-10)
        errors = 5 * np.array(line["standard_error"])
        np.testing.assert_array_less(np.abs(np.subtract(line["G"], line["G_exact"])), errors)
    # Every kind and seed has noise of its own.
    assert len({line["G"][0] for line in lines}) == len(lines)
    note = (tmp_path / "tables" / "depth_laws.md").read_text()
    for word in ("smoke run", "seeds 0, 1", "not published here"):
        assert word in note

    def forbidden(*args, **kwargs):
        raise AssertionError("computed again what the workdir holds")

    monkeypatch.setattr(constant_filters, "measure_deformation", forbidden)
    monkeypatch.setattr(constant_filters, "measure_noise", forbidden)
    again = depth_laws.run(config, tmp_path, [0, 1])
    assert again["summary"] == results["summary"]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert (tmp_path / "metrics.jsonl").read_text() == text
