"""Finds residual branches in the graph: a branch is added to the value from which it was computed.

`x + f(x)` is a residual block, whatever the name of its class (He et al., Deep Residual Learning, 2016). Without `f`
the identity `x` stays, with the same shape. This file finds and removes branches; pruning decides which ones.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph.graph import Graph
from penjing.graph.ops import node_arguments
from penjing.graph.patterns import check_patterns, matches
from penjing.graph.sources import SHAPE_ONLY, holds_tensors

aten = torch.ops.aten

# By op that adds: the operands that may be the identity.
ADDITIONS: dict[Any, tuple[int, ...]] = {
    aten.add.Tensor: (0, 1),
    aten.sub.Tensor: (0,),
    aten.addcmul.default: (0,),
    aten.addmm.default: (0,),
    aten.baddbmm.default: (0,),
}
_BETA = 3  # position of the factor on the identity in addmm and baddbmm

# Ops that don't change a value; dropout does nothing in evaluation mode.
_SAME_VALUE = {
    aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int, aten.permute.default, aten.transpose.int,
    aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.movedim.int,
    aten.contiguous.default, aten.clone.default, aten.dropout.default,
}  # fmt: skip


@dataclass(frozen=True)
class Branch:
    """A part of the graph whose result is added to the value from which it was computed.

    Attributes:
        name: path of the innermost module that holds exactly the branch's weights; else the path of the branch's last weight.
        nodes: names of the nodes that are removed with the branch, in order of execution.
        params: number of parameters that are removed with the branch; parameters that other ops read too stay.
        macs: multiply-accumulates at batch 1 that are removed with the branch.
        weights: names of the parameters of two or more axes that the branch reads, in order of execution; of all its
            parameters if none has two axes.
        addition: name of the node that adds the branch.
        identity: position of the addition's operand that stays.
    """

    name: str
    nodes: tuple[str, ...]
    params: int
    macs: int
    weights: tuple[str, ...]
    addition: str
    identity: int


def branches(graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> tuple[Branch, ...]:
    """Returns the residual branches of `graph` that hold parameters, in order of execution; one may lie within another.

    A branch may read other values too (an attention mask, an encoder's output) and may be scaled, normalised or dropped
    out before it is added. The staying value must have the sum's shape and type, which excludes blocks with a
    downsampling shortcut. A projected shortcut isn't an identity, and neither of two parallel paths that are only
    joined with each other is a branch.

    Args:
        graph: a captured graph.
        include: patterns of module paths; if given, only branches are returned whose name matches, or all of whose
            weights match.
        exclude: patterns of module paths; branches with a node in a matching module are left out.

    Raises:
        PenjingError: a pattern matches no module.
    """
    check_patterns(graph, [*include, *exclude])
    finder = _Finder(graph)
    found = list(finder.walk())
    return tuple(
        branch
        for branch in _named_apart(found)
        if not (include and not _included(branch, include)) and not _touches(graph, branch, exclude)
    )


def remove_branches(graph: Graph, gone: Sequence[Branch]) -> Graph:
    """Returns a graph without these branches; `graph` stays as it was. Each sum is replaced by its identity operand.

    Args:
        graph: the graph that the branches were found in.
        gone: the branches to remove.

    Raises:
        PenjingError: a branch doesn't belong to this graph.
    """
    small = copy.deepcopy(graph)
    nodes = {node.name: node for node in small.program.graph.nodes}
    for branch in gone:
        addition = nodes.get(branch.addition)
        if addition is None or addition.target not in ADDITIONS:
            raise PenjingError(f"{branch.name} is no branch of this graph: it has no sum '{branch.addition}'.")
        addition.replace_all_uses_with(addition.args[branch.identity])  # type: ignore[arg-type]
    small.refresh(shapes_known=True)
    held = small.tensors()
    small.masks = {name: mask for name, mask in small.masks.items() if name in held}
    return small


class _Finder:
    """Examines each sum of a graph for a branch."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._order = {node: position for position, node in enumerate(graph.program.graph.nodes)}
        self._macs = {row.node: row.macs for row in graph.cost().rows}
        self._carried: dict[fx.Node, frozenset[fx.Node]] = {}
        self._readers: dict[int, list[fx.Node]] = {}
        for node in self._order:
            if node.op == "get_attr":
                self._readers.setdefault(id(graph.tensor(str(node.target))), []).extend(node.users)

    def walk(self) -> Iterator[Branch]:
        for node in self._order:
            for identity, added in _operands(node):
                kept: Any = node.args[identity]
                carried = self._carries(kept)
                if not _alike(kept, node) or not any(self._computed_from(one, carried) for one in added):
                    continue
                found = self._branch(node, identity)
                if found is not None:
                    self._carried[node] = carried | {node}
                    yield found
                    break

    def _carries(self, node: fx.Node) -> frozenset[fx.Node]:
        """Returns the values that a node passes on unchanged, apart from the branches added to them."""
        if node not in self._carried:
            inner = node.args[0] if node.target in _SAME_VALUE else None
            self._carried[node] = frozenset({node}) | (
                self._carries(inner) if isinstance(inner, fx.Node) else frozenset()
            )
        return self._carried[node]

    def _computed_from(self, node: fx.Node, sources: frozenset[fx.Node]) -> bool:
        """Tells whether the value of `node` depends on that of any of `sources`."""
        first = min(self._order[source] for source in sources)
        stack, seen = [node], {node}
        while stack:
            one = stack.pop()
            if one in sources:
                return True
            if one.target in SHAPE_ONLY or self._order[one] < first or not holds_tensors(one):
                continue
            fresh = [source for source in one.all_input_nodes if source not in seen]
            seen.update(fresh)
            stack += fresh
        return False

    def _branch(self, addition: fx.Node, identity: int) -> Branch | None:
        nodes = sorted(self._dies(addition, addition.args[identity]), key=self._order.__getitem__)
        dead = frozenset(nodes)
        read = [n for node in (*nodes, addition) for n in node.all_input_nodes if n.op == "get_attr"]
        tensors = {str(n.target): self._graph.tensor(str(n.target)) for n in read if n is not addition.args[identity]}
        parameters = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.nn.Parameter)}
        if not parameters:
            return None
        weights = tuple(name for name, tensor in parameters.items() if tensor.dim() > 1) or tuple(parameters)
        alone = {
            id(tensor): tensor.numel()
            for tensor in parameters.values()
            if all(reader in dead or reader is addition for reader in self._readers[id(tensor)])
        }
        return Branch(
            self._name(weights),
            tuple(node.name for node in nodes),
            sum(alone.values()),
            sum(self._macs.get(node.name, 0) for node in nodes),
            weights,
            addition.name,
            identity,
        )

    def _dies(self, addition: fx.Node, kept: Any) -> set[fx.Node]:
        """Returns the nodes that nothing reads once the sum is replaced by the operand that stays."""
        dead: set[fx.Node] = set()
        stack = [node for node in addition.all_input_nodes if node is not kept]
        while stack:
            node = stack.pop()
            if node is kept or node in dead or node.op == "placeholder":
                continue
            if all(user in dead or user is addition for user in node.users):
                dead.add(node)
                stack += node.all_input_nodes
        return dead

    def _name(self, weights: Sequence[str]) -> str:
        paths = [name.rpartition(".")[0] for name in weights]
        steps = zip(*(path.split(".") for path in paths), strict=False)
        common = ".".join(step[0] for step in takewhile(lambda step: len(set(step)) == 1, steps))
        inside = {
            name
            for name, tensor in self._graph.named_parameters(remove_duplicate=False)
            if tensor.dim() > 1 and matches(name.rpartition(".")[0], [common])
        }
        return common if common and inside <= set(weights) else paths[-1] or weights[-1]


