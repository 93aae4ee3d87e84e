"""Speed of random views for contrastive learning: crop, flip, colour jitter, grey and blur.

Both sides draw the numbers of every image themselves, in float32, at full strength.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark_job import Job
from recon_jax import augment

# Uniform numbers that the views of an image take.
NUMBERS = 13


class Peer:
    """The same views in PyTorch, for images (N, C, H, W): all at once, no loop over images.

    What happens to some images only is computed for those only. torchvision has no batched form of
    these: its random operations take one image, or the same numbers for all.
    """

    def draw(self, count: int) -> Any:
        """Uniform numbers (13, N)."""
        import torch

        return torch.rand(NUMBERS, count)

    def __call__(self, images: Any, u: Any) -> Any:
        """Views by `augment.colour_views` at strength 1, from the same numbers."""
        import torch

        images = self.cropped(images, u)
        chosen = u[5] < 0.8
        images[chosen] = self.jittered(images[chosen], u[:, chosen])
        chosen = u[10] < 0.2
        luma = torch.tensor([0.2989, 0.5870, 0.1140])[None, :, None, None]
        images[chosen] = (images[chosen] * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        chosen = u[11] < 0.5
        images[chosen] = self.blurred(images[chosen], 0.1 + 1.9 * u[12, chosen])
        return images.clamp_(0, 1)

    def cropped(self, images: Any, u: Any) -> Any:
        """Windows read by grid_sample, which counts from -1 to 1, x first."""
        import torch

        log_ratio = math.log(4 / 3) * (2 * u[1] - 1)
        sides = torch.exp(torch.stack([-log_ratio, log_ratio], 1)) * (1 - 0.92 * u[0])[:, None]
        sides = sides.sqrt_().clamp_(max=1)
        maps = torch.zeros(len(images), 2, 3)
        maps[:, 0, 0] = torch.where(u[4] < 0.5, -sides[:, 0], sides[:, 0])
        maps[:, 1, 1] = sides[:, 1]
        maps[:, :, 2] = 2 * u[[3, 2]].T * (1 - sides) + sides - 1
        grid = torch.nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
        return torch.nn.functional.grid_sample(
            images, grid, padding_mode="border", align_corners=False
        )

    def jittered(self, images: Any, u: Any) -> Any:
        """Brightness, contrast, hue and saturation."""
        brightness, contrast, saturation = ((1 + 0.8 * (2 * u[i] - 1)) for i in (6, 7, 9))
        images = images.mul_(brightness[:, None, None, None]).clamp_(0, 1)
        mean = images.mean((2, 3), keepdim=True)
        images = images.sub_(mean).mul_(contrast[:, None, None, None]).add_(mean).clamp_(0, 1)
        return self.recoloured(images, 0.2 * (2 * u[8] - 1), saturation)

    def recoloured(self, images: Any, turn: Any, factor: Any) -> Any:
        """Hue and saturation by HSV."""
        import torch

        red, green, blue = images.unbind(1)
        value = torch.maximum(torch.maximum(red, green), blue)
        spread = value - torch.minimum(torch.minimum(red, green), blue)
        scale = 1 / torch.where(spread > 0, spread, 1)
        hue = torch.where(value == green, (blue - red) * scale + 2, (red - green) * scale + 4)
        hue = torch.where(value == red, (green - blue) * scale, hue)
        hue = hue.add_(6 * turn[:, None, None]).remainder_(6)
        spread = torch.minimum(spread.mul_(factor[:, None, None]), value)
        shares = (hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()
        return torch.stack([value - spread * (1 - share.clamp_(0, 1)) for share in shares], 1)

    def blurred(self, images: Any, width: Any) -> Any:
        """A separable Gaussian of three pixels, or as many as a twentieth of the height has."""
        import torch

        radius = max(1, images.shape[2] // 20)
        distance = torch.arange(-radius, radius + 1)
        weights = torch.exp(-((distance / width[:, None]) ** 2) / 2)
        weights = (weights / weights.sum(1, keepdim=True))[..., None, None, None].unbind(1)
        images = torch.nn.functional.pad(images, (radius,) * 4, "reflect")
        for axis in (2, 3):
            side = images.shape[axis] - 2 * radius
            images = sum(w * images.narrow(axis, i, side) for i, w in enumerate(weights))
        return images


def views_job(smoke: bool) -> Job:
    """One view of each image, the full policy at full strength."""
    import torch

    count, side = (16, 8) if smoke else (1024, 32)
    pixels = np.random.default_rng(0).random((count, side, side, 3), np.float32)
    images, seeds = jnp.asarray(pixels), itertools.count()
    policy = jax.jit(augment.view_policy((side, side, 3), "colour"))
    split = jax.jit(functools.partial(jax.random.split, num=count))
    peer, others = Peer(), torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()
    return Job(
        f"views of {count:,} x {side} x {side} x 3: crop, flip, jitter, grey and blur at strength "
        "1, float32",
        lambda: policy(split(jax.random.key(next(seeds))), images, 1.0),
        {"PyTorch eager, batched": lambda: peer(others, peer.draw(count))},
        1.0,
        repeats=5,
        warm_peers=True,
    )


JOBS = {"views": views_job}
