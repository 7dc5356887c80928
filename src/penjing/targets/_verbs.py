"""The verbs on lowered models, the same for every target: lower, open, run, compare, profile."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.checks import BATCH, PATH, TEXT, THREADS, a, among, checked, optional
from penjing.errors import PenjingError
from penjing.files import atomic_paths, atomic_write
from penjing.graph import Cost, Graph
from penjing.graph.doors import GRAPH
from penjing.targets._any_batch import AnyBatch, Value, fit, samples_of
from penjing.targets._first_difference import first_difference
from penjing.targets._half import check_stores_half, halved
from penjing.targets._other_sizes import Differs, check_other_sizes
from penjing.targets._records import Artifact, ExecutedNode, Parity
from penjing.targets._registry import Session, find_target
from penjing.targets._runner import rendered

PROFILE_RUNS = 20

Inputs = Value | Sequence[Value] | Mapping[str, Value]  # of one call: a single one, all in order, or all by name

ARTIFACT = a(Artifact, "what lower() returns; a file is opened by penjing.targets.open_artifact(path)")


@checked(graph=GRAPH, target=TEXT, path=optional(PATH), weights=among("float32", "float16"))
def lower(
    graph: Graph,
    target: str = "onnxruntime",
    path: Path | str | None = None,
    *,
    weights: Literal["float32", "float16"] = "float32",
) -> Artifact:
    """Writes `graph` as the file, or the files, that the target's runtime loads; the graph stays as it was.

    Quantised weights are stored as int8, batch norms are folded, and the batch axis is free where the graph's is.

    Args:
        graph: a float or quantised graph.
        target: name of the runtime; see `available()`.
        path: where to write the main file, and the others beside it; `model` with the target's suffix in the working
            directory by default.
        weights: how float32 weights are stored: "float16" rounds them to 16 bits, which makes a float model's file half as
            large. The runtime widens them when it loads the file, and computes in float32 as before.

    Raises:
        PenjingError: the target is unknown, or stores no weights in 16 bits where these are asked for; the graph holds an op
            that the target can't express, the file's outputs differ from the graph's at other sizes than the example's, or
            the file can't be written. Older files at `path` then stay.
    """
    chosen = find_target(target)
    path = Path(path) if path is not None else Path("model" + chosen.suffix)
    if weights == "float16":
        check_stores_half(chosen)
        graph = halved(graph)
    _check_dtypes(graph)
    if chosen.fixed_sizes:
        _check_sizes(graph, target)
    try:
        with atomic_paths(*chosen.files(path)) as temporaries:
            artifact = chosen.lower(graph, temporaries[0])
            if weights == "float16" and chosen.store_half is not None:
                chosen.store_half(temporaries[0])
            check_other_sizes(graph, artifact, AnyBatch(artifact, chosen.session(artifact, 1)))
    except Differs as error:
        raise PenjingError(" ".join(filter(None, (str(error), first_difference(graph, chosen))))) from error
    except OSError as error:
        raise PenjingError(f"Can't write {path}: {error.strerror or error}.") from error
    return replace(artifact, path=path, files=chosen.files(path))


def _check_dtypes(graph: Graph) -> None:
    """Raises if an input or an output has a dtype that NumPy lacks: sessions take and return NumPy arrays."""
    named = {f"input '{given.name}'": given.dtype for given in graph.inputs}
    outputs: Any = graph.program.graph.output_node().args[0]
    values = [getattr(output, "meta", {}).get("val") for output in outputs]
    named |= {f"output {place}": value.dtype for place, value in enumerate(values) if isinstance(value, Tensor)}
    for name, dtype in named.items():
        if dtype == torch.bfloat16:
            raise PenjingError(
                f"The {name} is bfloat16, which NumPy and so the targets' sessions don't have: call model.float() before "
                "penjing.capture, and give float32 inputs. This changes no value of a bfloat16 checkpoint."
            )


def _check_sizes(graph: Graph, target: str) -> None:
    """Raises if another axis than the batch is free, for a target whose files have fixed sizes."""
    for given in graph.inputs:
        free = sorted(axis for axis in given.dynamic if axis > 0 or graph.batch is not None)
        if free:
            raise PenjingError(
                f"Axis {free[0]} of input '{given.name}' is free, and files for '{target}' have fixed sizes. Capture the "
                "model for one size (leave the axis out of dynamic=) and lower a file for each size that is needed, or "
                "lower for a target with free sizes, such as 'onnxruntime'."
            )


@checked(path=PATH, target=TEXT)
def open_artifact(path: Path | str, target: str = "onnxruntime") -> Artifact:
    """Opens the files that `lower` wrote, given the path of the main one, and returns their artifact.

    Raises:
        PenjingError: one of the files isn't there, or the runtime can't load them.
    """
    chosen = find_target(target)
    for file in chosen.files(Path(path)):
        if not file.is_file():
            part = "" if file == Path(path) else f", without which {path} can't be used"
            raise PenjingError(f"There is no file {file}{part}.")
    return chosen.open(Path(path))


class Runner:
    """A loaded artifact that is called like the model; its outputs are nested as the model's."""

    def __init__(self, artifact: Artifact, session: Session) -> None:
        self.artifact = artifact
        self._session = AnyBatch(artifact, session)

    def __call__(self, *inputs: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray]) -> Any:
        """Runs one call.

        A file with a fixed batch takes any number of samples too: it runs them in parts of that size, and the last part is
        filled up with copies of its last sample.

        Args:
            inputs: the flat inputs in the artifact's order, or one mapping of them by name.

        Raises:
            PenjingError: their number or a shape doesn't fit, or outputs of several parts can't be joined.
        """
        given: Any = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Mapping) else inputs
        values = self._session.run(_by_name(self.artifact, given))
        outputs = [torch.from_numpy(value) for value in values]
        if self.artifact.structure is not None:
            return pytree.tree_unflatten(outputs, self.artifact.structure)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


