"""Measures how much the loss grows when an option alone is carried out, with batch norms that adapt to it.

What a network loses at once says little about what training can't bring back. A large part of the first comes from the running
statistics of batch norms, which no longer fit, and which training mends in its first steps. Normalising by the batch instead
predicts the accuracy after training far better (Li et al., EagleEye: Fast Sub-net Evaluation, 2020).
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence.memory import memory_of
from penjing.evidence.prefix import Prefix
from penjing.evidence.reader import Inputs, device_of, seeded_batches
from penjing.graph import Graph, Option
from penjing.tasks import sample_count
from penjing.techniques import Technique
from penjing.training.batch_norms import normalising_by_batch

SAMPLES = 256  # samples on which losses are compared
BATCHES = 16  # batches at most that are read for them
JOINED = ("group", "branch", "weight")  # kinds of places, as options of a whole plan are carried out
TELLING = 0.3  # share of the increase to chance level up to which the loss before training ranks networks
LEAST = 1e-9  # of an option that seems to make the network better: nothing is free


class LossIncrease:
    """The loss of a graph, and how much it grows with options.

    With labels, the loss is the task's. Without, it is the power of the outputs' error over the power of the original's
    outputs.

    Attributes:
        original: the loss of the original.
    """

    def __init__(self, graph: Graph, data: Data, seed: int = 0) -> None:
        """Reads the samples, from the training data or else from the calibration data, and finds the original's loss.

        Raises:
            PenjingError: there is no data, or the loss isn't a finite number.
        """
        self._graph, self._data, self._seed = graph, data, seed
        self._batches = list(_read(graph, data, seed))
        model = copy.deepcopy(graph)
        with torch.no_grad(), normalising_by_batch(model):
            self._prefix = Prefix(model, [self._flat(inputs) for inputs, _ in self._batches])
        self._wanted = [] if self._labelled else [_outputs(graph, inputs) for inputs, _ in self._batches]
        self.original = self.loss(graph)
        if not math.isfinite(self.original):
            raise PenjingError(f"On {data.name} the original's loss is {self.original}, so no damage can be measured.")

    @property
    def _labelled(self) -> bool:
        return self._data.task.labelled and all(targets is not None for _, targets in self._batches)

    def _flat(self, inputs: Inputs) -> Sequence[Tensor]:
        return self._graph.signature.flatten(inputs, {})

    def loss(self, graph: Graph) -> float:
        """Returns the mean loss of the original, or of a changed copy, over the samples; infinite where it isn't a number."""
        model = copy.deepcopy(graph)
        with torch.no_grad(), normalising_by_batch(model):
            start = self._prefix.start(model)

            def outputs(place: int, inputs: Inputs) -> Any:
                flat = self._prefix.run(model, start, place, self._flat(inputs))
                return pytree.tree_unflatten(list(flat), graph.out_spec)

            return self._mean(outputs)

    @cached_property
    def chance(self) -> float:
        """How much the loss grows at chance level, where each sample of a batch gets the same answer: the batch's mean."""
        model = copy.deepcopy(self._graph)
        with torch.no_grad(), normalising_by_batch(model):
            return max(
                LEAST, self._mean(lambda _, inputs: pytree.tree_map(_same_for_all, model(*inputs))) - self.original
            )

    def tells(self, damage: float) -> bool:
        """Tells whether an increase of the loss before training says something about the loss after it.

        Near chance level it doesn't: of two networks that know nothing, one may learn much faster.
        """
        return damage <= TELLING * self.chance

    def _mean(self, outputs: Callable[[int, Inputs], Any]) -> float:
        total, samples = 0.0, 0
        for place, (inputs, targets) in enumerate(self._batches):
            given = outputs(place, inputs)
            if self._labelled:
                assert targets is not None
                found = float(self._data.task.loss(given, targets))
            else:
                found = _error_power(given, self._wanted[place])
            count = sample_count(inputs)
            total, samples = total + found * count, samples + count
        mean = total / samples
        return mean if math.isfinite(mean) else math.inf

    def of(self, technique: Technique, options: Sequence[Option]) -> float:
        """Returns how much the loss grows when these options are carried out together; remembered with the data.

        Args:
            technique: the options' technique.
            options: the options, as the technique proposes them.
        """

        def make() -> Graph:
            return technique.apply(self._graph, technique.settled(self._graph, options), self._data)

        return self._remembered(options, make)

    def together(self, techniques: Mapping[str, Technique], options: Sequence[Option]) -> float:
        """Returns how much the loss grows with options of several techniques; remembered with the data.

        Widths come first, then branches, then what replaces layers: so what a criterion found out about the channels of the
        original serves for all plans, and nothing changes its name in between.

        Args:
            techniques: the techniques, by name.
            options: options at different places, each named as in the original.
        """

        def make() -> Graph:
            made = self._graph
            for kind in JOINED:
                for name, technique in techniques.items():
                    if some := [one for one in options if one.technique == name and one.place.kind == kind]:
                        made = technique.apply(made, some, self._data)
            return made

        return self._remembered(options, make) if options else 0.0

    def _remembered(self, options: Sequence[Option], make: Callable[[], Graph]) -> float:
        def find() -> dict[str, Tensor]:
            return {"loss": torch.tensor(self.loss(make()), dtype=torch.float64)}

        memory = memory_of(self._data)
        if memory is None:
            return max(LEAST, float(find()["loss"]) - self.original)
        about = {
            "options": [json.loads(json.dumps(replace(one, found={}).to_json(), sort_keys=True)) for one in options],
            "original": self.original,
            "seed": self._seed,
        }
        return max(LEAST, float(memory.recall("damage", about, find)["loss"]) - self.original)


def _read(graph: Graph, data: Data, seed: int) -> Iterable[tuple[Inputs, Tensor | None]]:
    part = next((one for one in ("train", "calibration") if getattr(data, one) is not None), None)
    if part is None:
        raise PenjingError("Damage is measured on data.train or data.calibration, and both are None.")
    samples = 0
    for inputs, targets in seeded_batches(data, part, BATCHES, seed, device_of(graph)):
        yield inputs, targets
        samples += sample_count(inputs)
        if samples >= SAMPLES:
            return


def _same_for_all(output: Any) -> Any:
    """Returns an output whose entries are the mean over all samples."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or not output.ndim:
        return output
    return output.mean(0, keepdim=True).expand_as(output)


def _outputs(graph: Graph, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return _floating(copy.deepcopy(graph).eval()(*inputs))


def _floating(outputs: Any) -> list[Tensor]:
    return [one for one in pytree.tree_leaves(outputs) if isinstance(one, Tensor) and one.is_floating_point()]


def _error_power(outputs: Any, wanted: Sequence[Tensor]) -> float:
    """Returns the power of the outputs' error over that of the wanted outputs."""
    found = _floating(outputs)
    error = sum(float((a - b).square().sum()) for a, b in zip(found, wanted, strict=True))
    return error / (sum(float(one.square().sum()) for one in wanted) or 1.0)
