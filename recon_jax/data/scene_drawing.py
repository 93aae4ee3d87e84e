"""The parts of a drawn scene: the outline of a class, where the object lies, and the noise behind.

Everything is drawn from one generator an image, and in units of the image side, so that the same
generator gives the same scene at every resolution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_HARMONICS = np.arange(2, 8)
_MODULATION = 0.65  # sum of |a_m|: below 1, so that the radius stays positive
_JITTER = (0.9, 1.0)
_SHAPE_STREAM, _IMAGE_STREAM = 0, 1


class Layout(NamedTuple):
    """Where objects lie, in units of the image side: x to the right, y down, origin top left."""

    centre: np.ndarray  # (n, 2) as (x, y)
    rotation: np.ndarray  # (n,) radians
    radius: np.ndarray  # (n,) largest distance of the outline from the centre
    colour: np.ndarray  # (n, channels), root mean square 1


def image_rng(seed: int, split_code: int, index: int) -> np.random.Generator:
    """A generator of its own for each image: Philox finds any place in its stream at once."""
    counter = [0, index, split_code, 0]
    return np.random.Generator(np.random.Philox(key=[seed, _IMAGE_STREAM], counter=counter))


def shape_coefficients(seed: int, label: int) -> np.ndarray:
    """Complex `a_m exp(i phi_m)`, m = 2..7, and last the mean radius, for a largest radius of 1."""
    rng = np.random.Generator(np.random.Philox(key=[seed, _SHAPE_STREAM], counter=[0, label, 0, 0]))
    sizes = np.abs(rng.standard_normal(len(_HARMONICS))) / np.sqrt(_HARMONICS)
    sizes *= _MODULATION / sizes.sum()
    waves = sizes * np.exp(2j * np.pi * rng.random(len(_HARMONICS)))
    angles = np.linspace(0, 2 * np.pi, 2048, endpoint=False)
    radius = 1 + (np.exp(1j * np.outer(angles, _HARMONICS)) @ waves).real
    return np.append(waves, 1) / radius.max()


def draw_layout(
    rngs: list[np.random.Generator],
    object_scale: float,
    channels: int,
    pose_spread: float = 1.0,
    colour_spread: float = 1.0,
) -> Layout:
    """Draws where each object lies, and its colour: the first numbers of each generator.

    The spreads take the places from the middle of the frame to all of it, the rotations from half a
    turn to any, and the colours from white to any.
    """
    uniform = np.stack([rng.random(4) for rng in rngs])
    place, turn = (0.5 + pose_spread * (part - 0.5) for part in (uniform[:, :2], uniform[:, 3]))
    normal = np.stack([rng.standard_normal(channels) for rng in rngs])
    colour = 1 - colour_spread + colour_spread * normal
    radius = object_scale / 2 * (_JITTER[0] + (_JITTER[1] - _JITTER[0]) * uniform[:, 2])
    return Layout(
        centre=radius[:, None] + place * (1 - 2 * radius[:, None]),
        rotation=2 * np.pi * turn,
        radius=radius,
        colour=colour / np.sqrt(np.mean(colour**2, axis=1, keepdims=True)),
    )


def coverage(layout: Layout, shapes: np.ndarray, image_size: int) -> np.ndarray:
    """How much of each pixel the object covers.

    The edge is a ramp one pixel wide: 1/2 plus the distance of the pixel's centre to the outline,
    inwards, in pixels. The distance is that of the first order, (r(theta) - rho) over the length of
    its gradient.

    Args:
      layout: of n objects.
      shapes: `(n, 7)` from `shape_coefficients`.
      image_size: pixels a side.

    Returns:
      `(n, image_size, image_size)` in [0, 1].
    """
    grid = (np.arange(image_size) + 0.5) / image_size
    right = grid[None, None, :] - layout.centre[:, 0, None, None]
    down = grid[None, :, None] - layout.centre[:, 1, None, None]
    distance = np.hypot(right, down)
    # Any direction will do at the very centre, which is always inside.
    turned = (right + 1j * down) * np.exp(-1j * layout.rotation)[:, None, None]
    direction = turned / np.maximum(distance, 1e-12)
    radius, slope = _outline(direction, shapes)
    radius *= layout.radius[:, None, None]
    slope *= layout.radius[:, None, None]
    inwards = (radius - distance) / np.sqrt(1 + (slope / radius) ** 2)
    return np.clip(0.5 + inwards * image_size, 0, 1)


def draw_background(
    rngs: list[np.random.Generator], image_size: int, channels: int, exponent: float
) -> np.ndarray:
    """Power-law Gaussian noise `(n, image_size, image_size, channels)`, each of mean 0 and std 1.

    The coefficients are drawn from low to high frequency, so that a smaller image takes the
    beginning of what a larger one takes.
    """
    across, down = _frequencies((image_size - 1) // 2)
    size = np.hypot(across, down) ** (-exponent / 2)
    normal = np.stack([rng.standard_normal((len(across), channels, 2)) for rng in rngs])
    # Pixels are sampled at their centres, (j + 1/2) / image_size, at every resolution.
    half_pixel = np.exp(1j * np.pi * (across + down) / image_size)
    waves = (normal[..., 0] + 1j * normal[..., 1]) * (size * half_pixel)[:, None]
    spectrum = np.zeros((len(rngs), image_size, image_size // 2 + 1, channels), complex)
    spectrum[:, down, across] = waves
    # A real image has conjugate pairs; with across = 0, both of a pair are stored.
    column = across == 0
    spectrum[:, -down[column], 0] = waves[:, column].conj()
    noise = np.fft.irfft2(spectrum, s=(image_size, image_size), axes=(1, 2))
    power = np.mean(np.reshape(noise**2, (len(rngs), -1)), axis=1)
    return noise / np.sqrt(power)[:, None, None, None]


def _outline(direction: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radius r and dr/dtheta at unit complex directions `(n, h, w)`, by Horner's rule."""
    waves = np.zeros_like(direction)
    slopes = np.zeros_like(direction)
    for m, wave in zip(_HARMONICS[::-1], shapes[:, -2::-1].T, strict=True):
        waves = waves * direction + wave[:, None, None]
        slopes = slopes * direction + m * wave[:, None, None]
    # A power of a complex array would take longer than all the rest; _HARMONICS begin at 2.
    lowest = direction * direction
    mean = shapes[:, -1].real[:, None, None]
    return mean + (waves * lowest).real, -(slopes * lowest).imag


def _frequencies(highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Half of all (across, down) with 0 < max(|across|, |down|) <= highest, low ones first.

    The other half are their negatives.
    """
    across, down = np.meshgrid(np.arange(highest + 1), np.arange(-highest, highest + 1))
    across, down = across.ravel(), down.ravel()
    half = (across > 0) | (down > 0)
    across, down = across[half], down[half]
    shell = np.maximum(across, np.abs(down))
    order = np.lexsort((down, across, shell))
    return across[order], down[order]
