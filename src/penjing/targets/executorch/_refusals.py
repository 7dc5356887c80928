"""Messages for graphs that can't become a `.pte` file: the op, the user's line, and advice."""

import re
from collections.abc import Iterator

from torch import fx
from torch.export import ExportedProgram

from penjing.graph import Graph
from penjing.targets._origins import KEY, STANDS_FOR

_OP = re.compile(r"\b(?P<space>aten|prims|torchvision|quantized_decomposed)(?:::|\.)(?P<name>\w+)")
_WAYS = (
    "Write that line in other ops, capture only the part of the model before it (capture(..., part=...)), or lower with "
    "another target: 'onnxruntime' takes most ops, and 'torch' runs every op."
)


def refusal(error: BaseException, graph: Graph, exported: ExportedProgram) -> str:
    """Returns why a graph can't be written as a `.pte` file.

    Args:
        error: the exporter's error, whose text names the op.
        graph: the graph that was exported.
        exported: the program that the exporter was given, whose nodes know their origin.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    node = _blamed(str(error), graph, exported)
    if node is None:
        return f"The graph can't be written for ExecuTorch: {reason} {_WAYS}"
    where = node.meta.get("source") or node.meta.get("module") or node.name
    return (
        f"The graph can't be written for ExecuTorch, which can't express '{node.target}' at {where}: {reason} {_WAYS}"
    )


def _blamed(text: str, graph: Graph, exported: ExportedProgram) -> fx.Node | None:
    """Returns the graph's node whose op an error names; the exporter may have decomposed that node into other ops."""
    named = {f"{found['space']}::{found['name']}" for found in _OP.finditer(text)}
    marked = {node.meta.get(STANDS_FOR, node.name): node for node in graph.program.graph.nodes}
    for nodes in _decomposed(exported) if named else ():
        for node in nodes.nodes:
            schema = getattr(node.target, "_schema", None)
            if schema is not None and schema.name in named:
                return marked.get((node.meta.get("custom") or {}).get(KEY, ""))
    return None


def _decomposed(exported: ExportedProgram) -> Iterator[fx.Graph]:
    """Yields the program's nodes, as they are and in PyTorch's usual smaller set of ops."""
    yield exported.graph
    yield exported.run_decompositions().graph