@checked(artifact=ARTIFACT, threads=THREADS)
def session(artifact: Artifact, threads: int = 1) -> Runner:
    """Loads an artifact and returns a `Runner`, which is called like the model.

    A few loaded artifacts are cached; a file that changed is loaded again.
    """
    stats = [file.stat() for file in artifact.files]
    return _load(artifact, threads, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=4)
def _load(artifact: Artifact, threads: int, _versions: tuple[tuple[int, int], ...]) -> Runner:
    return Runner(artifact, find_target(artifact.target).session(artifact, threads))


def run(artifact: Artifact, *inputs: Tensor | np.ndarray, threads: int = 1) -> Any:
    """Runs a lowered model once; see `Runner`."""
    return session(artifact, threads)(*inputs)


def named_inputs(artifact: Artifact, inputs: Inputs) -> dict[str, np.ndarray]:
    """Returns the inputs of one call by name, as contiguous arrays of the file's dtypes.

    Raises:
        PenjingError: their number, a name or a shape doesn't fit.
    """
    given = _by_name(artifact, inputs)
    return {spec.name: fit(spec, given[spec.name]) for spec in artifact.inputs}


def _by_name(artifact: Artifact, inputs: Inputs) -> dict[str, Value]:
    """Returns the inputs of one call by name, in the artifact's order.

    Raises:
        PenjingError: their number or a name doesn't fit.
    """
    if isinstance(inputs, Tensor | np.ndarray):
        inputs = (inputs,)
    elif isinstance(inputs, Mapping):
        known = [spec.name for spec in artifact.inputs]
        if set(inputs) != set(known):
            raise PenjingError(f"{artifact.path.name} takes the inputs {', '.join(known)}, not {', '.join(inputs)}.")
        inputs = [inputs[name] for name in known]
    elif not isinstance(inputs, Sequence) or isinstance(inputs, str | bytes):
        raise PenjingError(
            f"{artifact.path.name} takes a tensor or an array, a sequence of them, or a mapping of them by name, not "
            f"{type(inputs).__name__}."
        )
    if len(inputs) != len(artifact.inputs):
        names = ", ".join(spec.name for spec in artifact.inputs)
        raise PenjingError(f"{artifact.path.name} takes {len(artifact.inputs)} input(s) ({names}), not {len(inputs)}.")
    return {spec.name: value for spec, value in zip(artifact.inputs, inputs, strict=True)}


