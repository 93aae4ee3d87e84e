"""Encoded pictures (PNG, JPEG, ...) to square uint8 arrays, with Pillow."""

from __future__ import annotations

import io
from os import PathLike

import numpy as np
from PIL import Image

_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
# What Pillow raises for a damaged file depends on the format and on where the damage is.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def picture_header(picture: bytes | str | PathLike, where: str) -> tuple[int, int, int]:
    """Returns (height, width, channels) without decoding the pixels.

    Channels are 1 for greyscale and 3 for everything else; alpha does not count.

    Args:
      picture: the bytes of an image file, or its path.
      where: what to call it in an error.

    Raises:
      ValueError: Pillow cannot read it, or it has more than 8 bits a channel.
    """
    try:
        with Image.open(_file(picture)) as image:
            return image.height, image.width, _channels(image)
    except _PILLOW_ERRORS as error:
        raise ValueError(
            f"cannot read {where}: {error}; if it is damaged, restore it from a good copy"
        ) from error


def decode_picture(picture: bytes | str | PathLike, channels: int, where: str) -> np.ndarray:
    """Decodes one picture to uint8 `(H, W, channels)`.

    Alpha is dropped, palettes are looked up, and greyscale is repeated when 3 channels are asked.

    Args:
      picture: the bytes of an image file, or its path.
      channels: 1 or 3.
      where: what to call it in an error.

    Raises:
      ValueError: Pillow cannot read it, or it has more than 8 bits a channel.
    """
    try:
        with Image.open(_file(picture)) as image:
            _channels(image)
            if image.mode in ("P", "PA"):
                # Straight to RGB, Pillow warns about palettes that hold transparency.
                image = image.convert("RGBA")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except _PILLOW_ERRORS as error:
        raise ValueError(
            f"cannot read {where}: {error}; if it is damaged, restore it from a good copy"
        ) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def to_square(image: np.ndarray, image_size: int | None) -> np.ndarray:
    """Crops the central square and resizes it (Lanczos) to `image_size` pixels a side.

    Args:
      image: `(H, W, C)`, uint8 or floating point.
      image_size: pixels a side, at least 1; None leaves the image as it is.

    Returns:
      `(image_size, image_size, C)` of the same dtype.
    """
    if image_size is None:
        return image
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    if side == image_size:
        return image
    # One channel at a time: Pillow has no mode for several floating-point channels.
    working = np.uint8 if image.dtype == np.uint8 else np.float32
    planes = [
        np.asarray(Image.fromarray(plane).resize((image_size,) * 2, Image.Resampling.LANCZOS))
        for plane in np.ascontiguousarray(np.moveaxis(image, -1, 0), working)
    ]
    return np.stack(planes, -1).astype(image.dtype)


def common_shape(
    headers: list[tuple[int, int, int]], image_size: int | None, name: str
) -> tuple[int, int, int]:
    """The (H, W, C) that all images will have.

    Args:
      headers: (height, width, channels) of each image, at least one.
      image_size: pixels a side to resize to, or None.
      name: what to call the source in an error.

    Returns:
      (H, W, C); C is 3 as soon as one image has colour.

    Raises:
      ValueError: the images differ in size and no `image_size` was given.
    """
    channels = max(header[2] for header in headers)
    if image_size is not None:
        return image_size, image_size, channels
    height, width = headers[0][:2]
    for other in headers:
        if other[:2] != (height, width):
            raise ValueError(differing_sizes(name, (height, width), other))
    return height, width, channels


def differing_sizes(name: str, first: tuple[int, ...], second: tuple[int, ...]) -> str:
    """The message for images of two sizes, each (height, width, ...), with the way out."""
    return (
        f"{name}: images differ in size: {first[0]}x{first[1]} and {second[0]}x{second[1]} pixels "
        "(height x width); pass image_size=N to crop and resize all of them to N x N"
    )


def _file(picture: bytes | str | PathLike):
    return io.BytesIO(picture) if isinstance(picture, bytes) else picture


def _channels(image: Image.Image) -> int:
    if image.mode in _GREY_MODES:
        return 1
    if image.mode in _COLOUR_MODES:
        return 3
    # Pillow would clip 16-bit pixels to 255, a white image, without an error.
    raise ValueError(
        f"pixels of mode {image.mode} are not supported; convert it to 8 bits a channel"
    )
