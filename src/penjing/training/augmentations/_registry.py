"""The table of augmentations, and what an augmentation is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from penjing.errors import PenjingError
from penjing.registry import Entry, Registry


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
class AugmentationEntry(Entry[Augmentation]):
    """A registered augmentation.

    Attributes:
        number: what the number in its name means.
        default: the number if the user types none.
        highest: the largest number that is allowed, if finite; the smallest lies above 0.
        inputs: what it can change: "images" (N, channels, height, width), or inputs of any shape.
        mixes: whether it mixes samples and thereby their labels. Of several that do, one is drawn for each batch.
    """

    number: str
    default: float
    highest: float = math.inf
    inputs: Literal["images", "any"]
    mixes: bool


augmentations = Registry("augmentation", AugmentationEntry)


@dataclass(frozen=True)
class Chosen:
    """An augmentation as the user typed it.

    Attributes:
        name: the name as typed.
        entry: the registered augmentation.
        number: the augmentation's number.
    """

    name: str
    entry: AugmentationEntry
    number: float

    def __call__(self, inputs: Sequence[Tensor], random: np.random.Generator) -> Augmented:
        """Returns the inputs of a batch, changed.

        Raises:
            PenjingError: it can't change inputs of this kind.
        """
        wanted = "images (N, channels, height, width)" if self.entry.inputs == "images" else "numbers (N, ...)"
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


def find(name: str) -> Chosen:
    """Returns the augmentation that `name` means, its number included: "mixup", "mixup:0.4".

    Raises:
        PenjingError: there is no such augmentation, or its number makes no sense.
    """
    kind, colon, text = name.partition(":")
    entry = augmentations[kind]
    try:
        number = float(text) if colon else entry.default
    except ValueError:
        number = math.nan
    if not (0 < number <= entry.highest and math.isfinite(number)):
        most = f" and at most {entry.highest:g}" if math.isfinite(entry.highest) else ""
        raise PenjingError(f"augment='{name}': what follows the colon is the {entry.number}, a number above 0{most}.")
    return Chosen(name, entry, number)
