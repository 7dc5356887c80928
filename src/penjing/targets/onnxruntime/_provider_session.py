"""Sessions with one of ONNX Runtime's providers, their profile, and their memory."""

import json
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnxruntime as ort

from penjing.errors import PenjingError
from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.onnxruntime import _opening
from penjing.targets.onnxruntime._events import rows_of
from penjing.targets.onnxruntime._on_device import WARM_UP_RUNS, options
from penjing.targets.onnxruntime._providers import Provider
from penjing.targets.onnxruntime._session import CantLoad, load, run_once

SIZES = 4  # sets of input shapes for each of which a session is kept, where sizes must be fixed

# Follows what `_opening.py` defines.
_LOAD = """

def load(path, threads, inputs):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    for name, size in {sizes}.items():
        options.add_free_dimension_override_by_name(name, size)
    session = opened(path, options, {given})
    return lambda: session.run(None, inputs)
"""


class ProviderSession:
    """A loaded model that one provider runs.

    What the provider doesn't take of the model runs on the CPU. Where the provider wants fixed sizes, the file is loaded once for
    each of the first sets of shapes that come.
    """

    def __init__(self, artifact: Artifact, threads: int, provider: Provider) -> None:
        self._path, self._threads, self._provider = artifact.path, threads, provider
        self._axes = free_axes(artifact.path) if provider.whole else {}
        self._sessions: OrderedDict[tuple[int, ...], ort.InferenceSession] = OrderedDict()
        if not self._axes:
            self._for({})

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""
        return run_once(self._for(sizes_of(self._axes, inputs)), inputs)

    def _for(self, sizes: dict[str, int]) -> ort.InferenceSession:
        key = tuple(sizes.values())
        if key not in self._sessions:
            if len(self._sessions) == SIZES:
                self._sessions.popitem(last=False)
            self._sessions[key] = open_with(self._provider, self._path, fixed(options(self._threads), sizes))
        return self._sessions[key]


def free_axes(path: Path) -> dict[str, tuple[str, int]]:
    """Returns the free axes of a file by their names, each as an input's name and a position."""
    chosen = options(1)
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return {
        size: (value.name, axis)
        for value in load(path, chosen).get_inputs()
        for axis, size in enumerate(value.shape)
        if isinstance(size, str)
    }


def sizes_of(axes: dict[str, tuple[str, int]], inputs: dict[str, np.ndarray]) -> dict[str, int]:
    """Returns the sizes of free axes in some inputs, by the axes' names."""
    return {name: inputs[given].shape[axis] for name, (given, axis) in axes.items()}


def fixed(chosen: ort.SessionOptions, sizes: dict[str, int]) -> ort.SessionOptions:
    """Fixes the sizes of free axes in a session's options, which are returned."""
    for name, size in sizes.items():
        chosen.add_free_dimension_override_by_name(name, size)
    return chosen


def open_with(provider: Provider, path: Path, chosen: ort.SessionOptions) -> ort.InferenceSession:
    """Loads a file with a provider.

    Raises:
        PenjingError: the runtime refuses the file, or would run all of it on the CPU.
    """
    try:
        return _opening.opened(str(path), chosen, *_given(provider))
    except _opening.NotTaken as error:
        raise PenjingError(
            f"ONNX Runtime {ort.__version__} would run {path} on the CPU instead of by '{provider.target}': {error}. A speed "
            "that is measured so would be the CPU's: use target='onnxruntime' for that."
        ) from error
    except Exception as error:  # its exception types have no common base but Exception
        raise CantLoad(path, str(error).strip().splitlines()[0]) from error


def _given(provider: Provider) -> tuple[str, str, str, bool]:
    return provider.name, provider.plugin, provider.backend, provider.preload


def profile(
    artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int, provider: Provider
) -> list[ExecutedNode]:
    """Returns every executed node in order; what a provider compiles as a whole is one node of no module."""
    sizes = sizes_of(free_axes(artifact.path), inputs) if provider.whole else {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = fixed(options(threads), sizes)
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder, "profile"))
        session = open_with(provider, artifact.path, chosen)
        for _ in range(WARM_UP_RUNS + runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    return rows_of(events, artifact.path)


def memory(
    artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], provider: Provider
) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    Memory of another device than the CPU isn't counted.
    """
    sizes = sizes_of(free_axes(artifact.path), inputs) if provider.whole else {}
    given = ", ".join(map(repr, _given(provider)))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "on_device.py")
        program.write_text(Path(_opening.__file__).read_text() + _LOAD.format(sizes=sizes, given=given))
        return fresh_memory(program, artifact, threads, inputs)
