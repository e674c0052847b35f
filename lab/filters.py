"""Styles that are made from another style's picture, so that the true picture is exact and needs no further licence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
"""(height, width, 3), 0 to 1; drawings stand on white."""


def rgb(code: str) -> Floats:
    """'#ff8000' as three numbers from 0 to 1."""
    return np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


def edges(picture: Floats, blur: float) -> Floats:
    """How much the picture changes at each pixel, 0 to 1; (height, width, 1)."""
    image = Image.fromarray((picture * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    grey = np.asarray(image, np.float32)
    across = np.abs(grey[1:-1, 2:] - grey[1:-1, :-2]).max(-1)
    down = np.abs(grey[2:, 1:-1] - grey[:-2, 1:-1]).max(-1)
    return np.pad(np.clip(np.hypot(across, down) / 40, 0, 1), 1)[..., None]


def lightness(picture: Floats) -> Floats:
    return picture @ np.array([0.3, 0.59, 0.11], np.float32)[:, None]


def outside(picture: Floats) -> Floats:
    """1 on the white around the drawing, 0 on the drawing, white parts inside included."""
    white = Image.fromarray(((picture.min(-1) > 0.97) * 255).astype(np.uint8)).convert("L")
    framed = Image.new("L", (white.width + 2, white.height + 2), 255)
    framed.paste(white, (1, 1))
    ImageDraw.floodfill(framed, (0, 0), 128)
    reached = np.asarray(framed)[1:-1, 1:-1] == 128
    mask = Image.fromarray((reached * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.0))
    return np.asarray(mask, np.float32)[..., None] / 255


def mix(a: Floats, b: Floats, share: Floats) -> Floats:
    """a where the share is 0, b where it is 1."""
    return a * (1 - share) + b * share


def ramp(share: Floats, *codes: str) -> Floats:
    """The first colour where the share is 0, the last where it is 1, the others evenly between; (height, width, 3)."""
    stops = np.linspace(0, 1, len(codes))
    channels = np.stack([rgb(code) for code in codes], 1)
    return np.stack([np.interp(share[..., 0], stops, channel) for channel in channels], -1).astype(np.float32)


def sketch(picture: Floats) -> Floats:
    grey = (1 - 0.85 * edges(picture, 2.0)) * (0.85 + 0.15 * lightness(picture))
    return np.repeat(grey, 3, -1)


def blueprint(picture: Floats) -> Floats:
    return mix(rgb("#1a40a6"), rgb("#ebf5ff"), edges(picture, 2.0))


def pixel(picture: Floats) -> Floats:
    small = Image.fromarray((picture * 255).astype(np.uint8)).resize((12, 12), Image.Resampling.BOX)
    large = small.resize(picture.shape[1::-1], Image.Resampling.NEAREST)
    return np.round(np.asarray(large, np.float32) / 255 * 5) / 5


def night(picture: Floats) -> Floats:
    return mix(picture * np.array([0.75, 0.8, 1.0], np.float32), rgb("#101c4a"), outside(picture))


def chalk(picture: Floats) -> Floats:
    ground = mix(rgb("#1d5a3c"), rgb("#5f8f6a"), (1 - outside(picture)) * lightness(picture))
    return mix(ground, rgb("#f4f4e6"), 0.9 * edges(picture, 2.4))


def sepia(picture: Floats) -> Floats:
    return mix(rgb("#5a2f12"), rgb("#f6e3bf"), lightness(picture))


def poster(picture: Floats) -> Floats:
    flat = np.round(picture * 2) / 2
    return mix(flat, rgb("#ff9d2e"), outside(picture))


def neon(picture: Floats) -> Floats:
    hue = picture / np.maximum(picture.max(-1, keepdims=True), 0.05)
    grey = picture.std(-1, keepdims=True) < 0.06
    return edges(picture, 2.6) * np.where(grey, rgb("#1affff"), hue**2.5)


def duotone(picture: Floats) -> Floats:
    return mix(rgb("#460a78"), rgb("#ffe146"), lightness(picture))


def thermal(picture: Floats) -> Floats:
    heat = ramp(lightness(picture), "#3b0f70", "#c73a76", "#fd9a6a", "#fcfdbf")
    return mix(heat, rgb("#050314"), outside(picture))


FILTERS: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "sketch": ("noto", sketch),
    "blueprint": ("twemoji", blueprint),
    "pixel": ("notoold", pixel),
    "night": ("noto", night),
    "chalk": ("fluentflat", chalk),
    "sepia": ("noto", sepia),
    "poster": ("twemoji", poster),
    "neon": ("fluentflat", neon),
    "duotone": ("noto", duotone),
    "thermal": ("twemoji", thermal),
}
"""The set that a style is made from, and how."""
