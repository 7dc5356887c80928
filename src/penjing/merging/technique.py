"""Merging as a planner sees it: a run of convolutions becomes one, where that multiplies less often."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from penjing.capabilities import Capabilities
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.memory import memory_of
from penjing.graph import Graph, Option, Place
from penjing.graph.edit.rewriter import Writer
from penjing.graph.ops import node_arguments
from penjing.graph.places import unknown_place
from penjing.graph.propagation import resized
from penjing.merging.fitting import fitted
from penjing.merging.runs import Run, run_of, runs
from penjing.techniques import Scope, Stage, Technique, techniques

BATCHES = 8  # batches of data to which a convolution is fitted

Wanted = Mapping[str, tuple[Run, tuple[int, ...]]]


@dataclass(frozen=True)
class _Setting:
    """The setting of an option that merges a run: the layers that go, and the kernel of the one that stays."""

    layers: tuple[str, ...]
    kernel: tuple[int, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    batches: int = BATCHES
    seed: int = 0


@techniques.register(
    source="Kim et al., LayerMerge: Neural Network Depth Compression through Layer Pruning and Merging, 2024; here the merged "
    "layer is fitted by least squares",
    name="merge",
)
class Merging(Technique):
    """One convolution stands for two or three and the activations between them; it is fitted to what they do on data."""

    stage: ClassVar[Stage] = "structure"
    per_place = frozenset({"layers", "kernel"})

    def __init__(self, batches: int = BATCHES, seed: int = 0) -> None:
        """Takes how many batches of data are looked at, and the seed of what is drawn from them."""
        self._batches, self._seed = batches, seed

    def propose(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields one level: every run becomes one convolution, with the smallest kernel."""
        for run in runs(graph, include=scope.include, exclude=scope.unpruned):
            yield from list(self._options(graph, run, scope))[-1:]

    def choices(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields for every run the convolutions that could stand for it."""
        for run in runs(graph, include=scope.include, exclude=scope.unpruned):
            yield from self._options(graph, run, scope)

    def apply(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph in which these runs are one convolution each.

        Raises:
            PenjingError: there is no such run, its kernel makes no sense, or there is no data.
        """
        if not options:
            return copy.deepcopy(graph)
        if data is None:
            raise PenjingError("Merging fits a convolution to what layers do on data: pass the data with data=….")
        wanted = _wanted(graph, options)
        setting = options[0].setting_as(_Setting)
        evidence = Evidence(graph, (), data, setting.batches, setting.seed)
        # Where results are remembered, one pass finds those of all options; they are asked for one by one.
        every = {} if memory_of(data) is None else _every(graph, setting)
        fits = fitted(evidence, every if wanted.keys() <= every.keys() else wanted)
        found = {name: (fits[name].weight, fits[name].bias) for name in wanted}
        told = [replace(one, found={**one.found, "error": round(fits[_name(one)].error, 6)}) for one in options]
        return _written(graph, wanted, found, told)

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph of the same shapes: values don't change the latency."""
        wanted = _wanted(graph, options)
        return _written(graph, wanted, {name: _drawn(*one) for name, one in wanted.items()}, options)

    def _options(self, graph: Graph, run: Run, scope: Scope) -> Iterator[Option]:
        shapes = {node.name: node for node in graph.program.graph.nodes}
        before = sum(node_arguments(shapes[name])[1].meta["val"].numel() for name in run.nodes)
        for kernel in run.kernels():
            setting = {
                "layers": list(run.layers[:-1]), "kernel": list(kernel), "include": list(scope.include),
                "exclude": list(scope.unpruned), "batches": self._batches, "seed": self._seed,
            }  # fmt: skip
            saved = before - math.prod(run.channels) * math.prod(kernel)
            found = {"saves_params": saved}
            yield Option(Place("weight", run.path), "merge", setting, len(run.layers), 1, found)


def _name(option: Option) -> str:
    """Returns a name for an option, by its place and kernel."""
    return f"{option.place.path} {'x'.join(map(str, option.setting['kernel']))}"


def _every(graph: Graph, setting: _Setting) -> Wanted:
    """Returns all runs where the technique may work, with their kernels."""
    return {
        f"{run.path} {'x'.join(map(str, kernel))}": (run, kernel)
        for run in runs(graph)
        if run.within(setting.include, setting.exclude)
        for kernel in run.kernels()
    }


def _wanted(graph: Graph, options: Sequence[Option]) -> Wanted:
    """Returns the runs that options name, with the kernels.

    Raises:
        PenjingError: a run isn't there, or can't have such a kernel.
    """
    found = {}
    for option in options:
        setting = option.setting_as(_Setting)
        run = run_of(graph, [*setting.layers, option.place.path])
        if option.place.kind != "weight" or not setting.layers or run is None:
            there = [Place("weight", one.path) for one in runs(graph)]
            if option.place not in there:
                raise unknown_place(option.place, there, graph.name)
            raise option.refused(f"{', '.join(setting.layers) or 'no layer'} and it aren't one behind the other.")
        if len(setting.kernel) != 2 or min(setting.kernel) < 1 or run.padding_of(setting.kernel) is None:
            whole = "×".join(map(str, run.kernel))
            raise option.refused(
                f"kernel {list(setting.kernel)} doesn't fit; the layers see {whole} positions, and sizes differ by even numbers."
            )
        found[_name(option)] = run, setting.kernel
    return found


def _drawn(run: Run, kernel: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    shape = (run.channels[1], run.channels[0], *kernel)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:])), torch.zeros(shape[0])


def _written(
    graph: Graph, wanted: Wanted, found: Mapping[str, tuple[Tensor, Tensor]], options: Sequence[Option]
) -> Graph:
    """Returns a copy in which each last convolution of a run reads what the first one read, with another weight."""
    small = copy.deepcopy(graph)
    for name, (run, kernel) in wanted.items():
        nodes = {node.name: node for node in small.program.graph.nodes}
        last, weight, bias = nodes[run.nodes[-1]], *found[name]
        _, fetch, old = node_arguments(last)[:3]
        path, like = str(fetch.target), small.tensor(str(fetch.target))
        stem = path.removesuffix("weight")
        small.set_tensor(path, nn.Parameter(weight.to(like), like.requires_grad))
        beside = str(old.target) if old is not None else f"{stem}bias"
        small.set_tensor(beside, nn.Parameter(bias.to(like), like.requires_grad))
        write = Writer.before(last)
        value = fetch.meta["val"]
        arguments = [
            write.fetch(path, resized(value, list(weight.shape))), write.fetch(beside, resized(value, list(bias.shape))),
        ]  # fmt: skip
        geometry = (list(run.stride), list(run.padding_of(kernel) or ()), [1, 1], 1)
        last.args, last.kwargs = (nodes[run.source], *arguments, *geometry), {}
        for gone in (path, beside):
            small.folded.pop(gone, None)
    small.plan = graph.plan + list(options)
    return small.refresh()
