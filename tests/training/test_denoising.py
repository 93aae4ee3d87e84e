"""Losses of masked and denoising autoencoders, against networks and draws computed in NumPy."""

import functools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import vit_reference as reference

from recon_jax import augment, data, models, spectral, training
from recon_jax.training.denoising import corrupt_each, token_groups, visible_tokens

SHAPE, SIDE = (16, 8, 1), 4  # 4 x 2 tokens
ROWS, COUNTED = 6, 4
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def model():
    small = {"width": 8, "depth": 2, "heads": 2}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return models.MaskedAutoencoder(SHAPE, patch_size=SIDE, **small, **decoder)


@pytest.fixture(scope="module")
def params(model):
    rng, shapes = np.random.default_rng(1), models.variable_shapes(model, SHAPE)["params"]
    draw = lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


@pytest.fixture(scope="module")
def batch():
    """8-bit images, of which the last do not count."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, *SHAPE), np.uint8)
    return data.Batch(images, np.zeros(ROWS, np.int32), np.arange(ROWS) < COUNTED)


@pytest.fixture(scope="module")
def floats(batch):
    """The same images, centred."""
    images = batch.images.astype(np.float32) / 255
    return batch._replace(images=images - images.mean(0, keepdims=True))


@pytest.fixture(scope="module")
def spectrum(floats):
    return spectral.eigendecompose(
        spectral.stream_moments([(floats.images, np.arange(ROWS) % 2)], 2)
    )


def value_of(loss_fn, params, batch, key=KEY):
    loss, (stats, metrics) = jax.jit(loss_fn)(params, {}, batch, key)
    assert stats == {}
    np.testing.assert_allclose(loss, metrics["squared_error"][0] / COUNTED, rtol=1e-6)
    assert float(metrics["squared_error"][1]) == COUNTED
    return float(loss)


@functools.cache
def visible_of(corruption):
    return jax.jit(corruption.mask.visible)


def masks_of(corruption, keys):
    """Which tokens each image shows, (N, 8) booleans: from a picture of the visible patches."""
    (high, wide), shown = corruption.mask.patch_size, []
    for key in keys:
        patches = np.zeros(corruption.mask.grid, bool)
        patches.flat[np.asarray(visible_of(corruption)(key))] = True
        pixels = np.kron(patches, np.ones((high, wide), bool))
        shown.append(pixels[::SIDE, ::SIDE].reshape(-1))
    return np.stack(shown)


def image_keys(key=KEY):
    """Those of the masks of a step: numbered by image, from the second half of the step's key."""
    own = jax.random.split(key)[1]
    return [jax.random.fold_in(own, i) for i in range(ROWS)]


def patch_targets(images, normalize):
    patches = reference.cut(np.asarray(images, np.float64), SIDE)
    if not normalize:
        return patches
    spread = np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    return (patches - patches.mean(-1, keepdims=True)) / spread


def expected_loss(model, params, inputs, targets, shown):
    """Mean over the hidden patches of an image, or all where none is, and images that count."""
    params, values = reference.as_float64(params), []
    for image, patches, visible in list(zip(inputs, targets, shown, strict=True))[:COUNTED]:
        kept = np.flatnonzero(visible)[None]
        image = np.asarray(image, np.float64)[None]
        latent = reference.encoded(params["encoder"], image, kept, model)
        found = reference.decoded(params["decoder"], latent, kept, model)[0]
        error = np.square(found - patches).mean(-1)
        values.append(error[~visible].mean() if not visible.all() else error.mean())
    return np.mean(values)


MASKS = {
    "tokens": spectral.patch_subset(0.75, SIDE, SHAPE),
    "two by two tokens": spectral.patch_subset(0.5, 8, SHAPE),
    "a rectangle": spectral.block_mask(0.5, SIDE, SHAPE),
    "a grid": spectral.grid_mask(2, SIDE, SHAPE),
}


