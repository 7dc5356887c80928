"""LiteRT interpreters with explicit threads, on the CPU with XNNPACK."""

from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets._standard_error import caught
from penjing.targets.litert._file import read


class CantLoad(PenjingError):
    """LiteRT refuses a file.

    Attributes:
        reason: the runtime's own message.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"LiteRT {ai_edge_litert.__version__} can't load {path}: {reason}")
        self.reason = reason.rstrip(".")


def load(path: Path, threads: int) -> Any:
    """Loads a file, ready to run.

    Raises:
        CantLoad: LiteRT can't load it.
    """
    try:
        with caught():  # it announces its kernels, and writes its errors twice
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except Exception as error:  # its errors are ValueError and RuntimeError, by no rule that is written down
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CantLoad(path, reason) from error
    return interpreter


def model_of(path: Path) -> Any:
    """Returns the schema's record of a file that LiteRT can load.

    Raises:
        CantLoad: LiteRT can't load it.
    """
    load(path, 1)
    return read(path.read_bytes())


class CpuSession:
    """A loaded model on the CPU."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._interpreter = load(artifact.path, threads)
        inputs = self._interpreter.get_input_details()
        self._inputs = [(spec.name, one["index"]) for spec, one in zip(artifact.inputs, inputs, strict=True)]
        self._outputs = [one["index"] for one in self._interpreter.get_output_details()]

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs.

        Raises:
            PenjingError: an op fails on these inputs.
        """
        try:
            for name, index in self._inputs:
                self._interpreter.set_tensor(index, inputs[name])
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]
        except (ValueError, RuntimeError) as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise PenjingError(
                f"LiteRT {ai_edge_litert.__version__} fails on inputs of the shapes {shapes}: {reason}"
            ) from error
