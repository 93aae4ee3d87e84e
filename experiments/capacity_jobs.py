"""What each job costs one device of an accelerator, from traced programs and published peaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import capacity_programs as programs
from recon_jax import parallel, sizing

BYTES = 4  # of a float32

# Memory of a training step over what its products leave for the gradient: XLA's compiler for v4
# (libtpu 0.0.42, without a TPU) took 1.7 and 1.8 times that for ResNet50 and ViT-B MAE at 256
# images a chip.
XLA_ADDS = 1.8

# About how many FLOPs an eigendecomposition takes, over D^3: Householder tridiagonalisation with
# QR iteration, eigenvectors included, and spectral divide and conquer by the QDWH polar
# decomposition (Nakatsukasa & Higham 2013).
EIGH_FLOPS = {"tridiagonal": 9, "qdwh": 27}


class Sized(NamedTuple):
    """A job on a machine.

    Attributes:
      kind: of the machine.
      job: what is done.
      unit: what costs and seconds are of: "pass", "call" or "step".
      batch: images of a step on one device; 0 for none.
      micro_batches: parts that a step must be cut into to fit the memory.
      cost: of one unit on one device.
      prediction: of one unit.
      fits: whether the memory suffices.
    """

    kind: str
    job: str
    unit: str
    batch: int
    micro_batches: int
    cost: sizing.Cost
    prediction: sizing.Prediction
    fits: bool


def make_device(config: ConfigDict, entry: Sequence[Any]) -> sizing.Device:
    """The device of one entry (kind, chip, count, links) of `config.devices`."""
    kind, chip, count, links = entry
    peaks = config.chips[chip]
    return sizing.Device(
        kind=kind,
        count=count,
        flops={name: peaks[name] for name in ("bfloat16", "float32")},
        memory=peaks.memory,
        memory_bandwidth=peaks.memory_bandwidth,
        link_bandwidth=links * peaks.link_bandwidth,
    )


def size_job(
    device: sizing.Device,
    job: str,
    unit: str,
    cost: sizing.Cost,
    batch: int = 0,
    micro_batches: int = 1,
) -> Sized:
    """The job with its prediction."""
    fits = cost.memory <= device.memory
    prediction = sizing.predict(cost, device)
    return Sized(device.kind, job, unit, batch, micro_batches, cost, prediction, fits)


def moments_memory(types: tuple[Any, Any, Any]) -> float:
    """Bytes of a step: arguments, the batch's own scatter, and its rows, also centred."""
    state, images, _ = types
    return sizing.tree_bytes((types, state)) + 2.0 * BYTES * sizing.tree_bytes(images)


def whole_moments(config: ConfigDict, device: sizing.Device) -> Sized:
    """A pass in which each device accumulates its images; one all-reduce at the end."""
    options, side = config.moments, config.moments.whole_side
    batch = options.batch_size // device.count
    types = programs.moments_types(side, options.num_classes, batch)
    step = sizing.cost_of(programs.whole_moments_step, *types)
    steps = math.ceil(options.num_images / options.batch_size)
    reduced = [sizing.Collective("all-reduce", sizing.tree_bytes(types[0]))]
    cost = sizing.Cost(
        flops={"float32": steps * step.flops},
        traffic=steps * step.traffic,
        network=sizing.ring_bytes(reduced, device.count),
        memory=moments_memory(types),
    )
    return size_job(device, f"moments, D={3 * side**2:,}, whole", "pass", cost, batch)


def sharded_moments(config: ConfigDict, device: sizing.Device) -> Sized:
    """A pass in which each device holds rows of the scatter and sees every image."""
    options, side = config.moments, config.moments.sharded_side
    types = programs.scatter_types(side, device.count, options.batch_size)
    step = sizing.cost_of(programs.sharded_scatter_step, *types)
    steps = math.ceil(options.num_images / options.batch_size)
    images = sizing.tree_bytes(types[1])
    gathered = [sizing.Collective("all-gather", images)]
    cost = sizing.Cost(
        flops={"float32": steps * step.flops},
        traffic=steps * step.traffic,
        network=steps * sizing.ring_bytes(gathered, device.count),
        # The rows in float32, and those of the block once more, transposed.
        memory=sizing.tree_bytes(types) + BYTES * images * (1 + 1 / device.count),
    )
    name = f"moments, D={3 * side**2:,}, rows sharded"
    return size_job(device, name, "pass", cost, options.batch_size)


