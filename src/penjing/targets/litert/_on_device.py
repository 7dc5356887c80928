"""LiteRT's part of a measurement. It needs the runtime and NumPy alone, and also runs on other devices.

LiteRT's Python interface has no profiler, but its C interface, in a library of the same package, has one. A mistake about that
interface may end the process, so that profiles are made in one of their own:

    python _on_device.py MODEL INPUTS.npz THREADS RUNS

prints, as JSON, the events of each run: [name, kind, index, microseconds].
"""

import ctypes
import json
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

CPU = 1  # the number of this accelerator
WRITE = 1  # the number of this kind of lock
MOST_AXES = 8
ELEMENTS = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}
SPARE = 64  # events of more room than is needed, should they be longer than is known here
WARM_UP_RUNS = 3


class Layout(ctypes.Structure):
    """LiteRtLayout."""

    _fields_ = (
        ("rank", c_uint32, 7),
        ("has_strides", c_uint32, 1),
        ("dimensions", c_int32 * MOST_AXES),
        ("strides", c_uint32 * MOST_AXES),
    )


class TensorType(ctypes.Structure):
    """LiteRtRankedTensorType."""

    _fields_ = (("element", c_int), ("layout", Layout))


class Event(ctypes.Structure):
    """ProfiledEventData."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_uint64 * 6),
        ("index", c_uint64),
        ("more", c_uint64),
        ("source", c_int),
    )


class Runtime:
    """The C interface of LiteRT, whose functions return 0 where all is well."""

    def __init__(self) -> None:
        """Loads the library."""
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))
        standard = ctypes.CDLL(None)
        self._allocate, self._free = standard.malloc, standard.free
        self._allocate.restype, self._allocate.argtypes = c_void_p, [c_size_t]

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function; ends the process where it fails."""
        function = getattr(self._library, name)
        function.restype = c_int
        status = function(*arguments)
        if status != 0:
            sys.exit(f"{name} returns {status}")

    def made(self, name: str, *arguments: Any) -> c_void_p:
        """Calls a function that puts what it makes behind its last argument."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def add_options(self, options: c_void_p, kind: bytes, text: bytes) -> None:
        """Adds options that are given as text, in memory that the runtime frees."""
        memory = c_void_p(self._allocate(len(text) + 1))
        ctypes.memmove(memory, text + b"\0", len(text) + 1)
        free = ctypes.cast(self._free, c_void_p)
        self.call(
            "LiteRtAddOpaqueOptions", options, self.made("LiteRtCreateOpaqueOptions", c_char_p(kind), memory, free)
        )


def version() -> str:
    """Returns the runtime's version."""
    return str(ai_edge_litert.__version__)


def load(path: str, threads: int, inputs: dict[str, np.ndarray]) -> Any:
    """Returns a function that makes one call, and returns the flat outputs; the inputs are in the file's order."""
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    places = [given["index"] for given in interpreter.get_input_details()]
    results = [made["index"] for made in interpreter.get_output_details()]

    def call() -> list[np.ndarray]:
        for place, array in zip(places, inputs.values(), strict=True):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in results]

    return call


def profile(path: str, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[list[list[Any]]]:
    """Returns the events of each run; the inputs are in the file's order."""
    outputs = Interpreter(model_path=path).get_output_details()
    given = [np.ascontiguousarray(array) for array in inputs.values()]
    taken = [np.zeros(one["shape"], one["dtype"]) for one in outputs]
    runtime = Runtime()
    environment = runtime.made("LiteRtCreateEnvironment", c_int(0), None)
    file = runtime.made("LiteRtCreateModelFromFile", environment, c_char_p(path.encode()))
    options = runtime.made("LiteRtCreateOptions")
    runtime.call("LiteRtSetOptionsHardwareAccelerators", options, c_int(CPU))
    runtime.add_options(options, b"runtime_options_string", b"enable_profiling = true\n")
    runtime.add_options(options, b"xnnpack", f"num_threads = {threads}\n".encode())
    compiled = runtime.made("LiteRtCreateCompiledModel", environment, file, options)
    profiler = runtime.made("LiteRtCompiledModelGetProfiler", compiled)
    if not profiler:
        sys.exit("the runtime gives no profiler")

    def buffer(kind: str, place: int, array: np.ndarray) -> c_void_p:
        wanted = runtime.made(f"LiteRtGetCompiledModel{kind}BufferRequirements", compiled, c_size_t(0), c_size_t(place))
        tensor = TensorType(ELEMENTS[array.dtype.name])
        tensor.layout.rank = array.ndim
        for axis, size in enumerate(array.shape):
            tensor.layout.dimensions[axis] = size
        made = runtime.made("LiteRtCreateManagedTensorBufferFromRequirements", environment, byref(tensor), wanted)
        address = c_void_p()
        runtime.call("LiteRtLockTensorBuffer", made, byref(address), c_int(WRITE))
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        runtime.call("LiteRtUnlockTensorBuffer", made)
        return made

    sources = (c_void_p * len(given))(*(buffer("Input", place, array) for place, array in enumerate(given)))
    results = (c_void_p * len(taken))(*(buffer("Output", place, array) for place, array in enumerate(taken)))
    found = []
    for run in range(WARM_UP_RUNS + runs):
        runtime.call("LiteRtResetProfiler", profiler)
        runtime.call("LiteRtStartProfiler", profiler)
        runtime.call(
            "LiteRtRunCompiledModel",
            compiled,
            c_size_t(0),
            c_size_t(len(given)),
            sources,
            c_size_t(len(taken)),
            results,
        )
        runtime.call("LiteRtStopProfiler", profiler)
        if run >= WARM_UP_RUNS:
            found.append(events(runtime, profiler))
    return found


def events(runtime: Runtime, profiler: c_void_p) -> list[list[Any]]:
    """Returns the events that a profiler holds."""
    count = c_int()
    runtime.call("LiteRtGetNumProfilerEvents", profiler, byref(count))
    room = (Event * (count.value + SPARE))()
    runtime.call("LiteRtGetProfilerEvents", profiler, c_int(count.value), ctypes.cast(room, POINTER(Event)))
    return [
        [(one.tag or b"").decode(errors="replace"), one.kind, one.index, one.elapsed_us] for one in room[: count.value]
    ]


def main(path: str, inputs: str, threads: str, runs: str) -> None:
    """Prints the events of each run, given inputs whose names are their places."""
    with np.load(inputs) as arrays:
        given = {str(place): arrays[str(place)] for place in range(len(arrays.files))}
    print(json.dumps(profile(path, int(threads), given, int(runs))))


if __name__ == "__main__":
    main(*sys.argv[1:])
