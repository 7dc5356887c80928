"""What a call that fails in ONNX Runtime says: in which module of the user's, on which inputs, and why."""

import re
from collections.abc import Mapping

import numpy as np

from penjing.targets.onnx._names import origin

_FAILED_NODE = re.compile(r"Name: ?'([^']*)'")
_FILE_OF_RUNTIME = re.compile(r"^/\S+:\d+ \S+\([^)]*\) ?")  # position in the runtime's source, before its message


def failure(runtime: str, error: Exception, inputs: Mapping[str, np.ndarray]) -> str:
    """Returns the message of a call that failed.

    Args:
        runtime: name and version of the runtime.
        error: what the runtime raised.
        inputs: what the call was given, by name.
    """
    text = " ".join(str(error).split())
    node = _FAILED_NODE.search(text)
    source = origin(node[1]) if node is not None else None
    where = f" in '{source[0] or source[1]}'" if source is not None else ""
    reason = _FILE_OF_RUNTIME.sub("", text.rpartition("Status Message:")[2] or text).strip()
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    return f"{runtime} fails{where} on inputs of the shapes {shapes}: {reason}"
