"""Checkpoints keep the state of a training run on disk: written whole or not at all, and read without running any code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from penjing import records
from penjing.damage import DAMAGE, described
from penjing.errors import PenjingError, with_article
from penjing.files import atomic_path
from penjing.graph.digest import digest
from penjing.lines import Lasting
from penjing.training.settings import TrainingSettings, Variant

FORMAT: Literal[1] = 1
UNREADABLE: tuple[type[Exception], ...] = (PenjingError, *DAMAGE)
TENSORS = ("model", "masks", "optimizer")  # parts of a checkpoint that hold tensors


@runtime_checkable
class Stateful(Protocol):
    """A callback with a state that a resumed run needs."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the callback's state: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state that `state_dict` returned.

        Raises:
            PenjingError: the state is that of another callback.
        """


@dataclass(frozen=True)
class Epoch:
    """What an epoch ended with.

    Attributes:
        number: from 1.
        step: number of optimiser steps done by then.
        loss: mean of its steps' losses.
        metric: on the validation data; None where it wasn't judged.
    """

    number: int
    step: int
    loss: float
    metric: float | None = None


@dataclass
class Standing:
    """How far a run has come: everything that changes while it runs, except weights, masks, optimiser and callbacks.

    Attributes:
        step: number of optimiser steps done.
        total: number of optimiser steps in all (a deadline may have reduced it).
        lr: the peak learning rate.
        variant: how steps are computed; a resumed run must compute them in the same way.
        began_with: digest of the weights before the first step.
        loss: sum of the losses of the current epoch's steps.
        losses: sums of the losses that these consist of, by name: the task's loss and the teacher's guidance.
        seconds: time spent in the current epoch.
        counted: number of the current epoch's steps so far.
        counts: number of the current epoch's steps that had each of these losses, by name.
        ended: whether the checkpoint's weights are those that the run ends with, which may be others than the last step's.
        left_with: digest of the weights in which a deadline left the graph, where they aren't the last step's; "" otherwise.
        diverged_at: number of steps done before one whose loss wasn't finite; None where none was. Such a run may go on with
            a lower learning rate.
        good_enough: whether the run ended early, since the metric reached its bound.
        epochs: those that are finished.
    """

    step: int
    total: int
    lr: float
    variant: Variant
    began_with: str
    loss: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    counted: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    left_with: str = ""
    diverged_at: int | None = None
    good_enough: bool = False
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def progress(self) -> float:
        """The share of the steps that are done."""
        return self.step / self.total if self.total else 1.0


@dataclass(frozen=True)
class _CheckpointHeader:
    """The plain values of a checkpoint, which also holds the parts in `TENSORS` and the states of callbacks.

    Attributes:
        format: version of the file's format.
        settings: the settings and facts that must be the same for a run to go on.
        standing: how far the run has come.
    """

    format: Literal[1]
    settings: dict[str, Any]
    standing: Standing


@dataclass(frozen=True)
class Checkpoint:
    """A file in which one run of `recover` keeps its state.

    Attributes:
        path: path of the file.
        settings: the run's settings; a file that was written with other settings is refused.
        source: facts that must also be the same for a run to go on: identity of the data, number of batches, teacher.
    """

    path: Path
    settings: TrainingSettings
    source: dict[str, object] = field(default_factory=dict)

    def save(
        self,
        standing: Standing,
        graph: nn.Module,
        optimizer: torch.optim.Optimizer,
        callbacks: Sequence[object] = (),
    ) -> None:
        """Writes the file, with the states of those callbacks that have one.

        Raises:
            PenjingError: the file can't be written (no space, no permission).
        """
        content = {
            **asdict(_CheckpointHeader(FORMAT, asdict(self.settings) | self.source, standing)),
            "model": graph.state_dict(),
            "masks": dict(getattr(graph, "masks", None) or {}),
            "optimizer": optimizer.state_dict(),
            "callbacks": [callback.state_dict() for callback in with_state(callbacks)],
        }
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        try:
            with atomic_path(self.path) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
            raise PenjingError(f"The training checkpoint {self.path} can't be written: {error}") from error

    def go_back(self, graph: nn.Module, now: Standing, *, write: bool) -> int:
        """Gives a graph whose training diverged the file's weights and masks, and notes the divergence in the file.

        Args:
            graph: the model that was trained.
            now: where the training diverged.
            write: whether this process writes the file.

        Returns:
            The number of steps that were done when the file was written.

        Raises:
            PenjingError: the file can't be read or written.
        """
        content, kept = _read(self.path, "Training must start anew.")
        if write:
            noted = {**asdict(kept), "lr": now.lr, "diverged_at": now.step}
            self._write({**content, "settings": asdict(self.settings) | self.source, "standing": noted})
        put(content, graph)
        for parameter in graph.parameters():
            parameter.grad = None  # the gradient that isn't finite would be added to that of the next run's first step
        return kept.step

    def load(self, graph: nn.Module, callbacks: Sequence[object] = ()) -> tuple[Standing, dict[str, Any]] | None:
        """Restores the saved weights and masks of the graph, and the states of those callbacks that have one.

        Returns:
            The standing and the optimiser's state, or None if there is no file.

        Raises:
            PenjingError: the file belongs to a run with other settings, data, weights or callbacks, or isn't a checkpoint.
        """
        if not self.path.exists():
            return None
        start_anew = f"Delete {self.path} to start anew, or choose another checkpoint path."
        content, standing = _read(self.path, start_anew)
        stored = content["settings"]
        ours = asdict(self.settings) | self.source
        slower = self._goes_on_slower(standing)
        differing = [
            f"{n} was {stored.get(n)!r}, is {v!r}"
            for n, v in ours.items()
            if stored.get(n) != v and not (slower and n == "lr")
        ]
        if differing:
            raise PenjingError(
                f"{self.path} belongs to a training run with other settings ({'; '.join(differing)}). {start_anew}"
            )
        # The graph may be as it was at the beginning, or as the interrupted run left it.
        if digest(graph.state_dict()) not in (standing.began_with, standing.left_with, digest(content["model"])):
            raise PenjingError(f"{self.path} belongs to the training of a model with other weights. {start_anew}")
        states, stateful = content.get("callbacks", []), with_state(callbacks)
        if len(states) != len(stateful):
            raise PenjingError(
                f"{self.path} belongs to a training run with {len(states)} callbacks that have a state, not "
                f"{len(stateful)}. {start_anew}"
            )
        for callback, state in zip(stateful, states, strict=True):
            try:
                callback.load_state_dict(state)
            except PenjingError as error:
                raise PenjingError(f"{self.path} belongs to another training run. {error} {start_anew}") from error
        put(content, graph)
        if slower:
            assert self.settings.lr is not None
            standing.lr = self.settings.lr
        return standing, content["optimizer"]

    def _goes_on_slower(self, standing: Standing) -> bool:
        """Tells whether the run in the file diverged, and these settings name a lower learning rate."""
        lr = self.settings.lr
        return standing.diverged_at is not None and lr is not None and lr < standing.lr


def put(content: Mapping[str, Any], graph: nn.Module) -> None:
    """Gives a graph the weights and masks of a checkpoint."""
    graph.load_state_dict(content["model"])
    masks = getattr(graph, "masks", None)
    if masks is not None:
        masks.clear()
        masks.update({name: mask.clone() for name, mask in content["masks"].items()})  # masks may be changed in place


def with_state(callbacks: Sequence[object]) -> list[Stateful]:
    """Returns those callbacks that have a state."""
    return [callback for callback in callbacks if isinstance(callback, Stateful)]


def steps_of(path: Path) -> tuple[int, int] | None:
    """Returns the number of steps that a run has done, and of all its steps; None where no checkpoint can be read."""
    found = _standing(path)
    return None if found is None else (found.step, found.total)


def ended_good_enough(path: Path) -> bool:
    """Tells whether a run ended early because its metric reached the bound that was asked for."""
    found = _standing(path)
    return found is not None and found.good_enough


def epochs_of(path: Path) -> list[Epoch]:
    """Returns the epochs that a run has finished; none where no checkpoint can be read."""
    found = _standing(path)
    return [] if found is None else found.epochs


def variant_of(path: Path) -> Variant | None:
    """Returns how a run has computed its steps; None where it has done none, or its checkpoint can't be read."""
    found = _standing(path)
    return None if found is None or found.step == 0 else found.variant


