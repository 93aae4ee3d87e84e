"""Collectives of programs compiled for four simulated devices, written as JSON."""

import json
import sys

import jax
import jax.numpy as jnp

from recon_jax import data, models, parallel, sizing, training

COUNT = 4


def compiled(fn, in_axes, out_axes, *args):
    mapped = parallel.device_map(fn, in_axes, out_axes)
    text = jax.jit(mapped).lower(*args).compile().as_text()
    return sizing.find_collectives(text, COUNT)


def training_step():
    model = models.LeNet(3)
    optimizer = training.make_optimizer("adamw", 1e-3)
    loss = training.classification_loss(model, axis_name=parallel.AXIS)
    step = training.make_train_step(loss, optimizer, axis_name=parallel.AXIS)
    params = models.variable_shapes(model, (32, 32, 1))["params"]
    key = jax.random.key(0)
    state = jax.eval_shape(lambda params: training.init_state(params, optimizer, key=key), params)
    batch = data.Batch(
        jax.ShapeDtypeStruct((8, 32, 32, 1), jnp.uint8),
        jax.ShapeDtypeStruct((8,), jnp.int32),
        jax.ShapeDtypeStruct((8,), jnp.bool_),
    )
    return compiled(step, (None, 0), None, state, batch), sizing.tree_bytes(params)


def main(target):
    jax.config.update("jax_num_cpu_devices", COUNT)
    step, gradient = training_step()
    rows = jax.ShapeDtypeStruct((4 * 6, 5), jnp.float32)
    gather = compiled(lambda x: jax.lax.all_gather(x, parallel.AXIS, tiled=True), 0, None, rows)
    rows = jax.ShapeDtypeStruct((4 * 8, 5), jnp.float32)
    scatter = compiled(lambda x: jax.lax.psum_scatter(x, parallel.AXIS, tiled=True), 0, 0, rows)
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"step": step, "gradient": gradient, "gather": gather, "scatter": scatter}, file)


if __name__ == "__main__":
    main(sys.argv[1])
