"""The kernels of a lowered program: which of the graph's nodes each part that XNNPACK runs consists of.

XNNPACK keeps no names. But it runs the kernels of each kind in the order of the program's nodes, so these are noted in the file.
"""

from collections.abc import Mapping
from typing import Any

from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.lowered_backend_module import get_lowered_submodules
from torch import fx
from torch.export import ExportedProgram

from penjing.targets._origins import KEY

MULTIPLYING = frozenset({"convolution", "linear", "addmm", "mm", "bmm"})
ROUNDING = "quantized_decomposed"
Row = dict[str, Any]


def kernels_in(edge: ExportedProgram, macs: Mapping[str, int]) -> tuple[list[list[Row]], list[Row]]:
    """Returns the nodes of each part that XNNPACK runs, in order of execution, and those that ExecuTorch runs itself.

    Args:
        edge: the lowered program.
        macs: multiply-accumulates of the graph's nodes; shared equally where a node became several that multiply.
    """
    parts = {call: part for _, part, call in get_lowered_submodules(edge.graph_module)}
    calls = [node for node in edge.graph.nodes if node.target is executorch_call_delegate]
    delegates = [_named(parts[call].original_module.graph) for call in calls]
    kernels = _named(edge.graph)
    shares: dict[str, int] = {}
    for op, name in [one for group in (*delegates, kernels) for one in group]:
        if op in MULTIPLYING:
            shares[name] = shares.get(name, 0) + 1
    rows = [
        [
            {"op": op, "node": name, "macs": macs.get(name, 0) // shares[name] if op in MULTIPLYING else 0}
            for op, name in group
        ]
        for group in (*delegates, kernels)
    ]
    return rows[:-1], rows[-1]


def _named(nodes: fx.Graph) -> list[tuple[str, str]]:
    """Returns the op and the name of the graph's node of each call that has one."""
    found = []
    for node in nodes.nodes:
        name = (node.meta.get("custom") or {}).get(KEY)
        if node.op == "call_function" and name is not None and hasattr(node.target, "_op"):
            space, _, op = node.target._op._schema.name.partition("::")
            if space != ROUNDING:  # whose nodes become part of kernels, most of them
                found.append((op, name))
    return found
