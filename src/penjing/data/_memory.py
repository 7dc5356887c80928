"""Batches from images that lie decoded in memory, augmented and normalised a whole batch at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from penjing.checks import whole
from penjing.data._augment import BatchAugment
from penjing.data._preprocess import Preprocess
from penjing.errors import PenjingError

MOST_BYTES = 2**32  # bytes that all decoded images, or one batch, may take: half of a small machine's memory
BATCH_SIZE = whole(1, 2**20)


class MemoryLoader:
    """Yields `(input, target)` batches from uint8 images.

    With `shuffle` (training) the order and the augmentation depend on the seed and the epoch alone, and an incomplete
    last batch is left out, since batch norm can't train on a single sample. Without `shuffle` the loader yields every
    sample, in order.

    Args:
        images: (N, H, W) or (N, H, W, C) uint8, already of the network's size.
        targets: (N,) integers.
        preprocess: only its normalisation is used.
        batch_size: samples per batch.
        shuffle: whether to draw a new order for each epoch.
        augment: a random change of a uint8 batch (N, C, H, W).
        seed: seed of the order and of the augmentation.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        preprocess: Preprocess,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: BatchAugment | None = None,
        seed: int = 0,
    ) -> None:
        BATCH_SIZE.read("batch_size", batch_size)
        planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        self._images = torch.from_numpy(np.ascontiguousarray(planes))
        self._targets = torch.from_numpy(targets.astype(np.int64))
        self._preprocess = preprocess
        self._shuffle = shuffle
        self._augment = augment
        self._seed = seed
        self._epoch = 0
        self.batch_size = batch_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and the augmentation of the next pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return count_batches(len(self._images), self.batch_size, self._shuffle)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(mix(self._seed, self._epoch))
        count = len(self._images)
        order = torch.randperm(count, generator=generator) if self._shuffle else torch.arange(count)
        for indices in order.split(self.batch_size)[: len(self)]:
            images = self._images[indices]
            if self._augment is not None:
                images = self._augment(images, generator)
            yield self._preprocess.normalise(images), self._targets[indices]


def check_room(what: str, count: int, height: int, width: int, values: int) -> None:
    """Refuses images that would take more than `MOST_BYTES` of memory.

    Args:
        what: name of the images for the message, such as "A batch".
        count: number of images.
        height: height of each image in pixels.
        width: width of each image in pixels.
        values: bytes per pixel.

    Raises:
        PenjingError: the images would take more; the message says how much.
    """
    needed = count * height * width * values
    if needed > MOST_BYTES:
        raise PenjingError(
            f"{what} of {count:,} images of {width}x{height} would take {needed / 1e9:.1f} GB of memory, more than the "
            f"{MOST_BYTES / 1e9:.1f} GB that are allowed: choose a smaller size or batch_size, or fewer images."
        )


def count_batches(samples: int, batch_size: int, drop_last: bool) -> int:
    """Returns the number of batches; with `drop_last` an incomplete last batch is dropped, unless it is the only one."""
    return max(1, samples // batch_size) if drop_last else -(-samples // batch_size)


def mix(seed: int, epoch: int) -> int:
    """Returns one seed for a seed and an epoch; neighbouring pairs give unrelated random numbers."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))
