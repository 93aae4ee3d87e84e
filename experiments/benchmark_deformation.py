"""Speed of max-entropy deformations: fields drawn and images warped, one field an image.

Both sides draw the coefficients themselves, in float32, and keep what does not depend on them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark_job import Job
from recon_jax import diffeo

CUTOFF = 3


class Peer:
    """The same deformations in PyTorch, for images (N, C, n, n), bilinear.

    Attributes:
      scale: pixels that a wave of coefficient 1 and weight 1 moves.
      weights: of the waves (c, c).
      sines: of pixels and waves (n, c).
      pixels: 0 .. n - 1.
    """

    def __init__(self, side: int, temperature: float) -> None:
        import torch

        self.scale = side * temperature**0.5
        self.weights = torch.tensor(diffeo.mode_weights(CUTOFF), dtype=torch.float32)
        waves = torch.arange(1, CUTOFF + 1)
        self.sines = torch.sin(torch.pi * torch.linspace(0, 1, side)[:, None] * waves)
        self.pixels = torch.arange(side, dtype=torch.float32)

    def draw(self, *count: int) -> Any:
        """Coefficients (2, *count, c, c), x first."""
        import torch

        return torch.randn(2, *count, CUTOFF, CUTOFF)

    def batched(self, images: Any, tables: Any) -> Any:
        """All images at once, by matrix products and grid_sample, which counts from -1 to 1."""
        import torch

        waves = tables.transpose(-1, -2) * self.weights * self.scale
        field = self.sines @ waves @ self.sines.T
        last = len(self.pixels) - 1
        grid = torch.stack([self.pixels - field[0], self.pixels[:, None] - field[1]], -1)
        return torch.nn.functional.grid_sample(
            images, grid * (2 / last) - 1, padding_mode="border", align_corners=True
        )

    def one(self, image: Any, tables: Any) -> Any:
        """One image, as the released code does it: a sum over waves, then four indexed reads."""
        import torch

        dx, dy = (
            torch.einsum("ij,xi,yj->yx", table * self.weights, self.sines, self.sines) * self.scale
            for table in tables
        )
        last = len(self.pixels) - 1
        x = (self.pixels[None, :] - dx).clamp(0, last)
        y = (self.pixels[:, None] - dy).clamp(0, last)
        left, right, top, bottom = (
            place.long() for place in (x.floor(), x.ceil(), y.floor(), y.ceil())
        )
        a, b = x - left, y - top
        above = (1 - a) * image[:, top, left] + a * image[:, top, right]
        below = (1 - a) * image[:, bottom, left] + a * image[:, bottom, right]
        return (1 - b) * above + b * below

    def loop(self, images: Any) -> Any:
        """Each image by a call of its own."""
        import torch

        return torch.stack([self.one(image, self.draw()) for image in images])


def warp_job(smoke: bool, loop: bool) -> Job:
    """Images under a deformation of one pixel each."""
    import torch

    count, side = (4, 8) if smoke else (500, 32)
    temperature = diffeo.temperature_for(1.0, side, CUTOFF)
    pixels = np.random.default_rng(0).random((count, side, side, 3), np.float32)
    images, keys = jnp.asarray(pixels), itertools.count()
    peer, others = Peer(side, temperature), torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()

    def ours():
        return diffeo.deform(jax.random.key(next(keys)), images, CUTOFF, temperature)

    task = (
        f"one field an image and bilinear warp, {count} x {side} x {side} x 3, cutoff {CUTOFF}, "
        "nominal displacement 1, float32"
    )
    if loop:
        name = "the released procedure in PyTorch eager, image by image"
        return Job(task, ours, {name: lambda: peer.loop(others)}, 0.03, 3, warm_peers=True)
    name = "PyTorch eager, one batch, matmul and grid_sample"
    return Job(
        task,
        ours,
        {name: lambda: peer.batched(others, peer.draw(count))},
        0.8,
        repeats=20,
        warm_peers=True,
    )


JOBS = {
    "warp": functools.partial(warp_job, loop=False),
    "warp-loop": functools.partial(warp_job, loop=True),
}
