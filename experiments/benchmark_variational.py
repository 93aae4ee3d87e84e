"""Speed of variational autoencoders and pixel models: steps, likelihood, sampling.

Both sides compute in float32 with AdamW, PyTorch's being fused, and have the same numbers of live
parameters: PyTorch's masked kernels are whole, as one writes them there, ours have no rows below
the pixel. PyTorch's maps lie channels last.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import benchmark_variational_peers as peers
from experiments.benchmark_job import Job
from experiments.benchmark_training import DECAY, RATE, batch_of, trainer_of
from recon_jax import losses, models, parallel, training
from recon_jax.models.masked_convolution import context_mask

PEER = "PyTorch eager, channels_last, fused AdamW"
SMOKE = peers.Sizes((8, 8, 1), 4, (8, 8), 4, 2, 4, 1)


@functools.cache  # one sampler, for which samplers of images are compiled once
def mixture(channels: int) -> losses.Likelihood:
    """The likelihood of all jobs."""
    return losses.logistic_mixture(channels, num_components=peers.COMPONENTS)


def live_parameters(params: Any) -> int:
    """How many parameters are not masked; ValueError unless all are float32."""

    def count(path, leaf):
        if leaf.dtype != np.float32:
            raise ValueError("the parameters must be float32")
        if leaf.ndim < 4:
            return leaf.size
        # The only kernels of four axes here are masked; the first one of a model is of kind A.
        kind = "A" if "image_branch" in jax.tree_util.keystr(path) else "B"
        return int(context_mask(leaf.shape[1], kind).sum()) * leaf.shape[2] * leaf.shape[3]

    return sum(jax.tree.leaves(jax.tree.map_with_path(count, params)))


class MaskedStack(nn.Module):
    """Masked convolutions of 7 x 7 and four times 5 x 5, ReLU between, then linear at each pixel.

    Attributes:
      num_params: numbers a pixel.
      width: channels.
    """

    num_params: int
    width: int

    @nn.compact
    def __call__(self, pixels: jax.Array, *, train: bool = False) -> jax.Array:
        """The numbers of every pixel."""
        x = models.MaskedConv(self.width, 7, "A", name="image_branch")(jnp.asarray(pixels))
        for _ in range(4):
            x = models.MaskedConv(self.width, 5, "B")(nn.relu(x))
        x = nn.relu(x)
        # As rows, as the library's own heads have it: see `models.pixelcnn`.
        y = nn.Dense(self.num_params)(x.reshape(-1, self.width))
        return y.reshape(*x.shape[:3], -1)


def pixel_loss(model: nn.Module, likelihood: losses.Likelihood):
    """Negative log-likelihood of images under a model of the pixels alone."""

    def loss_fn(params, stats, batch, key):
        levels = losses.to_levels(batch.images, likelihood.levels)
        numbers = model.apply({"params": params}, losses.from_levels(levels, likelihood.levels))
        total = losses.total_of(-likelihood.log_prob(numbers, levels).sum((1, 2)), batch.mask)
        return losses.mean_of(total), (stats, {"nll": total})

    return loss_fn


def step_job(
    task: str, model: nn.Module, loss: Any, network: Any, torch_loss: Callable, batch, goal: float
) -> Job:
    """A training step on one batch, against the same network in PyTorch."""
    import torch

    shape = batch.images.shape[1:]
    shapes = models.variable_shapes(model, shape)["params"]
    if live_parameters(shapes) != peers.live_parameters(network):
        raise ValueError("the networks differ")
    init, step = trainer_of(model, lambda model, axis_name: loss, shape)
    state = init()
    network = network.to(memory_format=torch.channels_last)
    levels = torch.tensor(batch.images)
    theirs_optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY, fused=True)

    def ours():
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    def theirs():
        theirs_optimizer.zero_grad()
        loss = torch_loss(network, levels)
        loss.backward()
        theirs_optimizer.step()
        return loss.item()

    return Job(task, ours, {PEER: theirs}, goal, repeats=3, warm_peers=True)


def pixelcnn_job(smoke: bool) -> Job:
    """A step of a plain PixelCNN."""
    size, side, width = (2, 8, 4) if smoke else (16, 32, 64)
    likelihood, batch = mixture(3), batch_of(size, (side, side, 3))
    model = MaskedStack(likelihood.num_params, width)

    def torch_loss(network, levels):
        # NHWC in memory, seen as NCHW: channels last, without a copy.
        pixels = (levels.float() / 127.5 - 1).permute(0, 3, 1, 2)
        numbers = network(pixels).permute(0, 2, 3, 1)
        return -peers.log_likelihood(numbers, levels).sum() / len(levels)

    return step_job(
        f"PixelCNN training step, 7 x 7 and four 5 x 5 masked layers of {width}, {side} x {side}, "
        f"batch {size}, mixture of logistics, float32",
        model,
        pixel_loss(model, likelihood),
        peers.stack(likelihood.num_params, width),
        torch_loss,
        batch,
        0.7,
    )


def vae_job(smoke: bool) -> Job:
    """A step of the paper's autoencoder for MNIST."""
    sizes = SMOKE if smoke else peers.Sizes()
    likelihood = mixture(sizes.shape[2])
    model = models.VAE(
        sizes.shape,
        sizes.latent,
        likelihood.num_params,
        1,
        widths=sizes.widths,
        decoder_features=sizes.features,
        head_width=sizes.head,
        num_blocks=sizes.blocks,
        axis_name=parallel.AXIS,
    )
    job = step_job(
        f"VAE training step, local decoder of horizon 1, {sizes.blocks} blocks of "
        f"{2 * sizes.head}, {sizes.shape[0]} x {sizes.shape[1]} x {sizes.shape[2]}, batch "
        f"{sizes.batch}, float32",
        model,
        training.vae_loss(model, likelihood, axis_name=parallel.AXIS),
        peers.vae(sizes, likelihood.num_params),
        lambda network, levels: network(levels),
        batch_of(sizes.batch, sizes.shape),
        1.0,
    )
    return job._replace(repeats=1)


