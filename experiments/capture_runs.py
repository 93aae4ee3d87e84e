"""The computations of `feature_capture`: all methods on all seeds, and one point of a sweep."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from recon_jax import multiview, parallel, report
from recon_jax.losses import is_correct
from recon_jax.report import feature_capture as words

# Ways of pretraining by the name they have in tables; numbers replace those of the config.
PRETRAININGS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "expected masks": ("expected", {}),
    "sampled masks": ("sampled", {}),
    "keep 0.25": ("expected", {"keep": 0.25}),
    "MAE-like": ("pixels", {}),
}
# Sweeps that also train on labels.
SUPERVISED = ("single_view", "threshold")
SIZES = ("num_train", "num_test")


def make_spec(data: ConfigDict) -> multiview.MultiViewSpec:
    """The data model of a config; ValueError if it cannot be."""
    return multiview.MultiViewSpec(**{k: v for k, v in data.items() if k not in SIZES})


def make_keys(seeds: Sequence[int]) -> jax.Array:
    """One key a seed, of everything that is drawn for it."""
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def require_different(seeds: Sequence[int]) -> None:
    """Raise ValueError for a seed given twice, whose draws would count twice."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must differ, got {seeds}: equal seeds are equal draws")


def run_main(config: ConfigDict, workdir: Path, seeds: Sequence[int]) -> words.Study:
    """Every way of training on every seed, in one compiled call; read if it was computed."""
    sizes = {name: config.data[name] for name in SIZES}

    def compute() -> dict[str, Any]:
        start = time.perf_counter()
        found = multiview.capture_studies(
            make_keys(seeds), spec=make_spec(config.data), **sizes, **config.network
        )
        flat = jax.tree_util.tree_flatten_with_path(jax.block_until_ready(found))[0]
        arrays = {".".join(key.name for key in path): np.asarray(leaf) for path, leaf in flat}
        return {**arrays, "seconds": time.perf_counter() - start}

    key = [config.data.to_dict(), config.network.to_dict(), list(seeds), recon_jax.__version__]
    return words.gather(report.cached(workdir / "cache", "methods", key, compute))


def score(kernels, head, images: multiview.MultiViewBatch, network) -> jax.Array:
    """Accuracy of a classifier on images, in [0, 1]."""
    scores = multiview.class_scores(kernels, head, images.patches, **network)
    return is_correct(scores, images.labels).mean(dtype=kernels.dtype)


def map_seeds(one: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
    """The function of every key: one after the other on a CPU, whose cache one seed fills."""
    return jax.lax.map(one, keys, batch_size=None if parallel.is_cpu() else len(keys))


def _pretrain(mode, key, start, patches, numbers, spec, network, steps):
    options = {**network, "steps": steps}
    if mode == "pixels":
        return multiview.pretrain_mae(key, start, patches, numbers["keep"], **options).kernels
    mask_key = key if mode == "sampled" else None
    masks = {"mask_key": mask_key, "patches_per_feature": spec.patches_per_feature}
    trained = multiview.pretrain(
        start, patches, numbers["keep"], numbers["teacher_scale"], **masks, **options
    )
    return trained.kernels


@functools.partial(
    jax.jit,
    static_argnames=("spec", "sizes", "width", "power", "steps", "mode", "supervise"),
)
def _measure(keys, numbers, *, spec, sizes, width, power, steps, mode, supervise):
    num_train, num_test, most_steps, head_steps = sizes
    network = {"threshold": numbers["threshold"], "power": power}
    share = numbers["single_view"]

    def one(key):
        feature, image, kernel, mask, multi, single = jax.random.split(key, 6)
        features = multiview.sample_features(feature, spec)
        train = multiview.sample_multiview(image, spec, features, num_train, share)
        tests = {
            "multi": multiview.sample_multiview(multi, spec, features, num_test, 0.0),
            "single": multiview.sample_multiview(single, spec, features, num_test, 1.0),
        }
        start = multiview.init_kernels(
            kernel, width * spec.num_classes, spec.dim, numbers["init_scale"]
        )
        labelled = (train.patches, train.labels, spec.num_classes)
        pretrained = _pretrain(mode, mask, start, train.patches, numbers, spec, network, steps)
        probe = multiview.train_head(pretrained, *labelled, steps=head_steps, **network)
        correlations = multiview.feature_correlation(pretrained, features)
        ratios = jnp.linalg.norm(pretrained, axis=1) / jnp.linalg.norm(start, axis=1)
        found = {
            "captured": multiview.captured(correlations).mean(),
            "purity": multiview.kernel_purity(correlations),
            "growth": multiview.norm_growth(start, pretrained),
            "largest": ratios.max(),
            "aligned": multiview.aligned(pretrained, features).mean(),
        }
        found |= {kind: score(*probe[:2], test, network) for kind, test in tests.items()}
        if supervise:
            trained = multiview.train_supervised(start, *labelled, max_steps=most_steps, **network)
            reached = multiview.feature_correlation(trained.kernels, features)
            found["supervised_captured"] = multiview.captured(reached).mean()
            found |= {
                f"supervised_{kind}": score(*trained[:2], test, network)
                for kind, test in tests.items()
            }
        return found

    return map_seeds(one, keys)


def point(config: ConfigDict, sweep: str, value: Any) -> dict[str, Any]:
    """What `_measure` is given at one value of a sweep: numbers, and what is static."""
    network = config.network
    numbers = {name: network[name] for name in ("keep", "threshold", "init_scale")}
    numbers |= {"single_view": 0.0}
    static = {"width": network.kernels_per_class, "steps": network.pretrain_steps}
    mode = "expected"
    if sweep == "variant":
        mode, changes = PRETRAININGS[value]
        numbers |= changes
    elif sweep in static:
        static[sweep] = value
    else:
        numbers[sweep] = value
    if "teacher_scale" not in numbers:
        numbers["teacher_scale"] = multiview.default_teacher_scale(
            numbers["keep"], config.data.patches_per_feature, network.power
        )
    return {
        "numbers": {name: float(number) for name, number in numbers.items()},
        **static,
        "mode": mode,
        "supervise": sweep in SUPERVISED,
        "power": network.power,
        "sizes": (
            config.data.num_train,
            config.data.num_test,
            network.supervised_steps,
            network.finetune_steps,
        ),
    }


def run_point(
    config: ConfigDict, workdir: Path, sweep: str, value: Any, seeds: Sequence[int]
) -> words.Point:
    """One value of a sweep on some seeds; read if it was computed.

    Its data and kernels are draws of their own, the same at all values of all sweeps.
    """
    asked = point(config, sweep, value)

    def compute() -> dict[str, Any]:
        numbers, static = asked["numbers"], {k: v for k, v in asked.items() if k != "numbers"}
        start = time.perf_counter()
        found = _measure(make_keys(seeds), numbers, spec=make_spec(config.data), **static)
        arrays = jax.tree.map(np.asarray, found)
        return {**arrays, "seconds": time.perf_counter() - start}

    key = [config.data.to_dict(), asked, list(seeds), recon_jax.__version__]
    # One name for all sweeps, so that they share the points at the config's own values.
    found = report.cached(workdir / "cache", "point", key, compute)
    seconds = float(found.pop("seconds"))
    return words.Point(sweep, value, found, seconds)
