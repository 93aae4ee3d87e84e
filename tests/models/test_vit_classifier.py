import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.models import MaskedAutoencoder
from recon_jax.models.vit import drop_path
from recon_jax.models.vit_classifier import ViTClassifier

SHAPE = (8, 12, 1)
ENCODER = {"image_shape": SHAPE, "patch_size": 4, "width": 8, "depth": 2, "heads": 2}


def small(**options):
    return ViTClassifier(**{"num_classes": 3, **ENCODER, **options})


@pytest.fixture(scope="module")
def images(draw):
    return draw(5, SHAPE)


@pytest.fixture(scope="module")
def tokens(images, draw_variables):
    """The parameters of a masked autoencoder's encoder, and what it makes of the images."""
    mae = MaskedAutoencoder(**ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2)
    variables = draw_variables(mae, SHAPE, seed=1)
    encode = jax.jit(lambda variables, images: mae.apply(variables, images, method="encode"))
    return variables["params"]["encoder"], np.asarray(encode(variables, images), np.float64)


def with_encoder(variables, encoder):
    return {**variables, "params": {**variables["params"], "encoder": encoder}}


def normed(x, mean, var):
    return (x - mean) / np.sqrt(var + 1e-6)


def by_hand(variables, tokens, pooling, norm):
    """Features and logits in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    x = tokens[:, 0] if pooling == "class_token" else tokens[:, 1:].mean(1)
    if norm == "batch":
        stats = {name: np.asarray(v) for name, v in variables["batch_stats"]["norm"].items()}
        x = normed(x, stats["mean"][None], stats["var"][None])
    if norm == "layer":
        x = normed(x, x.mean(1, keepdims=True), x.var(1, keepdims=True))
        x = x * params["norm"]["scale"][None] + params["norm"]["bias"][None]
    return x, x @ params["head"]["kernel"] + params["head"]["bias"][None]


@pytest.mark.parametrize(
    ("pooling", "norm"),
    [("class_token", "none"), ("class_token", "batch"), ("mean", "none"), ("mean", "layer")],
)
def test_logits_are_a_head_on_the_encoder_of_a_masked_autoencoder(
    pooling, norm, images, tokens, draw_variables
):
    model = small(pooling=pooling, head_norm=norm)
    encoder, outputs = tokens
    variables = with_encoder(draw_variables(model, SHAPE), encoder)

    def both(variables, images):
        return model.apply(variables, images, method="features"), model.apply(variables, images)

    features, logits = jax.jit(both)(variables, images)
    expected = by_hand(variables, outputs, pooling, norm)
    np.testing.assert_allclose(features, expected[0], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(logits, expected[1], rtol=2e-4, atol=2e-5)


def test_batch_norm_of_the_probe_uses_and_updates_statistics(images, tokens, draw_variables):
    model = small(head_norm="batch", frozen=True)
    encoder, outputs = tokens
    variables = with_encoder(draw_variables(model, SHAPE), encoder)
    assert set(variables["params"]) == {"encoder", "head"}  # no scale, no bias

    def apply(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    logits, new = jax.jit(apply)(variables, images)
    first = outputs[:, 0]
    batch = {"mean": first.mean(0), "var": first.var(0)}
    old, new = variables["batch_stats"]["norm"], new["batch_stats"]["norm"]
    for name, value in batch.items():
        np.testing.assert_allclose(new[name], 0.9 * old[name] + 0.1 * value, rtol=1e-4, atol=1e-5)
    seen = {"params": variables["params"], "batch_stats": {"norm": batch}}
    expected = by_hand(seen, outputs, "class_token", "batch")[1]
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=1e-4)


def test_parameters_start_as_they_should():
    model = small(num_classes=400, head_norm="layer", head_std=0.05)
    start = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPE), jnp.float32))["params"]
    assert set(start) == {"encoder", "norm", "head"}
    np.testing.assert_allclose(np.std(start["head"]["kernel"]), 0.05, rtol=0.06)
    np.testing.assert_array_equal(start["head"]["bias"], 0)


def last_block(encoder, **factors):
    """The encoder with the outputs of the last block's branches multiplied by these factors."""
    block = encoder["blocks"]["block"]

    def times(tree, factor):
        return jax.tree.map(lambda leaf: leaf.at[-1].multiply(jnp.float32(factor)), tree)

    attention = {**block["attention"], "out": times(block["attention"]["out"], factors["out"])}
    block = {**block, "attention": attention, "mlp2": times(block["mlp2"], factors["mlp2"])}
    return {**encoder, "blocks": {**encoder["blocks"], "block": block}}


