"""A `.pt2` file, read and run by PyTorch op by op."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the ops of quantised graphs
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.targets._records import Artifact, FileNotes, reading_notes

NOTES = "penjing"  # name of the extra file with the facts that the program itself doesn't hold


def read(path: Path) -> tuple[ExportedProgram, FileNotes]:
    """Returns a file's program and its notes. Reading a file can run code.

    Raises:
        PenjingError: PyTorch can't read it, or its notes are damaged.
    """
    extra = {NOTES: ""}
    try:
        exported = torch.export.load(str(path), extra_files=extra)
    except Exception as error:  # a damaged file may make the reader raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PenjingError(f"PyTorch {torch.__version__} can't load {path}: {reason}") from error
    with reading_notes(path):
        return exported, FileNotes.parse(extra[NOTES] or "{}")


class Program:
    """A program, read from a file, that takes flat inputs by name; arguments that aren't tensors keep their captured values."""

    def __init__(self, artifact: Artifact) -> None:
        exported, self.notes = read(artifact.path)
        self.module: fx.GraphModule = exported.module(check_guards=False)  # type: ignore[assignment]
        self._leaves, self._spec = pytree.tree_flatten(exported.example_inputs or ((), {}))
        self._names = [spec.name for spec in artifact.inputs]
        if sum(isinstance(leaf, Tensor) for leaf in self._leaves) != len(self._names):
            raise PenjingError(f"{artifact.path} holds no example inputs, so it isn't known how its model is called.")

    def call(self, inputs: dict[str, np.ndarray]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the positional and keyword arguments of one call."""
        tensors = iter([torch.from_numpy(inputs[name]) for name in self._names])
        leaves = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return args, kwargs


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Runs with a number of threads within an op, without gradients; PyTorch has one such number per process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


class EagerSession:
    """A loaded model on the CPU."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._program, self._threads = Program(artifact), threads

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""
        args, kwargs = self._program.call(inputs)
        with threads_of(self._threads):
            outputs = pytree.tree_leaves(self._program.module(*args, **kwargs))
        return [torch.as_tensor(value).numpy() for value in outputs]
