"""Views of latent factors through a random smooth network: content shared, the rest jittered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from recon_jax.augment.policies import StrengthPolicy
from recon_jax.augment.strength import strength_policy
from recon_jax.checks import check_integer
from recon_jax.data.latent_model import AUGMENTED, CONTENT

# Of the kernels of hidden layers, so that tanh bends: their inputs have variance about 1.
GAIN = 1.5


def random_network(widths: Sequence[int], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels N(0, g^2 / fan_in) and biases N(0, 0.25), float32; g is `GAIN`, but 1 at the last."""
    rng = np.random.default_rng(seed)
    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=2):
        gain = 1.0 if i == len(widths) else GAIN
        kernel = rng.standard_normal((inputs, outputs)) * (gain / np.sqrt(inputs))
        bias = rng.standard_normal(outputs) / 2
        layers.append((kernel.astype(np.float32), bias.astype(np.float32)))
    return layers


def latent_views(
    *,
    content: int = CONTENT,
    augmented: int = AUGMENTED,
    observed: int = 40,
    hidden: Sequence[int] = (64, 64),
    seed: int = 0,
) -> StrengthPolicy:
    """Policy (keys, latents, strength) -> observations of jittered latents.

      x = F(content, augmented + strength * noise),  noise ~ N(0, I)

    F is a perceptron with tanh after its hidden layers, drawn once from the seed and the same for
    all data: smooth, and invertible only as far as a random one is. Strength 0 is the plain
    observation, for evaluation; the keys then do not matter.

    Args:
      content: latents that views share, the first ones, >= 1.
      augmented: latents that views jitter, >= 1; 1 is their own standard deviation.
      observed: M, entries of an observation, >= 1.
      hidden: widths of the hidden layers, each >= 1; none makes F affine.
      seed: of the network, at least 0.

    Returns:
      A `StrengthPolicy` of latents (N, 1, content + augmented, 1) as `data.latent_model` has them
      and a strength in [0, 1], one number or one a datum (N,). It gives (N, 1, M, 1) in the dtype
      of the latents, and raises ValueError for other shapes or strengths (values: outside jit).

    Raises:
      ValueError: if a size is out of range.

    Source: the negative control to Cosentino et al. 2022 (arXiv 2205.06926); not of that paper.
    """
    sizes = [("content", content), ("augmented", augmented), ("observed", observed)]
    sizes += [("each of hidden", width) for width in hidden]
    for name, value in sizes:
        check_integer(name, value, 1)
    check_integer("seed", seed, 0)
    shape = (1, content + augmented, 1)
    layers = random_network((content + augmented, *hidden, observed), seed)

    def observe(latents):
        x = latents
        for kernel, bias in layers[:-1]:
            x = jnp.tanh(x @ kernel.astype(x.dtype) + bias.astype(x.dtype)[None])
        kernel, bias = layers[-1]
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)[None]

    def draw(key):
        return jax.random.normal(key, (augmented,), jnp.float32)

    def apply(images, strengths, noise):
        jitter = jnp.pad(strengths[:, None] * noise, ((0, 0), (content, 0)))
        return observe(images[:, 0, :, 0] + jitter)[:, None, :, None]

    return strength_policy(shape, draw, apply)
