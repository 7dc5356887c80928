"""Writes layers as products of a weight matrix with input columns, and sums the columns' Gram matrices over the data."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.evidence.evidence import Evidence
from penjing.evidence.memory import Found
from penjing.evidence.thin_matrix import ThinMatrix
from penjing.evidence.windows import each, padding
from penjing.graph import Graph
from penjing.graph.ops import node_arguments
from penjing.graph.weights import Weight, weights

aten = torch.ops.aten

_CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding}
_PRODUCTS = {aten.matmul.default, aten.mm.default}
_ENOUGH = 32  # columns per batch for each of their values: with more of them a covariance hardly changes
WHOLE = 8192  # values of a column, up to which their Gram matrix is written out: half a gigabyte in double precision
_CHUNK = 2**25  # numbers that are unfolded at a time: 128 MiB in float32


@dataclass(frozen=True)
class LayerProduct:
    """A layer whose outputs are, up to a bias, `weight.view(w).flatten(1) @ columns`, in each of its groups.

    Attributes:
        weight: name of the layer's weight.
        node: the layer's node.
        source: name of the node that the layer reads.
        groups: the number of groups of the convolution.
    """

    weight: Weight
    node: fx.Node
    source: str
    groups: int

    def columns(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the input columns, `(groups, in_channels / groups · kernel, samples)`, as many samples at a time as fit."""
        if self.node.target not in _CONVOLUTIONS:
            yield x.reshape(-1, x.shape[-1]).T[None]
            return
        _, _, _, stride, given, dilation, groups = node_arguments(self.node)
        kernel = self.weight.shape[2:]
        steps, gaps = each(stride, len(kernel)), each(dilation, len(kernel))
        x = F.pad(x if x.dim() == len(kernel) + 2 else x[None], padding(given, kernel, gaps))
        if len(kernel) == 1:
            x, kernel, steps, gaps = x.unsqueeze(2), (1, *kernel), [1, *steps], [1, *gaps]
        at_once = max(1, _CHUNK // max(x[0].numel() * kernel[0] * kernel[1], 1))
        for part in x.split(at_once):
            found = F.unfold(part, kernel, tuple(gaps), 0, tuple(steps))
            yield found.transpose(0, 1).flatten(1).unflatten(0, (groups, -1))


def products(evidence: Evidence, names: Sequence[str]) -> dict[str, list[LayerProduct]]:
    """Returns the layers that multiply by these weights; none for a weight that any other kind of layer reads, too.

    The layers are linear ones, convolutions of one or two dimensions, and products with a matrix on the right.
    """
    graph, wanted = evidence.graph, {id(evidence.graph.tensor(name)): name for name in names}
    known = {id(graph.tensor(weight.name)): weight for weight in weights(graph)}
    found: dict[str, list[LayerProduct]] = {name: [] for name in names}
    other: set[str] = set()
    for node in graph.program.graph.nodes:
        for position, source in enumerate(node.args):
            given = id(graph.tensor(str(source.target))) if _fetches(source) else None
            if given not in wanted or given not in known:
                continue
            product = _product(node, position, known[given])
            if product is None:
                other.add(wanted[given])
            else:
                found[wanted[given]].append(product)
    return {name: [] if name in other else layers for name, layers in found.items()}


@dataclass(frozen=True)
class ColumnMoments:
    """The first two moments of the columns that a weight multiplies, in double precision, on the processor.

    Attributes:
        count: number of columns.
        mean: (size,).
        covariance: (size, size), around the mean; thin for columns of more than `WHOLE` values.
    """

    count: int
    mean: Tensor
    covariance: Tensor | ThinMatrix


@dataclass(frozen=True)
class PairedMoments:
    """The moments of a layer's columns in a changed network, beside those of the same layer in the original.

    Attributes:
        changed: of the changed network.
        mean: of the original's columns, (size,).
        cross: covariance of the original's columns with the changed ones, (size, size); thin as those of the columns are.
    """

    changed: ColumnMoments
    mean: Tensor
    cross: Tensor | ThinMatrix


def column_moments(evidence: Evidence, layers: Sequence[LayerProduct]) -> dict[str, ColumnMoments]:
    """Returns the moments of the columns of each weight, from one pass over the data; for layers of one group.

    Of very many columns a sample is taken; of columns of more than `WHOLE` values, so many that they take no more memory than
    the largest matrix that is written out.

    Raises:
        PenjingError: there is no calibration data, or the input of a layer holds NaN or infinity.
    """
    parts = _by_weight(layers)

    def find(missing: list[str]) -> dict[str, Found]:
        wanted = {name: parts[name] for name in missing}
        sums = {name: _sums_of(own) for name, own in wanted.items()}
        sources = sorted({layer.source for own in wanted.values() for layer in own})
        for values in evidence.values(sources):
            for name, own in wanted.items():
                for layer in own:
                    for columns in layer.columns(values[layer.source].float()):
                        sums[name].add(columns[0])
        return {name: _finite(found.found(), wanted[name]) for name, found in sums.items()}

    found = evidence.gather("column moments", {"columns": _ENOUGH, "whole": WHOLE}, parts, find)
    return {parts[name][0].weight.name: _moments(one) for name, one in found.items()}


def paired_moments(evidence: Evidence, other: Graph, layers: Sequence[LayerProduct]) -> PairedMoments:
    """Returns the moments of one weight's columns in the evidence's graph and in another one, from one pass over the data.

    Args:
        evidence: the original and the data.
        other: a changed graph, in which the nodes that the layers read have the same names.
        layers: those that multiply by the weight, of one group.

    Raises:
        PenjingError: there is no calibration data, or the input of a layer holds NaN or infinity.
    """
    before, behind = _sums_of(layers), _sums_of(layers)
    cross = torch.zeros((), dtype=torch.float64)
    for values, others in evidence.values_beside(other, sorted({layer.source for layer in layers})):
        for layer in layers:
            pairs = zip(
                layer.columns(values[layer.source].float()), layer.columns(others[layer.source].float()), strict=True
            )
            for (mine,), (theirs,) in pairs:
                before.add(mine)
                behind.add(theirs)
                if isinstance(before, _GramSums):
                    cross = cross.to(mine.device) + (_some(mine) @ _some(theirs).T).double()
    mine, theirs = (_finite(one.found(), layers) for one in (before, behind))
    changed, mean = _moments(theirs), _mean(mine)
    if "columns" in mine:
        return PairedMoments(changed, mean, ThinMatrix(_centred(mine), _centred(theirs)))
    drawn = int(theirs["drawn"])
    means = [(one["sum of drawn"] / drawn).double().cpu() for one in (mine, theirs)]
    return PairedMoments(changed, mean, cross.cpu() / drawn - torch.outer(*means))


class _GramSums:
    """Sums over columns: those of the covariance are sums over a sample, that of the mean is one over all."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, columns: Tensor) -> None:
        """Adds columns (size, count)."""
        drawn = _some(columns)
        parts = [
            (drawn @ drawn.T).double(), drawn.double().sum(1), torch.tensor(drawn.shape[1]),
            columns.double().sum(1), torch.tensor(columns.shape[1]),
        ]  # fmt: skip
        self._sums = [one + part for one, part in zip(self._sums, parts, strict=True)] if self._sums else parts

    def found(self) -> Found:
        """Returns the sums by their names."""
        return dict(zip(("gram", "sum of drawn", "drawn", "sum", "count"), self._sums, strict=True))


class _Sample:
    """Some of the columns themselves, each of all with the same chance, and the sum over all.

    Every column gets a random number, and those with the lowest numbers are kept. Samples of equally many columns hold the
    columns of the same places.

    Args:
        most: how many columns are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._seen = most, 0
        self._drawn = torch.zeros(0)
        self._kept: list[Tensor] = []
        self._sum = torch.zeros((), dtype=torch.float64)

    def add(self, columns: Tensor) -> None:
        """Adds columns (size, count)."""
        numbers = torch.rand(columns.shape[1], generator=torch.Generator().manual_seed(self._seen))
        self._seen += columns.shape[1]
        self._sum = self._sum.to(columns.device) + columns.double().sum(1)
        there = len(self._drawn)
        every = torch.cat([self._drawn, numbers])
        lowest = every.argsort(stable=True)[: self._most].sort().values
        old, new = lowest[lowest < there], lowest[lowest >= there] - there
        self._drawn = every[lowest]
        kept = [one.index_select(1, old.to(one.device)) for one in self._kept]
        self._kept = [torch.cat([*kept, columns.index_select(1, new.to(columns.device))], 1)]

    def found(self) -> Found:
        """Returns the sample and the sums by their names."""
        return {"columns": self._kept[0], "sum": self._sum, "count": torch.tensor(self._seen)}


def _sums_of(layers: Sequence[LayerProduct]) -> _GramSums | _Sample:
    """Returns what sums up the columns of a weight's layers: a Gram matrix, or a sample of columns that are too long for one."""
    size = math.prod(layers[0].weight.shape[1:])
    return _GramSums() if size <= WHOLE else _Sample(max(1, WHOLE * WHOLE // size))


def _finite(found: Found, layers: Sequence[LayerProduct]) -> Found:
    if not all(bool(torch.isfinite(part).all()) for part in found.values()):
        raise PenjingError(f"On this data {layers[0].weight.place} reads values that aren't finite numbers.")
    return found


def _moments(found: Found) -> ColumnMoments:
    count = int(found["count"])
    if "columns" in found:
        columns = _centred(found)
        return ColumnMoments(count, _mean(found), ThinMatrix(columns, columns))
    drawn = int(found["drawn"])
    mean = (found["sum of drawn"] / drawn).double().cpu()
    covariance = found["gram"].double().cpu() / drawn - torch.outer(mean, mean)
    return ColumnMoments(count, _mean(found), covariance)


def _mean(found: Found) -> Tensor:
    return (found["sum"] / int(found["count"])).double().cpu()


def _centred(found: Found) -> Tensor:
    """Returns the sample's columns around their mean, such that the product with their transpose is the covariance."""
    columns = found["columns"].double().cpu()
    return (columns - columns.mean(1, keepdim=True)) / math.sqrt(columns.shape[1])


def _some(columns: Tensor) -> Tensor:
    """Returns a few of very many columns, drawn at random: the same places of every matrix of that size."""
    size, count = columns.shape
    if count <= _ENOUGH * size:
        return columns
    drawn = torch.randint(count, (_ENOUGH * size,), generator=torch.Generator().manual_seed(count))
    return columns[:, drawn.to(columns.device)]


def grams(evidence: Evidence, layers: Sequence[LayerProduct]) -> dict[str, Tensor]:
    """Returns, for each weight, Σ x xᵀ over the input columns, `(groups, size, size)`, from one pass over the data.

    Raises:
        PenjingError: there is no calibration data, or the input of a layer holds NaN or infinity.
    """
    parts = _by_weight(layers)

    def find(missing: list[str]) -> dict[str, Found]:
        sums = _sums(evidence, [layer for name in missing for layer in parts[name]])
        return {name: {"gram": sums[parts[name][0].weight.name]} for name in missing}

    device = next(evidence.graph.parameters()).device
    found = evidence.gather("gram", {}, parts, find)
    return {parts[name][0].weight.name: one["gram"].to(device) for name, one in found.items()}


def _by_weight(layers: Sequence[LayerProduct]) -> dict[str, list[LayerProduct]]:
    """Returns the layers of each weight, by a key that names all of them."""
    by_weight: dict[str, list[LayerProduct]] = {}
    for layer in layers:
        by_weight.setdefault(layer.weight.name, []).append(layer)
    return {" ".join([name, *(layer.node.name for layer in own)]): own for name, own in by_weight.items()}


def _sums(evidence: Evidence, layers: Sequence[LayerProduct]) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    for values in evidence.values(sorted({layer.source for layer in layers})):
        for layer in layers:
            for columns in layer.columns(values[layer.source].float()):
                gram = columns @ columns.mT
                sums[layer.weight.name] = sums.get(layer.weight.name, torch.zeros_like(gram)) + gram
    for layer in layers:
        if not bool(torch.isfinite(sums[layer.weight.name]).all()):
            raise PenjingError(f"On this data {layer.weight.place} reads values that aren't finite numbers.")
    return sums


def _product(node: fx.Node, position: int, weight: Weight) -> LayerProduct | None:
    source = node.args[0]
    if not isinstance(source, fx.Node):
        return None
    if node.target in _CONVOLUTIONS and position == 1:
        return LayerProduct(weight, node, source.name, int(node_arguments(node)[6]))
    if (node.target is aten.linear.default or node.target in _PRODUCTS) and position == 1 and len(weight.axes) == 2:
        return LayerProduct(weight, node, source.name, 1)
    if node.target is aten.addmm.default and position == 2 and isinstance(node.args[1], fx.Node):
        return LayerProduct(weight, node, node.args[1].name, 1)
    return None


def _fetches(source: object) -> bool:
    return isinstance(source, fx.Node) and source.op == "get_attr"
