"""What an op moves through memory: the values and the weights that it reads, and the values that it writes, each once.

A runtime that computes an op in integers moves the integers to which values are rounded, one that computes it in floating point
the floats. Which of the two it does is known only once it ran, so that both are counted. Weights that are rounded to integers
are stored and read as such in both cases.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from penjing.graph.memory import bytes_of, is_rounding, shows, stored_bytes
from penjing.graph.ops import node_arguments

if TYPE_CHECKING:
    from penjing.graph.graph import Graph

aten = torch.ops.aten
HALF = 2  # bytes of a 16-bit float
PACKED_BITS = 4  # integers of weights of up to 4 bits are stored two in a byte, wider ones in whole bytes


@dataclass(frozen=True)
class Traffic:
    """The bytes that an op reads and writes.

    Attributes:
        values: bytes of the values that it reads and writes for one sample, in the numbers in which the graph computes.
        integer_values: bytes of the values for one sample where those that are rounded to integers are stored as such.
        weights: bytes of the parameters and buffers that it reads, of those that are rounded to integers as such.
        numbers: what the op computes in, as the graph stands: "float32", "float16" (any of 16 bits), "int8", or "int32" (any
            wider integers). Where one factor is an integer and the other isn't, it is the other's.
    """

    values: int = 0
    integer_values: int = 0
    weights: int = 0
    numbers: str = "float32"

    def bytes(self, integer: bool, batch: int = 1) -> int:
        """Returns the bytes that a call moves.

        Args:
            integer: whether the op is computed in integers.
            batch: samples of the call; weights are read once for all of them.
        """
        return batch * (self.integer_values if integer else self.values) + self.weights


NOTHING = Traffic()


def traffic(graph: "Graph", node: fx.Node, number: Callable[[Any], int], batched: Mapping[fx.Node, int]) -> Traffic:
    """Returns what a node moves; nothing for views, for roundings, and for what is computed of weights alone.

    Args:
        graph: the graph.
        node: one of its nodes.
        number: gives the size that stands for a symbolic one.
        batched: of the nodes that work on inputs, how many samples their size is that of.
    """
    if node not in batched or shows(node) is not None or is_rounding(node):
        return NOTHING
    samples = batched[node]
    made = bytes_of(node, number) or 0
    values, whole_values = made, sum(stored_bytes(node, number))
    weights = 0
    for given in node.all_input_nodes:
        if not isinstance(given.meta.get("val"), Tensor):
            continue
        if given in batched:
            values += bytes_of(given, number) or 0
            whole_values += math.prod(number(n) for n in given.meta["val"].shape) * _grid(given).itemsize
        elif node.target is aten.embedding.default:  # which reads the rows that it is asked for, not the table
            values, whole_values = values + made, whole_values + made
        else:
            weights += _weight_bytes(given, number)
    return Traffic(math.ceil(values / samples), math.ceil(whole_values / samples), weights, _numbers(node))


def _grid(node: fx.Node) -> torch.dtype:
    """Returns the numbers in which a value, or what a view shows, is stored where it is rounded to a grid."""
    dtype: torch.dtype = node.meta["val"].dtype
    at: fx.Node | None = node
    while at is not None and not is_rounding(at, "dequantize"):
        at = shows(at)
    return dtype if at is None else at.all_input_nodes[0].meta["val"].dtype


def _weight_bytes(node: fx.Node, number: Callable[[Any], int]) -> int:
    """Returns the bytes of what is stored of a weight: its integers, its codes and their table, or its floats."""
    if is_rounding(node, "dequantize"):
        stored = bytes_of(node.all_input_nodes[0], number) or 0
        return math.ceil(stored / 2) if _is_packed(node) else stored
    if node.op == "get_attr":
        return bytes_of(node, number) or 0
    return sum(_weight_bytes(given, number) for given in node.all_input_nodes)


def _is_packed(node: fx.Node) -> bool:
    """Tells whether the integers that a node dequantises have so few bits that two of them lie in a byte."""
    names = (argument.name for argument in node.target._schema.arguments)  # type: ignore[union-attr]
    given = dict(zip(names, node_arguments(node), strict=False))
    least, most = given.get("quant_min"), given.get("quant_max")
    return isinstance(least, int) and isinstance(most, int) and (most - least).bit_length() <= PACKED_BITS


def _numbers(node: fx.Node) -> str:
    """Returns what an op computes in, by the grids of its first two inputs, or of the only one."""
    factors = [_grid(one) for one in node.all_input_nodes[:2] if isinstance(one.meta.get("val"), Tensor)]
    floats = [one for one in factors if one.is_floating_point]
    if floats or not factors:
        return "float16" if floats and max(one.itemsize for one in floats) == HALF else "float32"
    return "int8" if max(one.itemsize for one in factors) == 1 else "int32"
