"""Lowers a graph to OpenVINO's pair of files, `.xml` and `.bin`, and describes such a pair."""

import copy
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import torch
from openvino._offline_transformations import apply_moc_transformations

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.ops import node_arguments
from penjing.targets._origins import STANDS_FOR
from penjing.targets._records import Artifact, FileNotes, TensorSpec, reading_notes
from penjing.targets.onnx import METADATA, WAYS, origin, write
from penjing.targets.openvino._on_device import CORE
from penjing.targets.openvino._session import VERSION, CantLoad, read, reason_of

aten = torch.ops.aten

# Parts of an .xml file that OpenVINO writes and doesn't read: indentation and the sizes of all values, which it computes anew.
_UNREAD = re.compile(rb"(?<=>)\s+(?=<)|<dim>-?\d+</dim>")
_EMPTY_PORT = re.compile(rb"(<port [^>]*[^/])></port>")


def lower(graph: Graph, path: Path) -> Artifact:
    """Writes `graph` as an `.xml` file and, beside it, the weights in a `.bin` file; the graph stays as it was.

    Float weights are stored as they are, not as float16, which is what OpenVINO would do without being told.

    Raises:
        PenjingError: an op can't be expressed in ONNX, which OpenVINO reads, OpenVINO has no such op, or the path has another
            suffix, under which OpenVINO would read nothing.
    """
    if path.suffix != ".xml":
        raise PenjingError("OpenVINO reads only files whose names end in .xml: give such a path.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        write(_with_own_zeros(graph), file, whole_blocks=True)
        written = onnx.load(file, load_external_data=False)
        try:
            model = CORE.read_model(file)
        except Exception as error:  # it raises RuntimeError and types of its own
            raise PenjingError(_refusal(error, written, graph)) from error
    notes = next((entry.value for entry in written.metadata_props if entry.key == METADATA), "{}")
    _name_last_ops(model, written)
    # What `openvino.convert_model` does too: constants are computed, pairs become single ops. It also reports its use to the
    # makers of OpenVINO, so it isn't called here.
    apply_moc_transformations(model, cf=True)
    model.set_rt_info(notes, METADATA)
    save(model, path)
    return describe(path)


def save(model: ov.Model, path: Path) -> None:
    """Writes a model as an `.xml` file without what OpenVINO doesn't read, and a `.bin` file beside it."""
    ov.save_model(model, path, compress_to_fp16=False)
    path.write_bytes(_EMPTY_PORT.sub(rb"\1/>", _UNREAD.sub(b"", path.read_bytes())))


def _with_own_zeros(graph: Graph) -> Graph:
    """Returns a graph in which zeros that average pools count are written by a pad of their own, where values are rounded.

    In integers, OpenVINO's pools would count the code 0 instead of the code that stands for zero.
    """
    nodes = graph.program.graph.nodes
    if not any(getattr(node.target, "namespace", "") == "quantized_decomposed" for node in nodes):
        return graph
    ready = copy.deepcopy(graph)
    for node in list(ready.program.graph.nodes):
        if node.target is not aten.avg_pool2d.default:
            continue
        x, kernel, stride, padding, ceil, counts, divisor = node_arguments(node)
        padding = [padding] if isinstance(padding, int) else list(padding)
        if not any(padding) or not counts:
            continue
        height, width = padding if len(padding) == 2 else padding * 2
        write_one = Writer.before(node, meta={STANDS_FOR: node.meta.get(STANDS_FOR, node.name)}, values=True)
        padded = write_one(aten.constant_pad_nd.default, x, [width, width, height, height], 0.0)
        pool = write_one(aten.avg_pool2d.default, padded, kernel, stride, 0, ceil, True, divisor)
        rank = node.meta["val"].dim()
        for axis in (
            rank - 2,
            rank - 1,
        ):  # with ceil_mode, windows that begin in the zeros behind an image are left out
            size = node.meta["val"].shape[axis]
            pool = write_one(aten.slice.Tensor, pool, axis, 0, size) if pool.meta["val"].shape[axis] != size else pool
        replace(node, pool)
    return ready.refresh()


def _name_last_ops(model: ov.Model, written: onnx.ModelProto) -> None:
    """Gives the ops that make the outputs their nodes' names, as all others have: the reader calls them by the outputs' names."""
    makers = {value: node.name for node in written.graph.node for value in node.output}
    for result in model.outputs:
        name = makers.get(result.get_any_name())
        if name is not None:
            result.get_node().input(0).get_source_output().get_node().set_friendly_name(name)


def _refusal(error: Exception, written: onnx.ModelProto, graph: Graph) -> str:
    """Returns why OpenVINO refuses an ONNX file that was just written: the op, and the user's line that it comes from."""
    sources = {node.name: node.meta.get("source") for node in graph.program.graph.nodes}
    named = set(re.findall(r"\w+", str(error)))
    for node in written.graph.node:
        if node.op_type in named:
            module, name = origin(node.name) or ("", "")
            where = sources.get(name) or module or name
            at = f" at {where}" if where else ""
            return f"OpenVINO {VERSION} has no op '{node.op_type}', which the graph needs{at}. {WAYS}"
    return f"OpenVINO {VERSION} can't read this graph: {reason_of(error)}. {WAYS}"


def describe(path: Path) -> Artifact:
    """Returns the artifact of a pair of files, given the path of the `.xml` file.

    Raises:
        PenjingError: OpenVINO can't load them, or the notes in the `.xml` file are damaged.
    """
    path = Path(path)
    model = read(path)
    shapes = [_shape(given) for given in model.inputs]
    with reading_notes(path):
        held = model.get_rt_info(METADATA).value if model.has_rt_info(METADATA) else "{}"
        notes = FileNotes.parse(str(held))
        examples = notes.examples([[size or 1 for size in shape] for shape in shapes])
        structure = notes.nesting(len(model.outputs))
    try:
        inputs = tuple(
            TensorSpec(given.get_any_name(), shape, np.dtype(given.get_element_type().to_dtype()).name, *told)
            for given, shape, told in zip(model.inputs, shapes, examples, strict=True)
        )
        outputs = tuple(value.get_any_name() for value in model.outputs)
    except RuntimeError as error:  # an unnamed input or output, or a type that NumPy lacks
        raise CantLoad(path, reason_of(error)) from error
    return Artifact("openvino", path, (path, path.with_suffix(".bin")), inputs, outputs, structure)


def _shape(given: Any) -> tuple[int | None, ...]:
    """Returns the sizes of an input's axes; None where an axis is free."""
    return tuple(size.get_length() if size.is_static else None for size in given.get_partial_shape())
