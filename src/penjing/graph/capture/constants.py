"""Folds constants at capture: a weight that the model computes from its parameters alone becomes a parameter itself.

Examples are weight normalisation, spectral normalisation, weights standardised in `forward`, and kernels stored in
another order of axes. In evaluation the computed weight never changes, and it is the tensor to prune, quantise and
train. A product with a constant matrix becomes a `linear`; a number that the code reads from a constant becomes that
number.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.graph.capture.constant_nodes import cone, constant_nodes, dimensions, order_of_axes
from penjing.graph.capture.dense_products import products_as_linear
from penjing.graph.edit.rewriter import Writer
from penjing.graph.ops import LAYERS, RECURRENT, RECURRENT_PARAMETERS, TRANSPOSED_CONVOLUTIONS, node_arguments

aten = torch.ops.aten

GROWTH = 1.1  # most entries of a folded weight per entry of its sources, so that small factors stay small
NUMBERS = frozenset({aten.item.default, aten._local_scalar_dense.default})
HOOK_SUFFIXES = ("_orig", "_v", "_g")  # of names by `torch.nn.utils.spectral_norm`, `prune`, `weight_norm`


@dataclass(frozen=True)
class Folded:
    """The tensors that a folded weight was computed from.

    Attributes:
        sources: the model's names of these parameters and buffers, the largest first.
        order: the order of axes where the weight is a permutation of its only source; else empty.
    """

    sources: tuple[str, ...]
    order: tuple[int, ...] = ()


def fold(
    nodes: fx.Graph, tensors: dict[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Folded], dict[str, Tensor]]:
    """Folds the constants of a captured graph, in place.

    Args:
        nodes: the graph.
        tensors: the graph's parameters, buffers and constants by name; tied tensors are the same object.
        model: the user's model, whose names the tensors have.

    Returns:
        The tensors, with each folded weight in place of its sources; the sources of each folded weight; and the masks
        of weights that were pruned by `torch.nn.utils.prune`.
    """
    as_linear = products_as_linear(nodes, tensors)
    constants = _Constants(nodes, tensors)
    constants.fold_numbers()
    found = constants.weights()
    kept = {name: tensor for name, tensor in tensors.items() if id(tensor) not in found.gone}
    folded: dict[str, Folded] = {}
    masks: dict[str, Tensor] = {}
    for node in found.nodes:
        sources = constants.sources(node)
        name = _natural_name(sources[0], model, kept)
        kept[name] = constants.parameter(node)
        folded[name] = Folded(tuple(sources), constants.order(node))
        mask = constants.mask(node)
        if mask is not None:
            masks[name] = mask
        node.replace_all_uses_with(Writer.before(node).fetch(name))
    for node, target, args in as_linear:
        if isinstance(node.args[1], fx.Node) and node.args[1].op != "get_attr":  # the folded matrix has other uses
            node.target, node.args = target, args
    constants.forget_unused()
    return _in_order(kept, tensors, folded), folded, masks


def _in_order(kept: dict[str, Tensor], before: Mapping[str, Tensor], folded: Mapping[str, Folded]) -> dict[str, Tensor]:
    """Returns `kept` in the order of `before`, with each folded weight at the position of its first source."""
    if not folded:
        return kept
    place = {name: position for position, name in enumerate(before)}
    places = {name: min(place[source] for source in one.sources) for name, one in folded.items()}
    return {name: kept[name] for name in sorted(kept, key=lambda name: places.get(name, place.get(name, len(place))))}


def _weight_operands(node: fx.Node) -> Iterable[fx.Node]:
    """Yields the arguments of an op that are weights or biases."""
    positions = WEIGHTS.get(node.target, ())
    for position, argument in enumerate(node_arguments(node) if positions else ()):
        every = argument if isinstance(argument, list | tuple) else [argument]
        yield from (one for one in every if position in positions and isinstance(one, fx.Node))


WEIGHTS: dict[Any, tuple[int, ...]] = {
    **dict.fromkeys((*LAYERS, *TRANSPOSED_CONVOLUTIONS), (1, 2)),
    **dict.fromkeys(RECURRENT, (RECURRENT_PARAMETERS,)),
    aten.embedding.default: (0,),
    aten.embedding_bag.default: (0,),
    aten.embedding_bag.padding_idx: (0,),
}
"""The positions of each op's arguments that are weights or biases."""


@dataclass(frozen=True)
class _Weights:
    """The nodes to fold, and the ids of the tensors that nothing reads after folding."""

    nodes: list[fx.Node]
    gone: frozenset[int]


