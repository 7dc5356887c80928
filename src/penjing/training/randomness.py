"""Randomness that depends on (seed, epoch, batch) alone: a resumed run draws the numbers that the first would have drawn."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from penjing.loaders import read


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restores the states of the global generators of Python, NumPy and PyTorch when the block ends."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seed_generators(*key: int) -> None:
    """Seeds the three global generators from a tuple of whole numbers ≥ 0."""
    words = np.random.SeedSequence(key).generate_state(4)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(int(words[2]))
    random.seed(int(words[3]))


def batches(loader: Iterable[Any], seed: int, epoch: int, name: str = "The loader") -> Iterator[Any]:
    """Yields the batches of one epoch; before each, the global generators are seeded anew.

    So the numbers that are drawn for a batch, by the loader (augmentation) and by the caller (dropout), don't depend on the
    use of the batches before it, and a resumed run may skip those.
    """
    seed_generators(seed, epoch)
    parts: tuple[Any, ...] = (loader, getattr(loader, "sampler", None))
    for part in parts:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
        # A loader with a generator of its own would go on from the state in which earlier epochs left the generator.
        if isinstance(generator := getattr(part, "generator", None), torch.Generator):
            generator.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
    given = read(loader, name)
    index = 0
    while True:
        seed_generators(seed, epoch, index)
        try:
            batch = next(given)
        except StopIteration:
            return
        yield batch
        index += 1
