"""The values of a graph at the sizes for which a file is written: which are computed at run time, and which are constants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph.taps import all_values


@dataclass(frozen=True)
class Values:
    """What the nodes of a program give on an example.

    Attributes:
        of: each node's value.
        flowing: the nodes whose tensors depend on the inputs; all others are constants of the file, and so are sizes.
    """

    of: dict[fx.Node, Any]
    flowing: frozenset[fx.Node]


def values_of(program: fx.GraphModule, inputs: Sequence[Any]) -> Values:
    """Runs a program once, and tells what depends on its inputs.

    Args:
        program: what to run.
        inputs: its inputs; those that are tensors are taken to change from call to call.
    """
    with torch.no_grad():
        found = all_values(program, inputs)
    flowing: set[fx.Node] = set()
    for node in program.graph.nodes:
        given = node.op == "placeholder" or any(source in flowing for source in node.all_input_nodes)
        if given and _holds_tensors(found.get(node)):
            flowing.add(node)
    return Values(found, frozenset(flowing))


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(one, Tensor) for one in (value if isinstance(value, list | tuple) else [value]))
