"""Lowers a graph to one `.pt2` file, and describes such a file."""

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.inputs import Input
from penjing.targets._integers import store_integer_weights
from penjing.targets._notes import input_notes
from penjing.targets._origins import mark_origins
from penjing.targets._records import Artifact, TensorSpec, reading_notes
from penjing.targets._recurrent import ORIGINALS, TWINS, swap
from penjing.targets._tables import look_up_integers
from penjing.targets.torch._session import NOTES, read

EXAMPLE_BATCH = 2  # samples; `torch.export` would fix an axis of size 1


def lower(graph: Graph, path: Path) -> Artifact:
    """Writes `graph` as one `.pt2` file that is called as the user's model is; the graph stays as it was.

    Training can go on from the file: parameters keep their names and stay parameters, and batch norms and dropout stay ops of
    their own. Quantised weights are stored as integers.

    Raises:
        PenjingError: the graph can't be exported, an axis would become fixed, or `path` can't be written.
    """
    ready = copy.deepcopy(graph).eval()
    store_integer_weights(ready)
    look_up_integers(ready)
    ready.refresh()
    exported = _export(ready)
    notes = {
        "inputs": input_notes(graph),
        "modules": mark_origins(exported, ready),
    }
    with path.open("wb") as file:
        torch.export.save(exported, file, extra_files={NOTES: json.dumps(notes, separators=(",", ":"))})
    return describe(path)


class _AsCalled(nn.Module):
    """The graph, sharing its tensors under their own names, with the signature that the user's model was called with."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = graph.__dict__[table]
        signature = graph.signature
        kinds: list[tuple[str, Any]] = [
            (name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in signature.positional
        ]
        kinds += [(name, inspect.Parameter.KEYWORD_ONLY) for name in signature.keywords()]

        def forward(*args: Any, **kwargs: Any) -> Any:
            leaves = pytree.tree_leaves((args, {name: kwargs[name] for name in signature.keywords()}))
            outputs = graph.program(*(leaf for leaf in leaves if isinstance(leaf, Tensor)))
            return pytree.tree_unflatten(list(outputs), graph.out_spec)

        forward.__signature__ = inspect.Signature([inspect.Parameter(*kind) for kind in kinds])  # type: ignore[attr-defined]
        self.__dict__["forward"] = forward


def _export(graph: Graph) -> ExportedProgram:
    """Exports a graph, which may be changed: nobody else may hold it."""
    args, kwargs = graph.example_call(EXAMPLE_BATCH if graph.batch is None else None)
    axes = [
        {axis: Dim.AUTO if axis in leaf.dynamic else Dim.STATIC for axis in range(len(leaf.shape))}
        if isinstance(leaf, Input)
        else None
        for leaf in graph.signature.leaves
    ]
    positional, keywords = pytree.tree_unflatten(axes, graph.signature.spec)
    shapes = {**dict(zip(graph.signature.positional, positional, strict=True)), **keywords}
    swap(graph.program.graph, TWINS)
    graph.program.recompile()
    try:
        with torch.no_grad():
            exported = torch.export.export(_AsCalled(graph), args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # export raises exceptions of many types; the first line says what was wrong
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PenjingError(f"The graph can't be exported: {reason}") from error
    swap(graph.program.graph, ORIGINALS)
    swap(exported.graph, ORIGINALS)
    exported.graph_module.recompile()
    # Facts that hold for the example only, such as that it needs no padding, became bounds of sizes. They are removed, since
    # capture has tried other sizes.
    exported.range_constraints.update(dict.fromkeys(exported.range_constraints, ValueRanges(0, int_oo)))
    for given, value in zip(graph.inputs, _inputs(exported), strict=True):
        fixed = [axis for axis in given.dynamic if not _is_free(value.shape[axis])]
        if fixed:
            raise PenjingError(f"Axis {fixed[0]} of input '{given.name}' is free in the graph but got fixed in export.")
    return exported


def _is_free(size: Any) -> bool:
    """Tells whether a size is a variable; a symbolic size may also stand for a fixed number."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols)


def _inputs(exported: ExportedProgram) -> list[Tensor]:
    """Returns the (fake) tensors of the user's inputs."""
    return [value for _, value in _named_inputs(exported)]


def _named_inputs(exported: ExportedProgram) -> list[tuple[str, Tensor]]:
    values = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    names = [str(s.arg.name) for s in exported.graph_signature.input_specs if s.kind == InputKind.USER_INPUT]
    return [(name, values[name]) for name in names if isinstance(values.get(name), Tensor)]


def describe(path: Path) -> Artifact:
    """Returns the artifact of a `.pt2` file. Reading such a file can run code.

    Raises:
        PenjingError: PyTorch can't read it as an exported program, or the notes in it are damaged.
    """
    exported, notes = read(path)
    given = _named_inputs(exported)
    shapes = [tuple(None if _is_free(size) else int(size) for size in value.shape) for _, value in given]
    with reading_notes(path):
        examples = notes.examples([[EXAMPLE_BATCH if size is None else size for size in shape] for shape in shapes])
    inputs = tuple(
        TensorSpec(name, shape, str(value.dtype).removeprefix("torch."), *told)
        for (name, value), shape, told in zip(given, shapes, examples, strict=True)
    )
    structure = exported.call_spec.out_spec
    names = tuple(f"output_{i}" if i else "output" for i in range(structure.num_leaves))
    return Artifact("torch", Path(path), (Path(path),), inputs, names, None if structure.is_leaf() else structure)
