import io

import numpy as np
import pytest
from PIL import Image

from recon_jax.data.pictures import common_shape, decode_picture, picture_header, to_square


def encode(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def ramp(height, width, channels):
    values = np.arange(height * width * channels) * 7 % 256
    return values.reshape(height, width, channels).astype(np.uint8)


def test_grey_and_colour_survive_exactly():
    grey, colour = ramp(4, 6, 1), ramp(4, 6, 3)
    grey_file, colour_file = (
        encode(Image.fromarray(grey[..., 0])),
        encode(Image.fromarray(colour)),
    )
    assert picture_header(grey_file, "g") == (4, 6, 1)
    assert picture_header(colour_file, "c") == (4, 6, 3)
    np.testing.assert_array_equal(decode_picture(grey_file, 1, "g"), grey)
    np.testing.assert_array_equal(decode_picture(grey_file, 3, "g"), np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(decode_picture(colour_file, 3, "c"), colour)


def test_alpha_is_dropped_not_blended():
    rgba = np.concatenate([ramp(4, 4, 3), np.full((4, 4, 1), 10, np.uint8)], -1)
    file = encode(Image.fromarray(rgba))
    assert picture_header(file, "a") == (4, 4, 3)
    np.testing.assert_array_equal(decode_picture(file, 3, "a"), rgba[..., :3])


def test_palettes_with_transparency_are_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    file = encode(image, transparency=b"\x00\x80")
    assert picture_header(file, "p")[2] == 3
    np.testing.assert_array_equal(decode_picture(file, 3, "p"), [[[10, 20, 30], [200, 100, 50]]])


def test_cmyk_becomes_rgb():
    file = encode(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "JPEG")
    assert picture_header(file, "k") == (2, 3, 3)
    assert decode_picture(file, 3, "k").max() < 10


@pytest.mark.parametrize("function", [picture_header, lambda f, w: decode_picture(f, 1, w)])
def test_sixteen_bits_are_refused_rather_than_clipped(function):
    file = encode(Image.fromarray(np.full((2, 2), 1000, np.uint16)))
    with pytest.raises(ValueError, match=r"cannot read deep: pixels of mode I;16"):
        function(file, "deep")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_truncated_files_are_refused_by_name(file_format):
    file = encode(Image.fromarray(ramp(40, 40, 3)), file_format)
    with pytest.raises(ValueError, match="cannot read image seven"):
        decode_picture(file[: len(file) // 2], 3, "image seven")


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_other_files_are_refused_by_name(content):
    with pytest.raises(ValueError, match="cannot read image seven"):
        picture_header(content, "image seven")


@pytest.mark.parametrize("shape", [(6, 10, 3), (10, 6, 3)])
def test_the_central_square_is_taken(shape):
    image = ramp(*shape)
    middle = image[:, 2:8] if shape[1] == 10 else image[2:8]
    np.testing.assert_array_equal(to_square(image, 6), middle)


def test_without_a_size_nothing_changes():
    image = ramp(6, 10, 1)
    assert to_square(image, None) is image


def test_resizing_is_pillows_lanczos():
    image = ramp(9, 9, 3)
    expected = Image.fromarray(image).resize((5, 5), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(to_square(image, 5), np.asarray(expected))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resizing_keeps_dtype_channels_and_constant_images(dtype, channels):
    image = np.full((8, 12, channels), 3, dtype)
    image[..., -1] = 5
    small = to_square(image, 5)
    assert (small.shape, small.dtype) == ((5, 5, channels), dtype)
    np.testing.assert_allclose(small[..., 0], 5 if channels == 1 else 3, rtol=1e-6)
    np.testing.assert_allclose(small[..., -1], 5, rtol=1e-6)


def test_float_images_are_not_rounded_to_bytes():
    image = np.linspace(-2, 2, 64).reshape(8, 8, 1).astype(np.float32)
    small = to_square(image, 4)
    assert small.min() < -1
    assert len(np.unique(small)) == 16


def test_common_shape():
    assert common_shape([(4, 5, 1), (4, 5, 1)], None, "s") == (4, 5, 1)
    assert common_shape([(4, 5, 1), (4, 5, 3)], None, "s") == (4, 5, 3)
    assert common_shape([(4, 5, 1), (9, 9, 1)], 8, "s") == (8, 8, 1)
    with pytest.raises(ValueError, match=r"s: .* 4x5 and 9x8 .* image_size=N"):
        common_shape([(4, 5, 1), (4, 5, 1), (9, 8, 3)], None, "s")
