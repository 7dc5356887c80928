"""Decides where values are rounded: behind which nodes a quantise/dequantise pair goes, and which layers get integer weights.

The rules are the same for every target. A `Placement` in the target's capabilities lists in tables the ops that the
target fuses. Nothing here changes a graph.
"""

import operator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.capabilities import Condition, Placement
from penjing.graph import Graph
from penjing.graph.clips import EVERYTHING, Interval


@dataclass(frozen=True)
class Site:
    """A value that gets a quantise/dequantise pair.

    Attributes:
        node: the node that computes the value.
        users: the nodes that read the rounded value; None where all of the node's users read it.
        within: the bounds within which the grid must stay.
        grid_of: the node whose value sets the grid: `node` itself, or a concatenation that reads it.
    """

    node: fx.Node
    users: frozenset[fx.Node] | None
    within: Interval
    grid_of: fx.Node


@dataclass(frozen=True)
class Placed:
    """The decision for a whole graph.

    Attributes:
        sites: the values that are rounded, in order of execution.
        layers: the nodes whose weights become integers.
        integer: the nodes that compute in integers, layers included.
        rewritable: the nodes that compute in integers only once they are rewritten.
        late_clips: pairs of a clip behind ops that only move or select values, and the node that computes these values.
            Right behind that node the clip would give the same result at no cost.
        tables: the nodes that look rows up in a table that becomes integers, whatever is done with the rows.
    """

    sites: tuple[Site, ...]
    layers: tuple[fx.Node, ...]
    integer: tuple[fx.Node, ...]
    rewritable: tuple[fx.Node, ...]
    late_clips: tuple[tuple[fx.Node, fx.Node], ...]
    tables: tuple[fx.Node, ...] = ()


class OpClass(Enum):
    """The class of a node's op for a target."""

    LAYER = "layer"
    INTEGER = "integer"
    CLIP = "clip"
    SAME = "same"
    FLOAT = "float"


def place(graph: Graph, placement: Placement, is_excluded: Condition = lambda node: False) -> Placed:
    """Decides which values are rounded so that the target executes all it can in integers, and nothing more.

    A layer's output is rounded behind the clip that follows the layer. A value that only floating-point nodes read
    isn't rounded.

    Args:
        graph: a graph in evaluation mode with folded batch norms.
        placement: the ops that the target fuses.
        is_excluded: tells whether a node must compute in floating point.
    """
    return _Placer(graph, placement, is_excluded).result()


