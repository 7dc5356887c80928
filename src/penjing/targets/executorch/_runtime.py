"""ExecuTorch's runtime in this process: programs that are loaded, and the one pool of threads that all of them share.

The extension module is imported by itself: `executorch.runtime` would import the whole exporter with it, which takes seconds.
"""

import importlib.metadata
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.targets._standard_error import caught

VERSION = importlib.metadata.version("executorch")
try:
    from executorch.extension.pybindings import _C as runtime  # needs PyTorch's libraries, so it comes after torch
except ModuleNotFoundError:
    raise
except ImportError as error:  # a symbol of PyTorch's is missing
    raise PenjingError(
        f"ExecuTorch {VERSION} was built for another PyTorch than {torch.__version__}: install versions that fit each other "
        f"(pip install executorch torch=={torch.__version__.partition('+')[0]}). {error}"
    ) from error
METHOD = "forward"
VERIFICATION = runtime.Verification.InternalConsistency  # without it, offsets in a damaged file end the process


_IDENTIFIER = re.compile(rb"ET\d\d")  # bytes 4 to 8 of a program: the version of its format


class CantLoad(PenjingError):
    """ExecuTorch refuses a file."""

    def __init__(self, path: Any, reason: str) -> None:
        super().__init__(f"ExecuTorch {VERSION} can't load {path}: {reason}")


def open_program(content: bytes, path: Any, traced: bool = False) -> Any:
    """Returns the program that a file's bytes hold; the bytes must be kept as long as it is used.

    Args:
        content: the bytes.
        path: of the file, for errors.
        traced: whether the runtime notes the time of each kernel.

    Raises:
        CantLoad: they hold none.
    """
    # The runtime would end the process where it can't print these bytes as text.
    if not _IDENTIFIER.fullmatch(content[4:8]):
        raise CantLoad(path, f"it is no program of ExecuTorch's, or it is damaged: its identifier is {content[4:8]!r}")
    with caught() as said:
        try:
            return runtime._load_program_from_buffer(
                content,
                enable_etdump=traced,
                debug_buffer_size=0,
                program_verification=VERIFICATION,
            )
        except RuntimeError as error:
            raise CantLoad(path, _told(error, said())) from error


class Loaded:
    """A program's method, loaded for a number of threads and called with tensors in order.

    ExecuTorch has one pool of threads in a process, and kernels keep the pool that was there when they were loaded. So where
    two of these have different numbers, each call of the other replaces the pool and loads the program again, which takes
    some milliseconds.
    """

    def __init__(self, path: Path, threads: int, traced: bool = False) -> None:
        self._path, self._content = path, path.read_bytes()
        self._threads, self._traced = threads, traced
        self.program: Any = None
        self._method: Any = None
        self._ready()

    def __call__(self, inputs: Sequence[Tensor]) -> list[Any]:
        """Runs one call; returns the flat outputs, which are copies.

        Raises:
            PenjingError: a kernel fails.
        """
        method = self._ready()
        try:
            outputs: list[Any] = method(inputs)
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            raise PenjingError(f"ExecuTorch {VERSION} fails on inputs of the shapes {shapes}: {error}") from error
        return outputs

    def _ready(self) -> Any:
        _pool.use(self._threads)
        if self._method is None:
            self.program = open_program(self._content, self._path, self._traced)
            with caught() as said:
                try:
                    self._method = self.program.load_method(METHOD)
                except RuntimeError as error:
                    raise CantLoad(self._path, _told(error, said())) from error
            _pool.users.add(self)
        return self._method

    def unload(self) -> None:
        """Lets the kernels go, which hold the pool of threads."""
        self._method = self.program = None


class _Pool:
    """The process's pool of threads."""

    def __init__(self) -> None:
        self._threads: int | None = None
        self.users: weakref.WeakSet[Loaded] = weakref.WeakSet()

    def use(self, threads: int) -> None:
        """Gives the pool this many threads, the calling one included."""
        if threads == self._threads:
            return
        for user in list(self.users):
            user.unload()  # kernels that still held the old pool would end the process
        self.users.clear()
        with caught():
            runtime._unsafe_reset_threadpool(threads)
        self._threads = threads


_pool = _Pool()


def _told(error: Exception, said: list[str]) -> str:
    """Returns an error's text and, behind it, what the runtime wrote to standard error: the reason often stands only there."""
    lines = [line.partition("] ")[2] for line in said]
    return "; ".join([str(error).strip(), *dict.fromkeys(line for line in lines if line)])


def tensor_type(number: int) -> torch.dtype:
    """Returns the dtype that has this number in ExecuTorch, which are PyTorch's own numbers.

    Raises:
        PenjingError: none has it.
    """
    if number not in _DTYPES:
        raise PenjingError(f"an input has the dtype number {number}, which isn't known")
    return _DTYPES[number]


_DTYPES = dict(
    enumerate(
        (
            torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64,
        )
    )
) | {11: torch.bool}  # fmt: skip
