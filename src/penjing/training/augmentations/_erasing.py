"""The augmentation "erasing": a rectangle of noise."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.registry import OwnNumber
from penjing.training.augmentations._registry import Augmented, augmentations

AREA = (0.02, 0.4)  # share of the image's area that the rectangle takes, as in the paper
ASPECT = (0.3, 1 / 0.3)  # the rectangle's height by its width, as in the paper
TRIES = 20  # draws of a rectangle: 97 of 100 fit into a square image


@augmentations.register(
    source="Zhong et al., Random Erasing Data Augmentation, AAAI 2020, arXiv:1708.04896",
    number=OwnNumber("probability with which an image is changed", default=0.5, lowest=0.0, highest=1.0, above=True),
    inputs="images",
    mixes=False,
)
def erasing(inputs: Sequence[Tensor], number: float, random: np.random.Generator) -> Augmented:
    """Replaces a rectangle of each image, with this probability, by random values.

    The values are drawn evenly between the least and the largest one that the channel has in the batch, which is the paper's 0
    to 255 in whatever units the images come. An image of which no drawn rectangle fits, as may be in very long ones, stays.
    """
    count, _, height, width = inputs[0].shape
    tops, bottoms, lefts, rights = _rectangles(count, height, width, random)
    erased = random.random(count) < number
    rows, columns = np.arange(height), np.arange(width)
    inside = ((rows >= tops[:, None]) & (rows < bottoms[:, None]))[:, :, None]
    inside = inside & ((columns >= lefts[:, None]) & (columns < rights[:, None]))[:, None, :] & erased[:, None, None]
    return Augmented(tuple(_filled(each, torch.from_numpy(inside), random) for each in inputs))


def _filled(images: Tensor, inside: Tensor, random: np.random.Generator) -> Tensor:
    """Returns images (N, channels, height, width) with noise at the places (N, height, width) that are named."""
    low, high = images.amin((0, 2, 3)), images.amax((0, 2, 3))
    noise = torch.from_numpy(random.random((int(inside.sum()), images.shape[1]), np.float32)).to(images)
    filled = images.clone()
    filled.permute(0, 2, 3, 1)[inside.to(images.device)] = low + (high - low) * noise
    return filled


def _rectangles(
    count: int, height: int, width: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the first and the last but one row and column of a rectangle in each image; empty ones where none fitted.

    The area is a share in `AREA`, evenly drawn, the aspect one in `ASPECT`, evenly drawn, and the rectangle lies anywhere.
    """
    heights, widths = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for _ in range(TRIES):
        area, aspect = random.uniform(*AREA, count) * height * width, random.uniform(*ASPECT, count)
        tall = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        wide = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        fits = (heights == 0) & (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
        heights, widths = np.where(fits, tall, heights), np.where(fits, wide, widths)
    tops = np.floor(random.random(count) * (height - heights + 1)).astype(np.int64)
    lefts = np.floor(random.random(count) * (width - widths + 1)).astype(np.int64)
    return tops, tops + heights, lefts, lefts + widths
