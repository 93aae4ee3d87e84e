from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vit_reference as reference

from recon_jax import losses
from recon_jax.models import (
    MaskedAutoencoder,
    layer_shapes,
    make_model,
    parameter_count,
    patchify,
)
from recon_jax.models.masked_autoencoder import ranks_of
from recon_jax.models.positions import resize_positions
from recon_jax.models.vit import take_tokens

SHAPE = (16, 12, 3)
IMAGENET = (224, 224, 3)
SMALL = {
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "heads": 4,
    "decoder_width": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


def small(shape=SHAPE, **options):
    return MaskedAutoencoder(shape, **{**SMALL, **options})


def some_patches(rows, visible, patches, seed=0):
    """Different indices in any order (rows, visible)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(patches)[:visible] for _ in range(rows)])


apply = jax.jit(small().apply)


@pytest.fixture(scope="module")
def case(draw, draw_variables):
    model, images = small(), draw(5, SHAPE)
    variables, kept = draw_variables(model, SHAPE), some_patches(5, 3, 12)
    return model, variables, images, kept, apply(variables, images, kept)


def test_shapes_and_what_is_masked(case):
    *_, kept, output = case
    assert output.reconstruction.shape == (5, 12, 48)
    assert output.latent.shape == (5, 1 + 3, 16)
    expected = np.ones((5, 12), bool)
    np.put_along_axis(expected, kept, False, axis=1)
    np.testing.assert_array_equal(output.mask, expected)


def block_parameters(width):
    return 4 * width + width * 3 * width + 3 * width + width**2 + width + 8 * width**2 + 5 * width


def test_parameters_of_the_published_model():
    encoder = 768 * 768 + 768 + 768 + 12 * block_parameters(768) + 2 * 768
    decoder = 768 * 512 + 512 + 512 + 8 * block_parameters(512) + 2 * 512 + 512 * 768 + 768
    model = make_model("mae_vit_base", image_shape=IMAGENET)
    # The released code counts its fixed positions too, 111,907,840 with 197 tokens of 768 and 512.
    assert encoder + decoder + 197 * (768 + 512) == 111_907_840
    assert (encoder, decoder) == (85_647_360, 26_008_320)
    assert parameter_count(model, IMAGENET) == encoder + decoder == 111_655_680


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [
        ("mae_vit_tiny", 192, 12, 3),
        ("mae_vit_small", 384, 12, 6),
        ("mae_vit_base", 768, 12, 12),
        ("mae_vit_large", 1024, 24, 16),
    ],
)
def test_presets(name, width, depth, heads):
    model = make_model(name, image_shape=IMAGENET, decoder_depth=2)
    assert (model.width, model.depth, model.heads) == (width, depth, heads)
    assert (model.grid, model.num_patches, model.decoder_depth) == ((14, 14), 196, 2)


@pytest.mark.parametrize(
    ("shape", "patch_size", "visible"),
    [((28, 28, 1), 7, 4), ((32, 32, 3), 8, 15), ((64, 48, 5), 16, 1)],
)
def test_all_of_it_equals_numpy_in_float64(shape, patch_size, visible, draw_variables):
    model = small(shape, patch_size=patch_size, dtype=jnp.float64)
    variables = reference.as_float64(draw_variables(model, shape))
    images = np.random.default_rng(1).random((2, *shape))
    kept = some_patches(2, visible, model.num_patches)
    output = jax.jit(model.apply)(variables, images, kept)
    params = variables["params"]
    latent = reference.encoded(params["encoder"], images, kept, model)
    np.testing.assert_allclose(output.latent, latent, rtol=1e-9, atol=1e-10)
    expected = reference.decoded(params["decoder"], latent, kept, model)
    assert output.reconstruction.dtype == jnp.float64
    np.testing.assert_allclose(output.reconstruction, expected, rtol=1e-9, atol=1e-10)
    assert (np.asarray(output.mask).sum(1) == model.num_patches - visible).all()


def test_in_float32_it_is_as_close_as_rounding_lets_it_be(case):
    model, variables, images, kept, output = case
    params, images = reference.as_float64(variables["params"]), np.asarray(images, np.float64)
    latent = reference.encoded(params["encoder"], images, kept, model)
    np.testing.assert_allclose(output.latent, latent, rtol=1e-4, atol=1e-5)
    expected = reference.decoded(params["decoder"], latent, kept, model)
    np.testing.assert_allclose(output.reconstruction, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_visible_patches_orders_latents_and_nothing_else(case):
    _, variables, images, kept, output = case
    order = np.array([2, 0, 1])
    found = apply(variables, images, kept[:, order])
    np.testing.assert_array_equal(found.mask, output.mask)
    np.testing.assert_allclose(found.latent[:, 0], output.latent[:, 0], rtol=1e-4, atol=1e-5)
    expected = np.asarray(output.latent)[:, 1 + order]
    np.testing.assert_allclose(found.latent[:, 1:], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.reconstruction, output.reconstruction, rtol=1e-4, atol=1e-5)


def test_tokens_come_back_to_their_places():
    kept = jnp.asarray(some_patches(7, 5, 12))
    rank = ranks_of(kept, 12)
    tokens = jnp.broadcast_to(jnp.arange(12.0)[None, :, None], (7, 12, 1))
    # All hidden patches carry the same token: here, minus one.
    shuffled = jnp.concatenate([take_tokens(tokens, kept), -jnp.ones((7, 1, 1))], axis=1)
    back = np.asarray(take_tokens(shuffled, rank))[..., 0]
    for row, places in zip(back, np.asarray(kept), strict=True):
        np.testing.assert_array_equal(row[places], places)
        np.testing.assert_array_equal(np.delete(row, places), -1)


def test_masked_pixels_do_not_reach_the_encoder(case):
    model, variables, images, kept, output = case
    hidden = jnp.repeat(output.mask[:, :, None], 48, axis=2)
    patches = jnp.where(hidden, 100.0, patchify(images, 4))
    rows, columns = model.grid
    changed = patches.reshape(5, rows, columns, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    changed = changed.reshape(images.shape)
    assert float(jnp.abs(changed - images).max()) > 50
    again = apply(variables, changed, kept)
    for a, b in zip(output, again, strict=True):
        np.testing.assert_array_equal(a, b)
    # And the visible ones do: the gradient of the latents is there and only there.
    gradient = jax.jit(
        jax.grad(lambda images: jnp.sin(model.apply(variables, images, kept).latent).sum())
    )(images)
    touched = np.abs(np.asarray(patchify(gradient, 4))).max(-1) > 0
    np.testing.assert_array_equal(touched, ~np.asarray(output.mask))


def test_without_a_mask_the_latents_are_those_of_encode(case):
    model, variables, images, *_ = case
    whole = jax.jit(partial(model.apply, method="encode"))(variables, images)
    assert whole.shape == (5, 13, 16)
    output = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(output.latent, whole, rtol=1e-5, atol=1e-6)
    assert not np.asarray(output.mask).any()


def test_derivatives_of_the_code_in_a_direction(case):
    """Forward mode, against differences of the NumPy network in float64."""
    _, variables, images, *_ = case
    model, variables = small(dtype=jnp.float64), reference.as_float64(variables)
    images = np.asarray(images, np.float64)
    direction = np.random.default_rng(5).standard_normal(images.shape)
    encode = partial(model.apply, variables, method="encode")
    _, found = jax.jit(lambda x, v: jax.jvp(encode, (x,), (v,)))(images, direction)
    every = np.broadcast_to(np.arange(12), (5, 12))
    ends = [
        reference.encoded(variables["params"]["encoder"], images + step * direction, every, model)
        for step in (1e-5, -1e-5)
    ]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def masked_loss(model, images, kept):
    def loss(variables):
        output = model.apply(variables, images, kept)
        target = patchify(images, 4)
        return losses.masked_squared_error(
            output.reconstruction, target, output.mask, normalize=True
        ).mean()

    return loss


def test_gradients_reach_every_parameter_and_reduce_the_loss(case):
    model, variables, images, kept, _ = case

    @jax.jit
    def step(variables):
        value, gradients = jax.value_and_grad(masked_loss(model, images, kept))(variables)
        moved = jax.tree.map(lambda p, g: p - np.float32(0.02) * g, variables, gradients)
        return value, gradients, moved

    value, gradients, _ = step(variables)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert bool(np.isfinite(leaf).all()), path
        # Of stacked parameters, those of every block.
        rows = leaf if "block" in str(path) else leaf[None]
        assert min(np.abs(row).max() for row in rows) > 1e-8, path
    values = []
    for _ in range(40):
        value, gradients, variables = step(variables)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]


def test_programs_do_not_grow_with_depth(draw):
    images, kept = draw(2, SHAPE), some_patches(2, 3, 12)

    def size(depth):
        model = small(depth=depth, decoder_depth=depth)
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        return len(jax.jit(jax.grad(masked_loss(model, images, kept))).lower(shapes).as_text())

    assert size(12) < 1.03 * size(4)


def test_bfloat16_keeps_float32_parameters_and_output(case):
    _, variables, images, kept, output = case
    half = small(dtype=jnp.bfloat16)
    types = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(types)} == {"float32"}
    found = jax.jit(half.apply)(variables, images, kept)
    assert found.reconstruction.dtype == found.latent.dtype == jnp.float32
    np.testing.assert_array_equal(found.mask, output.mask)
    scale = float(jnp.abs(output.reconstruction).max())
    assert 0 < float(jnp.abs(found.reconstruction - output.reconstruction).max()) < 0.1 * scale


def test_positions_of_another_grid_are_those_of_both_halves(case):
    _, variables, images, kept, output = case
    model = small(position_grid=(2, 2))
    own = jax.jit(model.apply)(variables, images, kept)
    assert float(jnp.abs(own.latent - output.latent).max()) > 1e-3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            reference, "positions", lambda rows, columns, width, real=reference.positions: (
                resize_positions(real(2, 2, width), (2, 2), (rows, columns))
            )
        )  # fmt: skip
        params = reference.as_float64(variables["params"])
        latent = reference.encoded(params["encoder"], np.asarray(images, float), kept, model)
        expected = reference.decoded(params["decoder"], latent, kept, model)
    np.testing.assert_allclose(own.reconstruction, expected, rtol=1e-4, atol=1e-5)


def test_representations_end_with_the_reconstruction():
    names = list(layer_shapes(small(), SHAPE))
    assert names[0] == "encoder/tokens"
    assert names.index("encoder/blocks/block2") < names.index("latent")
    assert names[-1] == "reconstruction"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, "patch_size=5 does not divide image height 16; choose one of 1, 2, 4"),
        ({"patch_size": 8}, "patch_size=8 does not divide image width 12; choose one of 1, 2, 4"),
        ({"patch_size": 0}, "patch_size=0 must be an integer of at least 1"),
        ({"width": 18}, "encoder width=18 must be a multiple of its 4 heads and of 4.* 20"),
        ({"decoder_width": 10}, "decoder width=10 must be a multiple of its 2 heads .* 12"),
        ({"depth": 0}, "encoder depth=0 must be an integer of at least 1"),
        ({"decoder_heads": 0}, "decoder heads=0 must be an integer of at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (np.zeros((3, 1), int), r"1 to 12 patches for each of 5 images, got shape \(3, 1\); jax"),
        (np.zeros(5, int), r"1 to 12 patches for each of 5 images, got shape \(5,\)"),
        (np.zeros((5, 0), int), r"1 to 12 patches for each of 5 images, got shape \(5, 0\)"),
        (np.zeros((5, 13), int), r"1 to 12 patches for each of 5 images, got shape \(5, 13\)"),
        (np.array([[0, 1]] * 4 + [[3, 3]]), r"from 0 to 11, got \[3, 3\] for image 4"),
        (np.array([[0, 1]] * 4 + [[3, 12]]), r"from 0 to 11, got \[3, 12\] for image 4"),
        (np.array([[0, -1]] * 5), r"different indices from 0 to 11, got \[0, -1\] for image 0"),
    ],
)
def test_bad_choices_of_visible_patches(case, kept, message):
    model, variables, images, *_ = case
    with pytest.raises(ValueError, match=message):
        model.apply(variables, images, kept)


def test_bad_input(case, draw):
    model, variables, images, *_ = case
    with pytest.raises(ValueError, match=r"images must have shape \(N, 16, 12, 3\), got"):
        model.apply(variables, draw(2, (16, 16, 3)))
    for kept in (jnp.ones((5, 3), bool), jnp.ones((5, 3))):
        with pytest.raises(ValueError, match=f"kept must hold indices, got {kept.dtype}"):
            model.apply(variables, images, kept)
