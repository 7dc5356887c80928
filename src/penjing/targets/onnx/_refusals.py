"""Messages for graphs that can't become an ONNX file: the user's line, and advice."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import Dim

from penjing.graph import Graph
from penjing.targets._origins import KEY, STANDS_FOR, mark_origins

_TARGET = re.compile(r"target=torch\.ops\.([\w.]+)\]")  # of the node that the exporter couldn't translate
WAYS = (
    "Write that line in other ops, capture only the part of the model before it (capture(..., part=...)), or lower with "
    "target='torch', which runs every op."
)


def refusal(error: BaseException, graph: Graph) -> str:
    """Returns why a graph can't be written as ONNX.

    To find the user's line, the graph is exported and decomposed again, since the exporter doesn't give its own decomposition
    out; this takes about as long as the first export.

    Args:
        error: the exporter's error; its cause names the op.
        graph: the graph that the exporter was given.
    """
    reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
    target = _TARGET.search(str(error.__cause__ or error))
    if target is None:
        return f"The graph can't be written as ONNX: {reason}"
    node = _origin(target[1], graph)
    if node is None:
        return f"The graph can't be written as ONNX, which has no op for '{target[1]}'. {WAYS}"
    where = node.meta.get("source") or node.meta.get("module") or node.name
    return f"The graph can't be written as ONNX, which has no op for '{node.target}' at {where}. {WAYS}"


def _origin(target: str, graph: Graph) -> fx.Node | None:
    """Returns the graph's node that an op comes from; the exporter may have decomposed that node into other ops."""
    for node in graph.program.graph.nodes:
        if str(node.target) == target:
            return node
    marked = {node.meta.get(STANDS_FOR, node.name): node for node in graph.program.graph.nodes}
    for nodes in _decomposed(graph):
        for node in nodes.nodes:
            if str(node.target) == target:
                return marked.get((node.meta.get("custom") or {}).get(KEY, ""))
    return None


def _decomposed(graph: Graph) -> Iterator[fx.Graph]:
    """Yields decompositions of the graph that the exporter may have made: into PyTorch's smallest set of ops, then its usual."""
    shapes = tuple(
        {axis: Dim.AUTO if axis in given.dynamic else Dim.STATIC for axis in range(len(given.shape))}
        for given in graph.inputs
    )
    inputs = graph.example_inputs(2 if graph.batch is None else None)
    with torch.no_grad():
        exported = torch.export.export(graph.program, inputs, dynamic_shapes=shapes, strict=False)
        mark_origins(exported, graph)
        for table in (dict(torch._decomp.decomposition_table), None):
            yield exported.run_decompositions(table).graph  # type: ignore[arg-type]


def other_floats(graph: Graph) -> list[torch.dtype]:
    """Returns the floating-point dtypes other than float32 that the graph's tensors have."""
    tensors: list[Any] = [node.meta.get("val") for node in graph.program.graph.nodes]
    dtypes = dict.fromkeys(v.dtype for v in tensors if isinstance(v, Tensor) and v.dtype.is_floating_point)
    return [dtype for dtype in dtypes if dtype != torch.float32]
