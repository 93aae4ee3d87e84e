import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import (
    MLPEncoder,
    Projected,
    ProjectionHead,
    apply_with_intermediates,
    layer_shapes,
    make_model,
    parameter_count,
    variable_shapes,
)

SHAPE = (3, 2, 1)


def small(**options):
    return make_model("simclr_mlp", **{"widths": (7, 5), "head_width": 6, "outputs": 4, **options})


def test_cuts_of_the_networks_for_digits():
    assert list(layer_shapes(make_model("simclr_mlp"), (8, 8, 1)).items()) == [
        ("encoder/dense1", (256,)),
        ("encoder/dense2", (128,)),
        ("features", (128,)),
        ("head/dense1", (128,)),
        ("projection", (64,)),
    ]


def test_order_survives_jit_and_the_outputs_are_the_cuts(draw, draw_variables):
    model, images = small(head_depth=3, head_norm=True), draw(4, SHAPE)
    variables = draw_variables(model, SHAPE)
    output, layers = jax.jit(partial(apply_with_intermediates, model))(variables, images)
    heads = ["head/dense1", "head/dense2"]
    assert list(layers) == ["encoder/dense1", "encoder/dense2", "features", *heads, "projection"]
    assert_array_equal(output.features, layers["features"])
    assert_array_equal(output.projection, layers["projection"])
    assert_allclose(output.projection, model.apply(variables, images).projection, atol=1e-6)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize(("norm", "last"), [(False, False), (True, False), (True, True)])
def test_parameters_of_the_head(depth, norm, last):
    model = small(head_depth=depth, head_norm=norm, norm_last=last)
    widths = [5, *[6] * (depth - 1), 4][: depth + 1]
    kernels = sum(a * b for a, b in itertools.pairwise(widths))
    # A bias, or scale and shift; in the last norm a scale alone, as many as a bias has.
    hidden = (1 + norm) * sum(widths[1:-1])
    expected = kernels + hidden + (4 if depth else 0)
    encoder = parameter_count(MLPEncoder((7, 5)), SHAPE)
    assert parameter_count(model, SHAPE) == encoder + expected
    names = set(variable_shapes(model, SHAPE)["params"].get("head", {}))
    assert ("last_norm" in names) == (last and depth > 0)
    assert layer_shapes(model, SHAPE)["projection"] == ((4,) if depth else (5,))


def test_published_head_of_a_residual_network():
    model = make_model("simclr_resnet18", width=4)
    assert layer_shapes(model, (8, 8, 3))["features"] == (32,)
    head = variable_shapes(model, (8, 8, 3))["params"]["head"]
    assert jax.tree.map(lambda leaf: leaf.shape, head) == {
        "dense1": {"dense": {"kernel": (32, 32)}, "norm": {"scale": (32,), "bias": (32,)}},
        "last": {"kernel": (32, 128)},
        "last_norm": {"scale": (128,)},
    }


def test_no_head_hands_the_features_on(draw, draw_variables):
    model, images = small(head_depth=0), draw(3, SHAPE)
    output = model.apply(draw_variables(model, SHAPE), images)
    assert_array_equal(output.projection, output.features)


def test_the_head_alone_is_piecewise_linear_as_its_kernels_say(draw_variables):
    model = small(head_depth=3, dtype=jnp.float64)
    variables = draw_variables(model, SHAPE)
    h = np.random.default_rng(0).standard_normal(5)
    project = partial(model.apply, variables, method="project")
    value, jacobian = project(h[None]), jax.jacobian(lambda x: project(x[None])[0])(jnp.asarray(h))
    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"]["head"])
    x, product = h, np.eye(5)
    for layer in (head["dense1"]["dense"], head["dense2"]["dense"]):
        x = x @ layer["kernel"] + layer["bias"]
        product = (product @ layer["kernel"]) * (x > 0)[None]
        x = np.maximum(x, 0)
    assert 0 < (x > 0).sum() < 6
    assert value.dtype == np.float64
    assert_allclose(value[0], x @ head["last"]["kernel"] + head["last"]["bias"], atol=1e-12)
    assert_allclose(jacobian, (product @ head["last"]["kernel"]).T, atol=1e-12)


