"""Speed of training: steps against PyTorch, the loop against its step, resuming against starting.

All in float32, with AdamW on both sides, the same numbers of parameters, and 8-bit images that the
step divides by 255.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmark_job import Job, Measured, in_fresh_process
from recon_jax import data, models, parallel, training

SIDE = 32
IMAGE = (SIDE, SIDE, 3)
NUM_CLASSES = 10
RATE, DECAY = 1e-3, 1e-2


def batch_of(size: int, shape: tuple[int, int, int] = IMAGE) -> data.Batch:
    """One batch of random 8-bit images."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, *shape), np.uint8)
    return data.Batch(pixels, np.arange(size, dtype=np.int32) % NUM_CLASSES, np.ones(size, bool))


def trainer_of(model: Any, loss: Any, shape: tuple[int, int, int] = IMAGE):
    """A function that makes the first state, and the compiled step, as the experiments have it."""
    optimizer = training.make_optimizer("adamw", RATE, weight_decay=DECAY)
    step = training.make_train_step(
        loss(model, axis_name=parallel.AXIS), optimizer, axis_name=parallel.AXIS
    )

    @parallel.fast_jit
    def initial(key):
        return model.init(key, np.zeros((1, *shape), np.float32))

    def init() -> training.TrainState:
        key = jax.random.key(0)
        variables = initial(key)
        return training.init_state(
            variables["params"], optimizer, key=key, batch_stats=variables.get("batch_stats")
        )

    return init, parallel.data_parallel(step)


@functools.cache  # compiled once for the jobs that share it
def autoencoder(smoke: bool):
    """Trainer of the convolutional autoencoder."""
    first, latent = (4, 8) if smoke else (32, 512)
    model = models.ConvAutoencoder((SIDE, SIDE, 3), latent, depth=3, first_width=first)
    return trainer_of(model, training.autoencoder_loss)


def sizes_of(state: training.TrainState) -> list[int]:
    """Sizes of the parameters, for comparison; ValueError unless all are float32."""
    leaves = jax.tree.leaves(state.params)
    if any(leaf.dtype != np.float32 for leaf in leaves):
        raise ValueError("the parameters must be float32")
    return sorted(leaf.size for leaf in leaves)


