"""Random changes to training images: of whole uint8 batches in memory, and of single PIL images from files."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

BatchAugment = Callable[[Tensor, torch.Generator], Tensor]
ImageAugment = Callable[[Image.Image, np.random.Generator], Image.Image]


def random_shift(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Returns each image of (N, C, H, W) moved by up to `padding` pixels each way; uncovered borders are black.

    This is the random crop from a padded image of He et al. 2015.
    """
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, offsets, offsets, H, W)
    rows, columns = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, rows, columns]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns each image of (N, C, H, W) mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


@dataclass(frozen=True)
class PaddedCrop:
    """Moves an image by up to `padding` pixels each way and, if `flip`, mirrors it with probability one half."""

    padding: int
    flip: bool

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Returns the changed image, of the same size."""
        left, top = (int(offset) for offset in random.integers(-self.padding, self.padding + 1, 2))
        image = image.crop((left, top, left + image.width, top + image.height))
        return ImageOps.mirror(image) if self.flip and random.random() < 0.5 else image


@dataclass(frozen=True)
class RandomResizedCrop:
    """Scales a random rectangle of the image to a square and, if `flip`, mirrors it with probability one half.

    Szegedy et al. 2014, "Going deeper with convolutions": area a share of the image in `scale`, aspect ratio from 3/4
    to 4/3.
    """

    size: int
    flip: bool
    scale: tuple[float, float] = (0.08, 1.0)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Returns a square of `size` pixels."""
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=self._box(image, random))
        return ImageOps.mirror(image) if self.flip and random.random() < 0.5 else image

    def _box(self, image: Image.Image, random: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = image.width * image.height * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= image.width and 0 < height <= image.height:
                left = int(random.integers(0, image.width - width + 1))
                top = int(random.integers(0, image.height - height + 1))
                return left, top, left + width, top + height
        side = min(image.width, image.height)  # only very long images come here: their centre square
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return left, top, left + side, top + side
