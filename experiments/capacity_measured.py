"""Peak rates of this machine by kernels of their own, and the reduced jobs that they predict."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

from experiments import capacity_programs as programs
from experiments.benchmark_job import timed
from experiments.capacity_jobs import (
    EIGH_FLOPS,
    eigh_cost,
    moments_memory,
    training_memory,
)
from recon_jax import parallel, report, sizing, spectral
from recon_jax.models.convolution import conv_general_dilated
from recon_jax.sizing.programs import later_passes

# Map and channels of the convolution whose rate counts: 3 x 3, as in the middle of a network.
CONV_MAPS, CONV_KERNEL = (16, 32, 32, 64), (3, 3, 64, 64)
SHORTEST = 0.3  # seconds; what takes less is repeated, or one interruption would decide


class Kernel(NamedTuple):
    """Something to time.

    Attributes:
      call: does it.
      amount: FLOPs or bytes of it, so that amount / seconds is a rate.
    """

    call: Callable[[], Any]
    amount: float


class Reduced(NamedTuple):
    """A reduced job.

    Attributes:
      name: for tables.
      call: does it.
      cost: what XLA says of the compiled program.
      memory: bytes by the estimate that serves where nothing is compiled; `cost` has XLA's.
    """

    name: str
    call: Callable[[], Any]
    cost: sizing.Cost
    memory: float


class Compared(NamedTuple):
    """A reduced job, predicted and measured.

    Attributes:
      job: that was measured.
      prediction: from the peaks.
      seconds: measured, the median.
    """

    job: Reduced
    prediction: sizing.Prediction
    seconds: float


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def _scatter(size: int) -> jax.Array:
    rows = _normal(2 * size, size)
    return jnp.asarray(np.asarray(rows.T @ rows))


def product_kernel(size: int) -> Kernel:
    """The three products of a linear layer and its gradient, square."""
    call = parallel.fast_jit(lambda x, w, g: (x @ w, g @ w.T, x.T @ g))
    arguments = (_normal(size, size),) * 3
    return Kernel(lambda: call(*arguments), 3 * 2.0 * size**3)


def conv_kernel() -> Kernel:
    """A convolution and both its gradients."""

    def total(maps, kernel):
        out = conv_general_dilated(
            maps, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.square(out).sum()

    call = parallel.fast_jit(jax.grad(total, (0, 1)))
    maps, kernel = _normal(*CONV_MAPS), _normal(*CONV_KERNEL)
    flops = 3 * 2.0 * np.prod(CONV_MAPS[:3]) * np.prod(CONV_KERNEL)
    return Kernel(lambda: call(maps, kernel), float(flops))


def memory_kernel(size: int) -> Kernel:
    """Two arrays read, one written: a x + y."""
    call = parallel.fast_jit(lambda x, y: 3 * x + y)
    x, y = _normal(size), _normal(size)
    return Kernel(lambda: call(x, y), 3.0 * x.nbytes)


def eigh_call(size: int) -> Callable[[], Any]:
    """All eigenpairs of a scatter by LAPACK, on one thread.

    Threads that wait for each other take ten times as long as soon as anything else is running.
    """
    solve, scatter = parallel.fast_jit(jnp.linalg.eigh), _scatter(size)

    def call():
        with threadpool_limits(1):
            return jax.block_until_ready(solve(scatter))

    return call


def eigh_kernel(size: int) -> Kernel:
    """LAPACK's symmetric eigensolver."""
    return Kernel(eigh_call(size), float(EIGH_FLOPS["tridiagonal"] * size**3))


def peak_kernels(config: ConfigDict) -> dict[str, Kernel]:
    """Kernels by the name of their rate; none is one of the jobs."""
    return {
        "product": product_kernel(config.peaks.product_size),
        "convolution": conv_kernel(),
        "eigh": eigh_kernel(config.peaks.eigh_size),
        "memory": memory_kernel(config.peaks.array_size),
    }


def _analysed(fn: Callable[..., Any], compiled: Any, arguments: tuple) -> tuple[float, float]:
    """FLOPs and bytes of a compiled step: XLA's, and those of the passes that it leaves out."""
    costs = compiled.cost_analysis()
    flops, traffic = costs["flops"], costs["bytes accessed"]
    for later in later_passes(fn, *arguments):
        costs = parallel.fast_jit(later.body).lower(*later.types).compile().cost_analysis()
        flops += later.count * costs["flops"]
        traffic += later.count * costs["bytes accessed"]
    return flops, traffic


