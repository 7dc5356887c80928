"""OpenVINO models, compiled for the CPU with explicit threads."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets.onnx import origin
from penjing.targets.openvino._on_device import CORE, settings, version

VERSION = version()
STATIC_SHAPES = 4  # sets of input shapes for each of which a session compiles a model of its own, which is the fastest
_POSITION = ("Exception from ", "Check '", "FrontEnd API failed")  # how lines start that speak of the runtime's source


def reason_of(error: BaseException) -> str:
    """Returns the line of an error of OpenVINO that says what was wrong, without positions in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(_POSITION)]
    return (useful or lines or [type(error).__name__])[0].rstrip(".:")


class CantLoad(PenjingError):
    """OpenVINO refuses a file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"OpenVINO {VERSION} can't load {path}: {reason}.")


def read(path: Path) -> ov.Model:
    """Reads a pair of files.

    Raises:
        CantLoad: the files hold no model. Only OpenVINO's own form is read: for any other file, OpenVINO would try the
            readers of all forms that it knows.
    """
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith((b"<?xml", b"<net")):
            raise CantLoad(path, "it isn't an .xml file of OpenVINO")
    try:
        return CORE.read_model(path, path.with_suffix(".bin"))
    except Exception as error:  # it raises RuntimeError and types of its own
        raise CantLoad(path, reason_of(error)) from error


def compiled(model: ov.Model, shapes: dict[str, tuple[int, ...]] | None, chosen: dict[str, Any]) -> ov.CompiledModel:
    """Compiles a model, which stays as it was, for inputs of these shapes; for any that it takes where `shapes` is None."""
    if shapes is not None and model.is_dynamic():
        model = model.clone()
        model.reshape(shapes)
    return CORE.compile_model(model, "CPU", chosen)


class CpuSession:
    """A loaded model on the CPU. For each of the first few shapes of inputs it compiles a model that takes that shape alone."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._model, self._settings = read(artifact.path), settings(threads)
        self._name = artifact.path.name
        self._requests: dict[tuple[Any, ...] | None, ov.InferRequest] = {}

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs.

        Raises:
            PenjingError: an op fails on these inputs.
        """
        shapes = {name: value.shape for name, value in inputs.items()}
        try:
            found = self._request(shapes).infer(inputs, share_inputs=True)
            return [np.array(found[port]) for port in range(len(self._model.outputs))]
        except RuntimeError as error:
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise PenjingError(
                f"OpenVINO {VERSION} fails{_where(error)} on inputs of the shapes {told}: {reason_of(error)}."
            ) from error

    def _request(self, shapes: dict[str, tuple[int, ...]]) -> ov.InferRequest:
        key: tuple[Any, ...] | None = tuple(shapes.items())
        if key not in self._requests and len(self._requests) >= STATIC_SHAPES:
            key = None  # compiling takes longer than a call: from here on one model takes all other shapes
        if key not in self._requests:
            model = compiled(self._model, shapes if key is not None else None, self._settings)
            self._requests[key] = model.create_infer_request()
        return self._requests[key]


def _where(error: BaseException) -> str:
    """Returns " in 'module'" for the first of the user's modules that an error names; "" if it names none."""
    for word in str(error).replace("'", " ").replace('"', " ").split():
        source = origin(word) if "/" in word and "." not in word.rpartition("/")[2] else None
        if source is not None and source[0] and not word.startswith(("src/", "/")):
            return f" in '{source[0]}'"
    return ""
