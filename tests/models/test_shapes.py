import math

import jax
import jax.numpy as jnp
import pytest

from recon_jax.models import (
    MLP,
    LeNet,
    apply_with_intermediates,
    layer_shapes,
    parameter_count,
    variable_shapes,
)


def test_shapes_are_those_of_the_computation(draw):
    model, images = MLP(3, depth=3), draw(2, (4, 3, 2))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    _, layers = apply_with_intermediates(model, variables, images)
    assert layer_shapes(model, (4, 3, 2)) == {name: x.shape[1:] for name, x in layers.items()}
    assert list(layer_shapes(model, (4, 3, 2))) == list(layers)
    assert jax.tree.map(jnp.shape, variable_shapes(model, (4, 3, 2))) == jax.tree.map(
        jnp.shape, variables
    )


def test_running_statistics_are_no_parameters():
    hidden = (12 + 3) // 2
    assert parameter_count(MLP(3, depth=3), (2, 3, 2)) == 12 * hidden + 2 * hidden + hidden * 3 + 3


def test_leaves_are_abstract():
    shapes = variable_shapes(LeNet(10), (28, 28, 1))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 61_706
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))


def test_a_shape_of_two_sides_is_refused():
    with pytest.raises(ValueError, match="height, width, channels"):
        parameter_count(LeNet(10), (28, 28))
