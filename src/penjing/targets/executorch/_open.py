"""Describes a `.pte` file: its inputs and outputs, and the notes that a method of its own gives."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.errors import PenjingError
from penjing.targets._records import Artifact, FileNotes, TensorSpec, reading_notes
from penjing.targets.executorch._runtime import METHOD, CantLoad, open_program, tensor_type

NOTES = "penjing"  # the method that returns the notes


@dataclass(frozen=True)
class Kernel:
    """A node of the written program that the runtime may run as a kernel.

    Attributes:
        op: its op, in ExecuTorch's words: "convolution".
        node: name of the graph's node from which it comes.
        macs: its multiply-accumulates in one call.
    """

    op: str
    node: str
    macs: int


@dataclass(frozen=True)
class PteNotes(FileNotes):
    """The notes of a `.pte` file.

    Attributes:
        names: the names of the flat inputs.
        results: the names of the flat outputs.
        delegates: the kernels of each part that XNNPACK runs, in order of execution.
        kernels: those that ExecuTorch runs itself.
    """

    names: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    delegates: tuple[tuple[Kernel, ...], ...] = ()
    kernels: tuple[Kernel, ...] = ()


def read_notes(program: Any, path: Path) -> PteNotes:
    """Returns the notes of an opened program.

    Raises:
        PenjingError: they are damaged.
    """
    names = [program.get_method_name(index) for index in range(program.num_methods())]
    if NOTES not in names:
        return PteNotes()
    with reading_notes(path):
        (text,) = program.load_method(NOTES)([])
        if not isinstance(text, str):
            raise PenjingError("they are no text")
        notes = PteNotes.parse(text)
    assert isinstance(notes, PteNotes)
    return notes


def written(notes: Mapping[str, Any]) -> str:
    """Returns the text of notes, without spaces."""
    return json.dumps(notes, separators=(",", ":"))


def describe(path: Path) -> Artifact:
    """Returns the artifact of a `.pte` file.

    Raises:
        PenjingError: ExecuTorch can't load it, or the notes in it are damaged.
    """
    path = Path(path)
    content = path.read_bytes()
    program = open_program(content, path)
    try:
        meta = program.method_meta(METHOD)
    except RuntimeError as error:
        raise CantLoad(path, f"it has no method '{METHOD}' ({error})") from error
    try:
        given = [meta.input_tensor_meta(place) for place in range(meta.num_inputs())]
    except (IndexError, RuntimeError) as error:
        raise CantLoad(path, f"an input of '{METHOD}' is no tensor ({error})") from error
    shapes = [tuple(int(size) for size in one.sizes()) for one in given]
    notes = read_notes(program, path)
    with reading_notes(path):
        examples = notes.examples(shapes)
        structure = notes.nesting(meta.num_outputs())
        names = _names(notes.names, len(given), "input")
        outputs = _names(notes.results, meta.num_outputs(), "output")
        dtypes = [str(tensor_type(one.dtype())).removeprefix("torch.") for one in given]
    inputs = tuple(
        TensorSpec(name, shape, dtype, *told)
        for name, shape, dtype, told in zip(names, shapes, dtypes, examples, strict=True)
    )
    return Artifact("executorch", path, (path,), inputs, outputs, structure)


def _names(noted: Sequence[str], count: int, kind: str) -> tuple[str, ...]:
    """Returns the names of inputs or outputs; numbers where the notes hold none."""
    if not noted:
        return tuple(f"{kind}_{place}" if place else kind for place in range(count))
    if len(noted) != count:
        raise PenjingError(f"they name {len(noted)} {kind}s, and the model has {count}")
    return tuple(noted)
