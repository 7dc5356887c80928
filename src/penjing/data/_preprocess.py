"""How an image file becomes a network's input, as data that travels with the model."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from penjing import records
from penjing.checks import TEXT, Rule, check, number, optional, several, whole
from penjing.data.prepare import PIXELS, normalise, resize_and_crop, to_mode
from penjing.errors import PenjingError

SIZE = whole(1, math.isqrt(PIXELS))  # pixels along a side; the largest square has as many pixels as an image may have
CHANNELS = Rule("1 or 3", lambda value: whole(1, 3).fits(value) and value != 2, int)
MEAN = several(number(), "a number for each channel")
STD = several(number(above=0), "a number above 0 for each channel")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _is_crop(value: Any) -> bool:
    sides = several(whole(1, PIXELS), "")
    return sides.fits(value) and len(value) == 2 and math.prod(value) <= PIXELS


_RULES = {
    "mode": TEXT,
    "resize": optional(SIZE),
    "crop": optional(Rule(f"height and width in pixels, at most {PIXELS:,} together", _is_crop)),
    "mean": MEAN,
    "std": STD,
}


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input.

    The image is turned upright (EXIF) and converted to `mode`; its short side is scaled, then its centre is cut out; the
    values are scaled to 0..1 and normalised: minus `mean`, divided by `std`.

    Attributes:
        mode: "RGB" (three channels) or "L" (one); images in other modes are converted.
        resize: length in pixels to which the short side is scaled (PIL, bilinear); None keeps its length.
        crop: (height, width) of the centre crop in pixels, black where it exceeds the image; None keeps the whole image.
        mean: mean of each channel, for values in 0..1.
        std: standard deviation of each channel, for values in 0..1.
    """

    mode: str
    resize: int | None
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses values that could never be applied."""
        check(vars(self), _RULES)
        channels = {"RGB": 3, "L": 1}.get(self.mode)
        if channels is None:
            raise PenjingError(f'The image mode is "RGB" or "L", not {self.mode!r}.')
        if len(self.mean) != channels or len(self.std) != channels:
            raise PenjingError(
                f"Images of mode {self.mode} need {channels} values in mean and in std, not {self.mean} and {self.std}."
            )

    def __str__(self) -> str:
        """Says in words what happens to an image."""
        colours = "in colour" if self.mode == "RGB" else "grey"
        scaled = "" if self.resize is None else f", the short side scaled to {self.resize}"
        cut = "" if self.crop is None else f", the centre {self.crop[0]}×{self.crop[1]} cut out"
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{colours}{scaled}{cut}; values 0..1, minus {mean}, divided by {std}"

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Returns everything but the normalisation: uint8, (H, W) for mode "L" and (H, W, 3) for "RGB"."""
        return np.asarray(resize_and_crop(to_mode(image, self.mode), self.resize, self.crop))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Returns a batch of uint8 pixels (N, C, H, W) as normalised float32."""
        shape = (1, -1, 1, 1)
        values = pixels.to(torch.float32).div_(255)
        return values.sub_(torch.tensor(self.mean).view(shape)).div_(torch.tensor(self.std).view(shape))

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the input of one image: float32 (C, H, W)."""
        return torch.from_numpy(normalise(self.pixels(image), self.mean, self.std))

    def to_dict(self) -> dict[str, Any]:
        """Returns the preprocessing as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Returns the preprocessing that `to_dict` wrote.

        Raises:
            PenjingError: keys are missing or unknown, or a value could never be applied.
        """
        return records.convert(values, cls, "preprocess")