@dataclass
class _Placer:
    """Walks backwards to collect the inputs that integer nodes want rounded, then forwards to choose where to round them."""

    graph: Graph
    placement: Placement
    is_excluded: Condition
    kinds: dict[fx.Node, OpClass] = field(default_factory=dict)
    active: set[fx.Node] = field(default_factory=set)  # nodes that compute in integers
    readers: dict[fx.Node, set[fx.Node]] = field(default_factory=dict)  # by value, the users that want it rounded

    def result(self) -> Placed:
        nodes = [node for node in self.graph.program.graph.nodes if node.op != "output"]
        self.kinds = {node: self._kind(node) for node in nodes}
        for node in reversed(nodes):
            self._ask(node)
        sites = {site.node: site for node in nodes if (site := self._site(node)) is not None}
        return Placed(
            tuple(self._joined(site, sites) for site in sites.values()),
            tuple(node for node in nodes if self.kinds[node] is OpClass.LAYER),
            tuple(node for node in nodes if node in self.active),
            tuple(node for node in nodes if node in self.active and node.target in self.placement.gates),
            tuple((node, source) for node in nodes if (source := self._source_of_late_clip(node)) is not None),
            tuple(node for node in nodes if self._looks_up(node)),
        )

    def _kind(self, node: fx.Node) -> OpClass:
        tables, target = self.placement, node.target
        if node.op != "call_function" or self.is_excluded(node):
            return OpClass.FLOAT
        if target in tables.layers:
            return OpClass.LAYER if self._is_layer(node) and tables.layers[target](node) else OpClass.FLOAT
        if target in tables.integer:
            operands = node.all_input_nodes
            fits = all(map(is_float, [node, *operands])) and tables.integer[target](node)
            return OpClass.INTEGER if fits else OpClass.FLOAT
        if target in tables.gates:
            return OpClass.INTEGER if is_float(node) else OpClass.FLOAT
        if target in tables.clips:
            bounds = tables.clips[target](node)
            return (
                OpClass.CLIP if bounds is not None and bounds[0] <= 0 <= bounds[1] and is_float(node) else OpClass.FLOAT
            )
        if target is operator.getitem:
            return self.kinds_of(node.args[0])
        if target in tables.same:
            return OpClass.SAME if is_float(node.args[0]) and tables.same[target](node) else OpClass.FLOAT
        return OpClass.FLOAT

    def kinds_of(self, split: Any) -> OpClass:
        """Returns the kind of one output of an op: SAME for a piece of a split that passes integers on, else FLOAT."""
        same = split.target in self.placement.same and self._kind(split) is OpClass.SAME
        return OpClass.SAME if same else OpClass.FLOAT

    def _looks_up(self, node: fx.Node) -> bool:
        """Tells whether a node reads a table whose every other reader looks up in it, too, or takes it as a rounded weight."""
        if node.target not in self.placement.tables or self.is_excluded(node):
            return False
        table: Any = node.args[0]
        if table.op != "get_attr" or not is_float(table) or not self.placement.tables[node.target](node):
            return False
        return all(self._reads_in_few_bits(reader, fetch) for fetch in self._fetches(table) for reader in fetch.users)

    def _fetches(self, table: fx.Node) -> list[fx.Node]:
        tensor = self.graph.tensor(str(table.target))
        return [node for node in self.kinds if node.op == "get_attr" and self.graph.tensor(str(node.target)) is tensor]

    def _reads_in_few_bits(self, reader: fx.Node, table: fx.Node) -> bool:
        if reader.target in self.placement.tables:
            return not self.is_excluded(reader) and reader.args[0] is table
        return self.kinds.get(reader) is OpClass.LAYER and reader.args[1] is table

    def _is_layer(self, node: fx.Node) -> bool:
        weight: Any = node.args[1]
        if weight.op != "get_attr" or not is_float(node.args[0]):
            return False
        tensor = self.graph.tensor(str(weight.target))
        return isinstance(tensor, nn.Parameter | Tensor) and tensor.dtype == torch.float32

    # The backward walk

    def _ask(self, node: fx.Node) -> None:
        kind = self.kinds[node]
        if kind is OpClass.LAYER:
            self.active.add(node)
            self._want(node.args[0], node)
        elif kind is OpClass.INTEGER and self.readers.get(self._end(node)):
            self.active.add(node)
            for operand in node.all_input_nodes:
                self._want(operand, node)
        elif kind is OpClass.SAME and self.readers.get(node):
            self._want(node.args[0], node)

    def _want(self, value: Any, reader: fx.Node) -> None:
        self.readers.setdefault(value, set()).add(reader)

    def _end(self, node: fx.Node) -> fx.Node:
        """Returns the last of the clips that follow `node` one by one with no other reader between, or `node`."""
        while len(node.users) == 1 and self.kinds.get(next(iter(node.users))) is OpClass.CLIP:
            node = next(iter(node.users))
        return node

    # The forward walk

    def _site(self, node: fx.Node) -> Site | None:
        kind = self.kinds[node]
        if kind is OpClass.SAME:
            return None
        if node in self.active:
            end, real = self._end(node), kind is OpClass.LAYER and node.target in self.placement.float_output
            if real and end is node and not self.readers.get(node):  # a clip behind it would be no part of its kernel
                return None
            node = end
            return Site(node, None, self._interval(node), node)
        readers = self.readers.get(node)
        if not readers or (kind is OpClass.CLIP and self._layer_of(node) in self.active):
            return None  # the pair of an active node stands behind its clips and was placed with it
        return Site(node, frozenset(readers), self._interval(node), node)

    def _layer_of(self, node: fx.Node) -> fx.Node:
        """Returns the node in front of the chain of clips that ends at `node`, each the only reader of the one before."""
        while self.kinds[node] is OpClass.CLIP and len(node.args[0].users) == 1:  # type: ignore[union-attr]
            node = node.args[0]  # type: ignore[assignment]
        return node

    def _interval(self, node: fx.Node) -> Interval:
        """Returns bounds within which all values of `node` lie."""
        if self.kinds[node] is OpClass.CLIP:
            own, inner = self.placement.clips[node.target](node), self._interval(node.args[0])  # type: ignore[arg-type]
            assert own is not None
            return max(own[0], inner[0]), min(own[1], inner[1])
        if self._is_joint(node):
            parts = [self._interval(self._origin(operand)) for operand in node.all_input_nodes]
            return min(low for low, _ in parts), max(high for _, high in parts)
        return self.placement.bounded.get(node.target, EVERYTHING)

    def _origin(self, node: fx.Node) -> fx.Node:
        while self.kinds[node] is OpClass.SAME:
            node = node.args[0]  # type: ignore[assignment]
        return node

    def _source_of_late_clip(self, clip: fx.Node) -> fx.Node | None:
        """Returns the active node behind which a late clip could stand, or None.

        Only for clips at 0 or nowhere: in training, a dropout between the node and the clip scales the values.
        """
        if self.kinds[clip] is not OpClass.CLIP or not set(self._interval(clip)) <= {0.0, *EVERYTHING}:
            return None
        node: Any = clip.args[0]
        while self.kinds[node] is OpClass.SAME and len(node.users) == 1 and node.target is not operator.getitem:
            node = node.args[0]
        moved = node is not clip.args[0] and len(node.users) == 1 and self._layer_of(node) in self.active
        return node if moved else None

    # Concatenations

    def _is_joint(self, node: fx.Node) -> bool:
        return (
            node.op == "call_function"
            and isinstance(node.args[0] if node.args else None, list | tuple)
            and node in self.active
        )

    def _joined(self, site: Site, sites: dict[fx.Node, Site]) -> Site:
        """Gives a value that only a concatenation reads the grid of the concatenation, so that it is rounded once, not twice.

        The value keeps its own grid where the concatenation's bounds are wider than its own: its clip would come back.
        """
        node = site.grid_of
        while (joint := self._joint_of(node)) is not None and joint in sites and sites[joint].within == site.within:
            node = joint
        return site if node is site.node else Site(site.node, site.users, site.within, node)

    def _joint_of(self, node: fx.Node) -> fx.Node | None:
        if node.op != "call_function" or (node in self.kinds and self._layer_of(node) not in self.active):
            return None
        while len(node.users) == 1:
            node = next(iter(node.users))
            if self.kinds.get(node) is not OpClass.SAME:
                return node if node.op == "call_function" and self._is_joint(node) else None
        return None


def is_float(node: Any) -> bool:
    """Tells whether a node is a float32 tensor, or several of them."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    values = value if isinstance(value, list | tuple) else [value]
    return bool(values) and all(isinstance(v, Tensor) and v.dtype == torch.float32 for v in values)
