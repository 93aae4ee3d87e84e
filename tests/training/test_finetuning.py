"""From a pretrained encoder to a linear probe and to fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import data, losses, training
from recon_jax.models import MaskedAutoencoder, variable_shapes
from recon_jax.models.vit_classifier import ViTClassifier
from recon_jax.training.finetuning import freeze, layer_scales, scale_by_layer, start_from

SHAPE = (8, 8, 1)
ENCODER = {"image_shape": SHAPE, "patch_size": 4, "width": 8, "depth": 2, "heads": 2}


def small(**options):
    return ViTClassifier(**{"num_classes": 3, **ENCODER, **options})


def drawn(model, seed=0):
    """Variables of a model, drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jnp.asarray(np.abs(0.5 * rng.standard_normal(leaf.shape)), leaf.dtype)

    return jax.tree.map(draw, variable_shapes(model, SHAPE))


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((6, *SHAPE), np.float32)
    return data.Batch(images, rng.integers(0, 3, 6).astype(np.int32), np.arange(6) < 5)


def train(model, variables, optimizer, steps=3):
    state = training.init_state(
        variables["params"],
        optimizer,
        key=jax.random.key(0),
        batch_stats=variables.get("batch_stats"),
    )
    loss_fn = training.classification_loss(model)
    step = jax.jit(training.make_train_step(loss_fn, optimizer))
    metrics = []
    for seed in range(steps):
        state, sums = step(state, make_batch(seed))
        metrics.append(sums)
    return state, metrics


# decay^(12 + 1 - id) for id = 0 .. 13, as the released code of He et al. assigns and rounds it.
RATES = {
    0.65: [
        *(0.003697, 0.005688, 0.008751, 0.013463, 0.020712, 0.031864, 0.049022),
        *(0.075419, 0.116029, 0.178506, 0.274625, 0.4225, 0.65, 1.0),
    ],
    0.75: [
        *(0.023757, 0.031676, 0.042235, 0.056314, 0.075085, 0.100113, 0.133484),
        *(0.177979, 0.237305, 0.316406, 0.421875, 0.5625, 0.75, 1.0),
    ],
}


@pytest.mark.parametrize("decay", RATES)
def test_layer_scales_are_those_of_the_released_code(decay):
    rates = np.array(RATES[decay])
    params = variable_shapes(small(depth=12, head_norm="layer"), SHAPE)["params"]
    found = layer_scales(params, decay)
    leaves = jax.tree_util.tree_leaves_with_path(found)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    groups = set()
    for (path, scale), leaf in zip(leaves, jax.tree.leaves(params), strict=True):
        assert np.broadcast_shapes(scale.shape, leaf.shape) == leaf.shape
        assert (scale.dtype, scale.ndim) == (leaf.dtype, len(leaf.shape))
        names = tuple(part.key for part in path)
        stacked = names[:3] == ("encoder", "blocks", "block")
        first = names[:2] in (("encoder", "embed"), ("encoder", "class_token"))
        expected = rates[1:13] if stacked else rates[0] if first else rates[13]
        assert scale.size == np.size(expected)
        np.testing.assert_allclose(scale.ravel(), expected, atol=6e-7)
        groups.add((stacked, first))
    assert len(groups) == 3


def test_the_decoder_of_a_masked_autoencoder_keeps_its_rate():
    mae = MaskedAutoencoder(**ENCODER, decoder_width=8, decoder_depth=3, decoder_heads=2)
    scales = layer_scales(variable_shapes(mae, SHAPE)["params"], 0.5)
    assert {float(leaf.max()) for leaf in jax.tree.leaves(scales["decoder"])} == {1.0}
    assert {leaf.size for leaf in jax.tree.leaves(scales["decoder"])} == {1}


def test_updates_are_multiplied():
    params = drawn(small())["params"]
    chain = scale_by_layer(0.5)
    updates, _ = chain.update(jax.tree.map(jnp.ones_like, params), chain.init(params))
    kernel = updates["encoder"]["blocks"]["block"]["mlp1"]["kernel"]
    np.testing.assert_array_equal(kernel[0], 0.25)
    np.testing.assert_array_equal(kernel[1], 0.5)
    np.testing.assert_array_equal(updates["encoder"]["embed"]["kernel"], 0.125)
    np.testing.assert_array_equal(updates["head"]["kernel"], 1)


def test_scales_that_cannot_be():
    params = variable_shapes(small(), SHAPE)["params"]
    for decay in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"layer_decay=.* must lie in \(0, 1\]"):
            layer_scales(params, decay)
        with pytest.raises(ValueError, match=r"layer_decay=.* must lie in \(0, 1\]"):
            scale_by_layer(decay)
    with pytest.raises(ValueError, match=r"under encoder\.blocks\.block are missing; use layer_de"):
        layer_scales({"encoder": {"embed": params["encoder"]["embed"]}}, 0.5)
    mixed = {"mlp1": jnp.zeros((2, 3)), "mlp2": jnp.zeros((3, 3))}
    with pytest.raises(ValueError, match=r"are stacked \[2, 3\] deep"):
        layer_scales({"encoder": {"blocks": {"block": mixed}}}, 0.5)