def _operands(node: fx.Node) -> Iterator[tuple[int, list[fx.Node]]]:
    """Yields, for a sum, the position of each operand that may be the identity, and the operands then added to it."""
    if node.target not in ADDITIONS:
        return
    if node.target in (aten.addmm.default, aten.baddbmm.default) and node_arguments(node)[_BETA] != 1:
        return
    for position in ADDITIONS[node.target]:
        kept = node.args[position]
        scaled = position == 1 and node_arguments(node)[2] != 1  # x + alpha · y
        added = [one for one in node.all_input_nodes if one is not kept]
        if isinstance(kept, fx.Node) and added and not scaled:
            yield position, added


def _alike(a: fx.Node, b: fx.Node) -> bool:
    """Tells whether two nodes give tensors of the same dtype and shape; dynamic sizes are compared by name."""
    first, second = a.meta.get("val"), b.meta.get("val")
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return False
    return first.dtype == second.dtype and _shape(first) == _shape(second)


def _shape(tensor: Tensor) -> list[Any]:
    # Comparing symbolic sizes directly would fix them to numbers.
    return [size.node.expr if isinstance(size, torch.SymInt) else size for size in tensor.shape]


def _named_apart(found: Sequence[Branch]) -> Iterator[Branch]:
    """Makes names unique: branches that share their weights share a name, so the name of the sum is added."""
    names = [branch.name for branch in found]
    for branch in found:
        twice = names.count(branch.name) > 1
        yield Branch(**{**vars(branch), "name": f"{branch.name} ({branch.addition})"}) if twice else branch


def _included(branch: Branch, patterns: Sequence[str]) -> bool:
    return matches(branch.name, patterns) or all(matches(name.rpartition(".")[0], patterns) for name in branch.weights)


def _touches(graph: Graph, branch: Branch, patterns: Sequence[str]) -> bool:
    if not patterns:
        return False
    inner = set(branch.nodes)
    paths = {
        str(node.target).rpartition(".")[0] if node.op == "get_attr" else node.meta.get("module", "")
        for node in graph.program.graph.nodes
        if node.name in inner
    }
    return any(matches(path, patterns) for path in paths)
