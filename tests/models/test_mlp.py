import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import MLP, layer_shapes, parameter_count, variable_shapes


def test_cifar_widths():
    layers = layer_shapes(MLP(10), (32, 32, 3))
    assert list(layers.items()) == [("hidden1", (2051,)), ("hidden2", (1030,)), ("logits", (10,))]


def test_cifar_parameters():
    hidden = 3072 * 2051 + 2 * 2051 + 2051 * 1030 + 2 * 1030
    assert parameter_count(MLP(10), (32, 32, 3)) == hidden + 1030 * 10 + 10


def test_hidden_layers_have_no_bias():
    params = variable_shapes(MLP(10), (4, 4, 1))["params"]
    assert set(params["hidden1"]["dense"]) == {"kernel"}
    assert set(params["head"]) == {"kernel", "bias"}


def test_one_width_without_batch_norm():
    model = MLP(10, depth=4, width=64, use_norm=False)
    assert list(layer_shapes(model, (32, 32, 3)).values()) == [(64,), (64,), (10,)]
    variables = variable_shapes(model, (4, 4, 1))
    assert set(variables) == {"params"}
    assert set(variables["params"]["hidden2"]["dense"]) == {"kernel", "bias"}
    with pytest.raises(ValueError, match="width=-1 must be an integer of at least 0"):
        MLP(10, width=-1)


def test_depth_two_is_a_linear_classifier(draw, draw_variables):
    model, images = MLP(3, depth=2), draw(4, (2, 2, 1))
    variables = draw_variables(model, (2, 2, 1))
    head = variables["params"]["head"]
    expected = images.reshape(4, -1) @ head["kernel"] + head["bias"][None]
    assert_allclose(model.apply(variables, images), expected, rtol=1e-5)


def test_every_parameter_learns(dead_parameters):
    assert dead_parameters(MLP(3), (3, 3, 2)) == set()


def test_training_updates_batch_statistics_and_evaluation_does_not(draw, draw_variables):
    model, images = MLP(3, depth=3), draw(5, (2, 2, 2))
    variables = draw_variables(model, (2, 2, 2))
    step = jax.jit(
        lambda train: model.apply(variables, images, train=train, mutable=["batch_stats"]),
        static_argnums=0,
    )
    trained, updated = step(True)
    evaluated, kept = step(False)
    assert jax.tree.structure(updated["batch_stats"]) == jax.tree.structure(kept["batch_stats"])
    before, after = variables["batch_stats"]["hidden1"], updated["batch_stats"]["hidden1"]
    assert float(jnp.abs(before["norm"]["mean"] - after["norm"]["mean"]).max()) > 1e-3
    assert_array_equal(before["norm"]["mean"], kept["batch_stats"]["hidden1"]["norm"]["mean"])
    assert float(jnp.abs(trained - evaluated).max()) > 1e-3


def test_axis_name_reaches_every_batch_norm(draw, draw_variables):
    images = draw(8, (2, 2, 2))
    variables = draw_variables(MLP(3), (2, 2, 2))

    def step(model):
        return lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"])

    whole, stats = jax.jit(step(MLP(3)))(images)
    mapped = jax.jit(jax.vmap(step(MLP(3, axis_name="devices")), axis_name="devices"))
    parts, each = mapped(images.reshape(4, 2, 2, 2, 2))
    assert_allclose(parts.reshape(8, 3), whole, atol=1e-4)
    for one, many in zip(jax.tree.leaves(stats), jax.tree.leaves(each), strict=True):
        assert_allclose(many, jnp.broadcast_to(one, many.shape), rtol=1e-4, atol=1e-5)


def test_initial_parameters_depend_on_the_key_alone(draw):
    init = jax.jit(MLP(2, depth=3).init)
    images = draw(2, (2, 2, 1))
    first, again = init(jax.random.key(3), images), init(jax.random.key(3), 2 * images)
    jax.tree.map(assert_array_equal, first, again)
    other = init(jax.random.key(4), images)
    assert not bool((first["params"]["head"]["kernel"] == other["params"]["head"]["kernel"]).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0 must be an integer of at least 1"),
        ({"num_classes": 3, "depth": 1}, "depth=1 must be an integer of at least 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MLP(**options)
