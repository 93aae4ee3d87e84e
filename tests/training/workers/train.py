"""A tiny real training run: train.py WORKDIR DEVICES [JSON options]; its end is in final.npz."""

import json
import os
import sys
import time
from pathlib import Path

import jax

workdir, devices = Path(sys.argv[1]), int(sys.argv[2])
options = {"steps": 40, "sleep": 0.0, "limit_at": -1, "limit": 0, "resumed_from": 0}
options |= {"gate": None, "jumps": {}, "stop_at": None, "tensorboard": False}
options |= json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
jax.config.update("jax_num_cpu_devices", devices)

import resource  # noqa: E402
import signal  # noqa: E402

import numpy as np  # noqa: E402

from recon_jax import parallel, training  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.training.cases import make_batch, make_loss, make_state  # noqa: E402


class Clock:
    """A wall clock that somebody sets; what measures time spent is left alone."""

    def __init__(self):
        self.shift = options["jumps"].get("start", 0)
        self.seconds, self.nanoseconds = time.time, time.time_ns
        time.time = lambda: self.seconds() + self.shift
        time.time_ns = lambda: self.nanoseconds() + self.shift * 10**9


clock = Clock()


def batch_at(step):
    clock.shift = options["jumps"].get(str(step), clock.shift)
    if step == options["stop_at"]:
        os.kill(os.getpid(), signal.SIGTERM)
    if step < options["resumed_from"]:
        raise AssertionError(f"asked for the batch of step {step} again")
    time.sleep(options["sleep"])
    if step == options["limit_at"]:
        # Prefetching is ahead of training, and the first checkpoint is written in the background.
        while not (workdir / "checkpoints" / "6").is_dir():
            time.sleep(0.002)
        # From now on files cannot grow past this: what a full disk does to a checkpoint.
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["limit"], resource.RLIM_INFINITY))
    (workdir.parent / f"{workdir.name}.step").write_text(str(step))
    return make_batch(step, padded=step % 5)


def evaluate(state):
    loss, (_, metrics) = make_loss(norm=True)(
        state.ema_params, state.batch_stats, make_batch(seed=1), state.key
    )
    return {"loss": loss, **training.compute_metrics(metrics)}


def wait_at(gate):
    """Let the processes that train the same start at the same moment."""
    (gate / str(os.getpid())).touch()
    deadline = time.monotonic() + 120
    while not (gate / "open").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def main():
    schedule = training.make_schedule("cosine", 0.05, options["steps"], 5)
    optimizer = training.make_optimizer("adamw", schedule, weight_decay=0.1, clip_norm=1.0)
    state = make_state(optimizer, norm=True, ema=True)
    axis = parallel.AXIS
    if options["gate"]:
        wait_at(Path(options["gate"]))
    loss_fn = make_loss(norm=True, noise=0.5, axis_name=axis)
    step = training.make_train_step(loss_fn, optimizer, axis_name=axis, ema_decay=0.9)
    state = training.fit(
        state,
        parallel.data_parallel(step),
        batch_at,
        options["steps"],
        workdir=workdir,
        identity={"peak": 0.05, "devices": devices},
        evaluate=evaluate,
        evaluate_every=10,
        checkpoint_every=6,
        log_every=4,
        keep=2,
        schedule=schedule,
        tensorboard=options["tensorboard"],
    )
    leaves = [state.params, state.batch_stats, state.opt_state, state.ema_params, state.step]
    np.savez(workdir / "end.npz", *map(np.asarray, jax.tree.leaves(leaves)))
    os.replace(workdir / "end.npz", workdir / "final.npz")


if __name__ == "__main__":
    main()