def random_inputs(artifact: Artifact, batch: int = 1, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Returns random inputs, within the ranges of the captured example.

    Args:
        artifact: the lowered file.
        batch: samples per call where the batch is free; where it isn't, 1 stands for the file's own batch.
        seed: seed of the random numbers.

    Raises:
        PenjingError: the file has another batch.
    """
    if artifact.batch is not None and batch not in (1, artifact.batch):
        raise PenjingError(
            f"{artifact.path.name} takes {artifact.batch} sample(s) in a call, so that it can't be measured with {batch}. "
            f"To write a file for {batch}, capture the model with that batch fixed."
        )
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for spec in artifact.inputs:
        free_batch = bool(spec.shape) and spec.shape[0] is None
        shape = (batch, *spec.example[1:]) if free_batch else spec.example
        dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
        inputs.append(spec.ranges.sample(shape, dtype, generator).numpy())
    return tuple(inputs)


@checked(artifact=ARTIFACT, graph=GRAPH)
def check_parity(artifact: Artifact, graph: Graph, inputs: Sequence[Tensor] | None = None) -> Parity:
    """Compares a lowered file with the graph that it was lowered from (for a quantised graph: with its simulation).

    Args:
        artifact: the lowered file.
        graph: the graph that the file was lowered from; its mode stays as it was.
        inputs: flat inputs of one call, preferably real data; random ones at batch 8 by default. For a graph with a fixed
            batch the first samples are used, and repeated where there are fewer than the batch.
    """
    inputs = graph.example_inputs(8) if inputs is None else inputs
    if graph.batch is not None and (count := samples_of(inputs)):
        rows = torch.arange(graph.batch) % count
        inputs = [value[rows] if samples_of([value]) == count else value for value in inputs]
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
    if expected[0].dim() > 1 and expected[0].shape[1] > 1:  # with a single entry both would always agree
        numbers = ~(actual[0].isnan() | expected[0].isnan()).any(1)
        agreement = float(((actual[0].argmax(1) == expected[0].argmax(1)) & numbers).double().mean())
    return Parity(error, agreement)


@checked(artifact=ARTIFACT, threads=THREADS, batch=BATCH)
def profile(artifact: Artifact, threads: int = 1, batch: int = 1, inputs: Inputs | None = None) -> list[ExecutedNode]:
    """Returns the nodes that the runtime executes, in order of execution, with their times.

    Args:
        artifact: the lowered file.
        threads: threads within an op.
        batch: samples per call where the batch is free.
        inputs: the inputs of a call: a single one, all in order, or all by name; random ones by default.
    """
    given = random_inputs(artifact, batch) if inputs is None else inputs
    target = find_target(artifact.target)
    return target.profile(artifact, threads, named_inputs(artifact, given), PROFILE_RUNS)


def integer_macs(artifact: Artifact, total_macs: int | Cost) -> float:
    """Returns the share of multiply-accumulates that the runtime executes in integer kernels, 0 to 1.

    The nodes that the runtime executes after its own optimisations count, not those in the file.

    Args:
        artifact: the lowered file.
        total_macs: the cost of the graph that the file was lowered from, `graph.cost()`, or only that graph's MACs for one
            sample. To a cost, the products are added that the runtime executes in floating point for ops that the cost
            counts as free. (The runtime's own counts can't be the total, since it may pad the channels of float layers.)
    """
    rows, samples = profile(artifact), artifact.batch or 1  # a file with a free batch is profiled with one sample
    integer = sum(row.macs for row in rows if row.integer) / samples
    if isinstance(total_macs, Cost):
        counted = {row.node for row in total_macs.rows if row.macs}
        free = [row.macs for row in rows if row.node is not None and row.node not in counted and not row.integer]
        total = total_macs.macs + sum(free) / samples
    else:
        total = total_macs
    return integer / total if total > 0 else 0.0


@checked(directory=PATH, target=TEXT)
def write_runner(directory: Path | str, target: str = "onnxruntime", *, template: str | None = None) -> Path:
    """Writes `run.py` into `directory`: a script that uses the lowered file with the runtime, NumPy and Pillow alone.

    It reads `preprocess.json`, `classes.txt`, `validation.csv` and the model beside it.

    Args:
        directory: the folder.
        target: name of the runtime.
        template: the script's template; None for the target's own.

    Raises:
        PenjingError: the target is unknown, or the script can't be written there.
    """
    path = Path(directory, "run.py")
    script = rendered(find_target(target), template)
    try:
        atomic_write(path, script)
    except OSError as error:
        raise PenjingError(f"Can't write {path}: {error.strerror or error}.") from error
    return path
