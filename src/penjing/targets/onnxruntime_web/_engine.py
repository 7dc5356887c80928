"""What runs models with onnxruntime-web outside of Python: a process that takes requests. Node is one, a browser another."""

import atexit
import itertools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import PenjingError

LARGEST = 2**32 - 1  # bytes of a message


class Refused(PenjingError):
    """The runtime refuses a file or a call; the message is the runtime's own."""


class Ended(Exception):
    """The process ended; the message is what it said."""


class Engine(ABC):
    """A process that loads and runs models. It ends with this process, and whenever an answer is interrupted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closing: list[int] = []
        self._numbers = itertools.count()

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether the process takes requests."""

    @abstractmethod
    def exchange(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Sends a request's header and bytes; returns those of the answer.

        Raises:
            Ended: the process ended.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the process."""

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
            PenjingError: the process ended, or the request is too large.
        """
        body = b"".join(chunks)
        if len(body) > LARGEST:
            raise PenjingError(f"{len(body):,} bytes are more than a call of onnxruntime-web takes ({LARGEST:,}).")
        with self._lock:
            closing, self._closing = self._closing, []
            try:
                text, found = self.exchange(json.dumps({**request, "close": closing}).encode(), body)
            except Ended as error:
                self.close()
                raise PenjingError(f"The process that runs onnxruntime-web ended. {error}") from error
            except BaseException:  # Ctrl-C: what the process would still answer fits no later request
                self.close()
                raise
        answer = json.loads(text)
        if "error" in answer:
            raise Refused(str(answer["error"]).strip())
        return answer, found


@dataclass(frozen=True)
class Place:
    """Where models run.

    Attributes:
        target: the target's name.
        version: returns the versions of the package, and of what compiles the runtime's code.
        start: starts a process.
        memory: returns the peak bytes of a fresh process that runs a call, and the part of them that the model took; None where
            the system can't tell. It is given a tiny file, the file, and the inputs.
        layers: whether the runtime tells there how long single ops take.
    """

    target: str
    version: Callable[[], str]
    start: Callable[[], Engine]
    memory: Callable[[bytes, bytes, Mapping[str, np.ndarray]], tuple[int, int] | None]
    layers: bool = True

    def engine(self) -> Engine:
        """Returns the process that runs models; a new one if the last one ended."""
        current = _engines.get(self.target)
        if current is None or not current.alive:
            if current is not None:
                current.close()
            current = _engines[self.target] = self.start()
            atexit.register(current.close)
        return current


_engines: dict[str, Engine] = {}


def described(inputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Returns names, dtypes and shapes of inputs, as requests give them."""
    return [{"name": name, "dtype": str(x.dtype), "shape": list(x.shape)} for name, x in inputs.items()]


def packed(inputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of inputs, one behind the other."""
    return b"".join(np.ascontiguousarray(x).tobytes() for x in inputs.values())
