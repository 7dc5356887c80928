"""Writes a graph as one ONNX file."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch.export import Dim

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.targets._notes import file_notes, output_names
from penjing.targets._origins import mark_origins
from penjing.targets._recurrent import TWINS, swap
from penjing.targets.onnx._codes import OPSET, TRANSLATIONS, folds, needs_opset, pack
from penjing.targets.onnx._dynamic import TRANSLATIONS as DYNAMIC
from penjing.targets.onnx._dynamic import multiply_at_run_time
from penjing.targets.onnx._float_products import multiply_in_float
from penjing.targets.onnx._names import Origins, rename
from penjing.targets.onnx._nodes import MICROSOFT
from penjing.targets.onnx._prepare import prepared
from penjing.targets.onnx._read_once import read_once
from penjing.targets.onnx._recurrent import TRANSLATIONS as RECURRENT
from penjing.targets.onnx._refusals import refusal
from penjing.targets.onnx._rewrite import rewrite
from penjing.targets.onnx._tables import gather_pairs

LIMIT_BYTES = 2**31  # the most that a protobuf message can hold
METADATA = "penjing"  # key of the notes in the file
EXAMPLE_BATCH = 2  # samples; `torch.export` would fix an axis of size 1


def write(graph: Graph, path: Path, whole_blocks: bool = False) -> None:
    """Writes `graph` as one ONNX file without external data; the graph stays as it was.

    Args:
        graph: the graph.
        path: the file.
        whole_blocks: whether tables of 4 bits must have rows of whole blocks to be looked up in as such.

    Raises:
        PenjingError: an op can't be expressed in ONNX, or the file would pass 2 GB.
    """
    model = _export(prepared(graph), whole_blocks)
    _describe_in(model, graph)
    proto = ir.to_proto(model)
    if proto.ByteSize() >= LIMIT_BYTES:
        raise PenjingError(f"The model takes {proto.ByteSize() / 1e9:.1f} GB; an ONNX file must stay below 2 GB.")
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _export(graph: Graph, whole_blocks: bool) -> ir.Model:
    inputs = graph.example_inputs(EXAMPLE_BATCH if graph.batch is None else None)
    shapes = tuple(
        {axis: Dim.AUTO if axis in given.dynamic else Dim.STATIC for axis in range(len(given.shape))}
        for given in graph.inputs
    )
    swap(graph.program.graph, TWINS)
    graph.program.recompile()
    try:
        with torch.no_grad(), _quiet(), read_once():
            exported = torch.export.export(graph.program, inputs, dynamic_shapes=shapes, strict=False)
            origins = mark_origins(exported, graph)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                optimize=False,
                verbose=False,
                input_names=graph.input_names,
                custom_translation_table=TRANSLATIONS | DYNAMIC | RECURRENT,
                opset_version=OPSET if needs_opset(graph) else None,
            )
    except Exception as error:  # exporters raise exceptions of many types; the cause says which op
        raise PenjingError(refusal(error, graph)) from error
    assert program is not None
    model = program.model
    _rename_clashing(model.graph)
    # The optimiser never folds (de)quantise nodes; its size limits would leave casts of large constants unfolded.
    with _quiet():
        optimizer.optimize_ir(model, input_size_limit=LIMIT_BYTES, output_size_limit=LIMIT_BYTES, should_fold=folds)
    _register_constants(model.graph)
    rewrite(model.graph)
    multiply_at_run_time(model.graph)
    multiply_in_float(model.graph)
    gather_pairs(model.graph, whole_blocks)
    pack(model)
    if any(node.domain == MICROSOFT for node in model.graph):
        model.opset_imports[MICROSOFT] = 1
    _strip(model)
    rename(model.graph, Origins.of(program, origins), graph.input_names, output_names(graph))
    _check_free_axes(model, graph)
    return model


def _rename_clashing(graph: ir.Graph) -> None:
    """Renames computed values that have a parameter's name: the exporter calls `x.t()` "t", as a user may call a buffer."""
    for node in graph:
        for value in node.outputs:
            if value.name in graph.initializers and not value.is_graph_output():
                value.name = f"{value.name}_of_{node.op_type}"


def _register_constants(graph: ir.Graph) -> None:
    """Registers, as initialisers, constants that the optimiser made when it fused clips, and didn't register itself."""
    for node in graph:
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.producer() is None and value.graph is None:
                graph.register_initializer(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' progress and their warnings about packages that aren't needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _strip(model: ir.Model) -> None:
    """Removes stack traces and inferred shapes, which are two fifths of a small int8 file."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.doc_string = "penjing", None
    kept = {*model.graph.inputs, *model.graph.outputs}
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    for node in model.graph:
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in kept:
                value.shape, value.type = None, None


def _check_free_axes(model: ir.Model, graph: Graph) -> None:
    for value, given in zip(model.graph.inputs, graph.inputs, strict=True):
        fixed = [axis for axis in given.dynamic if value.shape is not None and isinstance(value.shape[axis], int)]
        if fixed:
            raise PenjingError(f"Axis {fixed[0]} of input '{given.name}' is free in the graph but got fixed in export.")


def _describe_in(model: ir.Model, graph: Graph) -> None:
    """Writes facts into the file that a session doesn't know: captured sizes of free axes, ranges, the outputs' nesting."""
    notes = file_notes(graph)
    model.metadata_props[METADATA] = json.dumps(notes, separators=(",", ":"))
