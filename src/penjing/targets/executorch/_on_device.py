"""ExecuTorch's part of a measurement. It needs the runtime, with PyTorch under it, and NumPy, and also runs on other devices."""

import base64
import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings import _C as runtime  # needs PyTorch's libraries, so it comes after torch

METHOD = "forward"
WARM_UP_RUNS = 3
LEAST_SECONDS = 0.1  # short calls are repeated for that long
MOST_TIMES = 20  # but not more than this many times as often as was asked for
VERIFIED = runtime.Verification.InternalConsistency  # without it, offsets in a damaged file end the process


def version() -> str:
    """Returns the runtime's version."""
    return importlib.metadata.version("executorch")


class _Loaded:
    """A program's method and its inputs. A process has one pool of threads, which all kernels keep that were loaded with it."""

    threads: int | None = None  # of the pool

    def __init__(self, path: str, threads: int, inputs: dict[str, np.ndarray], traced: bool = False) -> None:
        if _Loaded.threads not in (None, threads):
            raise RuntimeError(
                "ExecuTorch has one pool of threads in a process: measure with each number of threads by itself"
            )
        if _Loaded.threads is None:
            runtime._unsafe_reset_threadpool(threads)
            _Loaded.threads = threads
        self._content = Path(path).read_bytes()
        self.program = runtime._load_program_from_buffer(
            self._content, enable_etdump=traced, debug_buffer_size=0, program_verification=VERIFIED
        )
        self._method = self.program.load_method(METHOD)
        self._inputs = [torch.from_numpy(value) for value in inputs.values()]

    def __call__(self) -> list[np.ndarray]:
        return [torch.as_tensor(value).numpy() for value in self._method(self._inputs)]


def load(path: str, threads: int, inputs: dict[str, np.ndarray]) -> Any:
    """Returns a function that makes one call, and returns the flat outputs; the inputs are in the file's order."""
    return _Loaded(path, threads, inputs)


def profile(path: str, threads: int, inputs: dict[str, np.ndarray], runs: int) -> str:
    """Returns the runtime's trace as text; the inputs are in the file's order. Its first runs are those of the warm-up."""
    call = _Loaded(path, threads, inputs, traced=True)
    return traced(call, lambda: call.program, runs)


def traced(call: Callable[[], Any], program: Callable[[], Any], runs: int) -> str:
    """Calls a traced program, and returns its trace as text."""
    end = time.perf_counter() + LEAST_SECONDS
    for count in range(WARM_UP_RUNS + MOST_TIMES * runs):
        if count >= WARM_UP_RUNS + runs and time.perf_counter() > end:
            break
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.etdp")
        program().write_etdump_result_to_file(str(trace), "")
        return base64.b64encode(trace.read_bytes()).decode()
