"""ONNX Runtime sessions with explicit threads."""

from typing import Any

import numpy as np
import onnxruntime as ort

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets.onnx import failure
from penjing.targets.onnxruntime._on_device import options


class CantLoad(PenjingError):
    """ONNX Runtime refuses a file.

    Attributes:
        reason: the runtime's own message.
    """

    def __init__(self, path: Any, reason: str) -> None:
        super().__init__(f"ONNX Runtime {ort.__version__} can't load {path}: {reason}")
        self.reason = reason.replace(f"Load model from {path} failed:", "").rstrip(".")


def load(path: Any, chosen: ort.SessionOptions) -> ort.InferenceSession:
    """Loads a file on the CPU.

    Raises:
        CantLoad: ONNX Runtime can't load it.
    """
    try:
        return ort.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types have no common base but Exception
        raise cant_load(path, error) from error


def cant_load(path: Any, error: Exception) -> CantLoad:
    """Returns the error that tells why ONNX Runtime refuses a file."""
    return CantLoad(path, str(error).strip().splitlines()[0])


def run_once(session: ort.InferenceSession, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Runs one call; returns the flat outputs.

    Raises:
        PenjingError: an op fails on these inputs; the message names the user's module that the op came from.
    """
    try:
        outputs: list[np.ndarray] = session.run(None, inputs)
    except Exception as error:  # its exception types have no common base but Exception
        raise PenjingError(failure(f"ONNX Runtime {ort.__version__}", error, inputs)) from error
    return outputs


class CpuSession:
    """A loaded model on the CPU."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._session = load(artifact.path, options(threads))

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""
        return run_once(self._session, inputs)
