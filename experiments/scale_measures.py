"""What is measured of a network that detects a scale: sensitivities by layer, filters, errors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import scale_runs, trained
from experiments.nets import Net
from recon_jax import diffeo, models, parallel, training


@functools.cache
def make_measure(model: nn.Module, *, batch_statistics: bool, channel_means: bool):
    """Compile (variables, probes) -> {layer: Sensitivity}, or of layers averaged over channels.

    Inside jit nothing is refused: a layer that is the same for all images has D and G not finite.
    """

    def layers(variables, images):
        # Batch norm has no statistics of its own before training.
        found = models.apply_with_intermediates(
            model, variables, images, batch_statistics=batch_statistics
        )[1]
        if channel_means:
            found = {name: x.mean(-1, keepdims=True) for name, x in found.items()}
        return found

    def measure(variables, probes):
        seen = [layers(variables, images) for images in probes]
        return [jnp.stack(diffeo.sensitivities(*(part[name] for part in seen))) for name in seen[0]]

    return parallel.fast_jit(measure)


def constant_fractions(params: Any) -> dict[str, float]:
    """Share of the constant mode in the energy of the filters of each convolution, by its path.

    Args:
      params: of a network; kernels of one site are left out.
    """
    found = {}
    for path, kernel in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        # A filter on a line is one of a grid of height 1.
        kernel = kernel[None] if kernel.ndim == 3 else kernel
        if kernel.ndim == 4 and kernel.shape[0] * kernel.shape[1] > 1:
            spectrum = np.asarray(diffeo.filter_spectrum(kernel), np.float64)
            found[name.removesuffix("/conv")] = float(spectrum[0] / spectrum.sum())
    return found


def measure_states(
    context: scale_runs.Context, model: nn.Module, states: Sequence[tuple[str, Any]]
) -> dict[str, np.ndarray]:
    """(D, G, R) by layer of each named set of variables: arrays (3, layers)."""
    views = (
        {"": False} if scale_runs.is_square(context.config) else {"": False, ", channel mean": True}
    )
    found = {}
    for view, channel_means in views.items():
        for name, variables in states:
            fresh = name == "initial" and bool(variables.get("batch_stats"))
            measure = make_measure(model, batch_statistics=fresh, channel_means=channel_means)
            curves = measure(variables, tuple(context.probes))
            found[name + view] = np.stack([np.asarray(c) for c in curves], axis=1)
    return found


def judge(
    context: scale_runs.Context, trainer: trained.Trainer, state: training.TrainState, seed: int
):
    """Errors, sensitivities by layer and filters of a network before and after training."""
    first, model = trainer.init(seed), trainer.model
    if hasattr(model, "axis_name"):
        model = model.clone(axis_name=None)  # every device measures for itself
    states = [("initial", training.variables_of(first)), ("trained", training.variables_of(state))]
    if scale_runs.is_square(context.config):
        key = jax.random.fold_in(jax.random.key(context.config.measure.seed + 1), seed)
        last = states[-1][1]
        shuffled = {**last, "params": diffeo.shuffle_channels(key, last["params"])}
        states.append(("shuffled", shuffled))
    found = measure_states(context, model, states)
    for name, source in (("train", context.train), ("test", context.test)):
        scores = trainer.evaluate(state, trained.evaluation_batches(source))
        found[f"{name}_error"] = 100 * (1 - scores["accuracy"])
        found[f"{name}_hinge"] = scores["hinge"]
    layers = list(models.layer_shapes(model, context.train.image_shape))
    fractions = [constant_fractions(variables["params"]) for _, variables in states[:2]]
    filters = [name for name in layers if name in fractions[0]]
    found |= {"layers": layers, "filters": filters}
    for (state, _), shares in zip(states, fractions, strict=False):
        found[f"filters_{state}"] = [shares[name] for name in filters]
    return found


def run_net(
    context: scale_runs.Context, net: Net, seeds: Sequence[int]
) -> list[dict[str, np.ndarray]]:
    """Train and judge once for each seed; finished runs are read, not trained again."""
    config = context.config
    made = functools.cache(functools.partial(scale_runs.make_trainer, context, net))
    key = {
        "task": config.task.to_dict(),
        "net": [net.model, net.options],
        "loss": [config.alpha, config.ridge],
    }
    settings = [
        key,
        trained.decisive(scale_runs.training_options(config, net)),
        config.measure.to_dict(),
    ]
    rows = []
    for seed in seeds:
        name = f"{scale_runs.slug(net.name)}-seed{seed}"

        def compute(seed=seed, name=name):
            def evaluate(state):
                return made().evaluate(state, trained.evaluation_batches(context.test))

            state, seconds = trained.train(
                made(), context.train, seed, context.workdir / "runs" / name, key, evaluate=evaluate
            )
            return {**judge(context, made(), state, seed), "seconds": seconds}

        rows.append(context.cached(name, [settings, seed], compute))
    return rows
