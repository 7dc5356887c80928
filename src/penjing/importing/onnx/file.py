"""Reads an ONNX file: its graph and its constants. The file may come from a stranger."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import external_data_helper, inliner, numpy_helper

from penjing.damage import refusing
from penjing.errors import PenjingError

MOST_NODES = 200_000  # of a network with its functions written out
MOST_NESTED = 100  # functions within functions
LIMIT_BYTES = 2**31  # the most that a protobuf message can hold
DOMAINS = ("", "ai.onnx")  # both name ONNX's own ops
HALVES = ("float16", "bfloat16")
PACKED = 4  # the most values that share a byte: those of 2 bits
OLDEST_OPSET = 7  # until 6, ops broadcast by rules of their own


@dataclass(frozen=True)
class OnnxFile:
    """What stands in an ONNX file.

    Attributes:
        path: of the file.
        graph: nodes, inputs and outputs; functions of the file are written out.
        constants: the initialisers by name; numbers of 16 bits as float32.
        opset: the version of ONNX's own ops.
    """

    path: Path
    graph: onnx.GraphProto
    constants: dict[str, np.ndarray]
    opset: int


def read(path: Path) -> OnnxFile:
    """Reads an ONNX file and the data beside it. No code runs, and no file outside of its folder is opened.

    Raises:
        PenjingError: there is no such file, it is damaged, or its external data lies elsewhere.
    """
    if not path.is_file():
        raise PenjingError(f"There is no file {path}.")
    if path.stat().st_size >= LIMIT_BYTES:
        raise PenjingError(
            f"{path} is larger than 2 GB, which no ONNX file is: keep its weights as external data beside it."
        )
    with refusing(f"{path} can't be read as an ONNX file"):
        try:
            model = onnx.load_model_from_string(path.read_bytes())
        except DecodeError as error:
            raise ValueError("it holds no ONNX model, or is damaged") from error
        if not model.graph.node or not model.opset_import:
            raise ValueError("it holds no ONNX model, or an empty one")
        if model.functions:
            check_functions(model)
            model = inliner.inline_local_functions(model)
    opset = next((one.version for one in model.opset_import if one.domain in DOMAINS), 0)
    if 0 < opset < OLDEST_OPSET:
        raise PenjingError(
            f"{path} uses opset {opset}, and {OLDEST_OPSET} is the oldest that is read: convert it once with "
            f"onnx.version_converter.convert_version(model, {OLDEST_OPSET})."
        )
    if model.graph.sparse_initializer:
        raise PenjingError(f"{path} holds sparse weights: store them densely (as plain initialisers).")
    return OnnxFile(path, model.graph, constants(path, model.graph.initializer), opset)


def check_functions(model: onnx.ModelProto) -> None:
    """Makes sure that a model's own functions can be written out: a few lines of nested ones may stand for any number of nodes.

    Raises:
        ValueError: they are more than `MOST_NODES` nodes then, or a function calls itself.
    """
    functions = {(one.domain, one.name): one for one in model.functions}
    known: dict[tuple[str, str], int] = {}
    open_ones: list[tuple[str, str]] = []

    def written_out(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            inner = [one.g for one in node.attribute if one.HasField("g")]
            inner += [graph for one in node.attribute for graph in one.graphs]
            total += 1 + sum(written_out(graph.node) for graph in inner)
            total += size_of((node.domain, node.op_type)) if (node.domain, node.op_type) in functions else 0
        return total

    def size_of(key: tuple[str, str]) -> int:
        if key in open_ones or len(open_ones) > MOST_NESTED:
            raise ValueError(f"its function '{key[1]}' calls itself, or functions are nested too deeply")
        if key not in known:
            open_ones.append(key)
            known[key] = written_out(functions[key].node)
            open_ones.pop()
        return known[key]

    if (found := written_out(model.graph.node)) > MOST_NODES:
        raise ValueError(f"its functions stand for {found:,} nodes, and {MOST_NODES:,} are the most")


def constants(path: Path, tensors: Iterable[onnx.TensorProto]) -> dict[str, np.ndarray]:
    """Returns the values of tensors by name.

    Raises:
        PenjingError: a tensor's data isn't as long as its shape says, or lies outside of the file's folder.
    """
    return {tensor.name: array(path, tensor) for tensor in tensors}


def array(path: Path, tensor: onnx.TensorProto) -> np.ndarray:
    """Returns the value of one tensor; see `constants`."""
    where = f"{path}, tensor '{tensor.name}'"
    if any(size < 0 for size in tensor.dims):
        raise PenjingError(f"{where}: its shape {list(tensor.dims)} has a negative size.")
    if tensor.data_type == onnx.TensorProto.STRING:
        return np.array(list(tensor.string_data), dtype=object).astype(np.str_).reshape(tuple(tensor.dims))
    with refusing(f"{where} can't be read"):
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if external_data_helper.uses_external_data(tensor):
            tensor = _with_data(path, tensor)
        size = math.prod(tensor.dims)
        stored = len(tensor.raw_data) if tensor.HasField("raw_data") else max(map(len, _fields(tensor)))
        share = PACKED if kind.name.rstrip("fnuz").endswith(("int4", "int2", "e2m1")) else 1
        if tensor.HasField("raw_data") and kind.itemsize * size > share * stored:
            raise ValueError(f"its shape {list(tensor.dims)} needs more than the {stored} bytes that it has")
        if not tensor.HasField("raw_data") and size > 2 * stored:
            raise ValueError(f"its shape {list(tensor.dims)} needs more than the {stored} values that it has")
        value = numpy_helper.to_array(tensor)
    return value.astype(np.float32) if value.dtype.name in HALVES else value


def _fields(tensor: onnx.TensorProto) -> list[Sequence[Any]]:
    return [tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data]


def _with_data(path: Path, tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Returns the tensor with its external data, which must lie in the file's own folder."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.resolve().parent
    name = told.get("location", "")
    data = (folder / name).resolve()
    if not name or Path(name).is_absolute() or not data.is_relative_to(folder):
        raise PenjingError(
            f"{path}, tensor '{tensor.name}': its data is said to lie in '{name}', outside of the file's own folder, and isn't "
            "read there. Put the data beside the file, and name it so."
        )
    if not data.is_file():
        raise PenjingError(
            f"{path}, tensor '{tensor.name}': there is no file {data}, which holds its data; copy it there."
        )
    held = data.stat().st_size
    offset, length = int(told.get("offset", 0)), int(told.get("length", -1))
    length = held - offset if length < 0 else length
    if offset < 0 or offset + length > held:
        raise ValueError(f"{name} has {held} bytes, and the tensor is said to take {length} from byte {offset} on")
    whole = onnx.TensorProto()
    whole.CopyFrom(tensor)
    del whole.external_data[:]
    whole.data_location = onnx.TensorProto.DEFAULT
    with data.open("rb") as stream:
        stream.seek(offset)
        whole.raw_data = stream.read(length)
    return whole
