import numpy as np
import pytest

from recon_jax.data import open_source, scenes_source
from recon_jax.data.scene_drawing import (
    coverage,
    draw_background,
    draw_layout,
    image_rng,
    shape_coefficients,
)
from recon_jax.data.scenes import CONTRAST, MID_GREY


def read(source, *indices):
    return source.read(np.array(indices))[0]


def rngs(n, seed=0):
    return [image_rng(seed, 0, i) for i in range(n)]


def masks(n, size, object_scale=0.5, num_classes=10):
    layout = draw_layout(rngs(n), object_scale, 3)
    shapes = np.stack([shape_coefficients(0, i % num_classes) for i in range(n)])
    return layout, coverage(layout, shapes, size)


def test_source_says_what_it_gives():
    source = scenes_source(num_images=25, image_size=16, num_classes=4, split="test")
    assert source.split == "test"
    assert source.label_names == ("shape 0", "shape 1", "shape 2", "shape 3")
    images, labels = source.read(np.arange(25))
    assert (images.shape, images.dtype) == ((25, 16, 16, 3), np.uint8)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.arange(25) % 4)
    assert images[:0].shape == source.read(np.array([], int))[0].shape


def test_an_image_does_not_depend_on_what_else_is_read():
    source = scenes_source(num_images=2000)
    together = source.read(np.arange(2000))[0]
    for i in range(0, 2000, 37):
        np.testing.assert_array_equal(read(source, i)[0], together[i])
    np.testing.assert_array_equal(read(source, 900, 3), together[[900, 3]])
    np.testing.assert_array_equal(read(scenes_source(num_images=5), 4)[0], together[4])


def test_images_splits_and_seeds_differ():
    train = read(scenes_source(), 0, 10, 20)
    assert len({image.tobytes() for image in train}) == 3
    for other in (scenes_source(split="test"), scenes_source(seed=1)):
        assert (read(other, 0) != train[:1]).mean() > 0.5


def test_train_and_test_share_the_shapes_and_seeds_do_not():
    np.testing.assert_array_equal(shape_coefficients(3, 2), shape_coefficients(3, 2))
    assert not np.allclose(shape_coefficients(3, 2), shape_coefficients(4, 2))
    assert not np.allclose(shape_coefficients(3, 2), shape_coefficients(3, 1))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("size", [4, 15, 32])
