import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models import layer_shapes, parameter_count, variable_shapes
from recon_jax.models.vae import VAE, VAEOutput
from recon_jax.models.vae_layers import Doubling, halve
from recon_jax.models.vae_networks import halvings

SMALL = {"mlp": (6, 5), "conv": (3, 4, 5), "residual": (4, 4, 6)}


def build(shape=(8, 9, 2), horizon=1, **options):
    defaults = {"networks": "mlp", "head_width": 3, "num_blocks": 1, "decoder_features": 4}
    options = defaults | options
    options.setdefault("widths", SMALL.get(options["networks"]))
    return VAE(shape, 3, 5, horizon, **options)


@pytest.mark.parametrize("networks", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (14, 14, 1), (28, 28, 1), (32, 32, 3), (9, 13, 3)])
def test_images_of_all_sizes(networks, shape):
    layers = layer_shapes(VAE(shape, 4, 30, 1, networks=networks), shape)
    assert layers["latent"] == (4,)
    assert layers["decoder"] == (*shape[:2], 16)
    assert layers["head/params"] == (*shape[:2], 30)
    names = list(layers)
    assert names[-1] == "head/params"
    parts = [name.split("/")[0] for name in names]
    assert list(dict.fromkeys(parts)) == ["encoder", "latent", "decoder", "head"]


def sides(layers, part):
    return [shape for name, shape in layers.items() if name.startswith(part) and len(shape) == 3]


def test_the_papers_widths():
    mlp = layer_shapes(VAE((28, 28, 1), 32, 30, 1), (28, 28, 1))
    assert [shape for name, shape in mlp.items() if "hidden" in name] == [(500,)] * 4
    conv = layer_shapes(VAE((32, 32, 3), 64, 100, 1, networks="conv"), (32, 32, 3))
    encoder = [(16, 16, 32), (8, 8, 64), (4, 4, 128), (2, 2, 256)]
    assert sides(conv, "encoder") == encoder
    assert conv["encoder/hidden"] == (256,)
    assert (conv["decoder/hidden1"], conv["decoder/hidden2"]) == ((512,), (1024,))
    assert sides(conv, "decoder") == [*encoder[2::-1], (32, 32, 16)]
    residual = VAE((32, 32, 3), 64, 100, 1, networks="residual", decoder_features=256)
    layers = layer_shapes(residual, (32, 32, 3))
    assert layers["decoder/first"] == (4 * 4 * 400,)
    assert layers["decoder/stage3"] == (32, 32, 400)
    shapes = variable_shapes(residual, (32, 32, 3))["params"]
    assert shapes["mean_head"]["kernel"].shape == (4 * 4 * 400, 64)
    assert shapes["decoder"]["last"]["kernel"].shape == (400, 256)


def test_parameters_of_the_papers_head():
    model = VAE((28, 28, 1), 32, 30, 1)
    head = variable_shapes(model, (28, 28, 1))["params"]["head"]
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(head))
    # Kernel rows 2 x 3, features 16, five blocks of three, hidden, output.
    assert count == 6 * 128 + 16 * 128 + 16 * (256 * 256 + 256) + 256 * 30 + 30
    assert parameter_count(model, (28, 28, 1)) > count


@pytest.fixture(scope="module")
def conditional(draw, draw_variables):
    """A model of three classes, its variables, pixels, noise, labels."""
    model = build(num_classes=3, norm="layer")
    variables = draw_variables(model, (8, 9, 2))
    pixels = 2 * draw(5, (8, 9, 2)) - 1
    noise = draw(5, (3,), seed=1)
    return model, variables, pixels, noise, jnp.array([0, 2, 1, 1, 0])


