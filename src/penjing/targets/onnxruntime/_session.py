"""ONNX Runtime sessions with explicit threads."""

from typing import Any

import numpy as np
import onnxruntime as ort

from penjing.errors import PenjingError
from penjing.targets._records import Artifact

ERRORS_ONLY = 3


def options(threads: int) -> ort.SessionOptions:
    """Returns session options: `threads` within an op, ops one after the other, idle threads asleep.

    Spinning is off because the idle pools of several sessions in one process would disturb one another's measurements.
    """
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.log_severity_level = ERRORS_ONLY
    return chosen


def load(path: Any, chosen: ort.SessionOptions) -> ort.InferenceSession:
    """Loads a file on the CPU.

    Raises:
        PenjingError: ONNX Runtime can't load it.
    """
    try:
        return ort.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types have no common base but Exception
        reason = str(error).strip().splitlines()[0]
        raise PenjingError(f"ONNX Runtime {ort.__version__} can't load {path}: {reason}") from error


class CpuSession:
    """A loaded model on the CPU."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._session = load(artifact.path, options(threads))

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""
        outputs: list[np.ndarray] = self._session.run(None, inputs)
        return outputs
