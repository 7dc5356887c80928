"""One value that holds the data for training, calibrating and evaluating a network."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from penjing.checks import FUNCTION, NAME, TEXT, Rule, a, check, optional, several
from penjing.data._names import is_one_line
from penjing.data._preprocess import Preprocess
from penjing.errors import PenjingError
from penjing.loaders import read
from penjing.tasks import Task
from penjing.tasks.doors import TASK

SHOWN = 5  # names of classes that a line shows


@dataclass(frozen=True)
class Split:
    """How many images there are to train on and to judge on.

    Attributes:
        training: the number of images to train on.
        training_classes: the number of classes that these show; None without labels.
        judging: the number of images on which the metric is measured.
        judging_classes: the number of classes that these show; None without labels.
        held_out: whether the images for judging were taken out of the training images, so that a network which was trained
            before may know them.
    """

    training: int
    training_classes: int | None
    judging: int
    judging_classes: int | None
    held_out: bool = False


@dataclass(frozen=True, repr=False)
class Data:
    """Loaders of training, calibration and validation batches, and the task that they belong to.

    A loader is anything that can be iterated many times and yields batches: `(input, target)`, or `(input,)` without
    labels. It may be None where nothing needs it. If the training loader has a method `set_epoch(epoch)`, that method is
    called before each epoch.

    Attributes:
        train: training batches, shuffled and augmented.
        calibration: batches of some hundred training samples, prepared as the deployed model will see them.
        validation: batches on which the metric is measured, the same in every pass.
        task: gives the loss and the metric, and splits a batch into inputs and targets.
        name: name of the data in reports.
        classes: names of the classes, in the order of the outputs.
        preprocess: how an image file becomes an input.
        examples: raw validation images "x" (N, H, W[, 3]) uint8 and labels "y" (N,), where they aren't in files.
        fingerprint: short hash of the data; equal data has equal fingerprints. "" where no hash is known.
        validation_files: the validation images in order, where they are files: path within the folder or the zip that
            they were read from, and label.
        split: how many images there are for training and for judging, where that is known.
        show: from the inputs of one sample, without the axis of samples, to a text or a PIL image for people: such as
            `lambda ids: tokenizer.decode(ids)`. Images are shown without it.
        source: the text that names the data on the command line; "" where none does.
    """

    train: Iterable[Any] | None
    calibration: Iterable[Any] | None
    validation: Iterable[Any] | None
    task: Task
    name: str = "custom"
    classes: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    examples: Mapping[str, np.ndarray] | None = None
    fingerprint: str = ""
    validation_files: tuple[tuple[str, int], ...] | None = field(default=None, repr=False)
    split: Split | None = None
    show: Callable[..., Any] | None = field(default=None, repr=False, compare=False)
    source: str = ""

    def __post_init__(self) -> None:
        """Refuses loaders that could be read only once, and fields that aren't what they should be.

        Raises:
            PenjingError: for such a loader or field, which the message names.
        """
        for part in ("train", "calibration", "validation"):
            loader = getattr(self, part)
            if loader is not None and (not hasattr(loader, "__iter__") or hasattr(loader, "__next__")):
                raise PenjingError(
                    f"{part} must be something that can be iterated many times (a DataLoader, a list of batches), "
                    f"not {type(loader).__name__}."
                )
        check(vars(self), _RULES)

    def __repr__(self) -> str:
        parts = []
        for name in ("train", "calibration", "validation"):
            if (loader := getattr(self, name)) is not None:
                count = _length(loader)
                parts.append(name if count is None else f"{name}, {count} batch{'' if count == 1 else 'es'}")
        lines = [f"Data '{self.name}': {'; '.join(parts) or 'no loaders'}", f"  {self.task!r}"]
        if self.classes is not None:
            more = ", …" if len(self.classes) > SHOWN else ""
            lines[-1] += f", {len(self.classes)} classes: {', '.join(self.classes[:SHOWN])}{more}"
        if self.preprocess is not None:
            lines.append(f"  images {self.preprocess}")
        return "\n".join(lines)

    def identity(self) -> str:
        """Returns a text that differs for different data, so that an interrupted run only goes on with the same.

        It is the name and the fingerprint. Without a fingerprint, the first batches of calibration and validation and
        the lengths of the loaders stand for it; batches that come in a new order each time must then take their
        randomness from torch's global generator, which is seeded for this and put back afterwards.
        """
        if self.fingerprint:
            return f"{self.name} {self.fingerprint}"
        parts: list[object] = [_length(loader) for loader in (self.train, self.calibration, self.validation)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name in ("calibration", "validation"):
                parts.append("loader")
                batches = read(getattr(self, name) or (), f"data.{name}")
                parts += [_content(leaf) for leaf in pytree.tree_leaves(next(batches, None))]
        return f"{self.name} {fingerprint(*parts)}"


_RULES = {
    "task": TASK,
    "name": NAME,
    "classes": optional(several(Rule("a name", lambda name: isinstance(name, str) and is_one_line(name)),
                                "a sequence of names, each on one line")),
    "preprocess": optional(a(Preprocess, "a penjing.data.Preprocess")),
    "examples": optional(a(Mapping, "a mapping of arrays")),
    "fingerprint": TEXT,
    "validation_files": optional(a(Sequence, "a sequence of pairs of a path and a label")),
    "split": optional(a(Split, "a penjing.data.Split")),
    "show": optional(FUNCTION),
    "source": TEXT,
}  # fmt: skip


def _length(loader: Iterable[Any] | None) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:  # there is no loader, or it streams
        return None


def _content(leaf: object) -> object:
    """Returns the content of a batch's leaf, for a hash; of an unknown object only its type, as its text may be an address."""
    if isinstance(leaf, torch.Tensor):
        values = leaf.detach().cpu().contiguous()
        return (
            repr((values.dtype, tuple(values.shape))).encode() + values.reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    if isinstance(leaf, np.ndarray):
        return repr((leaf.dtype, leaf.shape)).encode() + leaf.tobytes()
    return leaf if isinstance(leaf, bool | int | float | str | bytes | None) else type(leaf).__qualname__


def fingerprint(*parts: object) -> str:
    """Returns a short hash of the parts' texts; bytes are hashed as they are."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
