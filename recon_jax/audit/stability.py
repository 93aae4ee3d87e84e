"""How much each layer reacts to smooth deformations, and to noise of the same size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Shaped

from recon_jax import diffeo
from recon_jax.audit.extraction import Prepared, unit_images
from recon_jax.audit.intervals import over_seeds, undefined
from recon_jax.audit.records import LayerSensitivity


def measure_stability(
    prepared: Prepared,
    images: Shaped[np.ndarray, "n h w c"],
    seeds: Sequence[int],
    batch_size: int,
    *,
    cutoff: int = 3,
    displacement: float = 1.0,
) -> OrderedDict[str, LayerSensitivity]:
    """D, G and R = D / G of every layer, over draws of deformations and noise.

    Args:
      prepared: the encoder.
      images: (N, H, W, C); N a multiple of the batch size.
      seeds: one draw each.
      batch_size: images a call.
      cutoff: highest wave number of the deformations, see `diffeo.probe_images`.
      displacement: nominal one in pixels.

    Returns:
      A LayerSensitivity for each layer in order of computation, "output" last; without values where
      a layer is the same for all images, or the images cannot be deformed.

    Source: Petrini et al. 2021 (arXiv 2105.02468); Tomasini et al. 2022 (arXiv 2210.01506).
    """
    shown = unit_images(images)
    names = list(prepared.layers(shown[:batch_size]))
    draws = []
    for seed in seeds:
        try:
            key = jax.random.key(seed)
            probes = diffeo.probe_images(key, shown, cutoff, displacement)
        except ValueError as error:
            nothing = LayerSensitivity(*[undefined(str(error))] * 3)
            return OrderedDict((name, nothing) for name in names)
        draws.append(_of_draw(prepared, [np.asarray(part) for part in probes], batch_size))
    return OrderedDict((name, _gather([draw[name] for draw in draws])) for name in names)


def _of_draw(prepared: Prepared, probes: list[np.ndarray], batch_size: int) -> dict:
    """Sensitivity, or the reason why there is none, by layer."""
    options = {"batch_size": batch_size, "jit": False}  # compiled already, where it can be
    try:
        return diffeo.layerwise_sensitivities(prepared.layers, *probes, **options)
    except ValueError:
        found = {}
        # One layer without variation must not hide the others.
        for name in prepared.layers(probes[0][:batch_size]):
            only = lambda images, name=name: OrderedDict({name: prepared.layers(images)[name]})  # noqa: E731
            try:
                found |= diffeo.layerwise_sensitivities(only, *probes, **options)
            except ValueError as error:
                found[name] = str(error)
        return found


def _gather(draws: list) -> LayerSensitivity:
    notes = [draw for draw in draws if isinstance(draw, str)]
    nothing = diffeo.Sensitivity(*[np.float64(np.nan)] * 3)
    values = np.array([nothing if isinstance(draw, str) else draw for draw in draws], np.float64)
    note = notes[0] if notes else ""
    return LayerSensitivity(*(over_seeds(column, note) for column in values.T))
