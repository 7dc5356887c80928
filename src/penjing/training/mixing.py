"""Batches that are augmented after the loader, and the task of such batches: labels of mixed samples, and their loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.distillation import Comparison, Signal, counted_positions
from penjing.errors import PenjingError
from penjing.tasks import Task
from penjing.training.augmentations import Augmented, ChosenAugmentation, find

AUGMENTED = 1  # the key, behind seed, epoch and batch, of the random numbers of augmentations


class MixedTargets(NamedTuple):
    """The targets of samples each of which is made of two.

    Attributes:
        own: targets of the first of each pair, as the task's loss takes them.
        partners: those of the second, likewise.
        share: how much the first counts, 0 to 1.
    """

    own: Any
    partners: Any
    share: float


@dataclass(frozen=True)
class AugmentedBatch:
    """A batch behind its augmentation.

    Attributes:
        inputs: of the network.
        targets: as the task's loss takes them, `MixedTargets`, or None without labels.
    """

    inputs: tuple[Tensor, ...]
    targets: Any


class AugmentedTask:
    """A task whose batches may be augmented; for all others it is the task that it was made of.

    The loss of mixed targets is `share · loss(own) + (1 − share) · loss(partners)`, which for losses that are linear in the
    label's probabilities, such as cross-entropy, is the loss of the mixed labels.
    """

    def __init__(self, task: Task) -> None:
        """Takes the task of the batches as the loader gives them."""
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Any]:
        """Returns the inputs and the targets of a batch."""
        return (batch.inputs, batch.targets) if isinstance(batch, AugmentedBatch) else self._task.split(batch)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the loss of a batch."""
        if not isinstance(targets, MixedTargets):
            return self._task.loss(outputs, targets)
        own, partners = self._task.loss(outputs, targets.own), self._task.loss(outputs, targets.partners)
        return targets.share * own + (1 - targets.share) * partners


class Augmenter:
    """Applies augmentations to the batches of a training: first those that change single samples, then one that mixes them."""

    def __init__(self, names: Sequence[str], task: Task, seed: int) -> None:
        """Takes what `recover` documents as `augment` and `seed`, and the task of the loader's batches.

        Raises:
            PenjingError: a name is unknown, or its number makes no sense.
        """
        chosen = [find(name) for name in names]
        self._single = [one for one in chosen if not one.entry.mixes]
        self._mixing = [one for one in chosen if one.entry.mixes]
        self._task, self._seed = task, seed

    def __call__(self, batch: Any, epoch: int, index: int) -> AugmentedBatch:
        """Returns a batch augmented; equal arguments give equal batches.

        Args:
            batch: as the loader gives it.
            epoch: number of the epoch.
            index: number of the batch within the epoch, over all processes.

        Raises:
            PenjingError: an augmentation can't change such inputs, or mix such labels.
        """
        inputs, targets = self._task.split(batch)
        random = np.random.default_rng((self._seed, epoch, index, AUGMENTED))
        for single in self._single:
            inputs = single(inputs, random).inputs
        if not self._mixing:
            return AugmentedBatch(tuple(inputs), targets)
        mixing = self._mixing[int(random.integers(len(self._mixing)))]
        made = mixing(inputs, random)
        return AugmentedBatch(made.inputs, targets if targets is None else _mixed(targets, made, mixing))


def _mixed(targets: Any, made: Augmented, by: ChosenAugmentation) -> Any:
    """Returns the targets of mixed samples.

    Raises:
        PenjingError: they aren't labels of whole samples.
    """
    if made.partners is None:
        return targets
    partners, samples = made.partners, len(made.partners)
    leaves, _ = pytree.tree_flatten(targets)
    if not leaves or not all(_is_of_whole_samples(leaf, samples) for leaf in leaves):
        given = ", ".join(_told(leaf) for leaf in leaves)
        raise PenjingError(
            f"augment='{by.name}' mixes labels of whole samples, class indices ({samples},) or numbers ({samples}, ...) with one "
            f"more axis at most, and the training data gives {given or 'none'}: leave it out."
        )
    others = pytree.tree_map(lambda leaf: leaf[partners.to(leaf.device)], targets)
    return MixedTargets(targets, others, made.share)


def _is_of_whole_samples(leaf: Any, samples: int) -> bool:
    if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != samples:
        return False
    return leaf.ndim == 1 or (leaf.ndim == 2 and (leaf.is_floating_point() or leaf.dtype == torch.bool))


def _told(leaf: Any) -> str:
    return f"{tuple(leaf.shape)} {leaf.dtype}" if isinstance(leaf, Tensor) else type(leaf).__name__


def guided(signal: Signal, seen: Comparison, *, by_labels: bool) -> Tensor:
    """Returns a signal's loss of a batch whose labels may be mixed.

    A signal that needs labels gets either of them, and its losses count by their shares; all others see none.
    """
    mixed, losses = seen.targets, list[Tensor]()
    if not isinstance(mixed, MixedTargets):
        loss: Tensor = signal(seen)
        return loss
    for targets in (mixed.own, mixed.partners) if by_labels else (None,):
        losses.append(signal(replace(seen, targets=targets)))
    return mixed.share * losses[0] + (1 - mixed.share) * losses[-1] if by_labels else losses[0]


def unmixed(targets: Any) -> Any:
    """Returns the targets as a teacher may look at them: None where they are mixed."""
    return None if isinstance(targets, MixedTargets) else targets


def counted(targets: Any, inputs: Tensor | None = None) -> Tensor | None:
    """Returns which positions count, as `counted_positions` does; with mixed targets, those that count in both."""
    if not isinstance(targets, MixedTargets):
        return counted_positions(targets, inputs)
    own, partners = (counted_positions(one, inputs) for one in (targets.own, targets.partners))
    return own & partners if own is not None and partners is not None else own if partners is None else partners
