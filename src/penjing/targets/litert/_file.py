"""A `.tflite` file as it is built: tensors, ops and constants, and the notes that go with them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from penjing.errors import PenjingError

NOTES = "penjing"  # name of the file's metadata that holds Penjing's notes
SIGNATURE = "serving_default"  # the name under which other tools look for a file's one function
IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes: where kernels expect constants to begin
LIMIT_BYTES = 2**31  # the most that a flatbuffer can hold

DTYPES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "uint8": schema.TensorType.UINT8,
    "bool": schema.TensorType.BOOL,
}
NAMES = {code: name for name, code in DTYPES.items()}

# Versions of ops that first had what the files use: integers of 8 bits, weights with a scale per channel, several axes. All
# other ops are written in their first version.
_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5, "ADD": 2, "SUB": 2, "MUL": 2, "AVERAGE_POOL_2D": 2,
    "MAX_POOL_2D": 2, "CONCATENATION": 2, "PAD": 2, "PADV2": 2, "MEAN": 2, "SUM": 2, "RESHAPE": 1, "TRANSPOSE": 2,
    "SLICE": 2, "STRIDED_SLICE": 2, "LOGISTIC": 2, "TANH": 2, "SOFTMAX": 2, "LEAKY_RELU": 2, "QUANTIZE": 2,
    "DEQUANTIZE": 2, "RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "TRANSPOSE_CONV": 3, "BATCH_MATMUL": 2,
    "BROADCAST_TO": 2, "GATHER": 2, "MAXIMUM": 2, "MINIMUM": 2, "RELU": 2, "RELU6": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Where integers of 8 bits stand for real values: `real = scale · (code − zero)`.

    Attributes:
        scale: one, or one per channel.
        zero: the zero point; with a scale per channel it is 0.
        low: the smallest code that is used.
        high: the largest code that is used.
        axis: the axis of the channels in the file's tensor.
    """

    scale: float | tuple[float, ...]
    zero: int = 0
    low: int = -128
    high: int = 127
    axis: int = 0


