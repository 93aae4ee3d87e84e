"""Helpers of the model tests: images, variables without compiling an initialiser, gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.models import variable_shapes


@pytest.fixture(scope="session")
def draw():
    """A function (count, shape, seed=0) -> images in [0, 1], float32."""

    def images(count, shape, seed=0):
        rng = np.random.default_rng(seed)
        return jnp.asarray(rng.random((count, *shape)), jnp.float32)

    return images


@pytest.fixture(scope="session")
def draw_variables():
    """A function (model, image_shape) -> variables, none of them at a value that hides a fault.

    Kernels keep the variance of what they act on; biases, scales and running statistics are drawn
    too. Drawn by NumPy, because compiling the initialisers of a deep network takes longer than
    compiling the network.
    """

    def variables(model, image_shape, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(path, shape):
            size, name = shape.shape, path[-1].key
            white = rng.standard_normal(size, np.float32)
            value = {
                "kernel": lambda: white * math.sqrt(2 / math.prod(size[:-1])),
                "bias": lambda: 0.1 * white,
                "mean": lambda: 0.1 * white,
                "scale": lambda: np.exp(0.1 * white),
                "var": lambda: np.exp(0.1 * white),
                "class_token": lambda: white,
                "positions": lambda: white,
                "mask_token": lambda: white,
            }[name]()
            return jnp.asarray(value, shape.dtype)

        return jax.tree.map_with_path(leaf, variable_shapes(model, image_shape))

    return variables


@pytest.fixture(scope="session")
def dead_parameters(draw, draw_variables):
    """A function (model, image_shape) -> paths of parameters without a gradient above rounding.

    The loss is a random linear function of the output, so that no symmetry hides a dead parameter.
    """

    def find(model, image_shape):
        def loss(params, rest, images):
            output, _ = model.apply(
                {**rest, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            first = jax.tree.leaves(output)[0]
            return jnp.vdot(first, jnp.cos(jnp.arange(first.size) ** 2.0).reshape(first.shape))

        variables = draw_variables(model, image_shape)
        gradients = jax.jit(jax.grad(loss))(variables["params"], variables, draw(6, image_shape))
        leaves = jax.tree.leaves_with_path(gradients)
        assert all(bool(np.isfinite(leaf).all()) for _, leaf in leaves)
        return {
            "/".join(part.key for part in path)
            for path, leaf in leaves
            if np.abs(leaf).max() < 1e-4
        }

    return find