def eigh_cost(size: int, method: str, rate: str) -> sizing.Cost:
    """Of all eigenpairs of a symmetric matrix (D, D) in float32, on one device.

    XLA sees a custom call, so this is on paper: FLOPs by `EIGH_FLOPS`. Tridiagonalisation
    multiplies the rest of the matrix, one triangle, by a vector for every column: D^3 / 6 numbers
    read.
    """
    matrix = BYTES * size**2
    passes = size / 6 if method == "tridiagonal" else 0
    return sizing.Cost(
        flops={rate: float(EIGH_FLOPS[method] * size**3)},
        traffic=(2 + passes) * matrix,
        memory=4.0 * matrix,  # input, vectors, and a workspace of twice the size
    )


def eigendecompositions(config: ConfigDict, device: sizing.Device, chip: str) -> Iterator[Sized]:
    """One call each; the other devices idle."""
    for size in config.eigh.sizes:
        cost = eigh_cost(size, config.chips[chip].eigh, "float32")
        yield size_job(device, f"eigendecomposition, D={size:,}", "call", cost)


def training_memory(network: programs.Network, batch: int) -> float:
    """Bytes of state, gradients, batch, and saved activations with what XLA adds, on one device."""
    state = programs.state_types(network)
    held = (state, state.params, programs.batch_types(network, batch))
    return sizing.tree_bytes(held) + XLA_ADDS * programs.saved_for_gradient(network, batch)


def fit_micro_batches(network: programs.Network, batch: int, memory: float) -> tuple[int, float]:
    """Fewest micro-batches, a power of two, that fit the memory; and bytes then held.

    Where not even single images fit, their bytes are returned.
    """
    count = 1
    while True:
        # Beside the gradient of a micro-batch the sum so far is held.
        extra = sizing.tree_bytes(programs.state_types(network).params) if count > 1 else 0
        held = training_memory(network, batch // count) + extra
        if held <= memory or batch % (2 * count):
            return count, held
        count *= 2


def training_job(
    config: ConfigDict, device: sizing.Device, kind: str, sent: Sequence[sizing.Collective]
) -> Sized:
    """A data-parallel training step; `sent` are its collectives."""
    options = config[kind]
    network, batch = programs.NETWORKS[kind](options), options.batch_size // device.count
    state = programs.state_types(network)
    step = sizing.cost_of(programs.train_step(network), state, programs.batch_types(network, batch))
    count, held = fit_micro_batches(network, batch, device.memory)
    # Every further micro-batch reads the parameters twice, and adds to the sum of gradients.
    again = (count - 1) * 4 * sizing.tree_bytes(state.params)
    cost = sizing.Cost(
        flops={options.dtype: step.flops},
        traffic=step.traffic + again,
        network=sizing.ring_bytes(sent, device.count),
        memory=held,
    )
    name = f"{network.name} step, {options.image_size} px, batch {options.batch_size}"
    return size_job(device, name, "step", cost, batch, count)


def size_machine(
    config: ConfigDict,
    entry: Sequence[Any],
    collectives: Mapping[str, Sequence[sizing.Collective]],
    say: Callable[[str], None] = lambda line: None,
) -> list[Sized]:
    """All jobs on the machine of one entry of `config.devices`."""
    device = make_device(config, entry)
    say(f"sizing {device.kind}")
    with parallel.tracing_for_accelerators():
        return [
            sharded_moments(config, device),
            whole_moments(config, device),
            *eigendecompositions(config, device, entry[1]),
            *(training_job(config, device, kind, collectives[kind]) for kind in collectives),
        ]
