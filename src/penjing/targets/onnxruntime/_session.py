"""ONNX Runtime sessions with explicit threads."""

import re
from typing import Any

import numpy as np
import onnxruntime as ort

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets.onnx._names import origin

FATAL_ONLY = 4  # log severity: errors are raised, so they needn't be printed as well
_FAILED_NODE = re.compile(r"Name: ?'([^']*)'")
_FILE_OF_RUNTIME = re.compile(r"^/\S+:\d+ \S+\([^)]*\) ?")  # position in the runtime's source, before its message


class CantLoad(PenjingError):
    """ONNX Runtime refuses a file.

    Attributes:
        reason: the runtime's own message.
    """

    def __init__(self, path: Any, reason: str) -> None:
        super().__init__(f"ONNX Runtime {ort.__version__} can't load {path}: {reason}")
        self.reason = reason.replace(f"Load model from {path} failed:", "").rstrip(".")


def options(threads: int) -> ort.SessionOptions:
    """Returns session options: `threads` within an op, ops one after the other, idle threads asleep.

    Spinning is off because the idle pools of several sessions in one process would disturb one another's measurements.
    """
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.log_severity_level = FATAL_ONLY
    return chosen


def load(path: Any, chosen: ort.SessionOptions) -> ort.InferenceSession:
    """Loads a file on the CPU.

    Raises:
        CantLoad: ONNX Runtime can't load it.
    """
    try:
        return ort.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types have no common base but Exception
        reason = str(error).strip().splitlines()[0]
        raise CantLoad(path, reason) from error


def run_once(session: ort.InferenceSession, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Runs one call; returns the flat outputs.

    Raises:
        PenjingError: an op fails on these inputs; the message names the user's module that the op came from.
    """
    try:
        outputs: list[np.ndarray] = session.run(None, inputs)
    except Exception as error:  # its exception types have no common base but Exception
        raise PenjingError(_failure(error, inputs)) from error
    return outputs


def _failure(error: Exception, inputs: dict[str, np.ndarray]) -> str:
    text = " ".join(str(error).split())
    node = _FAILED_NODE.search(text)
    source = origin(node[1]) if node is not None else None
    where = f" in '{source[0] or source[1]}'" if source is not None else ""
    reason = _FILE_OF_RUNTIME.sub("", text.rpartition("Status Message:")[2] or text).strip()
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    return f"ONNX Runtime {ort.__version__} fails{where} on inputs of the shapes {shapes}: {reason}"


class CpuSession:
    """A loaded model on the CPU."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._session = load(artifact.path, options(threads))

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""
        return run_once(self._session, inputs)