@pytest.mark.parametrize("name", MASKS)
def test_hidden_patches_of_images_that_count(name, model, params, floats):
    mask, normalize = MASKS[name], name != "a grid"
    loss = training.masked_autoencoder_loss(model, mask, normalize=normalize)
    shown = masks_of(mask, image_keys())
    assert len({tuple(row) for row in shown}) > 1
    targets = patch_targets(floats.images, normalize)
    expected = expected_loss(model, params, floats.images, targets, shown)
    assert value_of(loss, params, floats) == pytest.approx(expected, rel=2e-4)


DENSE = {
    "noise": spectral.gaussian(0.5, SHAPE),
    "less than a token": spectral.patch_subset(0.5, 2, SHAPE),
    "nothing": spectral.identity(SHAPE),
}


@pytest.mark.parametrize("name", DENSE)
def test_all_patches_where_no_token_can_be_dropped(name, model, params, floats):
    corruption = DENSE[name]
    assert token_groups(corruption, SIDE, SHAPE) is None
    loss = training.masked_autoencoder_loss(model, corruption)
    noisy = np.concatenate([
        corruption.corrupt(key, jnp.asarray(image)[None])
        for key, image in zip(image_keys(), floats.images, strict=True)
    ])  # fmt: skip
    assert (np.abs(noisy - floats.images).max() > 0.1) == (name != "nothing")
    targets, everything = patch_targets(floats.images, True), np.ones((ROWS, 8), bool)
    expected = expected_loss(model, params, noisy, targets, everything)
    assert value_of(loss, params, floats) == pytest.approx(expected, rel=2e-4)


def test_which_tokens_a_patch_of_a_mask_covers():
    def groups(side):
        return token_groups(spectral.patch_subset(0.5, side, SHAPE), SIDE, SHAPE).tolist()

    assert groups(4) == [[i] for i in range(8)]
    assert groups(8) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups((8, 4)) == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert groups((4, 8)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for other in (
        spectral.patch_mask(0.5, 4, SHAPE),  # no exact count
        spectral.pixel_mask(0.5, SHAPE),
        spectral.patch_subset(0.5, (8, 2), SHAPE),  # not whole tokens
    ):
        assert token_groups(other, SIDE, SHAPE) is None


def test_a_part_of_the_spectrum_is_the_target(model, params, floats, spectrum):
    part = spectral.Subspace("bottom", 40.0, 0.6)
    mask, target = MASKS["tokens"], spectral.subspace_filter(part, spectrum)
    loss = training.masked_autoencoder_loss(model, mask, target=target, normalize=False)
    targets = patch_targets(spectral.project_on(floats.images, part, spectrum), False)
    assert np.abs(targets - patch_targets(floats.images, False)).max() > 0.05
    shown = masks_of(mask, image_keys())
    expected = expected_loss(model, params, floats.images, targets, shown)
    assert value_of(loss, params, floats) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("name", ["global", "per_image"])
def test_8_bit_images_are_cropped_then_normalised(name, model, params, batch):
    fitted, policy = data.fit_normalization(name, [batch]), augment.crop_flip(SHAPE)
    loss = training.masked_autoencoder_loss(
        model, MASKS["tokens"], policy=policy, normalization=fitted, normalize=False
    )
    keys, pixels = training.example_keys(jax.random.split(KEY)[0], ROWS), batch.images / 255.0
    cropped = np.asarray(jax.jit(policy)(keys, jnp.asarray(pixels, jnp.float32)))
    assert np.abs(cropped - pixels).max() > 0.1
    images = data.normalize(fitted, cropped)
    assert np.abs(images - cropped).max() > 0.1
    shown = masks_of(MASKS["tokens"], image_keys())
    expected = expected_loss(model, params, images, patch_targets(images, False), shown)
    assert value_of(loss, params, batch) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (spectral.patch_subset(0.0, 4, SHAPE), r"patch_subset\(0, 4x4\) leaves 8 .* and 0 hidden"),
        (spectral.patch_subset(0.1, 8, SHAPE), "leaves 2 patches visible and 0 hidden; a masked"),
        (spectral.grid_mask(1, 4, SHAPE), "choose another ratio, smaller patches, or identity"),
        (spectral.block_mask(0, 4, SHAPE), "leaves 8 patches visible and 0 hidden"),
    ],
)
def test_a_mask_that_hides_nothing_is_refused(mask, message, model):
    with pytest.raises(ValueError, match=message):
        training.masked_autoencoder_loss(model, mask)


