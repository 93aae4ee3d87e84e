import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import parallel
from recon_jax.training import fit, make_optimizer, make_train_step, read_metrics

from .cases import make_batch, make_loss, make_state

OPTIMIZER = make_optimizer("sgd", 0.1)


@pytest.fixture(scope="module")
def step_fn():
    return parallel.data_parallel(make_train_step(make_loss(), OPTIMIZER))


def train(step_fn, workdir, total=12, batch_at=make_batch, **options):
    options = {"log_every": 5, "checkpoint_every": 4, "tensorboard": False, **options}
    return fit(make_state(OPTIMIZER), step_fn, batch_at, total, workdir=workdir, **options)


def saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_fit_is_the_plain_loop(step_fn, tmp_path, capsys):
    state, sums = make_state(OPTIMIZER), {}
    for index in range(12):
        batch = make_batch(index, padded=index % 3)
        state, metrics = step_fn(state, batch)
        sums[index + 1] = [np.asarray(x, np.float64) for x in metrics["loss"]]
    seen = []
    ours = train(
        step_fn,
        tmp_path,
        batch_at=lambda step: make_batch(step, padded=step % 3),
        hooks=[lambda step, state, record: seen.append((step, int(state.step), record))],
    )
    for name in ("Dense_0", "Dense_1"):
        np.testing.assert_array_equal(ours.params[name]["kernel"], state.params[name]["kernel"])
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["split"]) for r in records] == [(s, "train") for s in (5, 10, 12)]
    assert seen == [(r["step"], r["step"], r) for r in records]
    for record, steps in zip(records, (range(1, 6), range(6, 11), range(11, 13)), strict=True):
        total, weight = np.sum([sums[s] for s in steps], axis=0)
        assert record["loss"] == pytest.approx(total / weight, rel=1e-12)
    assert saved(tmp_path) == [4, 8, 12]
    assert "100% 12/12" in capsys.readouterr().err


def test_finished_run_is_not_run_again_and_a_longer_one_goes_on(step_fn, tmp_path):
    def never(step):
        raise AssertionError("asked for a batch")

    first = train(step_fn, tmp_path)
    kernel = np.asarray(first.params["Dense_0"]["kernel"])
    again = train(step_fn, tmp_path, batch_at=never)
    np.testing.assert_array_equal(again.params["Dense_0"]["kernel"], kernel)
    with pytest.raises(ValueError, match="step 12 lies past total_steps=9"):
        train(step_fn, tmp_path, total=9)
    with pytest.raises(ValueError, match="seed: stored absent, now 1"):
        train(step_fn, tmp_path, identity={"seed": 1})
    asked = []
    longer = train(step_fn, tmp_path, 14, lambda s: asked.append(s) or make_batch(s))
    assert int(longer.step) == 14
    assert asked == [12, 13]


def test_evaluation_and_the_best_checkpoint(step_fn, tmp_path):
    def evaluate(state):
        return {"score": -abs(int(state.step) - 6), "other": jnp.float32(1)}

    options = {"evaluate": evaluate, "evaluate_every": 3, "best_metric": "score", "keep": 1}
    train(step_fn, tmp_path, **options, checkpoint_every=100)
    records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "eval"]
    assert [(r["step"], r["score"]) for r in records] == [(3, -3), (6, 0), (9, -3), (12, -6)]
    assert saved(tmp_path) == [6, 12]
    with pytest.raises(ValueError, match=r"best_metric='f1' was not evaluated; .* other, score"):
        train(step_fn, tmp_path / "b", **{**options, "best_metric": "f1"})


def test_nan_stops_the_run_and_is_not_saved(step_fn, tmp_path):
    def batch_at(step):
        batch = make_batch(step)
        if step >= 5:
            batch.images[:] = np.nan
        return batch

    message = (
        r"NaN or infinite at step 6 \(loss=nan, grad_norm=nan, learning rate=0.25\); the last good "
        "checkpoint is of step 4"
    )
    for _ in range(2):  # also when it is resumed
        with pytest.raises(FloatingPointError, match=message):
            train(step_fn, tmp_path, 40, batch_at, schedule=lambda s: 0.25, log_every=100)
        assert saved(tmp_path) == [4]


def test_errors_of_the_data_come_through(step_fn, tmp_path):
    def batch_at(step):
        if step == 6:
            raise RuntimeError("image 3 of step 6 is broken")
        return make_batch(step)

    with pytest.raises(RuntimeError, match="image 3 of step 6 is broken"):
        train(step_fn, tmp_path, batch_at=batch_at)
    assert saved(tmp_path) == [4]
    assert int(train(step_fn, tmp_path).step) == 12


def test_sigterm_handling_ends_with_the_run(step_fn, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(step_fn, tmp_path, 2)
    assert signal.getsignal(signal.SIGTERM) is before
    # In a thread there is none to install.
    results = []
    thread = threading.Thread(target=lambda: results.append(train(step_fn, tmp_path / "t", 2)))
    thread.start()
    thread.join()
    assert int(results[0].step) == 2


def test_tensorboard_events_are_written(step_fn, tmp_path):
    train(step_fn, tmp_path, 5, tensorboard=True)
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    content = events.read_bytes()
    for name in (b"train/loss", b"train/steps_per_second", b"train/images_per_second"):
        assert name in content


@pytest.mark.parametrize(
    ("total", "options", "message"),
    [
        (0, {}, "total_steps=0 must be an integer of at least 1"),
        (5, {"log_every": 0}, "log_every=0 must be"),
        (5, {"checkpoint_every": 0}, "checkpoint_every=0 must be"),
        (5, {"evaluate_every": 2}, "evaluate_every=2 must be 1 or more with a function"),
        (5, {"evaluate": dict}, "evaluate_every=0 must be 1 or more with a function"),
        (5, {"best_metric": "x"}, "best_metric='x' needs a function to evaluate"),
        (5, {"keep": 0}, "keep=0 must be an integer"),
        (5, {"identity": {"f": dict}}, "identity must hold only numbers"),
    ],
)
def test_wrong_arguments(tmp_path, total, options, message):
    with pytest.raises(ValueError, match=message):
        train(lambda state, batch: (state, {}), tmp_path, total, **options)
