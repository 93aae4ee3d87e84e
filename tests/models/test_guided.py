import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import (
    ConvAutoencoder,
    Guided,
    GuidedAutoencoder,
    MLPAutoencoder,
    layer_shapes,
)

SHAPE = (3, 2, 2)


def guided(detach=False, num_classes=5, hidden=(8, 6), autoencoder=None):
    autoencoder = autoencoder or MLPAutoencoder(SHAPE, 4)
    return GuidedAutoencoder(autoencoder, num_classes, hidden, detach)


@pytest.fixture(scope="module")
def small(draw, draw_variables):
    model = guided()
    return model, draw_variables(model, SHAPE), draw(7, SHAPE)


def test_outputs_are_those_of_the_parts(small):
    model, variables, images = small
    output = model.apply(variables, images)
    assert isinstance(output, Guided)
    own = {group: tree["autoencoder"] for group, tree in variables.items()}
    alone = model.autoencoder.apply(own, images)
    assert_allclose(output.reconstruction, alone.reconstruction, rtol=1e-6)
    assert_allclose(output.latent, alone.latent, rtol=1e-6)
    assert_array_equal(model.apply(variables, images, method="encode"), output.latent)


def test_heads_are_affine_and_two_normalised_layers(small):
    model, variables, images = small
    output = model.apply(variables, images)
    x = np.asarray(output.latent, np.float64)
    params, stats = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
    stats = stats["mlp_head"]
    last = params["linear_head"]["last"]
    assert_allclose(output.linear_logits, x @ last["kernel"] + last["bias"], rtol=1e-5, atol=1e-5)
    for name in ("hidden1", "hidden2"):
        layer, seen = params["mlp_head"][name], stats[name]["norm"]
        x = x @ np.asarray(layer["dense"]["kernel"], np.float64)
        x = (x - seen["mean"]) / np.sqrt(np.asarray(seen["var"], np.float64) + 1e-5)
        x = np.maximum(x * layer["norm"]["scale"] + layer["norm"]["bias"], 0)
    last = params["mlp_head"]["last"]
    assert_allclose(output.mlp_logits, x @ last["kernel"] + last["bias"], rtol=1e-4, atol=1e-4)


def test_the_published_heads():
    layers = layer_shapes(GuidedAutoencoder(MLPAutoencoder(SHAPE, 4), 10), SHAPE)
    assert layers["mlp_head/hidden1"] == layers["mlp_head/hidden2"] == (1024,)
    assert layers["linear_head"] == layers["mlp_head"] == (10,)
    assert layers["autoencoder/latent"] == (4,)
    assert layers["autoencoder/reconstruction"] == SHAPE


def test_maps_are_flattened(draw, draw_variables):
    model = guided(autoencoder=ConvAutoencoder((8, 8, 1), 3, depth=2, first_width=2))
    output = model.apply(draw_variables(model, (8, 8, 1)), draw(4, (8, 8, 1)))
    assert output.latent.shape == (4, 2 * 2 * 3)
    assert output.linear_logits.shape == (4, 5)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("head", ["linear_logits", "mlp_logits"])
def test_detached_heads_do_not_reach_the_autoencoder(small, detach, head):
    _, variables, images = small
    model = guided(detach)

    def loss(params):
        output, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.cos(getattr(output, head)))

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    reached = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient["autoencoder"]))
    own = gradient[head.replace("logits", "head")]
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(own))
    assert reached == 0 if detach else reached > 1e-3


def test_the_autoencoder_begins_the_same_whatever_its_heads():
    images = jnp.zeros((1, *SHAPE), jnp.float32)
    models = (guided(), guided(detach=True, hidden=(3,), num_classes=2))
    # Compiling takes all the time here, running none.
    first, second = (jax.jit(model.init)(jax.random.key(3), images)["params"] for model in models)
    first, second = first["autoencoder"], second["autoencoder"]
    jax.tree.map(assert_array_equal, first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0 must be an integer of at least 1"),
        ({"hidden": ()}, "number of hidden layers=0 must be an integer of at least 1"),
        ({"hidden": (8, 0)}, "hidden width=0 must be an integer of at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        guided(**options)