def test_a_mask_that_shows_nothing_cannot_be_made():
    with pytest.raises(ValueError, match=r"ratio=0\.97 keeps 0 of 8 patches; at least 1 of"):
        spectral.patch_subset(0.97, 4, SHAPE)


def test_two_halves_draw_what_the_whole_batch_draws(model, params, floats):
    """Devices number images over all of them, so that one or two draw the same masks."""
    mask = MASKS["tokens"]
    loss = training.masked_autoencoder_loss(model, mask, axis_name="devices")
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, ROWS // 2, *leaf.shape[1:]), floats)
    of_half = jax.vmap(lambda batch: loss(params, {}, batch, KEY)[1][1], axis_name="devices")
    totals, counts = jax.jit(of_half)(halves)["squared_error"]
    np.testing.assert_array_equal(counts, [3, 1])
    shown, targets = masks_of(mask, image_keys()), patch_targets(floats.images, True)
    expected = expected_loss(model, params, floats.images, targets, shown)
    assert float(totals.sum()) / COUNTED == pytest.approx(expected, rel=2e-4)


def test_masks_average_to_the_gain_of_the_corruption():
    """Each image by its own key: what is trained on is what the closed forms speak of."""
    images = np.random.default_rng(0).standard_normal((1, *SHAPE))
    keys, many = training.example_keys(KEY, 3000), jnp.broadcast_to(images, (3000, *SHAPE))
    for corruption in (MASKS["a rectangle"], MASKS["two by two tokens"], DENSE["noise"]):
        corrupted = jax.jit(partial(corrupt_each, corruption))(keys, many)
        mean = np.asarray(corrupted).mean(0, keepdims=True)
        spread = 5 * max(0.5 * np.abs(images).max(), 0.5) / np.sqrt(3000)
        np.testing.assert_allclose(mean, corruption.gain(images), atol=spread)
        if corruption.mask:  # and dropped tokens are those that are set to 0
            groups = token_groups(corruption, SIDE, SHAPE)
            kept = np.asarray(jax.jit(partial(visible_tokens, corruption, groups))(keys))
            often = np.bincount(kept.reshape(-1), minlength=8) / 3000
            gain = np.asarray(corruption.gain(np.ones((1, *SHAPE))))[0, ::SIDE, ::SIDE, 0]
            np.testing.assert_allclose(often, gain.reshape(-1), atol=5 * 0.5 / np.sqrt(3000))


def state_of(params):
    return training.init_state(params, optax.sgd(0.1), key=jax.random.key(0))


def test_metrics_use_the_same_draws_every_time(model, params, batch):
    fitted = data.fit_normalization("global", [batch])
    mask, state = MASKS["tokens"], state_of(params)
    measure = jax.jit(training.masked_autoencoder_metrics(model, mask, normalization=fitted))
    total, count = measure(state, batch)["squared_error"]
    images = data.normalize(fitted, batch.images)
    shown = masks_of(mask, [jax.random.fold_in(jax.random.key(0), i) for i in range(ROWS)])
    expected = expected_loss(model, params, images, patch_targets(images, True), shown)
    assert float(count) == COUNTED
    assert float(total / count) == pytest.approx(expected, rel=2e-4)
    later = state._replace(step=state.step + 5, key=jax.random.key(9))
    np.testing.assert_array_equal(measure(later, batch)["squared_error"][0], total)


class Scaled(nn.Module):
    """Reconstructs a multiple of what it sees: its loss is known without a network."""

    @nn.compact
    def __call__(self, images, *, train):
        factor = self.param("factor", nn.initializers.constant(0.8), ())
        return models.Autoencoding(factor * images, images)


SCALED, FACTOR = Scaled(), {"factor": jnp.float32(0.8)}


