"""Do networks of constant filters obey the depth laws of deformations and noise?

    python -m experiments.depth_laws [--config=configs/depth_laws.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

Sensitivities to deformations (D) and to noise (G) are measured in every layer, on a line and in the
plane, at stride 1 and at stride F, and stand beside the exact sums of finite depth and size, their
asymptotes, and two controls: no ReLU, and noise that is rectified before it enters.

Every measurement is kept and not repeated. Writes report.html, results.json, config.json,
metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from configs import depth_laws as recipe
from experiments import cli, trained
from recon_jax import report
from recon_jax.diffeo import constant_filters
from recon_jax.diffeo import depth_laws as laws
from recon_jax.report import depth_laws as words

PRECISIONS = ("float32", "float64")
OPTIONS = {
    "relu": {"relu": True, "rectified": False},
    "linear": {"relu": False, "rectified": False},
    "rectified": {"relu": True, "rectified": True},
}
# (layers, filter, stride, axes, sites)
Net = tuple[int, int, int, int, int]


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before anything is computed."""
    trained.require_choice("precision", config.precision, PRECISIONS)
    nets = [tuple(net) for net in config.nets]
    if not nets or len(set(nets)) < len(nets):
        raise ValueError(f"nets must be one or more different ones, got {config.nets}")
    for net in nets:
        if len(net) != 5:
            raise ValueError(f"nets are (layers, filter, stride, axes, sites), got {net}")
        constant_filters.check_measurable(*net, dtype=config.precision)
    for kind in config.kinds:
        trained.require_choice("kinds", kind, OPTIONS)
    if "relu" not in config.kinds or len(set(config.kinds)) < len(config.kinds):
        raise ValueError(f"kinds must be different ones, relu among them, got {config.kinds}")
    for field, low in (("repeats", 2), ("exact_layers", 4)):
        if len(config[field]) != 2:
            raise ValueError(
                f"{field} must be two numbers, at stride 1 and at stride F, got {config[field]}"
            )
        for number in config[field]:
            trained.require_at_least(field, number, low)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small networks and few draws, on the same code path."""
    config.nets = ((8, 3, 1, 1, 32), (3, 2, 2, 1, 16), (4, 3, 1, 2, 12), (2, 2, 2, 2, 12))
    config.repeats = (200, 200)
    config.exact_layers = (64, 8)
    config.reduction = "smoke run of few small networks"
    return config


def measure(
    config: ConfigDict, workdir: Path, net: Net, seeds: Sequence[int]
) -> list[words.Outcome]:
    """One network with every kind of noise, beside the closed forms."""
    key = [net, config.precision, recon_jax.__version__]
    cache, repeats = workdir / "cache", config.repeats[net[2] > 1]

    def deformation():
        return constant_filters.measure_deformation(*net, dtype=config.precision)

    moved = report.cached(cache, "deformation", key, lambda: _timed(deformation))
    spread = jnp.asarray(moved["spread"])
    outcomes = []
    for kind in config.kinds:
        options = OPTIONS[kind]
        draws = []
        for seed in seeds:

            def noise(seed=seed, options=options, kind=kind):
                # Draws of no two networks are alike, so that their errors are independent.
                of_net = jax.random.fold_in(
                    jax.random.key(seed), zlib.crc32(f"{net}{kind}".encode())
                )
                return constant_filters.measure_noise(
                    of_net, spread, *net, repeats=repeats, **options
                )

            step = [*key, kind, seed, repeats]
            draws.append(report.cached(cache, "noise", step, lambda noise=noise: _timed(noise)))
        exact = laws.exact(*net, **options)
        limit = laws.asymptotic(*net[:4], **options)
        seconds = float(moved["seconds"] + np.mean([draw["seconds"] for draw in draws]))
        outcomes.append(
            words.Outcome(
                *net[1:],
                kind=kind,
                D=moved["D"],
                G=np.stack([draw["G"] for draw in draws]),
                error=np.stack([draw["error"] for draw in draws]),
                exact=(exact.D, exact.G),
                limit=(limit.D, limit.G),
                seconds=seconds,
            )
        )
    return outcomes


def _timed(compute: Callable[[], Any]) -> dict[str, Any]:
    """The fields of a result and the seconds it took, its compilation among them."""
    start = time.perf_counter()
    found = jax.block_until_ready(compute())
    return {**found._asdict(), "seconds": time.perf_counter() - start}


def _fitted_layers(depth: int, stride: int) -> tuple[int, int]:
    """Deep ones: the last three quarters at stride 1, where laws are powers of k; else half."""
    return max(depth // 4 if stride == 1 else depth - depth // 2, 1), depth


def _slopes(curves: np.ndarray, layers: tuple[int, int], filter_size: int, stride: int):
    """Least-squares exponents of curves (..., K) over some layers."""
    k = np.arange(layers[0], layers[1] + 1, dtype=float)
    x = np.log(k) if stride == 1 else k * np.log(filter_size)
    x -= x.mean()
    return np.log(curves[..., layers[0] - 1 : layers[1]]) @ x / (x @ x)


def fit_exponents(item: words.Outcome, many: tuple[np.ndarray, np.ndarray]) -> words.Exponents:
    """Exponents of a network, given D and G of the exact sums for many sites to another depth."""
    stride, size = item.stride, item.filter_size
    layers = _fitted_layers(len(item.D), stride)
    deep_layers = _fitted_layers(len(many[0]), stride)

    def three(deformation, noise, layers):
        curves = np.stack([deformation + 0 * noise, noise, deformation / noise])
        return _slopes(curves, layers, size, stride)

    growth = item.dimensions / 2 if stride == 1 else float(item.dimensions)
    return words.Exponents(
        network=item.name,
        panel=item.panel,
        layers=layers,
        measured=three(item.D, item.G, layers),
        exact=three(*item.exact, layers),
        deep_layers=deep_layers,
        deep=three(*many, deep_layers),
        predicted=(-1.0, growth, -1.0 - growth),
    )


def exponents(config: ConfigDict, outcomes: Sequence[words.Outcome]) -> list[words.Exponents]:
    """Fits to measurements and to the exact sums, these at the same depths and at greater ones."""
    found = []
    for item in outcomes:
        if item.kind != "relu" or len(item.D) < 2:
            continue
        deep = config.exact_layers[item.stride > 1]
        many = laws.exact(deep, item.filter_size, item.stride, item.dimensions)
        found.append(fit_exponents(item, (many.D, many.G)))
    return found


def records(outcomes: Sequence[words.Outcome], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each network, kind of noise and seed, without times."""
    return [
        {
            "network": item.name,
            "kind": item.kind,
            "seed": seed,
            "D": item.D,
            "G": item.G[index],
            "standard_error": item.error[index],
            "D_exact": item.exact[0],
            "G_exact": item.exact[1],
        }
        for item in outcomes
        for index, seed in enumerate(seeds)
    ]


