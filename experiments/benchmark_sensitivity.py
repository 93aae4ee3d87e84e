"""Speed of sensitivities, layer by layer, against forward passes with hooks in PyTorch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark_job import Job
from recon_jax import diffeo, models
from recon_jax.models.vgg import CONVOLUTIONS, FACTORS

DEPTH = 11
NUM_CLASSES = 10


def torch_vgg(widths: tuple[int, ...]):
    """The `models.VGG` of these widths, without batch norm, in PyTorch."""
    from torch import nn

    blocks, inputs = [], 3
    for count, width in zip(CONVOLUTIONS[DEPTH], widths, strict=True):
        for _ in range(count):
            blocks += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        blocks.append(nn.MaxPool2d(2))
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*blocks, *pooled, nn.Linear(inputs, NUM_CLASSES)).eval()


def copy_weights(params, network) -> None:
    """Give a network of `torch_vgg` the parameters of a `models.VGG`."""
    import torch
    from torch import nn

    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    blocks = enumerate(CONVOLUTIONS[DEPTH], start=1)
    names = [(f"block{b}", f"conv{i}") for b, count in blocks for i in range(1, count + 1)]
    ours = [params[block][conv]["conv"] for block, conv in names] + [params["head"]]
    with torch.no_grad():
        for layer, values in zip(layers, ours, strict=True):
            kernel = np.array(values["kernel"])
            kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
            layer.weight.copy_(torch.from_numpy(kernel))
            layer.bias.copy_(torch.from_numpy(np.array(values["bias"])))


def torch_sensitivities(network, sets, batch_size: int) -> Callable[[], np.ndarray]:
    """A function without arguments that returns D, G, R of all layers, (layers, 3)."""
    import torch
    from torch import nn

    recorded = [
        layer for layer in network if not isinstance(layer, nn.Conv2d | nn.AdaptiveAvgPool2d)
    ]
    # NHWC in memory, seen as NCHW: channels last, without a copy.
    sets = [torch.tensor(np.array(part)).permute(0, 3, 1, 2) for part in sets]

    def features_of(images):
        found = []
        # Flattening makes a view of the layer's maps, which nothing changes in place afterwards.
        hooks = [
            layer.register_forward_hook(lambda _, __, output: found.append(output.flatten(1)))
            for layer in recorded
        ]
        network(images)
        for hook in hooks:
            hook.remove()
        return found

    def merged(sums, count, plain, deformed, noisy):
        size = len(plain)
        mean = plain.mean(0)
        norms = [(plain - mean), (deformed - plain), (noisy - plain)]
        norms = torch.stack([part.square().sum(1).sum() for part in norms])
        if sums is None:
            return mean, norms
        step = mean - sums[0]
        norms[0] += step.square().sum() * (count * size / (count + size))
        return sums[0] + step * (size / (count + size)), sums[1] + norms

    @torch.inference_mode()
    def run():
        sums = [None] * len(recorded)
        for start in range(0, len(sets[0]), batch_size):
            seen = [features_of(part[start : start + batch_size]) for part in sets]
            layers = zip(sums, *seen, strict=True)
            sums = [merged(old, start, *parts) for old, *parts in layers]
        spread, deformed, noisy = torch.stack([norms for _, norms in sums], 1)
        return torch.stack([deformed / (2 * spread), noisy / (2 * spread), deformed / noisy], 1)

    return lambda: run().numpy()


def draw_variables(model: models.VGG, rng: np.random.Generator):
    """Kernels that keep the variance, and no biases; compiling the initialisers would take long."""

    def leaf(shape):
        fan_in = math.prod(shape.shape[:-1])
        scale = math.sqrt(2 / fan_in) if len(shape.shape) > 1 else 0.0
        return jnp.asarray(scale * rng.standard_normal(shape.shape), shape.dtype)

    return jax.tree.map(leaf, models.variable_shapes(model, (32, 32, 3)))


def layerwise_job(smoke: bool) -> Job:
    """D, G and R of all layers of a VGG11, from images that are deformed and noisy already."""
    import torch

    count, width = (6, 4) if smoke else (500, 64)
    size, theirs = (4, 3) if smoke else (OUR_BATCH, THEIR_BATCH)
    model = models.make_model("vgg11", NUM_CLASSES, width=width)
    rng = np.random.default_rng(0)
    images = rng.random((count, 32, 32, 3), np.float32)
    probes = diffeo.probe_images(jax.random.key(0), images)
    variables = draw_variables(model, rng)
    apply = functools.partial(models.apply_with_intermediates, model, variables)
    network = torch_vgg(tuple(width * factor for factor in FACTORS))
    copy_weights(variables["params"], network)
    network = network.to(memory_format=torch.channels_last)
    return Job(
        f"layerwise sensitivities of VGG{DEPTH}, width {width}, {count} images of 32 x 32 x 3, "
        "float32",
        lambda: diffeo.layerwise_sensitivities(apply, *probes, batch_size=size),
        {
            "PyTorch eager, channels_last, three passes with hooks": torch_sensitivities(
                network, probes, theirs
            )
        },
        1.0,
        warm_peers=True,
    )


# Of 50 and 125, PyTorch needs less CPU time with 125, and ours about the same with both.
OUR_BATCH, THEIR_BATCH = 125, 125

JOBS = {"layerwise": layerwise_job}
