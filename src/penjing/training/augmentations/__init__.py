"""Augmentations of whole batches, after the loader: images are mixed with one another, or lose a part. One file each."""

from penjing.training.augmentations import _cutmix, _erasing, _mixup  # noqa: F401  registers
from penjing.training.augmentations._registry import (
    Augmentation,
    AugmentationEntry,
    Augmented,
    ChosenAugmentation,
    augmentations,
    find,
)

__all__ = ["Augmentation", "AugmentationEntry", "Augmented", "ChosenAugmentation", "augmentations", "find"]
