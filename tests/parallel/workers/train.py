"""One process of real training runs: train.py OPTIONS [CHANGES ...], all JSON.

A run for each of the changes, or one without; the end of a run is in final<i>.npz.
"""

import json
import os
import sys
import time
from pathlib import Path

import jax

DEFAULTS = {
    "index": 0,
    "count": 1,
    "devices": 1,
    "steps": 50,
    "x64": False,
    "mapping": "pmap",
    "model": ["mlp", {}],
    "checkpoint_every": 20,
    "sleep": 0.0,
    "log_every": 1,
    "heartbeat": 30,
    "watchdog": 0,
    "size": 8,
    "stop_at": -1,
} | json.loads(sys.argv[1])
jax.config.update("jax_num_cpu_devices", DEFAULTS["devices"])

import numpy as np  # noqa: E402
import optax  # noqa: E402

from recon_jax import augment, data, models, parallel, training  # noqa: E402


def source(shape):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500).astype(np.int32)
    images = rng.integers(0, 128, (500, *shape))
    images[labels == 1, :4] += 100
    images[labels == 2, :, :4] += 100
    return data.from_arrays(images.astype(np.uint8), labels)


def join(index, count, devices, port=None, heartbeat=30):
    if count > 1:
        parallel.initialize(f"localhost:{port}", count, index, heartbeat_seconds=heartbeat)
    assert parallel.placement() == {"process_index": index, "process_count": count}
    assert parallel.total_device_count() == count * devices


def train(options):
    jax.config.update("jax_enable_x64", options["x64"])
    shape = (options["size"], options["size"], 1)
    parallel.use_mapping(options["mapping"])
    dtype = np.float64 if options["x64"] else np.float32
    name, fields = options["model"]
    model = models.make_model(name, num_classes=3, axis_name=parallel.AXIS, dtype=dtype, **fields)
    # Initialised before the axis is bound.
    variables = jax.jit(model.init)(jax.random.key(1), np.zeros((1, *shape), dtype))
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    schedule = training.make_schedule("cosine", 0.02, options["steps"], 5)
    optimizer = optax.sgd(schedule, momentum=0.9)
    state = training.init_state(
        variables["params"],
        optimizer,
        key=jax.random.key(0),
        batch_stats=variables["batch_stats"],
    )
    loss = training.classification_loss(
        model, policy=augment.make_policy("crop_flip", shape), axis_name=parallel.AXIS
    )
    step = training.make_train_step(loss, optimizer, axis_name=parallel.AXIS)
    evaluate = training.make_evaluate(training.classification_metrics(model))
    images = source(shape)
    workdir = Path(options["workdir"])
    share = data.run_batches(images, 48, seed=3, **parallel.placement())

    def batch_at(step):
        time.sleep(options["sleep"])
        if step == options["stop_at"]:
            time.sleep(3600)
        Path(options["out"]).mkdir(parents=True, exist_ok=True)
        (Path(options["out"]) / f"step{options['index']}").write_text(str(step))
        return share(step)

    step_fn = parallel.data_parallel(step)
    state = training.fit(
        state,
        step_fn,
        batch_at,
        options["steps"],
        workdir=workdir,
        identity={"test": "processes"},
        # 500 images do not fill the last of these batches.
        evaluate=lambda state: evaluate(
            state, data.epoch_batches(images, 48, shuffle=False, **parallel.placement())
        ),
        evaluate_every=25,
        checkpoint_every=options["checkpoint_every"],
        log_every=options["log_every"],
        keep=2,
        tensorboard=False,
        watchdog_seconds=options["watchdog"],
    )

    def encode(variables, images):
        return model.apply(variables, np.float32(1 / 255) * images.astype(dtype))

    # Every process gets the outputs for all images, in order.
    outputs, labels = training.extract(
        encode,
        training.variables_of(state),
        data.epoch_batches(images, 48, shuffle=False, **parallel.placement()),
    )
    leaves = [state.params, state.batch_stats, state.opt_state, state.step, outputs, labels]
    # The process's own: no other needs to take part.
    assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves(state))
    path = Path(options["out"]) / f"final{options['index']}.npz"
    np.savez(f"{path}.part.npz", *map(np.asarray, jax.tree.leaves(leaves)))
    os.replace(f"{path}.part.npz", path)

    # Its memory is used again for the next state, in all processes and mappings.
    step_fn(state, share(0))
    # (All but the key, 8 bytes that pass through unchanged.)
    leaves = jax.tree.leaves(state._replace(key=None))
    assert all(leaf.is_deleted() for leaf in leaves)


if __name__ == "__main__":
    names = ("index", "count", "devices", "port", "heartbeat")
    join(**{name: DEFAULTS[name] for name in names if name in DEFAULTS})
    for changes in sys.argv[2:] or ["{}"]:
        train(DEFAULTS | json.loads(changes))
