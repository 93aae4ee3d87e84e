from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import losses
from recon_jax.models import (
    MaskedAutoencoder,
    layer_shapes,
    make_model,
    parameter_count,
    patchify,
)
from recon_jax.models.masked_autoencoder import split_patches
from recon_jax.models.vit import take_tokens

SHAPE = (16, 12, 3)
IMAGENET = (224, 224, 3)


def small(**options):
    return MaskedAutoencoder(
        SHAPE,
        **{
            "patch_size": 4,
            "width": 16,
            "depth": 2,
            "heads": 4,
            "decoder_width": 8,
            "decoder_depth": 1,
            "decoder_heads": 2,
            **options,
        },
    )


def quick(fn):
    """Compiling takes all the time here, running none."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})


apply = quick(small().apply)


@pytest.fixture(scope="module")
def case(draw, draw_variables):
    model, images = small(), draw(5, SHAPE)
    variables = draw_variables(model, SHAPE)
    keys = jax.random.split(jax.random.key(3), 5)
    return model, variables, images, keys, apply(variables, images, keys)


def test_shapes_and_number_of_visible_patches(case):
    *_, output = case
    assert output.reconstruction.shape == (5, 12, 48)
    assert output.latent.shape == (5, 1 + 3, 16)
    np.testing.assert_array_equal(output.mask.sum(1), 9)
    assert len({tuple(row) for row in np.asarray(output.mask)}) > 1


def test_parameters_of_the_published_model():
    def block(width):
        return (
            4 * width + width * 3 * width + 3 * width + width**2 + width + 8 * width**2 + 5 * width
        )

    encoder = 768 * 768 + 768 + 768 + 12 * block(768) + 2 * 768
    decoder = 768 * 512 + 512 + 512 + 8 * block(512) + 2 * 512 + 512 * 768 + 768
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
    assert (model.num_patches, model.num_visible, model.decoder_depth) == (196, 49, 2)


@pytest.mark.parametrize(("ratio", "kept"), [(0, 12), (0.5, 6), (0.75, 3), (0.8, 2), (0.95, 1)])
def test_the_mask_ratio_is_exact(ratio, kept):
    keys = jax.random.split(jax.random.key(0), 400)
    split = split_patches(keys, 12, small(mask_ratio=ratio).num_visible)
    assert split.kept.shape == (400, kept)
    seen = np.asarray(split.rank) < kept
    np.testing.assert_array_equal(seen.sum(1), kept)
    np.testing.assert_array_equal(np.nonzero(seen)[1].reshape(400, kept), split.kept)
    # Every patch is as likely to be kept: five standard deviations of a binomial fraction.
    fraction = kept / 12
    spread = 5 * np.sqrt(fraction * (1 - fraction) / 400)
    np.testing.assert_allclose(seen.mean(0), fraction, atol=spread + 1e-12)


def test_the_permutation_is_restored():
    keys = jax.random.split(jax.random.key(1), 7)
    kept, rank = split_patches(keys, 12, 5)
    tokens = jnp.broadcast_to(jnp.arange(12.0)[None, :, None], (7, 12, 1))
    hidden = np.stack([np.setdiff1d(np.arange(12), row) for row in np.asarray(kept)])
    # Hidden patches come in any order, and all carry the same token: here, minus one.
    shuffled = jnp.concatenate([take_tokens(tokens, kept), -jnp.ones((7, 7, 1))], axis=1)
    back = np.asarray(take_tokens(shuffled, rank))[..., 0]
    for row, places, missing in zip(back, np.asarray(kept), hidden, strict=True):
        np.testing.assert_array_equal(row[places], places)
        np.testing.assert_array_equal(row[missing], -1)


def test_masked_pixels_do_not_reach_the_encoder(case):
    model, variables, images, keys, output = case
    hidden = jnp.repeat(output.mask[:, :, None], 48, axis=2)
    patches = jnp.where(hidden, 100.0, patchify(images, 4))
    rows, columns = model.grid
    changed = patches.reshape(5, rows, columns, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    changed = changed.reshape(images.shape)
    assert float(jnp.abs(changed - images).max()) > 50
    again = apply(variables, changed, keys)
    for a, b in zip(output, again, strict=True):
        np.testing.assert_array_equal(a, b)
    # And the visible ones do: the gradient of the latents is there and only there.
    gradient = quick(
        jax.grad(lambda images: jnp.sin(model.apply(variables, images, keys).latent).sum())
    )(images)
    touched = np.abs(np.asarray(patchify(gradient, 4))).max(-1) > 0
    np.testing.assert_array_equal(touched, ~np.asarray(output.mask))


def test_visible_tokens_carry_their_own_position(case):
    """Against the whole encoder, block by block, on patches picked by NumPy."""
    model, variables, images, keys, output = case
    masked = np.asarray(output.mask)
    patches = np.asarray(patchify(images, 4))
    inside = quick(partial(model.apply, mutable=["intermediates"]))
    state = inside(variables, images, keys)[1]["intermediates"]
    tokens = np.asarray(state["encoder"]["tokens"])
    encoder = jax.tree.map(np.asarray, variables["params"]["encoder"])
    column, row = np.arange(12) % 3, np.arange(12) // 3
    rates = 10_000.0 ** (-np.arange(4) / 4)
    positions = np.concatenate(
        [f(t[:, None] * rates) for t in (column, row) for f in (np.sin, np.cos)], axis=1
    )
    embedded = patches @ encoder["embed"]["kernel"] + encoder["embed"]["bias"] + positions
    for i in range(5):
        np.testing.assert_allclose(tokens[i, 1:], embedded[i][~masked[i]], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(tokens[i, 0], encoder["class_token"][0, 0], rtol=1e-6)


def test_without_masking_the_latents_are_those_of_encode(case):
    _, variables, images, keys, _ = case
    model = small(mask_ratio=0.0)
    whole = quick(partial(model.apply, method="encode"))(variables, images)
    output = quick(model.apply)(variables, images, keys)
    np.testing.assert_allclose(output.latent, whole, rtol=1e-5, atol=1e-6)
    assert not np.asarray(output.mask).any()


def test_masks_follow_from_keys_and_are_fixed_without(case):
    model, variables, images, keys, output = case
    swapped = apply(variables, images, keys[::-1])
    np.testing.assert_array_equal(swapped.mask, output.mask[::-1])
    mask = quick(lambda images: model.apply(variables, images).mask)
    first, second = (mask(images[:n]) for n in (5, 3))
    np.testing.assert_array_equal(first[:3], second)


def test_gradients_reach_every_parameter_and_reduce_the_loss(case):
    model, variables, images, keys, _ = case

    def loss(variables):
        output = model.apply(variables, images, keys)
        target = patchify(images, 4)
        return losses.masked_squared_error(
            output.reconstruction, target, output.mask, normalize=True
        ).mean()

    step = quick(jax.value_and_grad(loss))
    _, gradients = step(variables)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert bool(np.isfinite(leaf).all()), path
        assert np.abs(leaf).max() > 1e-8, path
    variables = quick(model.init)(jax.random.key(0), images)
    values = []
    for _ in range(30):
        value, gradients = step(variables)
        variables = jax.tree.map(lambda p, g: p - np.float32(0.05) * g, variables, gradients)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]


def test_bfloat16_keeps_float32_parameters_and_output(case, draw):
    _, variables, images, keys, output = case
    half = small(dtype=jnp.bfloat16)
    types = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(types)} == {"float32"}
    found = quick(half.apply)(variables, images, keys)
    assert found.reconstruction.dtype == found.latent.dtype == jnp.float32
    np.testing.assert_array_equal(found.mask, output.mask)
    scale = float(jnp.abs(output.reconstruction).max())
    assert 0 < float(jnp.abs(found.reconstruction - output.reconstruction).max()) < 0.1 * scale


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
        ({"patch_size": 0}, "patch_size must be an integer of at least 1, got 0"),
        ({"width": 18}, "encoder width=18 must be a multiple of its 4 heads and of 4.* 20"),
        ({"decoder_width": 10}, "decoder width=10 must be a multiple of its 2 heads .* 12"),
        ({"depth": 0}, "encoder depth must be an integer of at least 1, got 0"),
        ({"decoder_heads": 0}, "decoder heads must be an integer of at least 1, got 0"),
        ({"mask_ratio": 1.0}, r"mask_ratio must lie in \[0, 1\), got 1.0"),
        ({"mask_ratio": 0.97}, "leaves none of the 12 patches visible; choose at most 0.917"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_bad_input(case, draw):
    model, variables, images, keys, _ = case
    with pytest.raises(ValueError, match=r"images must have shape \(N, 16, 12, 3\), got"):
        model.apply(variables, draw(2, (16, 16, 3)))
    with pytest.raises(ValueError, match=r"one key for each of 5 images, got \(3,\)"):
        model.apply(variables, images, keys[:3])
