"""Names in the file by which every node can be traced to the user's module: "layer1.0.conv1/conv2d_3".

Values keep short names; constants keep the user's parameter names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from penjing.targets._origins import KEY

_FX_NAME = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Origins:
    """Where the exporter's nodes came from.

    Attributes:
        node: name of the graph's node, by the name of the exporter's fx node.
        module: path of the user's module, by the name of the graph's node.
    """

    node: Mapping[str, str]
    module: Mapping[str, str]

    @classmethod
    def of(cls, program: torch.onnx.ONNXProgram, module: Mapping[str, str]) -> "Origins":
        """Reads the marks after the exporter's own decompositions, which keep them."""
        exported = program.exported_program
        nodes = exported.graph.nodes if exported is not None else ()
        marks = {n.name: (n.meta.get("custom") or {}).get(KEY) for n in nodes}
        return cls({name: mark for name, mark in marks.items() if mark is not None}, module)

    def label(self, node: ir.Node) -> str | None:
        """Returns "module/node" of an ONNX node."""
        scopes = node.metadata_props.get(_FX_NAME, "[]")
        fx_name = scopes.rstrip("]'\"").rpartition("'")[2]
        ours = self.node.get(fx_name)
        return None if ours is None else f"{self.module.get(ours, '')}/{ours}"


def rename(graph: ir.Graph, origins: Origins, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names nodes after their origin, and inputs, outputs and free axes readably."""
    taken: set[str] = set()
    for index, node in enumerate(graph):
        name = origins.label(node) or node.op_type
        node.name = name if name not in taken else f"{name}#{index}"
        taken.add(node.name)
        node.metadata_props.clear()
    used = {*inputs, *outputs}
    for node in graph:
        for value in node.outputs:
            if value.name in used and not value.is_graph_output():
                value.name = f"{value.name}_"
    for value, name in zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True):
        value.name = name
    _name_axes(graph)


def _name_axes(graph: ir.Graph) -> None:
    """Names the batch axis "batch" and other free axes after their input; axes that only outputs have become unnamed.

    Axes share a name only if they have the same size in every call: ONNX Runtime lets values of equal names share memory.
    """
    known: dict[str, str] = {}
    for value in [*graph.inputs, *graph.outputs]:
        sizes: list[int | str | None] = []
        for axis, size in enumerate(value.shape or ()):
            if isinstance(size, int):
                sizes.append(size)
                continue
            if value in graph.inputs:
                is_batch = axis == 0 and "batch" not in known.values()
                known.setdefault(str(size), "batch" if is_batch else f"{value.name}_{axis}")
            sizes.append(known.get(str(size)))
        if value.shape is not None:
            value.shape = ir.Shape(sizes)


def origin(name: str) -> tuple[str, str] | None:
    """Returns (user's module, graph's node) of a node's name, or None for a node that has no origin in the graph."""
    module, slash, node = name.partition("#")[0].rpartition("/")
    return (module, node) if slash else None
