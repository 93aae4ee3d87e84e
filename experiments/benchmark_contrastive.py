"""Speed of the contrastive loss: value and both gradients, in float32."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark_job import Job
from recon_jax import losses, parallel

WIDTH, TEMPERATURE = 128, 0.5


def embeddings(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian rows (B, 128), and the same with as much noise again."""
    rng = np.random.default_rng(0)
    view_a = rng.standard_normal((count, WIDTH), np.float32)
    return view_a, view_a + rng.standard_normal((count, WIDTH), np.float32)


class Peer:
    """The usual PyTorch expression: normalise, all similarities, their diagonal out, softmax.

    Attributes:
      views: leaves with gradients.
      itself: the diagonal of the similarities.
      partners: row of the other view of each row.
    """

    def __init__(self, view_a: np.ndarray, view_b: np.ndarray) -> None:
        import torch

        self.views = [torch.tensor(view, requires_grad=True) for view in (view_a, view_b)]
        rows = 2 * len(view_a)
        self.itself = torch.eye(rows, dtype=torch.bool)
        self.partners = (torch.arange(rows) + len(view_a)) % rows

    def __call__(self) -> tuple[Any, tuple[Any, ...]]:
        """Value and gradients."""
        import torch

        for view in self.views:
            view.grad = None
        units = torch.nn.functional.normalize(torch.cat(self.views))
        similarities = (units @ units.T / TEMPERATURE).masked_fill(self.itself, -math.inf)
        loss = torch.nn.functional.cross_entropy(similarities, self.partners)
        loss.backward()
        return loss.detach(), tuple(view.grad for view in self.views)


def nt_xent_job(smoke: bool, batch: int, target: float) -> Job:
    """Value and gradient of NT-Xent."""
    batch = 24 if smoke else batch
    views = embeddings(batch)
    ours = jax.value_and_grad(functools.partial(losses.nt_xent, temperature=TEMPERATURE), (0, 1))
    compiled, arrays = parallel.fast_jit(ours), [jnp.asarray(view) for view in views]
    return Job(
        f"NT-Xent, value and gradient, batch {batch:,}, {WIDTH} dimensions, float32",
        lambda: compiled(*arrays),
        {"PyTorch eager, all similarities and cross_entropy": Peer(*views)},
        target,
        repeats=20 if batch < 2048 else 1,
        warm_peers=True,
    )


JOBS = {
    "nt-xent": functools.partial(nt_xent_job, batch=512, target=0.7),
    "nt-xent-4096": functools.partial(nt_xent_job, batch=4096, target=0.55),
}
