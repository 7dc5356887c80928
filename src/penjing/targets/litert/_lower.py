"""Lowers a graph to one `.tflite` file, and describes such a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from penjing.damage import refusing
from penjing.errors import PenjingError
from penjing.graph import Graph, fold_batch_norms
from penjing.targets._notes import file_notes, output_names
from penjing.targets._origins import STANDS_FOR
from penjing.targets._records import Artifact, FileNotes, TensorSpec, reading_notes
from penjing.targets.litert._file import NAMES, File, notes_of
from penjing.targets.litert._lowering import Held, Lowering, NoRule
from penjing.targets.litert._session import CantLoad, model_of
from penjing.targets.litert._values import values_of
from penjing.targets.litert.rules import find

NAME = "litert"
_WAYS = (
    "Write that line in other ops, capture only the part of the model before it (capture(..., part=...)), or lower for "
    "another target: 'onnxruntime' knows more ops, and 'torch' runs every op."
)
BATCH = 1  # samples of a call: a file has fixed sizes


def lower(graph: Graph, path: Path) -> Artifact:
    """Writes `graph` as one `.tflite` file for calls of one sample; the graph stays as it was.

    A graph that fixes its batch keeps that batch.

    Raises:
        PenjingError: an op can't be written, or the file would pass 2 GB.
    """
    _check_dtypes(graph)
    ready = fold_batch_norms(graph).eval()
    nodes = ready.program.graph
    inputs = ready.example_inputs(BATCH if graph.batch is None else None)
    file = File()
    lowering = Lowering(file, values_of(ready.program, inputs), _label, find)
    placeholders = [node for node in nodes.nodes if node.op == "placeholder"]
    given = {}
    try:
        for node, one, value in zip(placeholders, graph.inputs, inputs, strict=True):
            index = file.tensor(tuple(value.shape), str(value.dtype).removeprefix("torch."), one.name)
            given[one.name] = index
            lowering.give(node, Held(index, tuple(range(value.dim()))))
        lowering.run(nodes)
        outputs = dict(zip(output_names(graph), _outputs(lowering, nodes, set(given.values())), strict=True))
    except NoRule as error:
        raise PenjingError(_refusal(error)) from error
    path.write_bytes(file.written(given, outputs, {**file_notes(graph, BATCH), "macs": file.macs}))
    try:
        return describe(path)
    except CantLoad as error:
        raise PenjingError(f"LiteRT can't run this graph: {error.reason}. {_WAYS}") from error


def _check_dtypes(graph: Graph) -> None:
    """Raises if anything in the graph is computed in floating-point numbers for which the runtime has few kernels."""
    values = [node.meta.get("val") for node in graph.program.graph.nodes]
    strange = {v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()} - {torch.float32}
    if strange:
        named = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in strange))
        raise PenjingError(
            f"The model computes in {named}, for which LiteRT has few kernels: call model.float() before penjing.capture."
        )


def _label(node: fx.Node) -> str:
    """Returns "module/node": the name of the tensor that a node makes, from which its origin can be told."""
    return f"{node.meta.get('module', '')}/{node.meta.get(STANDS_FOR, node.name)}"


def _outputs(lowering: Lowering, nodes: fx.Graph, inputs: set[int]) -> Iterator[int]:
    """Yields the tensors of the outputs, each a tensor of its own in the graph's order of axes."""
    taken = set(inputs)
    made: Any = nodes.output_node().args[0]
    for node in made:
        lowering.at(node)
        held = lowering.plain(lowering.held(node))
        if held.index in taken:
            held = lowering.reshaped(held, lowering.file.shape(held.index))
        taken.add(held.index)
        yield held.index


def _refusal(error: NoRule) -> str:
    node = error.node
    where = node.meta.get("source") or node.meta.get("module") or node.name
    inner = "" if error.target == node.target else f" (it needs '{error.target}')"
    return (
        f"The graph can't be written as a .tflite file: there is no rule for '{node.target}' at {where}{inner}. {_WAYS}"
    )


def describe(path: Path) -> Artifact:
    """Returns the artifact of a `.tflite` file.

    Raises:
        PenjingError: LiteRT can't load it, or the notes in it are damaged.
    """
    model = model_of(path)
    with refusing(f"LiteRT can load {path}, but it isn't a model that Penjing can read"):
        graph = model.subgraphs[0]
        names = _signature(model)
        tensors = [graph.tensors[index] for index in graph.inputs]
        shapes = [tuple(int(size) for size in (() if one.shape is None else one.shape)) for one in tensors]
        dtypes = [NAMES[one.type] for one in tensors]
        outputs = tuple(names.get(int(index), _text(graph.tensors[index].name)) for index in graph.outputs)
    with reading_notes(path):
        notes = FileNotes.parse(notes_of(model))
        examples = notes.examples(shapes)
        structure = notes.nesting(len(outputs))
    inputs = tuple(
        TensorSpec(names.get(int(index), _text(one.name)), shape, dtype, *told)
        for index, one, shape, dtype, told in zip(graph.inputs, tensors, shapes, dtypes, examples, strict=True)
    )
    return Artifact(NAME, Path(path), (Path(path),), inputs, outputs, structure)


def _signature(model: Any) -> dict[int, str]:
    """Returns the names that a file's signature gives to its inputs and outputs, by their tensors."""
    if not model.signatureDefs:
        return {}
    signature = model.signatureDefs[0]
    pairs = [*(signature.inputs or ()), *(signature.outputs or ())]
    return {int(one.tensorIndex): _text(one.name) for one in pairs}


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
