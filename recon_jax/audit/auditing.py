"""One call: any function of images against every measure, with baselines beside it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

from recon_jax import report
from recon_jax.audit.baselines import BASELINES
from recon_jax.audit.encoders import Encoder, as_encoder
from recon_jax.audit.measuring import MEASURES, Bench, Setting, average, make_bench, measure
from recon_jax.audit.records import Audited, AuditReport
from recon_jax.audit.subjects import MOST_PIXELS, gather_subjects
from recon_jax.checks import check_integer, check_numbers

STRENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0)


def audit(
    encode: Any,
    source: Any,
    *,
    test: Any = None,
    name: str | None = None,
    layers: Any = None,
    fresh: Any = None,
    jit: bool | None = None,
    measures: Sequence[str] = MEASURES,
    baselines: Sequence[str] = tuple(BASELINES),
    seeds: Sequence[int] = (0, 1, 2),
    num_images: int | None = 10_000,
    num_test_images: int | None = 2_000,
    batch_size: int = 250,
    strengths: Sequence[float] = STRENGTHS,
    cutoff: int = 3,
    displacement: float = 1.0,
    probe_images: int = 500,
    bootstraps: int = 200,
    shots: int = 5,
    neighbors: int = 20,
    most_pixels: int = MOST_PIXELS,
) -> AuditReport:
    """What an encoder keeps of images, and what can be read from it.

    `audit(lambda images: images.mean((1, 2)), (images, labels))` audits mean colours.

    Measures, each with a 95 % bootstrap interval over test images, or with the standard deviation
    over seeds of what is drawn:

    - spectrum: held-out R^2 of the pixels' eigen-directions from features, by bands of variance;
    - labels: held-out R^2 of the labels, against PCA of the same dimension;
    - geometry: effective and numerical rank, intrinsic dimension;
    - probes: accuracy of linear, nearest-neighbour and few-shot probes;
    - stability: sensitivity D to smooth deformations, G to noise, and R = D / G, by layer;
    - invariance: to views of growing strength.

    Images stay in memory with their features; no test image chooses anything.

    Args:
      encode: images (N, H, W, C), float32 in [0, 1], to features (N, ...), which are flattened: any
        function of JAX, NumPy or another library, or an `Encoder`.
      source: training images: a `data.Source`, (images, labels), or images (N, H, W, C), uint8 or
        floats in [0, 1]. Without labels, what needs them is NaN with the note "no labels".
      test: test images in one of the same forms; None holds out a fifth of `source`.
      name: what tables call the encoder.
      layers: images to named intermediates in order of computation, for the stability, such as
        functools.partial(models.apply_with_intermediates, model, variables).
      fresh: from a seed to the same architecture with new weights, for the baseline "random".
      jit: whether JAX compiles the functions; None finds out.
      measures: some of `MEASURES`.
      baselines: some of "pixels", "pca" (of the encoder's dimension), "random" (one network a
        seed) and "supervised" (reduced-rank regression of the labels on the pixels).
      seeds: of images, deformations, views, few-shot draws and random networks; different, >= 0.
      num_images: training images that are drawn, at most; None takes all.
      num_test_images: test images that are drawn, at most; None takes all.
      batch_size: images a call.
      strengths: of the views, in (0, 1], see `augment.view_policy`.
      cutoff: highest wave number of the deformations, at least 2.
      displacement: of the deformations, in pixels, > 0.
      probe_images: test images that are deformed and augmented, at most.
      bootstraps: resamples of the test images, at least 2.
      shots: images of each class of the few-shot probe.
      neighbors: of the nearest-neighbour probe.
      most_pixels: numbers H W C of an image, at most, of whose pixels the spectrum is computed:
        time grows with their cube. Larger images are reduced for it and for the baselines of
        pixels; the encoder sees them whole.

    Returns:
      The AuditReport.

    Raises:
      ValueError: if an option is out of range, there are fewer than 10 images (50 are few), images
        do not vary, or the encoder returns something else than one array of finite real numbers
        with a row an image.

    Source: the measures of Balestriero & LeCun 2024 (arXiv 2402.11337), Cosentino et al. 2022
    (arXiv 2205.06926), Petrini et al. 2021 (arXiv 2105.02468) and Tomasini et al. 2022 (arXiv
    2210.01506), on one set of images.
    """
    encoder = as_encoder(encode, name=name, layers=layers, fresh=fresh, jit=jit)
    setting = Setting(
        _names("measures", measures, MEASURES),
        _seeds(seeds),
        batch_size,
        tuple(float(strength) for strength in strengths),
        cutoff,
        float(displacement),
        probe_images,
        shots,
        neighbors,
    )
    chosen = _names("baselines", baselines, BASELINES)
    limits = {"num_images": num_images, "num_test_images": num_test_images}
    _check(setting, limits, {"bootstraps": bootstraps, "most_pixels": most_pixels})
    start = time.perf_counter()
    subjects = gather_subjects(
        source, test, seed=setting.seeds[0], most_pixels=most_pixels, **limits
    )
    bench = make_bench(subjects, setting, bootstraps)
    seconds = {"images": time.perf_counter() - start}
    rows, warnings = _measure_all(bench, encoder, chosen, seconds)
    seconds["total"] = time.perf_counter() - start
    return AuditReport(
        encoder=rows[0],
        baselines=tuple(rows[1:]),
        variance=subjects.variance,
        source=subjects.source,
        setting={
            **setting._asdict(),
            **limits,
            "baselines": chosen,
            "bootstraps": bootstraps,
            "most_pixels": most_pixels,
            "test": "given" if test is not None else "a fifth of the images, held out",
        },
        seconds=seconds,
        provenance=report.provenance(),
        warnings=(*subjects.warnings, *warnings),
    )


def _measure_all(
    bench: Bench, encoder: Encoder, baselines: Iterable[str], seconds: dict[str, float]
) -> tuple[list[Audited], list[str]]:
    """The encoder and its baselines; their seconds are added to the dict."""
    seeds = bench.setting.seeds
    with _timed(seconds, encoder.name):
        rows = [measure(bench, encoder, "encoder", seeds)]
    warnings = []
    for name in baselines:
        encoders, fault = BASELINES[name](bench.subjects, encoder, rows[0].dimension, seeds)
        if fault:
            warnings.append(fault)
            continue
        with _timed(seconds, encoders[0].name):
            rows.append(_baseline(bench, encoders))
    return rows, warnings


def _baseline(bench: Bench, encoders: list[Encoder]) -> Audited:
    seeds = bench.setting.seeds
    if len(encoders) == 1:
        return measure(bench, encoders[0], "baseline", seeds)
    rows = [
        measure(bench, encoder, "baseline", [seed])
        for encoder, seed in zip(encoders, seeds, strict=True)
    ]
    return average(rows, encoders[0].name)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Keeps how long its block took."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _names(what: str, chosen: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The chosen names in the order of the known ones."""
    chosen = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"unknown {what} {unknown[0]!r}; choose from {', '.join(known)}")
    return tuple(name for name in known if name in chosen)


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    seeds = tuple(seeds)
    whole = all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in seeds)
    if not seeds or not whole or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"seeds={seeds} must be one or more different integers of at least 0, such as (0, 1, 2)"
        )
    return tuple(int(seed) for seed in seeds)


def _check(setting: Setting, limits: dict[str, int | None], more: dict[str, int]) -> None:
    if not setting.measures:
        raise ValueError(f"measures are none; choose from {', '.join(MEASURES)}")
    least = {"batch_size": 2, "cutoff": 2, "probe_images": 2, "shots": 1, "neighbors": 1}
    numbers = {name: getattr(setting, name) for name in least}
    numbers |= {name: limit for name, limit in limits.items() if limit is not None}
    least |= {"bootstraps": 2, "most_pixels": 1, "num_images": 5, "num_test_images": 2}
    for name, value in (numbers | more).items():
        check_integer(name, value, least[name])
    check_numbers("displacement", setting.displacement, "(0, inf)", "in pixels")
    bad = [strength for strength in setting.strengths if not 0 < strength <= 1]
    if bad or not setting.strengths:
        raise ValueError(
            f"strengths={setting.strengths} must be one or more numbers in (0, 1]; at 0 views are "
            "the images themselves"
        )