def _standing(path: Path) -> Standing | None:
    try:
        # The file is mapped into memory, so that its weights aren't read.
        return _header(torch.load(path, map_location="cpu", weights_only=True, mmap=True)).standing
    except UNREADABLE:
        return None  # a run that goes on with this file will say what is wrong with it


def progress_of(path: Path) -> float:
    """Returns the share of its steps that a run has done, 0 to 1; 0 where no checkpoint can be read."""
    step, total = steps_of(path) or (0, 0)
    return step / total if total else 0.0


def discard_damaged(path: Path, say: Callable[[str], None]) -> None:
    """Removes a checkpoint that exists but can't be read, since no run could go on with it, and says so."""
    if not path.exists():
        return
    try:
        _read(path, "")
    except PenjingError as damage:
        say(Lasting(f"{path} is damaged, so the training starts anew. {damage}"))
        path.unlink()


def _read(path: Path, advice: str) -> tuple[dict[str, Any], Standing]:
    """Returns the content of a checkpoint, and its standing.

    Raises:
        PenjingError: the file can't be read; the message ends with `advice`.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content, _header(content).standing
    except UNREADABLE as error:
        damage = str(error) if isinstance(error, PenjingError) else described(error)
        message = f"{path} isn't a training checkpoint that can be read ({damage}). {advice}".strip()
        raise PenjingError(message) from error


def _header(content: Any) -> _CheckpointHeader:
    """Returns the plain values of a checkpoint.

    Raises:
        PenjingError: the content isn't that of a checkpoint.
    """
    names = [one.name for one in fields(_CheckpointHeader)]
    if not isinstance(content, dict):
        raise PenjingError(f"it holds {with_article(type(content).__name__)}")
    if missing := [name for name in (*names, *TENSORS) if name not in content]:
        raise PenjingError(f"it has no '{missing[0]}'")
    header = records.convert({name: content[name] for name in names}, _CheckpointHeader, "checkpoint")
    if not 0 <= header.standing.step <= header.standing.total:
        raise PenjingError(f"it is at step {header.standing.step} of {header.standing.total}")
    return header