def describe(config: ConfigDict, seeds: Sequence[int], facts: Mapping[str, Any]) -> str:
    """Setting, seeds and device, for the notes of the tables."""
    reduction = f" ({config.reduction})" if config.reduction else ""
    uniform, strided = config.repeats
    return (
        f"Images of one active pixel on rings, constant filters, no bias, {config.precision}"
        f"{reduction}; D over all images, G over {uniform:,} draws of noise at stride 1 and "
        f"{strided:,} at stride F for each of the seeds {', '.join(map(str, seeds))}, mean ± "
        f"standard deviation over seeds; {facts['device']}, {facts['wall_seconds']} s in all."
    )


def write_outputs(
    workdir: Path,
    outcomes: Sequence[words.Outcome],
    fits: Sequence[words.Exponents],
    seeds: Sequence[int],
    note: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figure, results.json and report; returns what results.json holds."""
    tables = [
        words.agreement_table(outcomes, note),
        words.exponent_table(fits, note),
        words.depth_table(outcomes, note),
    ]
    summary = words.answer(outcomes, fits)
    figure = words.depth_figure(outcomes)
    path, caption = report.save_figures(
        workdir / "figures", {"depth_laws": (figure, words.CAPTION)}
    )["depth_laws"]
    results = {
        "summary": summary,
        "runs": records(outcomes, seeds),
        "exponents": [item._asdict() for item in fits],
        "setting": note,
    }
    sections = [report.Section("Measured, exact and asymptotic", (), path, caption, tables)]
    title = "Depth laws of deformations and noise"
    return cli.publish(workdir, title, sections, tables, results, facts, shown=2)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    outcomes: list[words.Outcome] = []
    with jax.enable_x64(config.precision == "float64"):
        for net in report.progress(config.nets, "networks"):
            outcomes += measure(config, workdir, tuple(net), seeds)
            report.write_jsonl(workdir / "metrics.jsonl", records(outcomes, seeds))
        fits = exponents(config, outcomes)
    facts = cli.facts_of("depth_laws", seeds, start)
    note = describe(config, seeds, facts)
    return write_outputs(workdir, outcomes, fits, seeds, note, facts)


if __name__ == "__main__":
    cli.main("depth_laws", recipe.get_config, run, smoke)
