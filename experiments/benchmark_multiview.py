"""Speed of several seeds of the multi-view study in one call, against one call a seed."""

from __future__ import annotations

import functools
from typing import Any

import jax

from experiments.benchmark_job import Job
from recon_jax import multiview

TINY = {
    "num_train": 30,
    "num_test": 20,
    "kernels_per_class": 2,
    "members": 2,
    "pretrain_steps": 5,
    "supervised_steps": 5,
    "finetune_steps": 5,
}


def seeds_job(smoke: bool) -> Job:
    """All ways of training, all seeds."""
    keys = jax.random.split(jax.random.key(0), 2 if smoke else 10)
    sizes: dict[str, Any] = TINY if smoke else {}
    # Showing that it runs asks for a quick compilation, not for a quick program.
    options = {"xla_backend_optimization_level": 0} if smoke else None
    one = jax.jit(functools.partial(multiview.capture_study, **sizes), compiler_options=options)
    several = jax.jit(
        functools.partial(multiview.capture_studies, **sizes), compiler_options=options
    )
    jax.block_until_ready(one(keys[0]))
    return Job(
        f"multi-view study, k=5, all ways of training, {len(keys)} seeds, float32",
        lambda: several(keys),
        {"Python loop over the same function, jitted": lambda: [one(key) for key in keys]},
        1 / 3,
    )


JOBS = {"multiview-seeds": seeds_job}