def test_the_halves_make_the_whole(conditional):
    model, variables, pixels, noise, labels = conditional
    output = jax.jit(model.apply)(variables, pixels, noise, labels)
    assert isinstance(output, VAEOutput)
    mean, scale = model.apply(variables, pixels, labels, method="encode")
    assert_allclose(output.mean, mean, rtol=1e-6, atol=1e-6)
    assert_allclose(output.scale, scale, rtol=1e-6, atol=1e-6)
    assert_allclose(output.latent, mean + scale * noise, rtol=1e-5, atol=1e-6)
    features = model.apply(variables, output.latent, labels, method="decode")
    params = model.apply(variables, pixels, features, method="predict")
    assert_allclose(output.params, params, rtol=1e-5, atol=1e-6)
    head = model.pixelcnn()
    alone = head.apply({"params": variables["params"]["head"]}, pixels, features)
    assert_allclose(alone, params, rtol=1e-5, atol=1e-6)


def test_without_noise_the_latent_is_the_mean(conditional):
    model, variables, pixels, _, labels = conditional
    output = model.apply(variables, np.asarray(pixels), None, np.asarray(labels))
    assert_array_equal(output.latent, output.mean)


def test_scales_are_softplus_above_a_floor(conditional):
    model, variables, pixels, _, labels = conditional
    params = dict(variables["params"])
    for bias, expected in ((-200.0, 1e-6), (3.0, np.log1p(np.exp(3)) + 1e-6)):
        kernel = jnp.zeros_like(params["scale_head"]["kernel"])
        params["scale_head"] = {"kernel": kernel, "bias": jnp.full(3, bias)}
        _, scale = model.apply({"params": params}, pixels, labels, method="encode")
        assert_allclose(scale, np.full((5, 3), expected), rtol=1e-5)


@pytest.mark.parametrize("networks", ["mlp", "conv", "residual"])
def test_labels_reach_encoder_and_decoder(networks, draw, draw_variables):
    model = build((8, 8, 1), networks=networks, num_classes=3, norm="none")
    variables = draw_variables(model, (8, 8, 1))
    pixels, latent = 2 * draw(2, (8, 8, 1)) - 1, draw(2, (3,))

    @jax.jit
    def halves(labels):
        mean, _ = model.apply(variables, pixels, labels, method="encode")
        return mean, model.apply(variables, latent, labels, method="decode")

    for one, other in zip(halves(jnp.array([0, 1])), halves(jnp.array([0, 2])), strict=True):
        assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-6)
        assert np.abs(one[1] - other[1]).max() > 1e-3


def test_labels_at_initialisation_may_be_missing():
    model = build(num_classes=3)
    shapes = variable_shapes(model, (8, 9, 2))["params"]
    assert shapes["encoder"]["hidden1"]["dense"]["kernel"].shape == (8 * 9 * 2 + 3, 6)
    assert shapes["decoder"]["hidden1"]["dense"]["kernel"].shape == (3 + 3, 5)