@pytest.fixture(scope="module")
def probe():
    """Variables before, state after, and the metrics of a few steps of a linear probe."""
    model = small(head_norm="batch", frozen=True)
    variables = drawn(model)
    optimizer = freeze(training.make_optimizer("lars", 0.5, momentum=0.9, weight_decay=0.1))
    state, metrics = train(model, variables, optimizer)
    return model, variables, state, metrics


def test_a_probe_moves_the_head_and_no_bit_of_the_encoder(probe):
    _, variables, state, _ = probe
    before, after = variables["params"], state.params
    for a, b in zip(
        jax.tree.leaves(before["encoder"]), jax.tree.leaves(after["encoder"]), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a).view(np.int32), np.asarray(b).view(np.int32))
    for name in ("kernel", "bias"):
        assert np.abs(before["head"][name] - after["head"][name]).min() > 0
    for name in ("mean", "var"):
        moved = np.abs(variables["batch_stats"]["norm"][name] - state.batch_stats["norm"][name])
        assert moved.min() > 0


def test_a_probe_keeps_no_moments_and_no_gradient_of_the_encoder(probe):
    model, variables, state, metrics = probe
    floats = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.float32]
    assert sorted(leaf.shape for leaf in floats) == [(3,), (8, 3)]

    def loss(params):
        loss_fn = training.classification_loss(model)
        return loss_fn(params, variables["batch_stats"], make_batch(0), state.key)[0]

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient["encoder"]))
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient["head"])))
    np.testing.assert_allclose(metrics[0]["grad_norm"][0], norm, rtol=1e-4)


def test_a_probe_is_saved_and_restored(probe, tmp_path):
    _, _, state, _ = probe
    with training.open_checkpoints(tmp_path) as checkpoints:
        training.save_checkpoint(checkpoints, 3, state)
    with training.open_checkpoints(tmp_path) as checkpoints:
        restored = training.restore_checkpoint(checkpoints, state).state
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert bool((a == b).all())


def test_freezing_holds_against_gradients_and_weight_decay():
    params = {"encoder": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 3))}}
    optimizer = freeze(training.make_optimizer("sgd", 0.1, weight_decay=0.5))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["encoder"]["kernel"], 0)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.15, rtol=1e-6)


def test_freezing_refuses_names_that_are_not_there_and_freezing_everything():
    params = {"encoder": jnp.ones(2), "head": jnp.ones(3)}
    with pytest.raises(ValueError, match="cannot freeze body of parameters with the parts encoder"):
        freeze(training.make_optimizer("sgd", 0.1), ("body",)).init(params)
    with pytest.raises(ValueError, match=r"cannot freeze encoder, head .*; choose some of these"):
        freeze(training.make_optimizer("sgd", 0.1), ("encoder", "head")).init(params)


def test_fine_tuning_draws_a_key_for_each_image_and_smooths_the_loss_alone():
    model = small(pooling="mean", head_norm="layer", drop_path=0.5)
    params, batch, key = drawn(model)["params"], make_batch(), jax.random.key(4)
    loss_fn = training.classification_loss(model, label_smoothing=0.1)

    def both(params, batch):
        keys = training.example_keys(jax.random.split(key)[1], 6)
        logits = model.apply({"params": params}, batch.images, train=True, keys=keys)
        return loss_fn(params, {}, batch, key), logits

    (loss, (_, metrics)), logits = jax.jit(both)(params, batch)
    plain = losses.cross_entropy(logits, batch.labels)[:5]
    smoothed = losses.cross_entropy(logits, batch.labels, label_smoothing=0.1)[:5]
    np.testing.assert_allclose(loss, smoothed.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["cross_entropy"][0] / 5, plain.mean(), rtol=1e-5)
    assert abs(float(smoothed.mean() - plain.mean())) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must lie in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"label_smoothing=-0.1 must lie in \[0, 1\)"),
        (
            {"label_smoothing": 0.1, "label_loss": "one_hot_error"},
            "label_smoothing=0.1 is an option of cross_entropy, not of one_hot_error",
        ),
    ],
)
def test_smoothing_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        training.classification_loss(small(), **options)


def test_a_pretrained_encoder_takes_its_place():
    mae = MaskedAutoencoder(**ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2)
    pretrained = drawn(mae, seed=1)["params"]["encoder"]
    start = drawn(small(head_norm="batch"))
    found = start_from(start, jax.tree.map(np.asarray, pretrained))
    for a, b in zip(
        jax.tree.leaves(found["params"]["encoder"]), jax.tree.leaves(pretrained), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert found["params"]["head"] is start["params"]["head"]
    assert found["batch_stats"] is start["batch_stats"]
    assert start["params"]["encoder"] is not found["params"]["encoder"]


def test_an_encoder_that_does_not_fit_is_refused_by_name():
    start = drawn(small())
    encoder = dict(start["params"]["encoder"])
    encoder["positions"] = jnp.zeros(3)
    encoder["embed"] = {"kernel": jnp.zeros((16, 4))}
    message = (
        r"missing: embed\.bias; left over: positions; "
        r"of another shape: embed\.kernel \(16, 4\), not \(16, 8\)"
    )
    with pytest.raises(ValueError, match=message):
        start_from(start, encoder)
