"""The verbs on lowered models, the same for every target: lower, open, run, compare, profile."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.targets._records import Artifact, ExecutedNode, Parity, TensorSpec
from penjing.targets._registry import Session, Target, find_target

PROFILE_RUNS = 20


def lower(graph: Graph, target: str = "onnxruntime", path: Path | str | None = None) -> Artifact:
    """Writes `graph` as a file that the target's runtime loads; the graph stays as it was.

    Quantised weights are stored as int8, batch norms are folded, and the batch axis is free where the graph's is.

    Args:
        graph: a float or quantised graph.
        target: name of the runtime; see `available()`.
        path: where to write; `model` with the target's suffix in the working directory by default.

    Raises:
        PenjingError: the target is unknown, the graph holds an op that it can't express, or the file can't be written.
    """
    chosen = find_target(target)
    return chosen.lower(graph, Path(path) if path is not None else Path("model" + chosen.suffix))


def open_artifact(path: Path | str, target: str = "onnxruntime") -> Artifact:
    """Returns the artifact of a file that `lower` wrote.

    Raises:
        PenjingError: there is no such file, or the runtime can't load it.
    """
    if not Path(path).is_file():
        raise PenjingError(f"There is no file {path}.")
    return find_target(target).open(Path(path))


class Runner:
    """A loaded artifact that is called like the model; its outputs are nested as the model's."""

    def __init__(self, artifact: Artifact, session: Session) -> None:
        self.artifact = artifact
        self._session = session

    def __call__(self, *inputs: Tensor | np.ndarray) -> Any:
        """Runs one call.

        Args:
            inputs: the flat inputs in the artifact's order.

        Raises:
            PenjingError: their number or a shape doesn't fit.
        """
        outputs = [torch.from_numpy(value) for value in self._session.run(named_inputs(self.artifact, inputs))]
        if self.artifact.structure is not None:
            return pytree.tree_unflatten(outputs, self.artifact.structure)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def session(artifact: Artifact, threads: int = 1) -> Runner:
    """Returns the loaded artifact, from a small cache; a file that changed is loaded again."""
    stat = artifact.path.stat()
    return _load(artifact, threads, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _load(artifact: Artifact, threads: int, _time: int, _size: int) -> Runner:
    return Runner(artifact, find_target(artifact.target).session(artifact, threads))


def run(artifact: Artifact, *inputs: Tensor | np.ndarray, threads: int = 1) -> Any:
    """Runs a lowered model once; see `Runner`."""
    return session(artifact, threads)(*inputs)


def named_inputs(artifact: Artifact, inputs: Sequence[Tensor | np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the inputs of one call by name, as contiguous arrays of the file's dtypes.

    Raises:
        PenjingError: their number or a shape doesn't fit.
    """
    if len(inputs) != len(artifact.inputs):
        names = ", ".join(spec.name for spec in artifact.inputs)
        raise PenjingError(f"{artifact.path.name} takes {len(artifact.inputs)} input(s) ({names}), not {len(inputs)}.")
    return {spec.name: _fit(spec, value) for spec, value in zip(artifact.inputs, inputs, strict=True)}


def _fit(spec: TensorSpec, value: Tensor | np.ndarray) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if len(array.shape) != len(spec.shape) or any(
        wanted not in (None, size) for size, wanted in zip(array.shape, spec.shape, strict=True)
    ):
        shape = ", ".join("*" if size is None else str(size) for size in spec.shape)
        raise PenjingError(f"Input '{spec.name}' has shape {tuple(array.shape)}; the lowered model takes ({shape}).")
    return np.ascontiguousarray(array, dtype=spec.dtype)


def random_inputs(artifact: Artifact, batch: int = 1, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Returns random inputs: standard normal, or integers within the captured example's range."""
    generator = np.random.default_rng(seed)
    inputs = []
    for spec in artifact.inputs:
        free_batch = bool(spec.shape) and spec.shape[0] is None
        shape = (batch, *spec.example[1:]) if free_batch else spec.example
        if np.issubdtype(np.dtype(spec.dtype), np.floating):
            inputs.append(generator.standard_normal(shape).astype(spec.dtype))
        else:
            inputs.append(generator.integers(spec.low, spec.high, shape, endpoint=True).astype(spec.dtype))
    return tuple(inputs)


def check_parity(artifact: Artifact, graph: Graph, inputs: Sequence[Tensor] | None = None) -> Parity:
    """Compares a lowered file with the graph that it was lowered from (for a quantised graph: with its simulation).

    Args:
        artifact: the lowered file.
        graph: what it was lowered from; its mode is left as it is.
        inputs: flat inputs of one call, real data by preference; random ones at batch 8 by default.
    """
    inputs = graph.example_inputs(8) if inputs is None else inputs
    was_training = graph.training
    graph.eval()
    with torch.no_grad():
        expected = list(graph.program(*inputs))
    graph.train(was_training)
    runner = session(artifact)
    actual = pytree.tree_leaves(runner(*inputs))
    error = max(
        (float((a.double() - e.double()).abs().max()) for a, e in zip(actual, expected, strict=True) if a.numel()),
        default=math.nan,
    )
    agreement = None
    if expected[0].dim() > 1:
        agreement = float((actual[0].argmax(1) == expected[0].argmax(1)).double().mean())
    return Parity(error, agreement)


def profile(
    artifact: Artifact, threads: int = 1, batch: int = 1, inputs: Sequence[Any] | None = None
) -> list[ExecutedNode]:
    """Returns every node that the runtime executes, in its order, with its time.

    Args:
        artifact: the lowered file.
        threads: threads within an op.
        batch: samples per call where the batch is free.
        inputs: flat inputs of one call instead of random ones.
    """
    given = random_inputs(artifact, batch) if inputs is None else inputs
    target = find_target(artifact.target)
    return target.profile(artifact, threads, named_inputs(artifact, given), PROFILE_RUNS)


def integer_macs(artifact: Artifact, total_macs: int) -> float:
    """Returns the share of multiply-accumulates that the runtime executes in integer kernels, 0 to 1.

    Counted in what the runtime really executes after its own optimisations, not in the file.

    Args:
        artifact: the lowered file.
        total_macs: of the graph that it was lowered from, `graph.cost().macs`: a runtime may pad the channels of float
            layers, so their own counts would not add up to it.
    """
    if total_macs <= 0:
        return 0.0
    integer = sum(node.macs for node in profile(artifact) if node.integer)
    return min(1.0, integer / (artifact.batch or 1) / total_macs)


def write_runner(directory: Path | str, target: str = "onnxruntime") -> Path:
    """Writes `run.py` into `directory`: a script that uses the lowered file with the runtime, NumPy and Pillow alone.

    It reads `preprocess.json`, `classes.txt` and the model beside it.
    """
    return find_target(target).write_runner(Path(directory))


def target_of(artifact: Artifact) -> Target:
    """Returns the target that an artifact was lowered to."""
    return find_target(artifact.target)
