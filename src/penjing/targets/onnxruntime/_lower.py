"""Lowers a graph to an ONNX file that ONNX Runtime loads, and describes such a file."""

from pathlib import Path

import onnxruntime as ort

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.targets._records import Artifact, FileNotes, TensorSpec, reading_notes
from penjing.targets.onnx import METADATA, WAYS, other_floats, write
from penjing.targets.onnxruntime._on_device import options
from penjing.targets.onnxruntime._session import CantLoad, load

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


def lower(graph: Graph, path: Path) -> Artifact:
    """Writes `graph` as one ONNX file without external data; the graph stays as it was.

    Raises:
        PenjingError: an op can't be expressed in ONNX, the file would pass 2 GB, or the runtime refuses the file.
    """
    write(graph, path)
    try:
        return describe(path)
    except CantLoad as error:
        raise PenjingError(_why_not_loaded(error, graph)) from error


def _why_not_loaded(error: CantLoad, graph: Graph) -> str:
    """Returns why the runtime refuses a file that was just written."""
    said = f"ONNX Runtime {ort.__version__} can't run this graph: {error.reason}."
    strange = other_floats(graph)
    if strange:
        named = ", ".join(str(dtype).removeprefix("torch.") for dtype in strange)
        return f"{said} The model computes in {named}, for which it has few kernels: call model.float() before capture."
    return f"{said} {WAYS}"


def describe(path: Path) -> Artifact:
    """Returns the artifact of an ONNX file.

    Raises:
        PenjingError: ONNX Runtime can't load it, or the notes in it are damaged.
    """
    chosen = options(1)
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = load(path, chosen)
    given = session.get_inputs()
    shapes = [tuple(size if isinstance(size, int) else None for size in value.shape) for value in given]
    outputs = tuple(value.name for value in session.get_outputs())
    with reading_notes(path):
        notes = FileNotes.parse(session.get_modelmeta().custom_metadata_map.get(METADATA, "{}"))
        examples = notes.examples([[size or 1 for size in shape] for shape in shapes])
        structure = notes.nesting(len(outputs))
    inputs = tuple(
        TensorSpec(
            value.name, shape, _DTYPES.get(value.type, value.type.removeprefix("tensor(").removesuffix(")")), *told
        )
        for value, shape, told in zip(given, shapes, examples, strict=True)
    )
    return Artifact("onnxruntime", Path(path), (Path(path),), inputs, outputs, structure)
