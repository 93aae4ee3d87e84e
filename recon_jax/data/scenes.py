"""Drawn scenes: a class is a shape, laid over noise of a chosen strength and spectrum.

How strong the background is, how large the object and how steep the spectrum decide how
reconstruction relates to recognition. Real images leave all three open; here each is a knob.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

import numpy as np

from recon_jax.checks import check_integer
from recon_jax.data.array_source import Source, check_indices
from recon_jax.data.scene_drawing import (
    coverage,
    draw_background,
    draw_layout,
    image_rng,
    shape_coefficients,
)

NUM_IMAGES = 10_000
MID_GREY = 128
CONTRAST = 40.0
"""Grey levels of unit contrast: the root mean square, over channels, of object minus mid-grey."""

_CHUNK_PIXELS = 2**19  # bounds the memory of one drawing step
_SPLIT_CODES = {"train": 0, "test": 1}


def scenes_source(
    *,
    split: str = "train",
    num_images: int = NUM_IMAGES,
    image_size: int = 32,
    num_classes: int = 10,
    object_scale: float = 0.5,
    background_amplitude: float = 0.5,
    background_exponent: float = 2.0,
    pose_spread: float = 1.0,
    colour_spread: float = 1.0,
    channels: int = 3,
    seed: int = 0,
) -> Source:
    """Scenes of one object over noise, drawn when read.

    The outline of class k is `r(theta) = 1 + sum_m a_m cos(m theta + phi_m)`, m = 2..7, with
    coefficients that (seed, k) decide and sum |a_m| = 0.65, scaled to largest radius 1. An image is

      128 + 40 * ((1 - coverage) * background + coverage * colour)

    rounded and clipped to 0..255. The object has a random place within the frame, rotation, size
    (0.9 to 1 times `object_scale`) and colour (root mean square 1 over channels), as random as the
    two spreads say; its edge is one pixel wide. The background is Gaussian noise, independent in
    each channel, with power proportional to (spatial frequency)^-background_exponent up to below
    the Nyquist frequency; each image's, before the object covers it, has mean 0 and standard
    deviation exactly `background_amplitude`, over pixels and channels. At amplitude 1 about 0.1% of
    the background is clipped, at 2 about 11%.

    Image i depends on (seed, split, i) and the options alone, and its label is i % num_classes.
    At another `image_size` it is the same scene: the same object, and the same background at the
    frequencies that both sizes have, up to the one factor that fixes the standard deviation.

    Args:
      split: "train" or "test", different scenes with the same shapes.
      num_images: at least 1.
      image_size: pixels a side, at least 4.
      num_classes: at least 1.
      object_scale: largest diameter of the object over the image side, in (0, 1].
      background_amplitude: standard deviation of the background over the contrast, >= 0.
      background_exponent: 0 is white, 2 is like natural images; any finite number.
      pose_spread: in [0, 1]. Places are uniform over this part of the room there is, around the
        middle, rotations over this part of a turn. At 1 hardly any linear map of the pixels tells
        the classes, at 0 any does.
      colour_spread: in [0, 1]. The colour is (1 - spread) white + spread z, z standard normal in
        each channel, scaled to root mean square 1. At 1 an object is as often dark as bright, and
        the classes have the same mean image; at 0 all objects are white.
      channels: 1 or 3, or more.
      seed: in [0, 2**64).

    Returns:
      A `Source` of uint8 images.

    Raises:
      ValueError: an argument is outside its range.
    """
    if split not in _SPLIT_CODES:
        raise ValueError(f"split={split!r} is not a split; choose one of {', '.join(_SPLIT_CODES)}")
    for option, value, lowest in (
        ("num_images", num_images, 1),
        ("image_size", image_size, 4),
        ("num_classes", num_classes, 1),
        ("channels", channels, 1),
        ("seed", seed, 0),
    ):
        check_integer(option, value, lowest)
    if not 0 < object_scale <= 1:
        raise ValueError(f"object_scale={object_scale!r} must be in (0, 1], a part of the side")
    if not 0 <= background_amplitude < np.inf:
        raise ValueError(f"background_amplitude={background_amplitude!r} must be 0 or more, finite")
    for option, value in (("pose_spread", pose_spread), ("colour_spread", colour_spread)):
        if not 0 <= value <= 1:
            raise ValueError(f"{option}={value!r} must be in [0, 1]; 1 is everything there is")
    if not np.isfinite(background_exponent):
        raise ValueError(f"background_exponent={background_exponent!r} must be finite")
    shapes = np.stack([shape_coefficients(seed, k) for k in range(num_classes)])
    chunk = max(1, _CHUNK_PIXELS // image_size**2)

    def draw(indices: np.ndarray) -> np.ndarray:
        rngs = [image_rng(seed, _SPLIT_CODES[split], int(i)) for i in indices]
        layout = draw_layout(rngs, object_scale, channels, pose_spread, colour_spread)
        cover = coverage(layout, shapes[indices % num_classes], image_size)[..., None]
        scene = cover * layout.colour[:, None, None, :]
        if background_amplitude > 0:
            noise = draw_background(rngs, image_size, channels, background_exponent)
            scene += (1 - cover) * background_amplitude * noise
        return np.clip(np.rint(MID_GREY + CONTRAST * scene), 0, 255).astype(np.uint8)

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = check_indices(indices, num_images, "scenes")
        images = np.empty((len(indices), image_size, image_size, channels), np.uint8)
        for start in range(0, len(indices), chunk):
            images[start : start + chunk] = draw(indices[start : start + chunk])
        return images, (indices % num_classes).astype(np.int32)

    label_names = tuple(f"shape {k}" for k in range(num_classes))
    shape = (image_size, image_size, channels)
    return Source("scenes", split, num_images, shape, label_names, read)


def open_scenes(
    address: str,
    *,
    split: str = "train",
    image_size: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
) -> Source:
    """Opens scenes described by a query string.

    Args:
      address: options of `scenes_source`, such as "object_scale=0.25&seed=3"; may be empty.
      split: "train" or "test".
      image_size: pixels a side to draw at, if the options do not say it.
      data_dir: not used.
      limit: draw no more images than this; classes take turns, so they stay balanced.

    Returns:
      A `Source`.

    Raises:
      ValueError: an unknown option, a value of the wrong kind or range, or two image sizes.
    """
    del data_dir
    options: dict[str, int | float] = {}
    for option, text in parse_qsl(address, keep_blank_values=True):
        if option not in _OPTIONS or option in options:
            problem = "given twice" if option in options else "unknown"
            raise ValueError(
                f"scenes:{address}: option {option!r} is {problem}; "
                f"the options, each at most once, are {', '.join(_OPTIONS)}"
            )
        try:
            options[option] = _OPTIONS[option](text)
        except ValueError:
            kind = "a whole number" if _OPTIONS[option] is int else "a number"
            raise ValueError(f"scenes:{address}: {option}={text!r} is not {kind}") from None
    if image_size is not None and options.setdefault("image_size", image_size) != image_size:
        raise ValueError(
            f"scenes:{address}: image_size={options['image_size']} in the name and "
            f"image_size={image_size} beside it; give one of them"
        )
    if limit is not None:
        options["num_images"] = min(limit, options.get("num_images", NUM_IMAGES))
    return scenes_source(split=split, **options)


_OPTIONS = {
    "num_images": int,
    "image_size": int,
    "num_classes": int,
    "object_scale": float,
    "background_amplitude": float,
    "background_exponent": float,
    "pose_spread": float,
    "colour_spread": float,
    "channels": int,
    "seed": int,
}