def noisy_pixels(noise, pixels, keys, mean=0.0, scale=1.0):
    """Image by image, corrupted in the units of a normalisation."""
    images = [
        noise.corrupt(key, jnp.asarray((image - mean) / scale, jnp.float32)[None])
        for key, image in zip(keys, pixels, strict=True)
    ]
    return np.concatenate(images).astype(np.float64) * scale + mean


@pytest.mark.parametrize("name", [None, "unit", "global"])
def test_the_clean_image_is_reconstructed_from_the_noisy_one(name, batch):
    fitted, noise = name and data.fit_normalization(name, [batch]), spectral.gaussian(0.7, SHAPE)
    loss = training.denoising_loss(SCALED, noise, normalization=fitted)
    mean, scale = (fitted.mean, fitted.scale) if name == "global" else (0.0, 1.0)
    pixels = batch.images / 255.0
    noisy = noisy_pixels(noise, pixels, image_keys(), mean, scale)
    # The unit of the noise is the standard deviation of the pixels, if they are normalised by it.
    assert (noisy - pixels).std() == pytest.approx(0.7 * scale, rel=0.15)
    expected = np.square(0.8 * noisy - pixels)[:COUNTED].mean()
    assert value_of(loss, FACTOR, batch) == pytest.approx(expected, rel=1e-5)


def test_denoising_by_convolutions(batch):
    model = models.ConvAutoencoder(SHAPE, 4, depth=2, first_width=3)
    rng, shapes = np.random.default_rng(2), models.variable_shapes(model, SHAPE)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), shapes)
    pixels = batch.images / 255.0
    noisy = noisy_pixels(DENSE["noise"], pixels, image_keys())
    found = jax.jit(model.apply)({"params": params}, jnp.asarray(noisy, jnp.float32))
    expected = np.square(np.asarray(found.reconstruction) - pixels)[:COUNTED].mean()
    loss = training.denoising_loss(model, DENSE["noise"])
    assert value_of(loss, params, batch) == pytest.approx(expected, rel=1e-4)


def test_normalising_and_back_changes_nothing(batch):
    fitted, none = data.fit_normalization("global", [batch]), spectral.identity(SHAPE)
    loss = training.denoising_loss(SCALED, none, normalization=fitted)
    expected = 0.04 * np.square(batch.images / 255.0)[:COUNTED].mean()
    assert value_of(loss, FACTOR, batch) == pytest.approx(expected, rel=1e-5)


def test_noise_of_two_halves_is_that_of_the_whole_batch(batch):
    loss = training.denoising_loss(SCALED, DENSE["noise"], axis_name="devices")
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, ROWS // 2, *leaf.shape[1:]), batch)
    of_half = jax.vmap(lambda batch: loss(FACTOR, {}, batch, KEY)[1][1], axis_name="devices")
    total = jax.jit(of_half)(halves)["squared_error"][0].sum()
    pixels = batch.images / 255.0
    errors = np.square(0.8 * noisy_pixels(DENSE["noise"], pixels, image_keys()) - pixels)
    assert float(total) == pytest.approx(errors.mean((1, 2, 3))[:COUNTED].sum(), rel=1e-5)


def test_denoising_metrics_use_fixed_draws(batch):
    measure = jax.jit(training.denoising_metrics(SCALED, DENSE["noise"]))
    total, count = measure(state_of(FACTOR), batch)["squared_error"]
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(ROWS)]
    pixels = batch.images / 255.0
    errors = np.square(0.8 * noisy_pixels(DENSE["noise"], pixels, keys) - pixels)
    assert float(count) == COUNTED
    assert float(total / count) == pytest.approx(errors[:COUNTED].mean(), rel=1e-5)


def test_the_scale_of_each_image_cannot_be_undone(batch):
    fitted = data.fit_normalization("per_image", [batch])
    with pytest.raises(ValueError, match=r"'per_image' cannot be undone .* use 'global'"):
        training.denoising_loss(SCALED, DENSE["noise"], normalization=fitted)
