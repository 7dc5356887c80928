"""Node as the place where models run."""

import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from penjing.targets.bench import MEMORY_CALLS
from penjing.targets.onnxruntime_web._engine import Ended, Engine, Place, described, packed
from penjing.targets.onnxruntime_web._package import PACKAGE, folder, installed, node, node_version

SCRIPT = Path(__file__).with_name("node.mjs")
_SIZES = struct.Struct("<II")  # of a message's header and of its bytes


class Node(Engine):
    """A process of Node, which takes requests through its standard input."""

    def __init__(self, *options: str) -> None:
        """Starts the process.

        Args:
            options: what follows the folder on its command line.
        """
        super().__init__()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process
        # A session of its own: Ctrl-C is Penjing's to handle.
        self._process = subprocess.Popen(
            [str(node()), str(SCRIPT), str(folder()), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process takes requests."""
        return self._process.poll() is None

    def exchange(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Sends a request; returns the answer; see `Engine`."""
        assert self._process.stdin is not None
        try:
            for part in (_SIZES.pack(len(header), len(body)), header, body):
                self._process.stdin.write(part)
            self._process.stdin.flush()
            sizes = _SIZES.unpack(self._read(_SIZES.size))
            return self._read(sizes[0]), self._read(sizes[1])
        except (OSError, ValueError) as error:  # a ValueError where the pipe was closed here
            raise Ended(self._said()) from error

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        found = self._process.stdout.read(count)
        if len(found) < count:
            raise Ended(self._said())
        return found

    def _said(self) -> str:
        """Returns the end of what the process wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-500:]


def _memory(tiny: bytes, file: bytes, inputs: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    if sys.platform != "linux":
        return None
    asked = {"do": "memory", "tiny": len(tiny), "size": len(file), "inputs": described(inputs), "runs": MEMORY_CALLS}
    fresh = Node()
    try:
        answer, _ = fresh.ask(asked, [tiny, file, packed(inputs)])
    finally:
        fresh.close()
    peak, own = answer["memory"]
    return peak, own


NODE = Place(PACKAGE, lambda: f"{installed()} in Node {node_version()}", start=lambda: Node("compiled"), memory=_memory)
