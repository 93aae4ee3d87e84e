"""Random keys of a step: functions of (seed, step, example), never of what was drawn before.

The key of a step is fold_in(key of the seed, step), the same on every device. From it

- what the whole batch shares (a mask for all images, a mixing weight) is drawn directly;
- what must differ from example to example (noise, masks, crops, latents) is drawn with
  `example_keys`, which number the examples over all devices: one device or eight draw the same;
- what takes one key for all rows of a device at once (a Flax dropout stream) uses `device_key`;
  these draws depend on the number of devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def step_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Key of a step: fold_in(key, step).

    Args:
      key: of the run.
      step: from 0.
    """
    return jax.random.fold_in(key, step)


def example_keys(key: jax.Array, count: int, axis_name: str | None = None) -> jax.Array:
    """One key an example: fold_in(key, i), with i counted over all devices.

    Args:
      key: of the step.
      count: number of examples on this device, the same on each.
      axis_name: name of the device axis, if there is one.

    Returns:
      Keys (count,), for `jax.vmap`.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def device_key(key: jax.Array, axis_name: str | None = None) -> jax.Array:
    """A key for this device alone: fold_in(key, index of the device), 0 without devices.

    Args:
      key: the same on all devices.
      axis_name: of the device axis; None is one device.
    """
    return jax.random.fold_in(key, 0 if axis_name is None else jax.lax.axis_index(axis_name))