def step_job(task: str, trainer: Any, network: Any, torch_loss: Any, batch: data.Batch) -> Job:
    """A training step on one batch, against the same network in PyTorch."""
    import torch

    init, step = trainer
    state = init()
    network = network.to(memory_format=torch.channels_last)
    if sizes_of(state) != sorted(p.numel() for p in network.parameters()):
        raise ValueError("the networks differ")
    # NHWC in memory, seen as NCHW: channels last, without a copy.
    images, labels = torch.tensor(batch.images), torch.tensor(batch.labels).long()
    images = images.permute(0, 3, 1, 2)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)

    def ours():
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    def theirs():
        optimizer.zero_grad()
        loss = torch_loss(network, images.float() / 255, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Job(
        task,
        ours,
        {"PyTorch eager, channels_last": theirs},
        1.0,
        repeats=3,
        warm_peers=True,
    )


def torch_resnet9(widths):
    """The `models.ResNet9` of these widths in PyTorch."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = nn.Sequential(*block(width, width), *block(width, width))

        def forward(self, x):
            return x + self.inner(x)

    def block(inputs, outputs):
        return (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def pool():
        return nn.MaxPool2d(2)

    a, b, c, d, e = widths
    return nn.Sequential(
        *(*block(3, a), *block(a, b), pool(), Residual(b)),
        *(*block(b, c), pool(), *block(c, d), pool(), Residual(d)),
        *(*block(d, e), pool(), Residual(e)),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(e, NUM_CLASSES)),
    )


def resnet9_job(smoke: bool) -> Job:
    """A step of the classifier of the subspace experiments."""
    from torch.nn import functional

    widths = (4, 8, 8, 8, 8) if smoke else (64, 128, 256, 512, 1028)
    batch = batch_of(8 if smoke else 128)
    model = models.ResNet9(NUM_CLASSES, widths, axis_name=parallel.AXIS)
    return step_job(
        f"ResNet9 training step, {SIDE} x {SIDE}, batch {len(batch.labels)}, float32",
        trainer_of(model, training.classification_loss),
        torch_resnet9(widths),
        lambda network, images, labels: functional.cross_entropy(network(images), labels),
        batch,
    )


def torch_autoencoder(widths):
    """The convolutional autoencoder of these channels in PyTorch."""
    from torch import nn

    down = [nn.Conv2d(*pair, 3, 2, 1) for pair in itertools.pairwise(widths)]
    up = [nn.ConvTranspose2d(*pair, 3, 2, 1, 1) for pair in itertools.pairwise(widths[::-1])]
    a, b, c = ([layer, nn.ReLU(inplace=True)] for layer in (down[0], down[1], up[0]))
    return nn.Sequential(*a, *b, down[2], *c, up[1], nn.ReLU(inplace=True), up[2], nn.Sigmoid())


def autoencoder_job(smoke: bool) -> Job:
    """A step of the autoencoder of the spectrum experiment."""
    from torch.nn import functional

    batch = batch_of(8 if smoke else 256)
    widths = (3, 4, 6, 8) if smoke else (3, 32, 272, 512)
    return step_job(
        f"convolutional autoencoder training step, {'-'.join(map(str, widths))}, {SIDE} x {SIDE}, "
        f"batch {len(batch.labels)}, float32",
        autoencoder(smoke),
        torch_autoencoder(widths),
        lambda network, images, labels: functional.mse_loss(network(images), images),
        batch,
    )


def loop_job(smoke: bool) -> Job:
    """The loop's own time: batches of a source, metrics, log lines, TensorBoard and a hook."""
    size, every, total = (8, 1, 3) if smoke else (64, 10, 40)
    init, step = autoencoder(smoke)
    pixels = np.random.default_rng(0).integers(0, 256, (1024, SIDE, SIDE, 3), np.uint8)
    source = data.from_arrays(pixels, np.arange(1024) % NUM_CLASSES)

    def ours():
        lines = []
        with tempfile.TemporaryDirectory() as workdir:
            training.fit(
                init(),
                step,
                data.run_batches(source, size, seed=0),
                total,
                workdir=workdir,
                log_every=every,
                hooks=[lambda step, state, record: lines.append(time.perf_counter())],
            )
        # Between two lines, for both of which the loop waits: what begins and ends a run is left
        # out.
        return Measured(lines[-1] - lines[0])

    def bare():
        state, batch = init(), batch_of(size)
        for done in range(1, total + 1):
            state, metrics = step(state, batch)
            if done == every:
                jax.block_until_ready((state, metrics))
                start = time.perf_counter()
        jax.block_until_ready((state, metrics))
        return Measured(time.perf_counter() - start)

    task = f"training loop, {total - every} autoencoder steps of batch {size}, line every {every}"
    return Job(task, ours, {"the steps alone, on one batch": bare}, 1.05)


def run_until(total: int, workdir: str, cache: str, smoke: bool) -> None:
    """Train for steps up to `total`, from the checkpoint if there is one, and save."""
    parallel.tune_allocator()
    parallel.enable_compilation_cache(cache)
    init, step = autoencoder(smoke)
    batch = batch_of(8 if smoke else 256)
    training.fit(init(), step, lambda _: batch, total, workdir=workdir, log_every=1)


def resume_job(smoke: bool) -> Job:
    """A process that resumes for one step, against one that starts with nothing and takes one."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = itertools.count(1)

    def run(total, folder):
        in_fresh_process(run_until, total, str(folder / "run"), str(folder / "xla"), smoke)

    def resumed():
        run(next(done), folder)

    def first_start():
        with tempfile.TemporaryDirectory() as fresh:
            run(1, Path(fresh))

    run(next(done), folder)
    task = "autoencoder, a new process: restore, compiled step from the cache, one step, save"
    return Job(task, resumed, {"first start, cold cache": first_start}, 1.0)


JOBS = {
    "resnet9": resnet9_job,
    "autoencoder": autoencoder_job,
    "loop": loop_job,
    "resume": resume_job,
}