class _Constants:
    """The constant nodes of a graph, and their values."""

    def __init__(self, nodes: fx.Graph, tensors: dict[str, Tensor]) -> None:
        self._nodes, self._tensors = nodes, tensors
        self._values: dict[fx.Node, Any] = {}
        self._constant = constant_nodes(nodes)
        self._cones: dict[fx.Node, list[fx.Node]] = {}
        self._share_equal()

    def _share_equal(self) -> None:
        """Merges equal computations, such as those of a weight that two calls of one layer compute."""
        known: dict[Any, fx.Node] = {}
        for node in [one for one in self._nodes.nodes if one in self._constant]:
            key = (node.target, str(node.args), str(node.kwargs)) if node.op != "get_attr" else str(node.target)
            first = known.setdefault(key, node)
            if first is not node:
                node.replace_all_uses_with(first)
                self._constant.discard(node)
                self._nodes.erase_node(node)

    def fold_numbers(self) -> None:
        """Replaces each node that reads a number from a constant by that number."""
        for node in [one for one in self._nodes.nodes if one in self._constant and one.target in NUMBERS]:
            if any(isinstance(self._tensors[str(source.target)], nn.Parameter) for source in self._cone(node)):
                continue
            number = self._value(node)

            def read(one: Any, node: fx.Node = node, number: Any = number) -> Any:
                return number if one is node else one

            for user in list(node.users):
                user.args = fx.node.map_aggregate(user.args, read)
                user.kwargs = fx.node.map_aggregate(user.kwargs, read)
            self._constant.discard(node)
            self._nodes.erase_node(node)

    def weights(self) -> _Weights:
        """Returns the constant nodes that are weights and whose parameters nothing else reads."""
        found = dict.fromkeys(
            one
            for node in self._nodes.nodes
            if node.op == "call_function" and node not in self._constant
            for one in _weight_operands(node)
            if one in self._constant and one.op == "call_function"
        )
        chosen = [node for node in found if self._is_small(node) and self._reads_a_parameter(node)]
        while True:  # a weight that isn't folded may read another one's sources, which then can't be folded either
            alone = [node for node in chosen if self._is_alone(node, chosen)]
            if len(alone) == len(chosen):
                break
            chosen = alone
        gone = {id(self._tensors[str(source.target)]) for node in chosen for source in self._cone(node)}
        left = [one for one in self._nodes.nodes if one.op == "get_attr" and not self._only_for(one, chosen)]
        return _Weights(chosen, frozenset(gone - {id(self._tensors[str(one.target)]) for one in left}))

    def forget_unused(self) -> None:
        """Erases the constant nodes that no node reads any more."""
        for node in reversed(list(self._nodes.nodes)):
            if node in self._constant and not node.users:
                self._nodes.erase_node(node)

    def _cone(self, node: fx.Node) -> list[fx.Node]:
        """Returns the result of `cone`, cached: it doesn't change while weights are chosen and computed."""
        if node not in self._cones:
            self._cones[node] = cone(node)
        return self._cones[node]

    def _reads_a_parameter(self, node: fx.Node) -> bool:
        return any(isinstance(self._tensors[str(source.target)], nn.Parameter) for source in self._cone(node))

    def _is_small(self, node: fx.Node) -> bool:
        size = math.prod(node.meta["val"].shape)
        return size <= GROWTH * sum(self._tensors[str(source.target)].numel() for source in self._cone(node))

    def _is_alone(self, node: fx.Node, chosen: list[fx.Node]) -> bool:
        """Tells whether only this weight reads its parameters, under all of their names."""
        owned = {
            id(tensor)
            for source in self._cone(node)
            if isinstance(tensor := self._tensors[str(source.target)], nn.Parameter)
        }
        others = [one for one in chosen if one is not node]
        for one in self._nodes.nodes:
            owns = one.op == "get_attr" and id(self._tensors[str(one.target)]) in owned
            if owns and (not self._only_for(one, [node]) or any(one in self._cone(other) for other in others)):
                return False
        return True

    def _only_for(self, source: fx.Node, ends: list[fx.Node]) -> bool:
        waiting, seen = list(source.users), set()
        while waiting:
            node = waiting.pop()
            if node in ends or node in seen:
                continue
            if node not in self._constant:
                return False
            seen.add(node)
            waiting.extend(node.users)
        return True

    def sources(self, node: fx.Node) -> list[str]:
        """Returns the names of the tensors that a weight is computed from: parameters first, the largest first."""
        names = [str(source.target) for source in self._cone(node)]

        def size(name: str) -> tuple[bool, int]:
            return isinstance(self._tensors[name], nn.Parameter), self._tensors[name].numel()

        return sorted(names, key=size, reverse=True)

    def parameter(self, node: fx.Node) -> nn.Parameter:
        """Returns a weight's value as a parameter; it requires a gradient if any of the weight's sources does."""
        trained = any(self._tensors[str(source.target)].requires_grad for source in self._cone(node))
        return nn.Parameter(self._value(node).detach().clone(memory_format=torch.contiguous_format), trained)

    def order(self, node: fx.Node) -> tuple[int, ...]:
        """Returns the order of axes if a weight is a permutation of one tensor, else an empty tuple."""
        order = list(range(dimensions(node)))
        while node.op != "get_attr":
            axes = order_of_axes(node)
            if axes is None:
                return ()
            order = [axes[axis] for axis in order]
            (node,) = node.all_input_nodes
        return tuple(order)

    def mask(self, node: fx.Node) -> Tensor | None:
        """Returns the mask of a weight that is a parameter times a tensor of zeros and ones; None for other weights."""
        if node.target is not aten.mul.Tensor:
            return None
        for factor in node.all_input_nodes:
            if factor.meta["val"].shape == node.meta["val"].shape and not self._reads_a_parameter(factor):
                mask: Tensor = self._value(factor)
                if bool(((mask == 0) | (mask == 1)).all()):
                    return mask.bool()
        return None

    def _value(self, node: fx.Node) -> Any:
        if node not in self._values:
            if node.op == "get_attr":
                self._values[node] = self._tensors[str(node.target)].detach()
            else:
                args = fx.node.map_arg(node.args, self._value)
                kwargs = fx.node.map_arg(node.kwargs, self._value)
                with torch.no_grad():
                    self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self._values[node]


def _natural_name(source: str, model: nn.Module, taken: Mapping[str, Tensor]) -> str:
    """Returns the name under which a layer holds its weight, derived from the name of the weight's source."""
    owner, found, rest = f".{source}".rpartition(".parametrizations.")
    if found:
        return f"{owner}.{rest.rpartition('.')[0]}".lstrip(".")
    for suffix in HOOK_SUFFIXES:
        plain = source.removesuffix(suffix)
        if plain != source and plain not in taken and isinstance(_held(model, plain), Tensor):
            return plain
    return source


def _held(model: nn.Module, path: str) -> Any:
    try:
        return operator.attrgetter(path)(model)
    except AttributeError:
        return None
