"""A network that stops where it is sure: the whole with its exits, its parts, and how a batch runs through them."""

import copy
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing import records, storage
from penjing.adaptive import _heads
from penjing.checks import COUNT, PATH, TEXT, THREADS, a, checked, optional
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.graph import Graph
from penjing.graph.edit.split import crossing, part
from penjing.targets import Artifact

if TYPE_CHECKING:
    from penjing.adaptive.staged import StagedLatency

GRAPH, EXITS = "exits.penjing", "exits.json"


@dataclass(frozen=True)
class Point:
    """What one threshold does on the validation data.

    Attributes:
        threshold: the confidence from which on a sample leaves, the largest probability of its softmax.
        metric: of all samples, each answered where it left.
        latency_ms: mean milliseconds of a sample, from the measured latencies of the stages.
        shares: of the samples that leave at each exit, and, last, of those that go to the end.
    """

    threshold: float
    metric: float
    latency_ms: float
    shares: tuple[float, ...]

    def __str__(self) -> str:
        left = ", ".join(f"{share:.0%}" for share in self.shares)
        return f"{self.threshold:.4f}: metric {self.metric:.4f}, {self.latency_ms:.3g} ms, samples by exit {left}"


@dataclass(frozen=True)
class Exits:
    """A network with exits.

    Attributes:
        graph: the network; it returns the logits of each exit, and then its own.
        at: the nodes behind which the exits stand, in order of execution.
        threshold: the confidence from which on a sample leaves; None where no sample leaves.
        metric: of the whole network, on the validation data; None where it wasn't judged.
        curve: what other thresholds do, from low to high.
    """

    graph: Graph
    at: tuple[str, ...]
    threshold: float | None = None
    metric: float | None = None
    curve: tuple[Point, ...] = ()

    @classmethod
    def of(cls, graph: Graph, at: str | Sequence[str]) -> "Exits":
        """Returns a copy of a network with exits whose heads aren't trained yet.

        Raises:
            PenjingError: see `penjing.early_exit`.
        """
        places = _heads.places(graph, at)
        whole = copy.deepcopy(graph)
        (output,) = _heads.own_outputs(whole)
        classes = int(output.meta["val"].shape[1])
        logits = [
            _heads.add_head(whole, node, name, classes)
            for node, name in zip(places, _names(whole, places), strict=True)
        ]
        whole.program.graph.output_node().args = ((*logits, output),)
        whole.out_spec = pytree.tree_structure((0,) * (len(logits) + 1))
        return cls(whole.refresh().eval(), tuple(places))

    @property
    def heads(self) -> list[str]:
        """The names of the heads' parameters."""
        modules = {str(node.meta["module"]) for node in self._outputs[:-1]}
        return [name for name, _ in self.graph.named_parameters() if name.rpartition(".")[0] in modules]

    @property
    def _outputs(self) -> list[Any]:
        return list(self.graph.program.graph.output_node().args[0])  # type: ignore[arg-type]

    def whole(self) -> Graph:
        """Returns the network without its exits."""
        return part(self.graph, (), [self._outputs[-1].name], pytree.tree_structure(0), {})

    def stages(self) -> list[Graph]:
        """Returns the network as parts that run one behind the other.

        The first takes the network's inputs, each other one what the part before it returned behind its logits. All but the
        last return the logits of their exit and what the next part takes; the last returns the network's logits.
        """
        outputs = self._outputs
        cuts = [crossing(self.graph, node, outputs[-1:]) for node in self.at]
        names = list(dict.fromkeys(name for cut in cuts for name in cut))
        tapped = self.graph.with_outputs(names)
        with torch.no_grad():
            args, kwargs = self.graph.example_call(batch=self.graph.batch or 2)
            values = tapped(*args, **kwargs)[1]
        found = []
        for place, (taken, given) in enumerate(zip([[], *cuts], [*cuts, []], strict=True)):
            exits = [outputs[place].name, *given]
            spec = pytree.tree_structure((0,) * len(exits) if given else 0)
            found.append(part(self.graph, taken, exits, spec, values))
        return found

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Runs a batch: each sample goes on until an exit is sure of it.

        Returns:
            The logits `(N, classes)` and the position of the exit that gave them, `(N,)`; the last one is the network's end.
        """
        with torch.no_grad():
            logits = torch.stack(list(self.graph(*inputs)))
        return left(logits, self.threshold)

    def __str__(self) -> str:
        """The exits, the threshold and what it does."""
        chosen = next((point for point in self.curve if point.threshold == self.threshold), None)
        said = (
            f"no sample leaves early; {told(self.curve)}"
            if self.threshold is None
            else f"threshold {chosen or self.threshold}"
        )
        return f"Exits behind {', '.join(self.at)}: {said}"

    __repr__ = __str__

    @checked(target=TEXT, folder=PATH, data=optional(a(Data, "a penjing.Data")))
    def lower(self, target: str, folder: Path | str, data: Data | None = None) -> list[Artifact]:
        """Writes one file for each stage, in order: `stage-1.onnx` and so on.

        Args:
            target: name of the runtime.
            folder: where to write.
            data: if given, its preparation of inputs, its classes and `run.py`, which stops when it is sure, are written too.

        Raises:
            PenjingError: what `penjing.lower` raises, or `data` is given and there is no such script for the target.
        """
        from penjing.adaptive import staged  # it runs what this module defines

        return staged.lower_stages(self, target, Path(folder), data)

    @checked(data=a(Data, "a penjing.Data"), target=TEXT, folder=optional(PATH), threads=THREADS, samples=COUNT)
    def measure(
        self,
        data: Data,
        target: str = "onnxruntime",
        folder: Path | str | None = None,
        *,
        threads: int = 1,
        samples: int = 1000,
    ) -> "StagedLatency":
        """Runs validation samples one at a time through the stages and through the whole network, in turns, and times both.

        A sample's time is the median of five calls.

        Args:
            data: its validation part is read.
            target: the runtime.
            folder: where the files are written; None for a temporary one.
            threads: threads within an op.
            samples: how many samples at most, spread over the data.

        Raises:
            PenjingError: there is no validation data, or what `penjing.lower` raises.
        """
        from penjing.adaptive import staged  # it runs what this module defines

        with tempfile.TemporaryDirectory() as temporary:
            return staged.measure_staged(
                self, data, target, Path(folder or temporary), threads=threads, samples=samples
            )

    def save(self, folder: Path | str) -> None:
        """Writes a folder from which `Exits.load` reads the network: no class is needed and no pickle.

        Raises:
            PenjingError: it can't be written, or the metric, the threshold or a point of the curve isn't a finite number.
        """
        folder = Path(folder)
        content = _Content(1, list(self.at), self.threshold, self.metric, list(self.curve))
        try:
            text = json.dumps(asdict(content), indent=2, allow_nan=False)
        except ValueError as error:
            raise PenjingError(
                "The metric, the threshold or a point of the curve isn't a finite number, which no file holds: judge the exits "
                "by data on which the metric is defined."
            ) from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            storage.save(self.graph, folder / GRAPH)
            atomic_write(folder / EXITS, text + "\n")
        except OSError as error:
            raise PenjingError(f"{folder} can't be written: {error.strerror or error}.") from error

    @classmethod
    def load(cls, folder: Path | str) -> "Exits":
        """Reads what `save` wrote; a folder from a stranger does no harm.

        Raises:
            PenjingError: the folder lacks a file, or one is damaged or belongs to another network.
        """
        folder = Path(folder)
        for name in (GRAPH, EXITS):
            if not (folder / name).is_file():
                raise PenjingError(f"{folder} holds no network with exits: there is no file {name} in it.")
        try:
            content = records.convert(records.read(folder / EXITS), _Content)
        except PenjingError as error:
            raise PenjingError(f"{folder / EXITS} can't be used: {error}") from error
        graph = storage.load(folder / GRAPH)
        made = cls(graph, tuple(content.at), content.threshold, content.metric, tuple(content.curve))
        names = {node.name for node in graph.program.graph.nodes}
        if not content.at or not names.issuperset(content.at) or len(made._outputs) != len(content.at) + 1:
            raise PenjingError(f"{folder / EXITS} doesn't belong to the network in {GRAPH}: its exits differ.")
        return made


@dataclass(frozen=True)
class _Content:
    """What `exits.json` holds; the fields are those of `Exits`, behind the version of the format."""

    exits: Literal[1]
    at: list[str]
    threshold: float | None
    metric: float | None
    curve: list[Point]


def confidence(logits: Tensor) -> Tensor:
    """Returns the largest probability of the softmax over the last axis, in float32.

    It is computed in float64 and rounded then, so that NumPy, which adds in another order, finds the same number.
    """
    wide = logits.double()
    return (1 / (wide - wide.amax(-1, keepdim=True)).exp().sum(-1)).float()


def left(logits: Tensor, threshold: float | None) -> tuple[Tensor, Tensor]:
    """Returns the logits with which each sample leaves, `(N, classes)`, and at which exit, `(N,)`.

    Args:
        logits: of all exits and the end, `(exits + 1, N, classes)`.
        threshold: the confidence from which on a sample leaves; None for never.
    """
    sure = confidence(logits).double() >= (math.inf if threshold is None else threshold)
    sure[-1] = True
    place = sure.int().argmax(0)  # the first that is sure
    return logits[place, torch.arange(logits.shape[1])], place


def told(curve: Sequence[Point], most: int = 6) -> str:
    """Returns some points of a curve as text, spread over it."""
    shown = [curve[place * (len(curve) - 1) // max(1, most - 1)] for place in range(min(most, len(curve)))]
    return "; ".join(str(point) for point in dict.fromkeys(shown)) or "no threshold was tried"


def _names(graph: Graph, places: Sequence[str]) -> list[str]:
    """Returns names for the heads' modules that the network doesn't have."""
    taken, stem = {name.partition(".")[0] for name in graph.tensors()}, "exit"
    while any(one.startswith(stem) for one in taken):
        stem += "_"
    return [f"{stem}{place}" for place in range(1, len(places) + 1)]
