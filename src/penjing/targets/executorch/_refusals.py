"""Messages for graphs that can't become a `.pte` file: the op, the user's line, and advice."""

import re

from torch import fx
from torch.export import ExportedProgram

from penjing.graph import Graph
from penjing.targets._origins import KEY, STANDS_FOR

_OP = re.compile(r"\b(?:torch\.ops\.)?((?:aten|quantized_decomposed|torchvision|[a-z_]\w*)(?:\.|::)\w+(?:\.\w+)?)")
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
    """Returns the graph's node whose op an error names."""
    named = {found.replace("::", ".") for found in _OP.findall(text)}
    marked = {node.meta.get(STANDS_FOR, node.name): node for node in graph.program.graph.nodes}
    for node in exported.graph.nodes:
        target = str(node.target)
        if node.op == "call_function" and (target in named or target.rpartition(".")[0] in named):
            return marked.get((node.meta.get("custom") or {}).get(KEY, ""))
    return None
