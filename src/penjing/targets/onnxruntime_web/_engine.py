"""A process of Node that loads and runs models with onnxruntime-web, one for all models of this process."""

import atexit
import itertools
import json
import struct
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import PenjingError
from penjing.targets.onnxruntime_web._package import folder, installed, node, node_version

SCRIPT = Path(__file__).with_name("node.mjs")
_SIZES = struct.Struct("<II")  # of a message's header and of its bytes
LARGEST = 2**32 - 1  # bytes of a message


class Refused(PenjingError):
    """The runtime refuses a file or a call; the message is the runtime's own."""


class Engine:
    """A process of Node. It ends with this process, and whenever an answer is interrupted."""

    def __init__(self, *options: str) -> None:
        """Starts the process.

        Args:
            options: what follows the folder on its command line.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process
        # A session of its own: Ctrl-C is Penjing's to handle.
        self._process = subprocess.Popen(
            [str(node()), str(SCRIPT), str(folder()), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._closing: list[int] = []
        self._numbers = itertools.count()

    @property
    def alive(self) -> bool:
        """Whether the process takes requests."""
        return self._process.poll() is None

    def open(self, path: Path) -> int:
        """Loads a file; returns the number by which it is run.

        Raises:
            Refused: the runtime can't load the file.
        """
        number = next(self._numbers)
        self.ask({"do": "open", "id": number}, [path.read_bytes()])
        return number

    def release(self, number: int) -> None:
        """Lets go of a loaded file, at the next request."""
        self._closing.append(number)

    def ask(self, request: Mapping[str, Any], chunks: Sequence[bytes] = ()) -> tuple[dict[str, Any], bytes]:
        """Makes a request; returns the answer and its bytes.

        Raises:
            Refused: the runtime refuses what was asked.
            PenjingError: the process ended.
        """
        with self._lock:
            closing, self._closing = self._closing, []
            try:
                self._send(json.dumps({**request, "close": closing}).encode(), b"".join(chunks))
                answer, bytes_ = self._received()
            except (OSError, EOFError) as error:
                self.close()
                raise PenjingError(f"Node ended while it ran onnxruntime-web. {self._said()}") from error
            except BaseException:  # Ctrl-C: what the process would still answer fits no later request
                self.close()
                raise
        if "error" in answer:
            raise Refused(str(answer["error"]).strip())
        return answer, bytes_

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _send(self, header: bytes, body: bytes) -> None:
        if len(body) > LARGEST:
            raise PenjingError(f"{len(body):,} bytes are more than a call of onnxruntime-web takes ({LARGEST:,}).")
        stream = self._process.stdin
        assert stream is not None
        for part in (_SIZES.pack(len(header), len(body)), header, body):
            stream.write(part)
        stream.flush()

    def _received(self) -> tuple[dict[str, Any], bytes]:
        header, body = _SIZES.unpack(self._read(_SIZES.size))
        return json.loads(self._read(header)), self._read(body)

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        found = self._process.stdout.read(count)
        if len(found) < count:
            raise EOFError
        return found

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-500:]


def version() -> str:
    """Returns the versions of the package and of Node, which bring the kernels and the compiler of their code."""
    return f"{installed()} in Node {node_version()}"


_engines: list[Engine] = []


def engine() -> Engine:
    """Returns the process that runs models; a new one if the last one ended."""
    if not _engines or not _engines[-1].alive:
        _engines[:] = [Engine("compiled")]
        atexit.register(_engines[-1].close)
    return _engines[-1]


def described(inputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Returns names, dtypes and shapes of inputs, as requests give them."""
    return [{"name": name, "dtype": str(x.dtype), "shape": list(x.shape)} for name, x in inputs.items()]


def packed(inputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of inputs, one behind the other."""
    return b"".join(np.ascontiguousarray(x).tobytes() for x in inputs.values())