class File:
    """Collects the tensors and ops of one function, and writes them.

    Attributes:
        tensors: the schema's records of tensors.
        operators: the schema's records of ops, in order of execution.
        macs: multiply-accumulates of ops, by their position, where the shapes in the file tell of more than are needed.
    """

    def __init__(self) -> None:
        """Begins without a tensor; the first buffer of a file is empty by agreement."""
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.macs: dict[int, int] = {}
        self._buffers: list[Any] = [schema.BufferT()]
        self._codes: dict[str, int] = {}
        self._constants: dict[Any, int] = {}
        self._names: dict[str, int] = {}

    def tensor(self, shape: Sequence[int], dtype: str, name: str, grid: Grid | None = None, buffer: int = 0) -> int:
        """Adds a tensor and returns its index; a name that is taken gets a number behind it."""
        made = schema.TensorT()
        made.shape, made.type, made.buffer = np.array(shape, np.int32), DTYPES[dtype], buffer
        made.name, made.hasRank = self._unique(name), True
        if grid is not None:
            made.quantization = schema.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(grid.scale, np.float32))
            made.quantization.scale = scales
            made.quantization.zeroPoint = np.full(len(scales), grid.zero, np.int64)
            made.quantization.quantizedDimension = grid.axis
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, array: np.ndarray, name: str = "constant", grid: Grid | None = None) -> int:
        """Adds a constant and returns its index; small equal ones are stored once."""
        array = np.ascontiguousarray(array)
        key = (array.tobytes(), array.dtype.name, array.shape, grid) if array.size <= 64 else None
        if key is not None and key in self._constants:
            return self._constants[key]
        buffer = schema.BufferT()
        buffer.data = array.reshape(-1).view(np.uint8) if array.size else np.zeros(0, np.uint8)
        self._buffers.append(buffer)
        index = self.tensor(array.shape, array.dtype.name, name, grid, len(self._buffers) - 1)
        if key is not None:
            self._constants[key] = index
        return index

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Adds an op.

        Args:
            name: its name in the schema, such as "CONV_2D".
            inputs: indices of its inputs; -1 for an optional one that isn't given.
            outputs: indices of its outputs.
            **options: attributes of its options, as the schema names them; `kind` is the options' name in the schema.
        """
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault(name, len(self._codes))
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        kind = options.pop("kind", None)
        if kind is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for option, value in options.items():
                if option not in vars(made.builtinOptions):
                    raise KeyError(f"{kind} has no {option}")
                setattr(made.builtinOptions, option, value)
        self.operators.append(made)

    def shape(self, index: int) -> tuple[int, ...]:
        """Returns the shape of a tensor."""
        return tuple(int(size) for size in self.tensors[index].shape)

    def dtype(self, index: int) -> str:
        """Returns NumPy's name of a tensor's dtype."""
        return NAMES[self.tensors[index].type]

    def written(
        self,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        notes: Mapping[str, Any],
    ) -> bytes:
        """Returns the file's bytes.

        Args:
            inputs: tensors by the names of the inputs, in the order of the call.
            outputs: tensors by the names of the outputs, in order.
            notes: what Penjing wants to know when it opens the file.

        Raises:
            PenjingError: the file would pass 2 GB.
        """
        text = schema.BufferT()
        text.data = _as_bytes(notes)
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs = np.array(list(inputs.values()), np.int32)
        graph.outputs = np.array(list(outputs.values()), np.int32)
        model = schema.ModelT()
        model.version, model.description, model.subgraphs = 3, "penjing", [graph]
        model.operatorCodes = [code(name) for name in self._codes]
        model.buffers = [*self._buffers, text]
        size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
        if size >= LIMIT_BYTES:
            raise PenjingError(f"The model takes {size / 1e9:.1f} GB; a .tflite file must stay below 2 GB.")
        metadata, signature = schema.MetadataT(), schema.SignatureDefT()
        metadata.name, metadata.buffer = NOTES, len(model.buffers) - 1
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs, signature.outputs = _mapped(inputs), _mapped(outputs)
        model.metadata, model.signatureDefs = [metadata], [signature]
        builder = Builder(size + 2**16)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self._unique(f"{name}#{count}")


class Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Lets bytes, which are the files' constants, begin where kernels expect them to."""

    def CreateNumpyVector(self, x: Any) -> Any:
        """Writes an array; that of bytes at a multiple of `ALIGNMENT`."""
        if x.dtype != np.uint8:
            return super().CreateNumpyVector(x)
        self.StartVector(1, x.size, ALIGNMENT)
        self.head -= x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        self.vectorNumElems = x.size
        return self.EndVector()


def code(name: str) -> Any:
    """Returns the schema's record of a kind of op."""
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, name)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)  # older runtimes read this field, which has 7 bits
    made.version = _VERSIONS.get(name, 1)
    return made


def _mapped(tensors: Mapping[str, int]) -> list[Any]:
    found = []
    for name, index in tensors.items():
        one = schema.TensorMapT()
        one.name, one.tensorIndex = name, index
        found.append(one)
    return found


def read(content: bytes) -> Any:
    """Returns the schema's own record of a file's model."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def notes_of(model: Any) -> str:
    """Returns the text of Penjing's notes in a model; "{}" where it holds none."""
    for metadata in model.metadata or ():
        if metadata.name in (NOTES, NOTES.encode()):
            return bytes(np.asarray(model.buffers[metadata.buffer].data, np.uint8)).decode()
    return "{}"


def set_notes(model: Any, notes: Mapping[str, Any]) -> None:
    """Replaces Penjing's notes in a model that holds some."""
    for metadata in model.metadata or ():
        if metadata.name in (NOTES, NOTES.encode()):
            model.buffers[metadata.buffer].data = _as_bytes(notes)


def _as_bytes(notes: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(notes, separators=(",", ":")).encode(), np.uint8)