def test_background_has_exactly_the_stated_strength(size, exponent):
    noise = draw_background(rngs(20), size, 3, exponent)
    assert noise.shape == (20, size, size, 3)
    np.testing.assert_allclose(noise.mean(axis=(1, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), 1, rtol=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_background_spectrum_falls_as_stated(exponent):
    size = 32
    noise = draw_background(rngs(400), size, 1, exponent)[..., 0]
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    k = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(*np.meshgrid(k, k))
    # The highest frequency of an even size is left out.
    inside = (np.abs(k)[:, None] < size / 2) & (np.abs(k)[None] < size / 2) & (radius > 0)
    assert power[~inside].max() < 1e-9 * power.max()
    slope = np.polyfit(np.log(radius[inside]), np.log(power[inside]), 1)[0]
    assert abs(slope + exponent) < 0.05
    # No direction stands out: one that is drawn twice, or half as often, is a factor 2 off.
    flat = power * np.where(radius > 0, radius, 1) ** exponent
    np.testing.assert_allclose(flat[inside] / flat[inside].mean(), 1, atol=0.35)
    np.testing.assert_allclose(flat[0, 1:16].mean() / flat[inside].mean(), 1, atol=0.1)
    np.testing.assert_allclose(flat[1:16, 0].mean() / flat[inside].mean(), 1, atol=0.1)


def test_background_channels_are_independent():
    noise = draw_background(rngs(100), 16, 2, 1.0)
    correlation = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert abs(correlation) < 0.03


def test_background_is_gaussian():
    noise = draw_background(rngs(200), 32, 1, 0.0).ravel()
    assert abs(np.mean(noise**4) - 3) < 0.05


@pytest.mark.parametrize(("small", "large"), [(16, 32), (15, 32), (16, 64)])
def test_background_is_the_same_field_at_every_resolution(small, large):
    """Evaluates the small field's Fourier series at the pixel centres of the large image."""
    coarse = draw_background(rngs(5), small, 2, 2.0)
    fine = draw_background(rngs(5), large, 2, 2.0)
    highest = (small - 1) // 2
    k = np.arange(-highest, highest + 1)

    def coefficients(field):
        size = field.shape[1]
        waves = np.exp(-2j * np.pi * np.outer(k, (np.arange(size) + 0.5) / size)) / size
        return np.einsum("ka,lb,nabc->nklc", waves, waves, field)

    a, b = coefficients(coarse), coefficients(fine)
    factor = (a * b.conj()).sum((1, 2, 3)).real / (np.abs(b) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(a, factor[:, None, None, None] * b, atol=1e-12)
    assert (factor > 1).all()  # the large image spends a part of its variance on finer detail


def test_objects_lie_where_the_layout_says_at_every_resolution():
    for size in (16, 32, 128):
        layout, cover = masks(60, size)
        grid = (np.arange(size) + 0.5) / size
        right = grid[None, None] - layout.centre[:, 0, None, None]
        down = grid[None, :, None] - layout.centre[:, 1, None, None]
        distance = np.hypot(right, down)
        # Nothing beyond the largest radius, half a pixel of edge apart; something close to it.
        assert cover[distance > layout.radius[:, None, None] + 1 / size].max() == 0
        furthest = np.where(cover > 0.01, distance, 0).max(axis=(1, 2))
        assert (furthest > layout.radius - 1.5 / size).all()
        if size == 128:  # at lower ones, the edge's ramp can reach the centre
            assert (cover[distance < 0.1 * layout.radius[:, None, None]] == 1).all()


def test_objects_keep_their_area_across_resolutions():
    areas = {size: masks(40, size)[1].mean(axis=(1, 2)) for size in (16, 32, 128)}
    np.testing.assert_allclose(areas[32], areas[128], rtol=0.02)
    np.testing.assert_allclose(areas[32].mean(), areas[128].mean(), rtol=0.01)
    np.testing.assert_allclose(areas[16].mean(), areas[128].mean(), rtol=0.03)


def test_edges_are_anti_aliased():
    """Each pixel is close to the average of the fine drawing over it."""
    fine = masks(20, 256)[1].reshape(20, 32, 8, 32, 8).mean(axis=(2, 4))
    coarse = masks(20, 32)[1]
    assert np.abs(coarse - fine).mean() < 0.006
    partial = (fine > 0.05) & (fine < 0.95)
    assert np.abs(coarse - fine)[partial].mean() < 0.1
    assert ((coarse > 0) & (coarse < 1)).mean() > 0.5 * partial.mean()


@pytest.mark.parametrize("object_scale", [0.2, 0.5, 1.0])
def test_objects_stay_within_the_frame(object_scale):
    layout, cover = masks(300, 24, object_scale)
    assert (layout.radius <= object_scale / 2).all()
    assert (layout.radius >= 0.9 * object_scale / 2).all()
    assert (layout.centre - layout.radius[:, None] >= 0).all()
    assert (layout.centre + layout.radius[:, None] <= 1).all()
    if object_scale < 1:  # they wander over all the room there is
        assert layout.centre.min() < object_scale / 2 + 0.05
        assert layout.centre.max() > 1 - object_scale / 2 - 0.05
    assert 0.15 < cover.mean() / (np.pi * object_scale**2 / 4) < 0.8


def test_objects_turn_by_the_rotation():
    layout, _ = masks(4, 8)
    layout = layout._replace(centre=np.full((4, 2), 0.5), radius=np.full(4, 0.45))
    shapes = np.repeat(shape_coefficients(0, 3)[None], 4, axis=0)
    quarters = layout._replace(rotation=np.arange(4) * np.pi / 2)
    cover = coverage(quarters, shapes, 40)
    for k in range(4):  # clockwise on the screen, as y points down
        np.testing.assert_allclose(cover[k], np.rot90(cover[0], -k), atol=1e-9)
    assert np.abs(cover[1] - cover[0]).max() > 0.5
    rotations = draw_layout(rngs(1000), 0.5, 3).rotation
    assert (np.abs(np.histogram(rotations, 4, (0, 2 * np.pi))[0] - 250) < 60).all()


def test_without_pose_spread_objects_differ_in_size_alone():
    layout = draw_layout(rngs(50), 0.5, 3, pose_spread=0.0)
    np.testing.assert_allclose(layout.centre, 0.5)
    np.testing.assert_allclose(layout.rotation, np.pi)
    assert len(np.unique(layout.radius)) == 50
    free = draw_layout(rngs(50), 0.5, 3)
    np.testing.assert_array_equal(layout.radius, free.radius)
    np.testing.assert_array_equal(layout.colour, free.colour)


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_pose_spread_is_the_part_of_the_room_and_of_the_turn(spread):
    layout = draw_layout(rngs(2000), 0.5, 3, pose_spread=spread)
    room = 1 - 2 * layout.radius[:, None]
    offset = (layout.centre - 0.5) / room
    turn = layout.rotation / (2 * np.pi) - 0.5
    for part in (offset, turn):
        assert np.abs(part).max() <= spread / 2
        np.testing.assert_allclose(part.std(), spread / np.sqrt(12), rtol=0.05)


def test_colour_spread_goes_from_white_to_any():
    white = draw_layout(rngs(300), 0.5, 3, colour_spread=0.0).colour
    np.testing.assert_allclose(white, 1)
    some = draw_layout(rngs(300), 0.5, 3, colour_spread=0.3).colour
    free = draw_layout(rngs(300), 0.5, 3, colour_spread=1.0).colour
    for colour in (some, free):
        np.testing.assert_allclose(np.mean(colour**2, axis=1), 1)
    assert some.mean() > 0.8
    assert abs(free.mean()) < 0.1
    # Between, the colour of an object lies between white and the one it would have.
    weights = np.stack(
        [
            np.linalg.lstsq(np.stack([w, f]).T, s)[0]
            for w, f, s in zip(white, free, some, strict=True)
        ]
    )
    assert (weights > 0).all()


def test_without_spread_the_class_means_differ_and_with_it_they_do_not():
    def contrast(**spreads):
        source = scenes_source(
            num_images=3000, image_size=16, num_classes=3, background_amplitude=0.0, **spreads
        )
        images, labels = source.read(np.arange(3000))
        means = np.stack([images[labels == k].mean(0) for k in range(3)])
        return means.std(0).mean() / images.std()

    assert contrast(pose_spread=0.0, colour_spread=0.0) > 0.1
    assert contrast() < 0.03  # sampling noise alone


def test_outlines_are_positive_and_have_largest_radius_one():
    angles = np.linspace(0, 2 * np.pi, 721)
    waves = np.exp(1j * np.outer(np.arange(2, 8), angles))
    for label in range(20):
        shape = shape_coefficients(0, label)
        radius = shape[-1].real + (shape[:-1] @ waves).real
        assert radius.min() > 0.2
        assert abs(radius.max() - 1) < 1e-3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_rotation_makes_two_outlines_alike(seed):
    angles = 2 * np.pi * np.arange(512) / 512
    waves = np.exp(1j * np.outer(np.arange(2, 8), angles))
    shapes = np.stack([shape_coefficients(seed, k) for k in range(10)])
    outlines = shapes[:, -1:].real + (shapes[:, :-1] @ waves).real
    spectra = np.fft.fft(outlines)
    overlap = np.fft.ifft(spectra[:, None] * spectra.conj()[None]).real.max(axis=-1)
    power = (outlines**2).sum(axis=1)
    distance = np.sqrt(np.maximum(power[:, None] + power - 2 * overlap, 0) / 512)
    # Root mean square of the radius, of which the largest is 1.
    assert distance[~np.eye(10, dtype=bool)].min() > 0.06


def test_an_object_without_background_has_unit_contrast():
    source = scenes_source(background_amplitude=0.0, object_scale=0.9, image_size=64)
    for i in range(10):
        image = read(source, i)[0].astype(float) - MID_GREY
        levels, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        first, second = levels[np.argsort(counts)[::-1][:2]]
        colour = second if not first.any() else first
        assert not (first if colour is second else second).any()
        assert abs(np.sqrt(np.mean(colour**2)) - CONTRAST) < 0.5


def test_background_amplitude_is_in_units_of_contrast():
    for amplitude in (0.25, 0.5):
        source = scenes_source(background_amplitude=amplitude, object_scale=0.01, num_images=20)
        images = source.read(np.arange(20))[0].astype(float)
        np.testing.assert_allclose(images.std((1, 2, 3)), amplitude * CONTRAST, rtol=0.02)
        np.testing.assert_allclose(images.mean((1, 2, 3)), MID_GREY, atol=0.3)


def test_strong_backgrounds_are_clipped_not_wrapped():
    source = scenes_source(background_amplitude=2.0, object_scale=0.01, num_images=50)
    images = source.read(np.arange(50))[0]
    at_the_ends = ((images == 0) | (images == 255)).mean()
    assert 0.08 < at_the_ends < 0.14
    # Wrapping would put black next to white in the smoothest of noise.
    smooth = scenes_source(background_amplitude=2.0, background_exponent=8.0, object_scale=0.01)
    steps = np.diff(smooth.read(np.arange(50))[0].astype(int), axis=1)
    assert np.abs(steps).max() < 100


def test_the_object_hides_the_background():
    bare = scenes_source(background_amplitude=0.0, object_scale=0.9)
    noisy = scenes_source(background_amplitude=1.0, object_scale=0.9)
    cover = masks(30, 32, 0.9)[1]
    a, b = bare.read(np.arange(30))[0], noisy.read(np.arange(30))[0]
    np.testing.assert_array_equal(a[cover == 1], b[cover == 1])
    assert (a[cover == 0] != b[cover == 0]).mean() > 0.9


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels(channels):
    images = read(scenes_source(channels=channels), 0, 1)
    assert images.shape == (2, 32, 32, channels)


def test_shape_alone_tells_the_class():
    """Draws every class at the place, rotation and size of each object, and takes the nearest."""
    layout, cover = masks(60, 48, 0.9)
    templates = coverage(
        layout._replace(
            centre=np.repeat(layout.centre, 10, 0),
            rotation=np.repeat(layout.rotation, 10),
            radius=np.repeat(layout.radius, 10),
        ),
        np.tile(np.stack([shape_coefficients(0, k) for k in range(10)]), (60, 1)),
        48,
    ).reshape(60, 10, 48, 48)
    distances = ((templates - cover[:, None]) ** 2).sum((2, 3))
    np.testing.assert_array_equal(distances.argmin(1), np.arange(60) % 10)
    distances[np.arange(60), np.arange(60) % 10] = np.inf
    assert distances.min() > 20  # pixels: no two classes nearly coincide


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("split", "validation"),
        ("num_images", 0),
        ("image_size", 3),
        ("num_classes", 0),
        ("channels", 0),
        ("seed", -1),
        ("object_scale", 0.0),
        ("object_scale", 1.01),
        ("object_scale", float("nan")),
        ("background_amplitude", -0.1),
        ("background_amplitude", float("inf")),
        ("background_exponent", float("nan")),
        ("pose_spread", -0.1),
        ("pose_spread", 1.1),
        ("colour_spread", float("nan")),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"{option}={value!r}"):
        scenes_source(**{option: value})


def test_the_name_carries_the_options():
    name = "scenes:image_size=16&background_amplitude=1.5&num_images=12&seed=3"
    source = open_source(name, "test")
    assert (source.name, source.split, source.num_images) == (name, "test", 12)
    direct = scenes_source(
        split="test", image_size=16, background_amplitude=1.5, num_images=12, seed=3
    )
    np.testing.assert_array_equal(read(source, 5, 7), read(direct, 5, 7))


def test_size_and_limit_beside_the_name():
    source = open_source("scenes:seed=1", image_size=8, limit=20)
    np.testing.assert_array_equal(read(source, 3), read(scenes_source(seed=1, image_size=8), 3))
    assert source.num_images == 20
    assert open_source("scenes:num_images=5", limit=20).num_images == 5
    assert open_source("scenes:image_size=8", image_size=8).image_shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scenes:size=16", "option 'size' is unknown; .*image_size"),
        ("scenes:seed=1&seed=2", "option 'seed' is given twice"),
        ("scenes:seed=1.5", "seed='1.5' is not a whole number"),
        ("scenes:object_scale=big", "object_scale='big' is not a number"),
        ("scenes:seed", "seed='' is not a whole number"),
        ("scenes:object_scale=2", r"object_scale=2\.0 must be in"),
        ("scenes:split=test", "option 'split' is unknown"),
    ],
)
def test_bad_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        open_source(name)


def test_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"image_size=16 in the name and image_size=32 beside"):
        open_source("scenes:image_size=16", image_size=32)
