"""Runs of convolutions, with nothing but norms and activations in between, that one convolution could stand for."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from penjing.evidence.windows import each
from penjing.graph import Graph
from penjing.graph.ops import node_arguments
from penjing.graph.patterns import check_patterns, matches

aten = torch.ops.aten

CONVOLUTION = aten.conv2d.default
# What may stand between two convolutions: it works on each value, or each channel, alone.
BETWEEN = frozenset({
    aten.batch_norm.default, aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default,
    aten.hardtanh_.default, aten.clamp.default, aten.leaky_relu.default, aten.elu.default, aten.silu.default,
    aten.silu_.default, aten.gelu.default, aten.hardswish.default, aten.hardswish_.default, aten.mish.default,
    aten.sigmoid.default, aten.tanh.default, aten.dropout.default,
})  # fmt: skip
LONGEST = 3  # convolutions of a run; a longer row of them makes several runs
WIDEST = 2400  # values that a window of the one convolution may see: its fit solves equations of that many unknowns


@dataclass(frozen=True)
class Run:
    """Convolutions one behind the other.

    Attributes:
        nodes: names of the convolutions' nodes, first to last.
        layers: paths of their modules.
        source: name of the node that the first one reads.
        channels: channels that the first one reads, and that the last one makes.
        kernel: how much of the input a value of the output sees along each axis.
        stride: of the whole run, along each axis.
        padding: of the whole run, along each axis.
        largest: the largest kernel among the convolutions, along each axis.
        macs: multiply-accumulates of a sample, of the example's size where sizes may change.
        positions: values of one channel of the output, of the same size.
    """

    nodes: tuple[str, ...]
    layers: tuple[str, ...]
    source: str
    channels: tuple[int, int]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    largest: tuple[int, ...]
    macs: int
    positions: int

    @property
    def path(self) -> str:
        """The path of the last convolution's module, in whose place the one convolution comes."""
        return self.layers[-1]

    def within(self, include: Sequence[str], exclude: Sequence[str]) -> bool:
        """Tells whether all convolutions match `include`, if it is given, and none matches `exclude`."""
        wanted = not include or all(matches(path, include) for path in self.layers)
        return wanted and not any(matches(path, exclude) for path in self.layers)

    def kernels(self) -> list[tuple[int, ...]]:
        """Returns the kernels that multiply less often than the run, the largest first.

        The one that sees all that the run sees, and the largest of the run's own.
        """
        found = dict.fromkeys((self.kernel, self.largest))
        return [one for one in found if self.padding_of(one) is not None and self.macs_of(one) < self.macs]

    def macs_of(self, kernel: Sequence[int]) -> int:
        """Returns the multiply-accumulates of one convolution with this kernel."""
        return math.prod(self.channels) * math.prod(kernel) * self.positions

    def padding_of(self, kernel: Sequence[int]) -> tuple[int, ...] | None:
        """Returns the padding with which a smaller kernel sees the middle of what the run sees; None if there is none."""
        if self.channels[0] * math.prod(kernel) > WIDEST:
            return None
        less = [whole - own for whole, own in zip(self.kernel, kernel, strict=True)]
        found = tuple(pad - gap // 2 for pad, gap in zip(self.padding, less, strict=True))
        return None if any(gap < 0 or gap % 2 for gap in less) or min(found) < 0 else found


def runs(graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Run]:
    """Returns all runs, none of which has a convolution of another, in order of execution.

    Args:
        graph: a captured graph.
        include: patterns of module paths; if given, only runs all of whose convolutions match.
        exclude: patterns of module paths; runs with a convolution that matches are left out.

    Raises:
        PenjingError: a pattern matches no module.
    """
    check_patterns(graph, [*include, *exclude])
    macs = {row.node: row.macs for row in graph.cost().rows}
    found = [_run(row, macs) for row in _rows(graph)]
    return [run for run in found if run.within(include, exclude)]


def run_of(graph: Graph, layers: Sequence[str]) -> Run | None:
    """Returns the run of the convolutions of these modules; None where they aren't one behind the other.

    Args:
        graph: a captured graph, in which more may have changed than when the run was found.
        layers: paths of modules, first to last.
    """
    by_path = {node.meta["module"]: node for node in _plain(graph)}
    row = [by_path[path] for path in layers if path in by_path]
    if len(row) < len(layers) or any(_next(one) is not other for one, other in itertools.pairwise(row)):
        return None
    return _run(row, {one.node: one.macs for one in graph.cost().rows})


def _rows(graph: Graph) -> Iterator[list[fx.Node]]:
    """Yields rows of two convolutions or more, of `LONGEST` at most."""
    plain = _plain(graph)
    behind = {node: one for node in plain if (one := _next(node)) in plain}
    later = set(behind.values())
    for first in (node for node in plain if node not in later):
        row = [first]
        while (one := behind.get(row[-1])) is not None:
            row.append(one)
        step = len(row) if len(row) <= LONGEST else 2
        yield from (row[at : at + step] for at in range(0, len(row) - 1, step) if len(row[at : at + step]) > 1)


def _plain(graph: Graph) -> list[fx.Node]:
    """Returns the convolutions, each of a module of its own, that could be part of a run."""
    fetched: Counter[int] = Counter()
    modules: Counter[str] = Counter()
    for node in graph.program.graph.nodes:
        if node.op == "get_attr":
            fetched[id(graph.tensor(str(node.target)))] += len(node.users)
        elif node.target is CONVOLUTION:
            modules[node.meta.get("module", "")] += 1
    found = [node for node in graph.program.graph.nodes if _is_plain(graph, node, fetched)]
    return [node for node in found if modules[node.meta["module"]] == 1]


def _is_plain(graph: Graph, node: fx.Node, fetched: Mapping[int, int]) -> bool:
    """Tells whether a node is a convolution of a module, without dilation, whose weight nothing else reads."""
    if node.target is not CONVOLUTION or not node.meta.get("module"):
        return False
    _, weight, bias, _, padding, dilation, _ = node_arguments(node)
    constants = [one for one in (weight, bias) if one is not None]
    return (
        all(one.op == "get_attr" and fetched[id(graph.tensor(str(one.target)))] == 1 for one in constants)
        and not isinstance(padding, str)
        and set(each(dilation, 2)) == {1}
        and node.meta["val"].dim() == 4
        and node.meta["val"].is_floating_point()
        and not any(str(one.target) in graph.masks for one in constants)
    )


def _next(node: fx.Node) -> fx.Node | None:
    """Returns what reads a convolution's values behind norms and activations, if it alone does."""
    while True:
        if len(node.users) != 1:
            return None
        (reader,) = node.users
        if not reader.args or reader.args[0] is not node or reader.target not in (CONVOLUTION, *BETWEEN):
            return None
        if reader.target is CONVOLUTION:
            return reader
        node = reader


def _run(row: Sequence[fx.Node], macs: Mapping[str, int]) -> Run:
    kernel, stride, padding, largest = [1, 1], [1, 1], [0, 0], [1, 1]
    for node in row:
        _, weight, _, steps, pads, _, _ = node_arguments(node)
        for axis in range(2):
            own = int(weight.meta["val"].shape[2 + axis])
            padding[axis] += each(pads, 2)[axis] * stride[axis]
            kernel[axis] += (own - 1) * stride[axis]
            stride[axis] *= each(steps, 2)[axis]
            largest[axis] = max(largest[axis], own)
    source = node_arguments(row[0])[0]
    made = row[-1].meta["val"]
    return Run(
        tuple(node.name for node in row), tuple(node.meta["module"] for node in row), source.name,
        (int(source.meta["val"].shape[1]), int(made.shape[1])), tuple(kernel), tuple(stride), tuple(padding), tuple(largest),
        sum(macs[node.name] for node in row), math.prod(int(size) for size in made.shape[2:]),
    )  # fmt: skip
