"""The memory that a graph's values take while it runs: how much is alive at once, and how large the largest tensor is.

Ops run one by one in the graph's order, and views cost nothing. In a quantised graph a value is stored on the grid to which
it is rounded, as in a runtime that computes in integers: neither the floats in front of the rounding nor those behind it exist,
but for inputs and outputs. What is computed of weights alone, such as their integers, is no activation.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from penjing.graph.graph import Graph

aten = torch.ops.aten
Number = Callable[[Any], int]

# Ops that runtimes compute within the op in front of them, so that only what comes out is stored.
FUSED = frozenset({aten.relu.default, aten.hardtanh.default, aten.relu6.default, aten.clamp.default})


def tensors(value: Any) -> list[Tensor]:
    """Returns the tensors of a node's value: itself, or the elements of a tuple."""
    return [v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, Tensor)]


def bytes_of(node: fx.Node, number: Number) -> int | None:
    """Returns the bytes of a node's value as the graph computes it; None where it is no tensor.

    Args:
        node: the node.
        number: gives the size that stands for a symbolic one.
    """
    found = tensors(node.meta.get("val"))
    return sum(math.prod(number(n) for n in t.shape) * t.element_size() for t in found) if found else None


@dataclass(frozen=True)
class Lifetime:
    """An activation that takes memory while ops run one by one.

    Attributes:
        node: the node that makes it.
        bytes: what it takes, for one sample.
        born: number of the step at which it is made.
        dies: number of the last step at which it, or a view of it, is read.
    """

    node: str
    bytes: int
    born: int
    dies: int


def lifetimes(graph: "Graph", number: Number, batched: Mapping[fx.Node, int]) -> list[Lifetime]:
    """Returns when each activation is alive, in the graph's order; a view keeps alive what it shows.

    Args:
        graph: the graph.
        number: gives the size that stands for a symbolic one.
        batched: of the nodes that work on inputs, how many samples their size is that of.
    """
    nodes = [n for n in graph.program.graph.nodes if n.op in ("placeholder", "output") or _is_activation(n, batched)]
    order = {node: index for index, node in enumerate(nodes)}
    owner: dict[fx.Node, fx.Node] = {}
    dies: dict[fx.Node, int] = {}
    for node in nodes:
        shown = shows(node)
        owner[node] = owner.get(shown, shown) if shown is not None else node
        last = max((order[user] for user in node.users if user in order), default=order[node])
        dies[owner[node]] = max(dies.get(owner[node], 0), last)
    return [
        Lifetime(node.name, math.ceil(sum(stored_bytes(node, number)) / batched.get(node, 1)), index, dies[node])
        for index, node in enumerate(nodes)
        if owner[node] is node and node.op != "output"
    ]


def peak(alive: Iterable[Lifetime]) -> int:
    """Returns the most bytes that are alive at once."""
    return max(at_steps(alive), default=0)


def at_steps(alive: Iterable[Lifetime]) -> list[int]:
    """Returns the bytes that are alive at each step."""
    alive = list(alive)
    change = [0] * (max((one.dies for one in alive), default=-1) + 2)
    for one in alive:
        change[one.born] += one.bytes
        change[one.dies + 1] -= one.bytes
    return list(itertools.accumulate(change))[:-1]


def largest(graph: "Graph", number: Number, batched: Mapping[fx.Node, int]) -> int:
    """Returns the bytes of the largest activation, weight or input; see `lifetimes` for the arguments."""
    found = [0]
    for node in graph.program.graph.nodes:
        if node.op == "get_attr":
            tensor = graph.tensor(str(node.target))
            found.append(tensor.numel() * _item(node, tensor))
        elif (node.op == "placeholder" or _is_activation(node, batched)) and shows(node) is None:
            found += [math.ceil(size / batched.get(node, 1)) for size in stored_bytes(node, number)]
    return max(found)


def _is_activation(node: fx.Node, batched: Mapping[fx.Node, int]) -> bool:
    return node.op == "call_function" and (node in batched or not node.all_input_nodes)


def stored_bytes(node: fx.Node, number: Number) -> list[int]:
    """Returns the bytes that each tensor of a node's value takes where it is stored."""
    return [math.prod(number(n) for n in t.shape) * _item(node, t) for t in tensors(node.meta.get("val"))]


def _item(node: fx.Node, value: Tensor) -> int:
    """Returns the bytes of one entry of a node's value: on its grid, if nothing reads it but a rounding to this grid."""
    rounding = _rounding(node)
    return value.element_size() if rounding is None else tensors(rounding.meta["val"])[0].element_size()


def _rounding(node: fx.Node) -> fx.Node | None:
    """Returns the quantise node that is all that reads a node's value, directly or behind an op that is fused; None without."""
    if len(node.users) != 1 or node.op == "placeholder":
        return None
    (user,) = node.users
    if is_rounding(user, "quantize_per"):
        return user if user.args[0] is node else None
    return _rounding(user) if user.target in FUSED else None


def is_rounding(node: fx.Node, name: str = "") -> bool:
    """Tells whether a node quantises or dequantises; `name` is how the op's name begins, such as "dequantize"."""
    target = node.target
    whole = isinstance(target, torch._ops.OpOverload) and target.namespace == "quantized_decomposed"
    return whole and target._schema.name.partition("::")[2].startswith(name)


def shows(node: fx.Node) -> fx.Node | None:
    """Returns the activation that a node's value shows, if any: a view, an element of a tuple, a value on its grid."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    schema = getattr(node.target, "_schema", None)
    is_view = node.target.__name__ == "getitem" if schema is None else bool(schema.arguments[0].alias_info)
    given = any(user.op == "output" for user in node.users)
    same = (is_rounding(node, "dequantize_per") and not given) or (
        is_rounding(node, "quantize_per") and _rounding(source) is node
    )
    fused = node.target in FUSED and _rounding(source) is not None and _rounding(source) is _rounding(node)
    return source if (is_view or same or fused) and source.op in ("call_function", "placeholder") else None
