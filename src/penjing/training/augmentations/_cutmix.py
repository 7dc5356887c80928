"""The augmentation "cutmix": a rectangle of another image."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.registry import OwnNumber
from penjing.training.augmentations._registry import Augmented, augmentations


@augmentations.register(
    source="Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019, arXiv:1905.04899",
    number=OwnNumber("α of the Beta(α, α) distribution of the share", default=1.0, lowest=0.0, above=True),
    inputs="images",
    mixes=True,
)
def cutmix(inputs: Sequence[Tensor], number: float, random: np.random.Generator) -> Augmented:
    """Replaces one rectangle of each image by the same rectangle of another; each label counts by its share of the area.

    With λ ~ Beta(α, α), the rectangle has √(1 − λ) of the image's height and width, and its centre lies anywhere, so that the
    border may cut it off; the share is then that of the area which is left. As in the authors' code, the rectangle is the same
    in the whole batch.
    """
    height, width = inputs[0].shape[2:]
    side = math.sqrt(1 - random.beta(number, number))
    top, bottom = _cut(height, side, random)
    left, right = _cut(width, side, random)
    partners = torch.from_numpy(random.permutation(len(inputs[0])))
    mixed = tuple(each.clone() for each in inputs)
    for new, old in zip(mixed, inputs, strict=True):
        new[:, :, top:bottom, left:right] = old[partners.to(old.device), :, top:bottom, left:right]
    return Augmented(mixed, partners, 1 - (bottom - top) * (right - left) / (height * width))


def _cut(size: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Returns where the rectangle begins and ends along an axis of this size, of which it takes this share at most."""
    centre, half = int(random.integers(size)), int(size * share) // 2
    return max(centre - half, 0), min(centre + half, size)