def test_stochastic_depth_leaves_whole_branches_out_of_whole_images(draw, draw_variables):
    rate, count = 0.3, 400
    model = small(drop_path=rate)
    variables = draw_variables(model, SHAPE)
    one = draw(1, SHAPE)
    same = jnp.repeat(one, count, axis=0)
    keys = jax.random.split(jax.random.key(0), count)
    apply = jax.jit(lambda keys: model.apply(variables, same, train=True, keys=keys))
    found = np.asarray(apply(keys))

    evaluate = jax.jit(
        lambda encoder: model.apply(with_encoder(variables, encoder), one, train=False)[0]
    )
    shares = {}
    for out in (0, 1):
        for mlp in (0, 1):
            scaled = {"out": out / (1 - rate), "mlp2": mlp / (1 - rate)}
            expected = evaluate(last_block(variables["params"]["encoder"], **scaled))
            near = np.abs(found - np.asarray(expected)[None]).max(1) < 1e-4
            shares[out, mlp] = near.mean()
    # Nothing else happens; the first block, of rate 0, is always there.
    assert sum(shares.values()) == 1
    for (out, mlp), share in shares.items():
        chance = (1 - rate) ** (out + mlp) * rate ** (2 - out - mlp)
        assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / count)
    # What an image's key decides does not depend on the others.
    np.testing.assert_allclose(apply(keys[::-1]), found[::-1], rtol=1e-5, atol=1e-6)


def test_stochastic_depth_keeps_the_expectation():
    branch, keys = jnp.full((4000, 2, 3), 2.0), jax.random.split(jax.random.key(3), 4000)
    found = np.asarray(drop_path(branch, jnp.float32(0.4), keys))
    np.testing.assert_allclose(np.unique(found), [0, 2 / 0.6], rtol=1e-6)
    assert (found == found[:, :1, :1]).all()
    assert abs(found[:, 0, 0].mean() - 2) < 4 * 2 * np.sqrt(0.4 / 0.6 / 4000)
    np.testing.assert_array_equal(drop_path(branch, jnp.float32(0.0), keys), branch)


def test_without_a_rate_or_in_evaluation_keys_do_nothing(images, draw_variables):
    plain, deep = small(), small(drop_path=0.5)
    variables = draw_variables(plain, SHAPE)
    keys = jax.random.split(jax.random.key(0), len(images))
    expected = jax.jit(lambda: plain.apply(variables, images))()
    found = jax.jit(lambda: plain.apply(variables, images, train=True, keys=keys))()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(jax.jit(lambda: deep.apply(variables, images))(), expected)


@pytest.mark.parametrize("keys", [None, 4])
def test_stochastic_depth_needs_a_key_for_each_image(keys, images, draw_variables):
    model = small(drop_path=0.1)
    variables = draw_variables(model, SHAPE)
    keys = None if keys is None else jax.random.split(jax.random.key(0), keys)
    with pytest.raises(ValueError, match=r"drop_path=0.1 needs one key for each of 5 images"):
        model.apply(variables, images, train=True, keys=keys)


def test_images_of_another_shape_are_refused(draw_variables):
    variables = draw_variables(small(), SHAPE)
    with pytest.raises(ValueError, match=r"images must have shape \(N, 8, 12, 1\)"):
        small().apply(variables, jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0 must be an integer of at least 1"),
        ({"patch_size": 5}, "patch_size=5 does not divide image height 8"),
        ({"heads": 3}, "encoder width=8 must be a multiple of its 3 heads"),
        ({"pooling": "max"}, "pooling='max' is unknown; choose one of 'class_token', 'mean'"),
        ({"head_norm": "group"}, "head_norm='group' is unknown; choose one of 'none', 'batch'"),
        ({"drop_path": 1.0}, r"drop_path=.* must lie in \[0, 1\)"),
        ({"head_std": 0.0}, "head_std=0.0 must be a finite number > 0"),
        ({"frozen": True, "drop_path": 0.1}, "drop_path=0.1 has no effect on a frozen encoder"),
        ({"image_shape": (8, 8)}, "image_shape must be"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
