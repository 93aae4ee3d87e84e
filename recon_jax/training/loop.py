"""The training loop: resumes, logs, saves, and ends in order whatever ends it.

In a run of several processes all go through the same steps, each with its share of the batches, and
process 0 alone writes.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
from absl import logging

from recon_jax import parallel
from recon_jax.checks import check_integer
from recon_jax.data import prefetch
from recon_jax.identity import json_content
from recon_jax.training import checkpoints as saving
from recon_jax.training.metrics import compute_metrics, merge_metrics
from recon_jax.training.metrics_log import open_metrics
from recon_jax.training.progress import open_board, show_progress
from recon_jax.training.state import TrainState
from recon_jax.training.stopping import stop_wanted
from recon_jax.training.watchdog import watch_progress
from recon_jax.training.workdir import lock_workdir, require_writable

Hook = Callable[[int, TrainState, Mapping[str, Any]], None]


class Schedule(NamedTuple):
    """When a run does what, in steps; 0 is never."""

    total: int
    log: int
    evaluate: int
    checkpoint: int


class Outputs(NamedTuple):
    """Where a run writes: checkpoints, the metrics file, TensorBoard; all None but in process 0."""

    checkpoints: saving.Checkpoints | None
    write: Callable[[Mapping[str, Any]], None] | None
    board: Callable[[int, Mapping[str, Any]], None] | None


def fit(
    state: TrainState,
    step_fn: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, tuple]]],
    batch_at: Callable[[int], Any],
    total_steps: int,
    *,
    workdir: str | os.PathLike,
    identity: Mapping[str, Any] | None = None,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    keep: int = 3,
    best_metric: str | None = None,
    best_mode: str = "max",
    schedule: Callable[[int], Any] | None = None,
    hooks: Iterable[Hook] = (),
    prefetch_size: int = 2,
    transfer: Callable[[Any], Any] | None = None,
    tensorboard: bool = True,
    watchdog_seconds: float = 900.0,
) -> TrainState:
    """Train from the newest good checkpoint in the workdir, or from `state`, to `total_steps`.

    The same call again resumes, and ends with the same bits however often it was interrupted:
    parameters, checkpoints and `metrics.jsonl`, in which each line is {"step", "split", means}.
    SIGTERM saves at the end of the step under way (and of an evaluation that falls on it) and exits
    with code 0; anything harder costs the steps since the last checkpoint.

    Several processes (see `parallel.initialize`) call it together. The workdir is that of process
    0, where checkpoints are the same for any number of processes: a run may go on with another.
    SIGTERM to one of them stops all after the same step; the death of one ends the others with an
    error.

    Args:
      state: see `init_state`; it is donated if `step_fn` donates, and not to be used afterwards.
      step_fn: compiled (see `parallel.data_parallel`), from `make_train_step`.
      batch_at: this process's share of the batch of step s, s = 0 .. total_steps - 1; a function of
        s alone.
      total_steps: in the whole run.
      workdir: gets `metrics.jsonl`, `checkpoints/` and `tensorboard/`.
      identity: JSON content that decides the outcome, such as the config; a workdir that was
        trained under another is refused.
      evaluate: maps a state to {name: number}; must not keep the state.
      evaluate_every: steps between evaluations; 0 for none.
      checkpoint_every: steps between checkpoints, at least 1; the end is always saved.
      log_every: steps between lines, at least 1; means are over the steps since the line before.
      keep: how many of the newest checkpoints to keep.
      best_metric: name of an evaluated number; then every evaluation is saved, and the checkpoint
        in which the number is best is kept as well.
      best_mode: "max" or "min".
      schedule: learning rate as a function of the step, for the log.
      hooks: called as hook(step, state, record) after each line; must not keep the state.
      prefetch_size: batches prepared ahead.
      transfer: applied to each batch in the background, such as `jax.device_put`.
      tensorboard: also write event files.
      watchdog_seconds: warn, and write what every thread is doing into the workdir, when no step
        completes for this long; 0 for never. The first step includes compilation.

    Returns:
      The state after `total_steps`.

    Raises:
      ValueError: an argument is out of range; the workdir cannot be used, or is in use; its
        checkpoints belong to another run.
      FloatingPointError: loss or gradient became NaN or infinite, noticed at most
        `parallel.STEPS_IN_FLIGHT` steps later and never saved.
      OSError: a checkpoint or a line could not be written; earlier checkpoints are kept.
      ConnectionError: another process of the run was lost.
      SystemExit: with code 0, after SIGTERM.
    """
    times = Schedule(total_steps, log_every, evaluate_every if evaluate else 0, checkpoint_every)
    _check(times, evaluate, evaluate_every, best_metric)
    identity = json_content(identity)
    path = parallel.from_main(lambda: require_writable(workdir, 2 * _size(state)))
    opened = partial(
        saving.open_checkpoints,
        path / "checkpoints",
        keep=keep,
        best_mode=best_mode if best_metric else None,
    )
    with (
        parallel.peer_failures(),
        parallel.in_main(lambda: lock_workdir(path)),
        stop_wanted() as stop,
        parallel.in_main(opened) as checkpoints,
    ):
        state, window = _resume(checkpoints, state, identity, total_steps)
        start = int(state.step)
        if start >= total_steps:
            return state
        with (
            parallel.in_main(lambda: open_metrics(path / "metrics.jsonl", start)) as write,
            parallel.in_main(
                lambda: open_board(path / "tensorboard" if tensorboard else None, start)
            ) as board,
            watch_progress(watchdog_seconds, path, start) as completed,
            contextlib.closing(
                prefetch(map(batch_at, range(start, total_steps)), prefetch_size, transfer)
            ) as batches,
        ):
            outputs = Outputs(checkpoints, write, board)
            return _run(
                state,
                step_fn,
                show_progress(batches, start, total_steps),
                times,
                outputs,
                window=window,
                stop=stop,
                completed=completed,
                evaluate=evaluate,
                best_metric=best_metric,
                schedule=schedule,
                hooks=tuple(hooks),
                identity=identity,
            )


def _check(times: Schedule, evaluate, evaluate_every: int, best_metric: str | None) -> None:
    for option, value in (
        ("total_steps", times.total),
        ("checkpoint_every", times.checkpoint),
        ("log_every", times.log),
    ):
        check_integer(option, value, 1)
    if evaluate_every < 0 or (evaluate is None) != (evaluate_every == 0):
        raise ValueError(
            f"evaluate_every={evaluate_every} must be 1 or more with a function to evaluate, and 0 "
            "without"
        )
    if best_metric is not None and evaluate is None:
        raise ValueError(f"best_metric={best_metric!r} needs a function to evaluate")


def _size(state: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _resume(checkpoints, state, identity, total_steps) -> tuple[TrainState, dict[str, tuple]]:
    """The state to go on from, and the sums of the log line that was under way."""
    restored = saving.restore_checkpoint(
        checkpoints, state, identity=identity, total_steps=total_steps
    )
    if restored is None:
        return state, {}
    logging.info("resuming after step %d", restored.step)
    return restored.state, {name: tuple(pair) for name, pair in restored.carry.items()}


def _due(step: int, every: int, total: int) -> bool:
    return every > 0 and (step % every == 0 or step == total)


def _run(
    state,
    step_fn,
    batches,
    times: Schedule,
    outputs: Outputs,
    *,
    window,
    stop,
    completed,
    evaluate,
    best_metric,
    schedule,
    hooks,
    identity,
) -> TrainState:
    pending: deque = deque()
    clock = (time.monotonic(), int(state.step))
    for step, batch in enumerate(batches, int(state.step) + 1):
        state, metrics = step_fn(state, batch)
        pending.append((step, metrics))
        stopping = stop()
        log, evaluation = (_due(step, every, times.total) for every in times[1:3])
        checkpoint = _due(step, times.checkpoint, times.total) or (evaluation and best_metric)
        if outputs.checkpoints is not None:
            saving.check_saving(outputs.checkpoints)
        everything = log or evaluation or checkpoint or stopping
        window = _settle(
            pending,
            window,
            0 if everything else parallel.STEPS_IN_FLIGHT,
            partial(_stop_on_nan, outputs.checkpoints, schedule),
            completed,
        )
        if log:
            record = _log(step, window, clock, outputs, schedule)
            window, clock = {}, (time.monotonic(), step)
            for hook in hooks:
                hook(step, state, record)
        values = _evaluate(step, state, evaluate, best_metric, outputs) if evaluation else {}
        if (checkpoint or stopping) and outputs.checkpoints is not None:
            saving.save_checkpoint(
                outputs.checkpoints,
                step,
                state,
                identity=identity,
                carry=window,
                metric=values.get(best_metric),
            )
        if evaluation or checkpoint:
            completed(step)
        if stopping:
            if outputs.checkpoints is not None:
                saving.finish_saving(outputs.checkpoints)
            parallel.wait_for_all("saved after SIGTERM")
            logging.info("SIGTERM: saved after step %d; the same command resumes", step)
            raise SystemExit(0)
    return state


def _settle(
    pending: deque, window: Mapping, in_flight: int, require_finite, completed
) -> dict[str, tuple]:
    """Add the metrics of all but the last `in_flight` steps to the sums, waiting for them."""
    while len(pending) > in_flight:
        step, metrics = pending.popleft()
        # Sums in float64 on the host, one step after another: the same bits in every run.
        metrics = {
            name: (float(total), float(weight))
            for name, (total, weight) in jax.device_get(dict(metrics)).items()
        }
        completed(step)
        require_finite(step, metrics)
        window = merge_metrics(window, metrics)
    return window


def _stop_on_nan(checkpoints, schedule, step: int, metrics: Mapping[str, tuple]) -> None:
    total, weight = metrics.get("finite", metrics.get("loss", (0.0, 0.0)))
    if math.isfinite(total) and (total == weight or "finite" not in metrics):
        return
    means = compute_metrics({k: metrics[k] for k in ("loss", "grad_norm") if k in metrics})
    numbers = [f"{name}={value:.6g}" for name, value in means.items()]
    if schedule is not None:
        numbers.append(f"learning rate={float(schedule(step - 1)):.6g}")
    good = []
    if checkpoints is not None:
        saving.finish_saving(checkpoints)
        good = saving.saved_steps(checkpoints)
    last = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint"
    raise FloatingPointError(
        f"the loss or its gradient is NaN or infinite at step {step} ({', '.join(numbers)}); "
        f"{last}; a lower learning rate, a longer warm-up or clip_norm may help"
    )


def _log(step: int, window, clock, outputs: Outputs, schedule) -> dict[str, Any]:
    means = {name: mean for name, mean in compute_metrics(window).items() if name != "finite"}
    if schedule is not None:
        means["learning_rate"] = float(schedule(step - 1))
    record = {"step": step, "split": "train", **dict(sorted(means.items()))}
    if outputs.write is None:
        return record
    outputs.write(record)
    seconds = max(time.monotonic() - clock[0], 1e-9)
    rate = (step - clock[1]) / seconds
    rates = {"steps_per_second": rate}
    if {"loss", "finite"} <= window.keys():
        rates["images_per_second"] = rate * window["loss"][1] / window["finite"][1]
    outputs.board(step, {f"train/{name}": value for name, value in {**means, **rates}.items()})
    return record


def _evaluate(step: int, state, evaluate, best_metric, outputs: Outputs) -> dict[str, float]:
    values = {name: float(value) for name, value in sorted(evaluate(state).items())}
    if best_metric is not None and best_metric not in values:
        raise ValueError(
            f"best_metric={best_metric!r} was not evaluated; choose one of {', '.join(values)}"
        )
    if outputs.write is not None:
        outputs.write({"step": step, "split": "eval", **values})
        outputs.board(step, {f"eval/{name}": value for name, value in values.items()})
    return values
