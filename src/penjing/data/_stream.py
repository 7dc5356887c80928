"""Batches from image files, read one by one through torch's DataLoader, kept decoded if there is room."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from penjing.data._augment import ImageAugment
from penjing.data._memory import BATCH_SIZE, count_batches, mix
from penjing.data._preprocess import Preprocess
from penjing.data._source import ImageSource
from penjing.data.prepare import normalise, resize_and_crop, to_mode
from penjing.errors import PenjingError


class ImageFiles(Dataset[tuple[Tensor, ...]]):
    """Image files as inputs, or `(input, target)` with labels.

    An item's key is the pair (epoch, index), so that worker processes need no state: the augmentation of an item
    depends on (seed, epoch, index) alone.

    Args:
        source: the folder or the zip that holds the files.
        names: the files of the source that are used.
        targets: class index of each file; None without labels.
        preprocess: how an image becomes an input.
        augment: a random change that takes the place of resizing and cropping, for training.
        seed: seed of the augmentation.
        keep: whether to decode all images now and keep them in memory.
    """

    def __init__(
        self,
        source: ImageSource,
        names: Sequence[str],
        targets: Sequence[int] | None,
        preprocess: Preprocess,
        *,
        augment: ImageAugment | None = None,
        seed: int = 0,
        keep: bool = False,
    ) -> None:
        self._source = source
        self._names = tuple(names)
        self._targets = None if targets is None else torch.tensor(targets)
        self._preprocess = preprocess
        self._augment = augment
        self._seed = seed
        self._kept: list[Image.Image] | None = None
        if keep:
            with ThreadPoolExecutor(4) as pool:
                self._kept = list(pool.map(self._decode, range(len(self._names))))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        epoch, index = key
        image = self._decode(index) if self._kept is None else self._kept[index]
        if self._augment is not None:
            image = self._augment(image, np.random.default_rng((self._seed, epoch, index)))
        preprocess = self._preprocess
        inputs = torch.from_numpy(normalise(np.asarray(image), preprocess.mean, preprocess.std))
        return (inputs,) if self._targets is None else (inputs, self._targets[index])

    def _decode(self, index: int) -> Image.Image:
        """Decodes an image and makes those changes to it that are the same in every epoch."""
        preprocess = self._preprocess

        def prepare(image: Image.Image) -> Image.Image:
            image = to_mode(image, preprocess.mode)
            if self._augment is None:
                image = resize_and_crop(image, preprocess.resize, preprocess.crop)
            image.load()  # otherwise a truncated file would raise its error later, without its name
            return image

        return self._source.image(self._names[index], prepare)


class FileLoader:
    """Yields batches of `ImageFiles`; order, epochs and incomplete batches are those of `MemoryLoader`.

    Args:
        dataset: the files.
        batch_size: samples per batch.
        shuffle: whether to draw a new order for each epoch.
        seed: seed of the order.
        num_workers: processes that read and decode images; with 0 the calling process does.
    """

    def __init__(
        self, dataset: ImageFiles, *, batch_size: int, shuffle: bool = False, seed: int = 0, num_workers: int = 0
    ) -> None:
        BATCH_SIZE.read("batch_size", batch_size)
        self.dataset = dataset
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._num_workers = num_workers
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and the augmentation of the next pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return count_batches(len(self.dataset), self.batch_size, self._shuffle)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        count, epoch = len(self.dataset), self._epoch
        generator = torch.Generator().manual_seed(mix(self._seed, epoch))
        order = torch.randperm(count, generator=generator) if self._shuffle else torch.arange(count)
        batches = [[(epoch, int(i)) for i in indices] for indices in order.split(self.batch_size)[: len(self)]]
        loader: DataLoader[Any] = DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=_collate, num_workers=self._num_workers
        )
        try:
            yield from loader
        except PenjingError as error:
            # The text of a worker's error holds the whole traceback, of which only the message is kept.
            raise PenjingError(str(error).rpartition("PenjingError: ")[2].strip()) from None


def _collate(samples: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
