"""Speed of masked autoencoders: a step against PyTorch, visible tokens against all, compile time.

ViT-Tiny on 32 x 32 images in patches of 4, three quarters of them masked: 16 of 64 patches are
encoded. The decoder has 2 blocks of width 96. Both sides draw the masks, have the same number of
parameters, and use AdamW; PyTorch's is fused, its attention scaled_dot_product_attention.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark_job import Job, Measured
from experiments.benchmark_training import DECAY, RATE, SIDE, batch_of, sizes_of, trainer_of
from recon_jax import models, parallel, spectral, training

SHAPE = (SIDE, SIDE, 3)
PATCH, RATIO = 4, 0.75
PATCHES = (SIDE // PATCH) ** 2
VISIBLE = round((1 - RATIO) * PATCHES)


def sizes(smoke: bool, depth: int = 12) -> dict[str, Any]:
    """Options of the model."""
    if smoke:
        return {
            **{"width": 24, "depth": depth // 4, "heads": 3},
            **{"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 3},
        }
    return {
        **{"width": 192, "depth": depth, "heads": 3},
        **{"decoder_width": 96, "decoder_depth": 2, "decoder_heads": 3},
    }


def loss_of(model: models.MaskedAutoencoder, axis_name: str | None = None):
    """The loss with random patches hidden."""
    corruption = spectral.patch_subset(RATIO, PATCH, SHAPE)
    return training.masked_autoencoder_loss(model, corruption, axis_name=axis_name)


def torch_block(width: int, heads: int):
    """A block of `models.vit` in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp1, self.mlp2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            count, tokens, _ = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(count, tokens, 3, heads, -1)
            mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
            x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
            return x + self.mlp2(functional.gelu(self.mlp1(self.norm2(x))))

    return Block()


def torch_autoencoder(options: dict[str, Any]):
    """The masked autoencoder in PyTorch, from 8-bit images to its loss."""
    import torch
    from torch import nn

    width, inner = options["width"], options["decoder_width"]
    entries = PATCH * PATCH * SHAPE[2]

    def stack(width, depth, heads):
        blocks = (torch_block(width, heads) for _ in range(depth))
        return nn.Sequential(*blocks, nn.LayerNorm(width, eps=1e-6))

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(entries, width)
            self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.encoder = stack(width, options["depth"], options["heads"])
            self.inner = nn.Linear(width, inner)
            self.hidden = nn.Parameter(0.02 * torch.randn(1, 1, inner))
            self.decoder = stack(inner, options["decoder_depth"], options["decoder_heads"])
            self.pixels = nn.Linear(inner, entries)
            self.register_buffer("positions", torch.randn(PATCHES, width))
            self.register_buffer("inner_positions", torch.randn(PATCHES, inner))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            count, side = len(images), SIDE // PATCH
            patches = (images.float() / 255).reshape(count, side, PATCH, side, PATCH, -1)
            patches = patches.transpose(2, 3).reshape(count, PATCHES, entries)
            order = torch.rand(count, PATCHES).argsort(1)
            place, kept = order.argsort(1), order[:, :VISIBLE]
            visible = patches.gather(1, kept[:, :, None].expand(-1, -1, entries))
            x = self.embed(visible) + self.positions[kept]
            x = self.encoder(torch.cat([self.first.expand(count, -1, -1), x], 1))
            x = self.inner(x)
            hidden = self.hidden.expand(count, PATCHES - VISIBLE, -1)
            tokens = torch.cat([x[:, 1:], hidden], 1)
            tokens = tokens.gather(1, place[:, :, None].expand(-1, -1, inner))
            x = self.decoder(torch.cat([x[:, :1], tokens + self.inner_positions], 1))
            error = self.pixels(x)[:, 1:] - _normalized(patches)
            masked = (place >= VISIBLE).float()
            return (error.square().mean(-1) * masked).sum() / masked.sum()

    return Autoencoder()


def _normalized(patches):
    variance = patches.var(-1, keepdim=True)
    return (patches - patches.mean(-1, keepdim=True)) / (variance + 1e-6).sqrt()


def step_job(smoke: bool) -> Job:
    """A training step against PyTorch."""
    import torch

    options, batch = sizes(smoke), batch_of(8 if smoke else 64)
    init, step = trainer_of(models.MaskedAutoencoder(SHAPE, PATCH, **options), loss_of)
    state, network = init(), torch_autoencoder(options)
    if sum(sizes_of(state)) != sum(p.numel() for p in network.parameters()):
        raise ValueError("the networks differ")
    images = torch.tensor(batch.images)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY, fused=True)

    def ours():
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    def theirs():
        optimizer.zero_grad()
        loss = network(images)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Job(
        f"masked autoencoder training step, ViT-Tiny, {SIDE} x {SIDE}, patch {PATCH}, batch "
        f"{len(batch.labels)}, mask {RATIO}, float32",
        ours,
        {"PyTorch eager, scaled_dot_product_attention, fused AdamW": theirs},
        1.1,
        repeats=3,
        warm_peers=True,
    )


def encoder_job(smoke: bool) -> Job:
    """Value and gradient of the encoder on visible patches, against all of them."""
    model = models.MaskedAutoencoder(SHAPE, PATCH, **sizes(smoke))
    images = batch_of(8 if smoke else 64).images.astype(np.float32) / 255
    keys = jax.random.split(jax.random.key(0), len(images))
    draw = spectral.patch_subset(RATIO, PATCH, SHAPE).mask.visible
    visible = jax.vmap(draw)(keys)
    everything = jnp.broadcast_to(jnp.arange(PATCHES), (len(images), PATCHES))
    params = parallel.fast_jit(model.init)(jax.random.key(0), images[:1])["params"]

    @parallel.fast_jit
    def encode(params, kept):
        def energy(params):
            patches = models.patchify(images, PATCH)
            tokens = model.apply({"params": params}, patches, kept, method=_encode_patches)
            return jnp.square(tokens).mean()

        return jax.value_and_grad(energy)(params)

    return Job(
        f"encoder of it, value and gradient, {VISIBLE} of {PATCHES} patches visible",
        lambda: encode(params, visible),
        {"itself on all patches": lambda: encode(params, everything)},
        0.35,
        repeats=3,
        warm_peers=True,
    )


def _encode_patches(module, patches, kept):
    return module.encoder(patches, kept)


def compile_job(smoke: bool) -> Job:
    """Compiling the loss and its gradient for 12 blocks, against 4."""
    images = jax.ShapeDtypeStruct((8 if smoke else 64, *SHAPE), np.uint8)

    def compiled(depth):
        model = models.MaskedAutoencoder(SHAPE, PATCH, **sizes(smoke, depth))
        loss, params = loss_of(model), models.variable_shapes(model, SHAPE)["params"]
        batch = batch_of(images.shape[0])
        start = time.perf_counter()
        step = parallel.fast_jit(
            jax.grad(lambda params: loss(params, {}, batch, jax.random.key(0))[0])
        )
        step.lower(params).compile()
        return Measured(time.perf_counter() - start)

    return Job(
        "compiling its loss and gradient, 12 blocks",
        lambda: compiled(12),
        {"itself, 4 blocks": lambda: compiled(4)},
        1.2,
        warm_peers=True,
    )


JOBS = {"mae": step_job, "mae-encoder": encoder_job, "mae-compile": compile_job}
