"""From the bytes of an image file to a square of uint8 pixels."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

# Pillow knows formats that start other programs (EPS calls Ghostscript). These never do.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip

#: (width, height) of an image -> side of the centred square that is kept.
Crop = Callable[[int, int], int]


def decode(data: bytes, size: int, channels: int = 3, crop: Crop = min) -> np.ndarray:
    """Decode, turn upright, crop the centred square, resize: uint8 (size, size, channels).

    Grey, palette, CMYK and 16-bit images (their high byte) become plain RGB, or grey where
    `channels` is 1; what is transparent shows white; of an animation the first frame is taken.
    The filter is Lanczos with anti-aliasing: it decides the bits/dim one can reach, so
    it is part of the cache's key.

    Raises: ValueError, whatever is wrong with the bytes.
    """
    return square(read(data, channels), size, crop)


def read(data: bytes, channels: int = 3) -> Image.Image:
    """Decode and turn upright: a picture of any size, RGB, or grey where `channels` is 1.

    Raises: ValueError, whatever is wrong with the bytes.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _plain(image, channels)
    # Pillow's readers raise nearly anything on damaged files: OSError, SyntaxError, struct.error …
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = "unknown format" if "cannot identify" in reason else reason
        raise ValueError(reason) from error


def square(image: Image.Image, size: int, crop: Crop = min) -> np.ndarray:
    """The centred square of side `crop(w, h)`, resized: uint8 (size, size, channels)."""
    w, h = image.size
    side = crop(w, h)
    left, top = (w - side) // 2, (h - side) // 2
    # Cropped first: with its own `box`, resize would look at pixels outside the square.
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, -1)


def _plain(image: Image.Image, channels: int) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("pixels of more than 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "LAB":  # Pillow has no way from it to grey
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")