def test_the_head_alone_runs_in_evaluation_mode(draw, draw_variables):
    model, images = small(head_norm=True, norm_last=True), draw(4, SHAPE)
    variables = draw_variables(model, SHAPE)
    output = model.apply(variables, images)
    alone = model.apply(variables, output.features[:1], method="project")
    assert_allclose(alone, output.projection[:1], atol=1e-6)
    assert_allclose(model.apply(variables, images, method="encode"), output.features, atol=1e-6)


def test_the_last_norm_standardises_projections(draw, draw_variables):
    model = small(norm_last=True)
    variables = draw_variables(model, SHAPE)
    (_, z), _ = model.apply(variables, draw(9, SHAPE), train=True, mutable=["batch_stats"])
    assert_allclose(np.asarray(z).mean(0), 0, atol=1e-6)
    scale = variables["params"]["head"]["last_norm"]["scale"]
    assert_allclose(np.asarray(z).std(0), scale, rtol=1e-2)


def test_axis_name_reaches_the_batch_norms_of_both_parts(draw, draw_variables):
    model, images = small(use_norm=True, head_norm=True, norm_last=True), draw(8, SHAPE)
    variables = draw_variables(model, SHAPE)

    def step(model):
        return lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"])

    whole, stats = jax.jit(step(model))(images)
    mapped = jax.vmap(step(model.clone(axis_name="devices")), axis_name="devices")
    parts, each = jax.jit(mapped)(images.reshape(4, 2, *SHAPE))
    assert_allclose(parts.projection.reshape(8, 4), whole.projection, atol=1e-4)
    assert len(jax.tree.leaves(stats)) == 8
    for one, many in zip(jax.tree.leaves(stats), jax.tree.leaves(each), strict=True):
        assert_allclose(many, jnp.broadcast_to(one, many.shape), rtol=1e-4, atol=1e-5)
    before = jax.tree.leaves(variables["batch_stats"])
    for old, new in zip(before, jax.tree.leaves(stats["batch_stats"]), strict=True):
        assert float(jnp.abs(old - new).max()) > 1e-3


def test_options_of_the_whole_reach_the_parts():
    model = Projected(MLPEncoder((5,), axis_name="a"), ProjectionHead(1, outputs=3))
    assert model.encoder.axis_name is None
    named = model.clone(axis_name="b", dtype=jnp.bfloat16)
    assert (named.encoder.axis_name, named.head.axis_name) == ("b", "b")
    assert named.encoder.dtype == named.head.dtype == jnp.bfloat16
    assert named.clone(axis_name=None, dtype=jnp.float32) == model.clone(dtype=jnp.float32)
    assert hash(named) == hash(model.clone(axis_name="b", dtype=jnp.bfloat16))


def test_an_encoder_of_ones_own_needs_no_options(draw):
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            return images.reshape(len(images), -1)

    model = Projected(Flat(), ProjectionHead(0), dtype="float32", axis_name="devices")
    images = draw(2, SHAPE)
    assert_array_equal(model.apply({}, images).features, images.reshape(2, -1))


class OnlyProjection(nn.Module):
    """The projection alone, so that a loss of it reaches the head."""

    model: nn.Module

    def __call__(self, images, *, train=False):
        return self.model(images, train=train).projection


@pytest.mark.parametrize(
    "options", [{"head_depth": 3}, {"use_norm": True, "head_norm": True, "norm_last": True}]
)
def test_every_parameter_learns(options, dead_parameters):
    assert dead_parameters(OnlyProjection(small(**options)), SHAPE) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_depth": -1}, "head_depth=-1 must be an integer of at least 0"),
        ({"head_width": -2}, "head_width=-2 must be an integer of at least 0"),
        ({"outputs": 0}, "outputs=0 must be an integer of at least 1"),
        ({"widths": ()}, "number of widths=0 must be an integer of at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_images_need_four_axes():
    with pytest.raises(ValueError, match="images must have shape"):
        small().init(jax.random.key(0), jnp.ones((2, 6)))
