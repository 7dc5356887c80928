"""Lowers a graph to one `.pte` file."""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.cost import MACS
from penjing.graph.ops import node_arguments
from penjing.targets._notes import file_notes, output_names
from penjing.targets._origins import KEY, mark_origins
from penjing.targets._records import Artifact
from penjing.targets.executorch._open import NOTES, describe, written
from penjing.targets.executorch._prepare import prepared
from penjing.targets.executorch._refusals import refusal

SAMPLES = 1  # per call, where the graph doesn't fix another number


def lower(graph: Graph, path: Path) -> Artifact:
    """Writes `graph` as one `.pte` file for XNNPACK; the graph stays as it was.

    Raises:
        PenjingError: ExecuTorch can't express an op.
    """
    multiplying = {node.name for node in graph.program.graph.nodes if node.target in MACS}
    path.write_bytes(_lowered(prepared(graph), _notes(graph), multiplying))
    return describe(path)


def _lowered(ready: Graph, notes: dict[str, Any], multiplying: Collection[str]) -> bytes:
    with _quiet():
        from executorch.exir import to_edge_transform_and_lower

        from penjing.targets.executorch._kernels import kernels_in
        from penjing.targets.executorch._partition import partitioner

        exported = _export(ready)
        modules = mark_origins(exported, ready)
        methods = _Methods()
        try:
            edge = to_edge_transform_and_lower(exported, partitioner=[partitioner()], constant_methods=methods)
            delegates, kernels = kernels_in(edge.exported_program(), _macs(exported, multiplying))
            methods[NOTES] = written({**notes, "modules": modules, "delegates": delegates, "kernels": kernels})
            content: bytes = edge.to_executorch().buffer
        except Exception as error:  # the exporter raises exceptions of many types; the message says which op
            raise PenjingError(refusal(error, ready, exported)) from error
    return content


class _Methods(dict[str, str]):
    """Methods of the file that return constants; they may be added until the file is written, as copies share them."""

    def __deepcopy__(self, memo: Any) -> "_Methods":
        return self


def _export(ready: Graph) -> ExportedProgram:
    inputs = ready.example_inputs(SAMPLES if ready.batch is None else None)
    try:
        with torch.no_grad():
            return torch.export.export(ready.program, inputs, strict=False)
    except Exception as error:  # export raises exceptions of many types; the first line says what was wrong
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PenjingError(f"The graph can't be exported: {reason}") from error


def _notes(graph: Graph) -> dict[str, Any]:
    """Returns the facts that the program itself doesn't hold, the names of inputs and outputs among them."""
    return {**file_notes(graph, SAMPLES), "names": graph.input_names, "results": output_names(graph)}


def _macs(exported: ExportedProgram, multiplying: Collection[str]) -> Mapping[str, int]:
    """Returns the multiply-accumulates of those nodes of the graph that multiply, by name, with the sizes that the file has."""

    def shape(value: Any) -> Any:
        return value.meta["val"].shape

    found: dict[str, int] = {}
    for node in exported.graph.nodes:
        counter, name = MACS.get(node.target), str(_origin(node))
        if counter is not None and name in multiplying:
            found[name] = found.get(name, 0) + counter(node, node_arguments(node), shape)
    return found


def _origin(node: fx.Node) -> str | None:
    name: str | None = (node.meta.get("custom") or {}).get(KEY)
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's warnings, and those of packages that it imports, which aren't the user's concern."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
