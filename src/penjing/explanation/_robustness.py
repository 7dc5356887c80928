"""How two networks do on images under changed light, blur, noise and JPEG: their metric at a few severities."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.data import Data, Preprocess
from penjing.errors import PenjingError
from penjing.explanation._corruptions import CORRUPTIONS, Corruption
from penjing.loaders import first
from penjing.tasks import evaluate

UNCHANGED = "none"
SEVERITIES = (1, 3, 5)
SAMPLES = 1000  # on which each change is judged: a fall of a few points shows, and thirty passes don't take too long


@dataclass(frozen=True)
class Corrupted:
    """Both networks on images that were changed in one way.

    Attributes:
        corruption: the change's name; "none" for unchanged images.
        severity: from 1 to 5; 0 for unchanged images.
        before: the original's metric.
        after: the small network's metric.
    """

    corruption: str
    severity: int
    before: float
    after: float


@dataclass(frozen=True)
class Robustness:
    """Both networks on changed images.

    Attributes:
        samples: how many images were judged.
        rows: unchanged images first, then each change at each severity.
    """

    samples: int
    rows: tuple[Corrupted, ...]

    @property
    def mean_falls(self) -> tuple[float, float]:
        """By how much the metric falls in the mean over all changes, of the original and of the small network."""
        clean, *changed = self.rows
        return (
            clean.before - sum(row.before for row in changed) / len(changed),
            clean.after - sum(row.after for row in changed) / len(changed),
        )


def check_images(data: Data) -> Preprocess:
    """Makes sure that data are labelled images that can be changed, and returns how they became inputs.

    Raises:
        PenjingError: they aren't; the message says what is missing.
    """
    if data.validation is None or not data.task.labelled:
        raise PenjingError(f"Robustness is judged on labelled validation data, and the data '{data.name}' have none.")
    if data.preprocess is None:
        raise PenjingError(
            f"Robustness is told of images, and nothing says that the data '{data.name}' are some: pass a penjing.Data with "
            "preprocess=, which tells how an image becomes an input."
        )
    batch = first(data.validation)
    image = batch[0] if isinstance(batch, list | tuple) and batch else None
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != len(data.preprocess.mean):
        raise PenjingError(
            f"Robustness is told of batches (images, targets) with {len(data.preprocess.mean)} channels; those of '{data.name}' "
            "are others."
        )
    return data.preprocess


def robustness(
    before: Callable[..., Any], after: Callable[..., Any], data: Data, *, samples: int = SAMPLES, seed: int = 0
) -> Robustness:
    """Judges two networks on the validation images, unchanged and changed in each way of `CORRUPTIONS`.

    Args:
        before: the original, from a batch's inputs to its outputs.
        after: the small network.
        data: the images, with labels.
        samples: the number of images after which judging ends, at the end of a batch.
        seed: of the noise, which is the same for both networks.

    Raises:
        PenjingError: the data aren't labelled images.
    """
    prepared = check_images(data)

    counts = list[int]()

    def judged(name: str, severity: int) -> Corrupted:
        images = _Changed(data.validation, prepared, CORRUPTIONS.get(name), severity, seed)
        found = [evaluate(network, images, data.task, limit=samples) for network in (before, after)]
        if found[0] is None or found[1] is None:
            raise PenjingError(f"Robustness is judged on labels, and the batches of '{data.name}' have none.")
        counts.append(images.samples)
        return Corrupted(name, severity, found[0], found[1])

    rows = [judged(UNCHANGED, 0), *(judged(name, severity) for name in CORRUPTIONS for severity in SEVERITIES)]
    return Robustness(counts[0], tuple(rows))


class _Changed:
    """A loader whose images are changed, the same way in each pass; `samples` counts those of the last pass."""

    def __init__(
        self, loader: Any, prepared: Preprocess, corruption: Corruption | None, severity: int, seed: int
    ) -> None:
        self._loader, self._prepared, self._seed = loader, prepared, seed
        self._corruption, self._severity = corruption, severity
        self.samples = 0

    def __iter__(self) -> Iterator[Any]:
        generator = np.random.default_rng(self._seed)
        self.samples = 0
        for image, *rest in self._loader:
            self.samples += len(image)
            yield (image if self._corruption is None else self._changed(image, generator), *rest)

    def _changed(self, image: Tensor, generator: np.random.Generator) -> Tensor:
        assert self._corruption is not None
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(one).view(shape) for one in (self._prepared.mean, self._prepared.std))
        values = (image.float() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        changed = self._corruption(values, self._severity, generator).astype(np.float32)
        return (torch.from_numpy(changed).permute(0, 3, 1, 2).contiguous() - mean) / std