def _compiled(
    fn: Callable[..., Any],
    arguments: tuple,
    next_state: Callable[[Any], Any],
    name: str,
    memory: float,
) -> Reduced:
    """A step compiled with its state, the first argument, donated, as in a run."""
    compiled = parallel.fast_jit(fn, donate_argnums=0).lower(*arguments).compile()
    held = compiled.memory_analysis()
    used = held.argument_size_in_bytes + held.temp_size_in_bytes
    used += held.output_size_in_bytes - held.alias_size_in_bytes
    flops, traffic = _analysed(fn, compiled, arguments)
    # XLA does not count what a convolution would do with its padding, `cost_of` does.
    convolutions = sizing.cost_of(fn, *arguments).conv_flops
    cost = sizing.Cost(
        flops={"product": max(flops - convolutions, 0.0), "convolution": convolutions},
        traffic=traffic,
        memory=used,
    )
    state, *rest = arguments

    def call():
        nonlocal state
        result = compiled(state, *rest)
        state = next_state(result)
        return result

    return Reduced(name, call, cost, memory)


def moments_job(config: ConfigDict) -> Reduced:
    """One batch into the moments, as devices accumulate them."""
    options, size = config.moments, 3 * config.moments.whole_side**2
    state = spectral.init_moments(size, options.num_classes, jnp.float32)
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(0, 256, (options.batch_size, size), np.uint8))
    arguments = (state, pixels, jnp.zeros(options.batch_size, jnp.int32))
    memory = moments_memory(arguments)
    name = f"moments step, D={size:,}, batch {options.batch_size}"
    return _compiled(programs.whole_moments_step, arguments, lambda new: new, name, memory)


def eigh_job(size: int) -> Reduced:
    """All eigenpairs."""
    cost = eigh_cost(size, "tridiagonal", "eigh")
    # The rate was measured with its memory traffic, which is in proportion.
    cost = cost._replace(traffic=0.0)
    return Reduced(f"eigendecomposition, D={size:,}", eigh_call(size), cost, cost.memory)


def training_job(config: ConfigDict, kind: str) -> Reduced:
    """One training step."""
    options = config[kind]
    network, batch = programs.NETWORKS[kind](options), options.batch_size
    arguments = (programs.random_state(network), programs.random_batch(network, batch))
    name = f"{network.name} step, {options.image_size} px, batch {batch}"
    memory = training_memory(network, batch)
    step = programs.train_step(network)
    return _compiled(step, arguments, lambda result: result[0], name, memory)


def reduced_jobs(config: ConfigDict) -> list[Reduced]:
    """The four jobs, small."""
    return [
        moments_job(config),
        *(eigh_job(size) for size in config.eigh.sizes),
        *(training_job(config, kind) for kind in programs.NETWORKS),
    ]


def machine(rates: dict[str, float]) -> sizing.Device:
    """This machine, by its measured rates."""
    flops = {name: rate for name, rate in rates.items() if name != "memory"}
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bandwidth = rates["memory"]
    # One device: nothing is sent. Products, and passes over arrays, take turns on the cores.
    return sizing.Device("cpu", 1, flops, total, bandwidth, bandwidth, overlaps=False)


def compare(config: ConfigDict) -> tuple[dict[str, float], list[Compared]]:
    """Rates of this machine and the jobs, from medians of interleaved rounds."""
    kernels, jobs = peak_kernels(config), reduced_jobs(config)
    calls = {name: kernel.call for name, kernel in kernels.items()}
    calls |= {job.name: job.call for job in jobs}
    repeats = {}
    for name, call in calls.items():
        timed(call)  # compiles, and touches memory for the first time
        repeats[name] = max(1, round(SHORTEST / timed(call)))
    times = {name: [] for name in calls}
    for _ in report.progress(range(config.rounds), "rounds"):
        for name, call in calls.items():
            times[name].append(timed(call, repeats[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    rates = {name: kernel.amount / medians[name] for name, kernel in kernels.items()}
    device = machine(rates)
    compared = [Compared(job, sizing.predict(job.cost, device), medians[job.name]) for job in jobs]
    return rates, compared
