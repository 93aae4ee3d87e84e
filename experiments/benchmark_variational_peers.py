"""The networks of `benchmark_variational` in PyTorch, written as one writes them there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recon_jax.models.masked_convolution import context_mask

COMPONENTS = 10
MIN_LOG_SCALE = -7.0
SCALE_FLOOR = 1e-6


class Sizes(NamedTuple):
    """Of the autoencoder: the paper's for MNIST."""

    shape: tuple[int, int, int] = (28, 28, 1)
    batch: int = 100
    widths: tuple[int, ...] = (500, 500)
    latent: int = 32
    features: int = 16
    head: int = 128
    blocks: int = 5


def live_parameters(network: Any) -> int:
    """How many parameters of a network are not masked."""
    masked = [layer for layer in network.modules() if hasattr(layer, "mask")]
    dead = sum(
        int((1 - layer.mask).sum()) * layer.in_channels * layer.out_channels for layer in masked
    )
    return sum(p.numel() for p in network.parameters()) - dead


def masked_conv(inputs: int, outputs: int, size: int, kind: str, bias: bool = True):
    """A convolution whose whole kernel is multiplied by a mask in every step."""
    import torch
    from torch import nn
    from torch.nn import functional

    class MaskedConv(nn.Conv2d):
        def __init__(self):
            super().__init__(inputs, outputs, size, padding=size // 2, bias=bias)
            mask = torch.zeros(size, size)
            mask[: size // 2 + 1] = torch.tensor(context_mask(size, kind)).float()
            self.register_buffer("mask", mask[None, None])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.weight * self.mask
            return functional.conv2d(x, weight, self.bias, padding=self.padding)

    return MaskedConv()


def log_likelihood(params, levels, classic: bool = False):
    """Nats (N, H, W) of the mixture of logistics, from numbers (N, H, W, K) and levels (.., C).

    The terms of `losses.logistic_mixture`, or the expression of PixelCNN++, which takes a density
    for improbable bins.
    """
    import torch
    from torch.nn import functional

    channels, size = levels.shape[-1], COMPONENTS
    blocks = params.unflatten(-1, (-1, size))
    logits, means, log_scales, raw = blocks.tensor_split((1, 1 + channels, 1 + 2 * channels), -2)
    x = (levels.float() / 127.5 - 1).unsqueeze(-1)
    if channels == 3:
        c = torch.tanh(raw)
        green = means[..., 1, :] + c[..., 0, :] * x[..., 0, :]
        blue = means[..., 2, :] + c[..., 1, :] * x[..., 0, :] + c[..., 2, :] * x[..., 1, :]
        means = torch.stack([means[..., 0, :], green, blue], -2)
    log_scales = log_scales.clamp(min=MIN_LOG_SCALE)
    inverse, centred = torch.exp(-log_scales), x - means
    above, below = inverse * (centred + 1 / 255), inverse * (centred - 1 / 255)
    if classic:
        mass, middle = torch.sigmoid(above) - torch.sigmoid(below), inverse * centred
        density = middle - log_scales - 2 * functional.softplus(middle) - float(np.log(127.5))
        inner = torch.where(mass > 1e-5, torch.log(mass.clamp(min=1e-12)), density)
        first, last = above - functional.softplus(above), -functional.softplus(below)
    else:
        first, last = functional.logsigmoid(above), functional.logsigmoid(-below)
        inner = first + last + torch.log(-torch.expm1(-2 / 255 * inverse))
    mass = torch.where(x < -0.999, first, torch.where(x > 0.999, last, inner))
    joint = functional.log_softmax(logits[..., 0, :], -1) + mass.sum(-2)
    return torch.logsumexp(joint, -1)


def stack(num_params: int, width: int):
    """The `MaskedStack` of `benchmark_variational`."""
    from torch import nn

    layers = [masked_conv(3, width, 7, "A")]
    for _ in range(4):
        layers += [nn.ReLU(inplace=True), masked_conv(width, width, 5, "B")]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Conv2d(width, num_params, 1))


def vae(sizes: Sizes, num_params: int):
    """The autoencoder with a local decoder of horizon 1, from 8-bit images to its loss."""
    import torch
    from torch import nn
    from torch.nn import functional

    height, width, channels = sizes.shape
    pixels, trunk = height * width, 2 * sizes.head

    def perceptron(first, widths):
        layers = []
        for inputs, outputs in zip((first, *widths), widths, strict=False):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
            layers += [nn.ReLU(inplace=True)]
        return layers

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            layers = ((nn.Conv2d(trunk, trunk, 1), nn.ReLU(inplace=True)) for _ in range(3))
            self.inner = nn.Sequential(*(layer for pair in layers for layer in pair))

        def forward(self, u: torch.Tensor) -> torch.Tensor:
            return u + self.inner(u)

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(*perceptron(pixels * channels, sizes.widths))
            self.mean, self.scale = (nn.Linear(sizes.widths[-1], sizes.latent) for _ in range(2))
            self.decoder = nn.Sequential(
                *perceptron(sizes.latent, sizes.widths[::-1]),
                nn.Linear(sizes.widths[0], pixels * sizes.features),
            )
            self.image_branch = masked_conv(channels, sizes.head, 3, "A", bias=False)
            self.feature_branch = nn.Conv2d(sizes.features, sizes.head, 1, bias=False)
            self.trunk = nn.Sequential(
                nn.ReLU(inplace=True),
                *(Block() for _ in range(sizes.blocks)),
                nn.Conv2d(trunk, trunk, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(trunk, num_params, 1),
            )

        def forward(self, levels: torch.Tensor) -> torch.Tensor:
            x = levels.float() / 127.5 - 1
            encoded = self.encoder(x.flatten(1))
            mean = self.mean(encoded)
            scale = functional.softplus(self.scale(encoded)) + SCALE_FLOOR
            latent = mean + scale * torch.randn_like(scale)
            features = self.decoder(latent).reshape(-1, height, width, sizes.features)
            image, features = (maps.permute(0, 3, 1, 2) for maps in (x, features))
            u = torch.cat([self.image_branch(image), self.feature_branch(features)], 1)
            numbers = self.trunk(u).permute(0, 2, 3, 1)
            kl = (mean.square() + scale.square() - 1).sum() / 2 - scale.log().sum()
            return (kl - log_likelihood(numbers, levels).sum()) / len(levels)

    return Autoencoder()