def mixture_job(smoke: bool) -> Job:
    """Value and gradient of the mixture of logistics, for the log-likelihood of whole images."""
    import torch

    count, side = (2, 8) if smoke else (128, 32)
    likelihood, rng = mixture(3), np.random.default_rng(0)
    levels = batch_of(count, (side, side, 3)).images
    numbers = rng.standard_normal((*levels.shape[:3], likelihood.num_params), np.float32)
    # Scales of a network that has learnt something: about a twentieth of the range.
    scales = slice(4 * peers.COMPONENTS, 7 * peers.COMPONENTS)
    numbers[..., scales] = numbers[..., scales] / 2 - 3
    step = parallel.fast_jit(
        jax.value_and_grad(lambda numbers, levels: likelihood.log_prob(numbers, levels).sum())
    )
    arguments = jnp.asarray(numbers), jnp.asarray(levels.astype(np.int32))
    leaf, whole = torch.tensor(numbers, requires_grad=True), torch.tensor(levels)

    def theirs(classic):
        leaf.grad = None
        total = peers.log_likelihood(leaf, whole, classic).sum()
        total.backward()
        return total.item(), leaf.grad.numpy()

    return Job(
        f"mixture of logistics, value and gradient, {count} x {side} x {side} x 3, "
        f"{peers.COMPONENTS} components, float32",
        lambda: step(*arguments),
        {
            "the same terms in PyTorch eager": functools.partial(theirs, False),
            "PixelCNN++'s expression in PyTorch eager": functools.partial(theirs, True),
        },
        1.0,
        repeats=3,
        warm_peers=True,
    )


def sampling_job(smoke: bool, width: int, blocks: int) -> Job:
    """Images from a local decoder, by wavefronts and pixel by pixel."""
    count, side = (2, 8) if smoke else (64, 28)
    width, blocks = (4, 1) if smoke else (width, blocks)
    likelihood = mixture(1)
    head = models.PixelCNN(likelihood.num_params, 1, width, blocks)
    features = np.random.default_rng(0).standard_normal((count, side, side, 16), np.float32)
    image = np.zeros((1, side, side, 1), np.float32)
    params = parallel.fast_jit(head.init)(jax.random.key(0), image, features[:1])["params"]
    arguments = head, params, likelihood.sample, jax.random.key(1), jnp.asarray(features)
    options = {"image_shape": (side, side, 1), "levels": likelihood.levels}
    return Job(
        f"{count} images of {side} x {side} from a local decoder of horizon 1, {blocks} blocks of "
        f"{2 * width}, by wavefronts",
        lambda: models.wavefront_sample(*arguments, **options),
        {"itself, pixel by pixel": lambda: models.ancestral_sample(*arguments, **options)},
        0.5,
        warm_peers=True,
    )


JOBS = {
    "pixelcnn": pixelcnn_job,
    "vae": vae_job,
    "mixture": mixture_job,
    "sampling": functools.partial(sampling_job, width=32, blocks=1),
    "sampling-paper": functools.partial(sampling_job, width=128, blocks=5),
}
