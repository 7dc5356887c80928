"""Turns an image that PIL opened into a network's input, with PIL and NumPy alone.

The script that is delivered beside a model holds a copy of this file's source, so the file imports nothing else.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

# Names of Pillow's readers for photos and drawings. No other reader is used, whatever a file's name ends with: some of them
# start programs (PostScript starts Ghostscript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# The most pixels that an image may have, as 8192 x 8192: 200 MB decoded. A file of a few hundred bytes may claim any number.
PIXELS = 2**26


class TooLarge(ValueError):
    """An image has more than `PIXELS` pixels, or would have them after scaling."""


def open_image(file: Any) -> Image.Image:
    """Opens a path or a binary file in one of `FORMATS`, and returns the image, of which only the header is read yet.

    Raises:
        TooLarge: the image has more than `PIXELS` pixels.
        OSError: the file is in none of the formats.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow raises this beyond twice its own limit
        raise TooLarge(f"it has more than {PIXELS:,} pixels; scale it down") from error
    check_pixels("it is", image.width, image.height)
    return image


def check_pixels(what: str, width: int, height: int) -> None:
    """Refuses an image of more than `PIXELS` pixels.

    Raises:
        TooLarge: the image has more.
    """
    if width * height > PIXELS:
        raise TooLarge(f"{what} {width}x{height}, more than {PIXELS:,} pixels; scale it down")


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Returns the image upright (EXIF) in PIL mode "RGB" or "L"; 16-bit grey is scaled, transparency is dropped."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # PIL would clip 16-bit values to 255 instead of scaling them
        upright = Image.fromarray((np.asarray(upright).astype(np.int32).clip(0, 65535) // 257).astype(np.uint8))
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright if upright.mode == mode else upright.convert(mode)


def resize_and_crop(image: Image.Image, resize: int | None, crop: Sequence[int] | None) -> Image.Image:
    """Returns the image with its short side scaled (bilinear) to `resize`, then its centre `crop` (height, width)."""
    width, height = image.size
    if resize is not None and min(width, height) != resize:
        scale = resize / min(width, height)
        width, height = max(resize, int(width * scale)), max(resize, int(height * scale))
        check_pixels(f"with its short side scaled to {resize} it is", width, height)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if crop is not None and (height, width) != tuple(crop):
        left, top = round((width - crop[1]) / 2), round((height - crop[0]) / 2)
        image = image.crop((left, top, left + crop[1], top + crop[0]))
    return image


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Returns uint8 pixels (H, W) or (H, W, C) as float32 (C, H, W): scaled to 0..1, minus `mean`, over `std`."""
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    values = planes.astype(np.float32) / np.float32(255)
    shape = (-1, 1, 1)
    centred = values - np.asarray(mean, np.float32).reshape(shape)
    return np.ascontiguousarray(centred / np.asarray(std, np.float32).reshape(shape))
