"""The table of augmentations, and what an augmentation is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from penjing.errors import PenjingError
from penjing.registry import Chosen, NumberedEntry, OwnNumber, Registry
from penjing.tasks import by_name


@dataclass(frozen=True)
class Augmented:
    """The inputs of a batch, changed.

    Attributes:
        inputs: as the network takes them.
        partners: for each sample, the number of the sample in the same batch that was mixed into it, (N,); None where no
            samples were mixed.
        share: how much of a sample is its own, 0 to 1; the rest is its partner's.
    """

    inputs: tuple[Tensor, ...]
    partners: Tensor | None = None
    share: float = 1.0


Augmentation = Callable[[Sequence[Tensor], float, np.random.Generator], Augmented]
"""From the inputs of a batch, each with the samples along its first axis, the augmentation's number and a source of random
numbers to the changed inputs; the given ones stay as they are."""


@dataclass(frozen=True, kw_only=True)
class AugmentationEntry(NumberedEntry[Augmentation]):
    """A registered augmentation.

    Attributes:
        number: the augmentation's own number, which each has.
        inputs: what it can change: "images" (N, channels, height, width), or inputs of any shape.
        mixes: whether it mixes samples and thereby their labels. Of several that do, one is drawn for each batch.
    """

    number: OwnNumber
    inputs: Literal["images", "any"]
    mixes: bool


augmentations = Registry("augmentation", AugmentationEntry)


class ChosenAugmentation(Chosen[AugmentationEntry]):
    """An augmentation as the user typed it."""

    def __call__(self, inputs: Sequence[Tensor], random: np.random.Generator) -> Augmented:
        """Returns the inputs of a batch, changed.

        Raises:
            PenjingError: it can't change inputs of this kind.
        """
        wanted = "images (N, channels, height, width)" if self.entry.inputs == "images" else "numbers (N, ...)"
        if by_name(inputs) is not None:
            raise PenjingError(
                f"augment='{self.name}' changes inputs by their order, and these have names: leave it out."
            )
        samples = next((len(each) for each in inputs if each.ndim), 0)
        fit = all(each.is_floating_point() and each.ndim and len(each) == samples for each in inputs)
        if self.entry.inputs == "images":
            fit = fit and all(each.ndim == 4 for each in inputs) and len({each.shape[2:] for each in inputs}) == 1
        if not inputs or not fit:
            given = ", ".join(f"{tuple(each.shape)} {str(each.dtype).removeprefix('torch.')}" for each in inputs)
            raise PenjingError(
                f"augment='{self.name}' changes inputs that are {wanted}, of one batch and in floating point, and the training "
                f"data gives inputs of shape {given}: leave it out."
            )
        return self.entry.function(inputs, self.number, random)


def find(name: str) -> ChosenAugmentation:
    """Returns the augmentation that `name` means, its number included: "mixup", "mixup:0.4".

    Raises:
        PenjingError: there is no such augmentation, or its number makes no sense.
    """
    return ChosenAugmentation.read("augment", name, augmentations)