@pytest.mark.parametrize("networks", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_norms(networks, norm):
    shapes = variable_shapes(build(networks=networks, norm=norm), (8, 9, 2))
    assert ("batch_stats" in shapes) == (norm == "batch")
    for part in ("encoder", "decoder"):
        paths = [str(path) for path, _ in jax.tree.leaves_with_path(shapes["params"][part])]
        assert any("norm" in path for path in paths) == (norm != "none")


@pytest.mark.parametrize(
    ("networks", "norm", "horizon"),
    [("mlp", "batch", 1), ("conv", "none", 0), ("residual", "layer", None)],
)
def test_every_parameter_learns(networks, norm, horizon, draw, draw_variables):
    model = build((8, 8, 1), horizon, networks=networks, norm=norm, widths=SMALL[networks][:2])
    variables = draw_variables(model, (8, 8, 1))
    pixels, noise = 2 * draw(6, (8, 8, 1)) - 1, draw(6, (3,), seed=1)

    def loss(params):
        output, _ = model.apply(
            {**variables, "params": params}, pixels, noise, train=True, mutable=["batch_stats"]
        )
        weight = jnp.cos(jnp.arange(output.params.size) ** 2.0).reshape(output.params.shape)
        return jnp.vdot(output.params, weight)

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 1e-5, path


def test_training_updates_batch_statistics_of_both_halves(draw, draw_variables):
    model = build()
    variables = draw_variables(model, (8, 9, 2))
    pixels = 2 * draw(4, (8, 9, 2)) - 1
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    _, updated = jax.jit(train)(variables, pixels)
    for half in ("encoder", "decoder"):
        before = variables["batch_stats"][half]["hidden1"]["norm"]["mean"]
        after = updated["batch_stats"][half]["hidden1"]["norm"]["mean"]
        assert np.abs(before - after).max() > 1e-3


def test_low_precision_gives_float32():
    model = build(dtype=jnp.bfloat16)
    variables = variable_shapes(model, (8, 9, 2))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    output = jax.eval_shape(model.apply, variables, jnp.zeros((2, 8, 9, 2)))
    assert all(leaf.dtype == jnp.float32 for leaf in output)


def test_halves_are_means():
    x = np.arange(15.0).reshape(1, 3, 5, 1)
    found = halve(jnp.asarray(x))[0, :, :, 0]
    assert_allclose(found, [[3, 5, 6.5], [10.5, 12.5, 14]])


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (6, 7)])
def test_doubling_spreads_each_pixel_over_4_by_4(size):
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 2))
    kernel = np.random.default_rng(1).standard_normal((4, 4, 2, 3))
    whole = np.zeros((2 * 3 + 2, 2 * 4 + 2, 3))
    for i, j in np.ndindex(3, 4):
        # Not flipped: an output sees through entry k what lies k to its lower right.
        whole[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += (x[0, i, j] @ kernel)[::-1, ::-1]
    up = Doubling(3, size, use_bias=False, dtype=jnp.float64)
    found = up.apply({"params": {"kernel": jnp.asarray(kernel)}}, jnp.asarray(x))
    assert_allclose(found[0], whole[1 : 1 + size[0], 1 : 1 + size[1]], rtol=1e-10)


def test_halvings_stop_at_two_pixels():
    assert halvings((8, 8), 4) == ((8, 8), (4, 4), (2, 2))
    assert halvings((14, 28), 4) == ((14, 28), (7, 14), (4, 7), (2, 4))
    assert halvings((64, 64), 2) == ((64, 64), (32, 32), (16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, "image_shape must be"),
        ({"decoder_features": 0}, "decoder_features=.* must be"),
        ({"num_classes": -1}, "num_classes=.* must be an integer of at least 0"),
        ({"norm": "group"}, "norm='group' is unknown; choose one of 'batch', 'layer', 'none'"),
        ({"networks": "vit"}, "networks='vit' is unknown"),
        ({"widths": ()}, "number of widths"),
        ({"widths": (3, 0)}, "width=.* must be"),
        ({"horizon": 9}, "horizon=9 does not fit images of 8 x 9"),
        ({"head_width": 0}, "width=.* must be"),
        ({"shape": (2, 9, 1), "networks": "conv"}, "2 x 9 are too small.*networks='mlp'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_no_latent():
    with pytest.raises(ValueError, match="latent_size=0 must be an integer of at least 1"):
        VAE((8, 8, 1), 0, 30, 1)


def test_bad_inputs(conditional):
    model, variables, pixels, noise, labels = conditional
    plain = build()
    with pytest.raises(ValueError, match=r"images must have shape \(N, 8, 9, 2\)"):
        model.apply(variables, pixels[:, :7], noise, labels)
    with pytest.raises(ValueError, match=r"noise must have shape \(N, 3\)"):
        model.apply(variables, pixels, noise[:, :2], labels)
    with pytest.raises(ValueError, match=r"latents must have shape \(N, 3\)"):
        model.apply(variables, noise[:, :2], labels, method="decode")
    with pytest.raises(ValueError, match=r"num_classes=3 needs labels of 0 .. 2"):
        model.apply(variables, pixels, noise)
    with pytest.raises(ValueError, match=r"labels must be 0 .. 2, got 0 .. 3"):
        model.apply(variables, pixels, noise, labels + jnp.array([0, 1, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"labels must have shape \(5,\), got \(4,\)"):
        model.apply(variables, pixels, noise, labels[:4])
    with pytest.raises(ValueError, match="num_classes=0 takes no labels"):
        plain.apply({}, pixels, noise, labels)
