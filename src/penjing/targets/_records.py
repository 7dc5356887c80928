"""The records that the verbs of deployment exchange: the file, its measurements, and the nodes that the runtime executed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.utils import _pytree as pytree

from penjing import records
from penjing.checks import shown
from penjing.damage import refusing
from penjing.errors import PenjingError
from penjing.graph.ranges import UNKNOWN, Ranges


@dataclass(frozen=True)
class TensorSpec:
    """One input of a lowered model.

    Attributes:
        name: name of the input in the file.
        shape: size of each axis; None where the axis is free.
        dtype: NumPy's name of the dtype, such as "float32".
        example: a full shape, where free axes have the sizes with which the model was captured.
        ranges: the range of the values in the captured example.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    example: tuple[int, ...]
    ranges: Ranges = UNKNOWN


@dataclass(frozen=True)
class FileNotes:
    """Facts that a lowered file holds beside its model, and that the runtime itself doesn't need.

    Attributes:
        inputs: the `example` and the ranges of each input; empty where the file doesn't hold them.
        outputs: how the outputs were nested, as PyTorch writes it; None where there is one tensor or the nesting isn't known.
        modules: path of the user's module of each node, by the node's name; empty where the file holds the paths elsewhere.
    """

    inputs: tuple[dict[str, Any], ...] = ()
    outputs: str | None = None
    modules: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "FileNotes":
        """Reads the text of a file's notes.

        Raises:
            PenjingError: the text holds no notes.
        """
        return records.convert(records.parse(text.encode(), "the text"), cls, "notes", more=True)

    def nesting(self, count: int) -> pytree.TreeSpec | None:
        """Returns how the outputs were nested; None where there is one tensor or the nesting isn't known.

        Args:
            count: the number of the model's outputs.

        Raises:
            PenjingError: the notes don't fit the model.
        """
        if self.outputs is None:
            return None
        nested = pytree.treespec_loads(self.outputs)
        if nested.num_leaves != count:
            raise PenjingError(f"they nest {nested.num_leaves} outputs, and the model has {count}")
        return nested

    def examples(self, assumed: Sequence[Sequence[int]]) -> list[tuple[tuple[int, ...], Ranges]]:
        """Returns the shape of each input's example, and the ranges of its values.

        Args:
            assumed: the shape of each input's example where the notes hold none.

        Raises:
            PenjingError: the notes don't fit the model.
        """
        details: Sequence[dict[str, Any]] = self.inputs or [{} for _ in assumed]
        if len(details) != len(assumed):
            raise PenjingError(f"they tell of {len(details)} inputs, and the model has {len(assumed)}")
        found = []
        for detail, shape in zip(details, assumed, strict=True):
            example = records.convert(detail.get("example", list(shape)), tuple[int, ...], "example")
            if len(example) != len(shape) or min(example, default=0) < 0:
                raise PenjingError(
                    f"an example of the shape {shown(example)} doesn't fit an input of {len(shape)} axes"
                )
            found.append((example, Ranges.from_json(detail, example)))
        return found


@contextmanager
def reading_notes(path: Path) -> Iterator[None]:
    """Adds the file's path to errors that the block raises because the notes in the file are damaged.

    Raises:
        PenjingError: the block raised a `PenjingError`, or an exception that damaged data raises.
    """
    try:
        with refusing("they can't be read"):
            yield
    except PenjingError as error:
        raise PenjingError(f"The notes in {path} are damaged: {error}.") from error


@dataclass(frozen=True)
class Artifact:
    """A lowered model on disk.

    Attributes:
        target: name of the runtime that loads it.
        path: the main file.
        files: every file that the device needs, the main one included.
        inputs: the flat tensor inputs, in the order of the call.
        outputs: names of the flat outputs.
        structure: how the outputs were nested in the user's model; None where there is one tensor or the nesting isn't
            known.
    """

    target: str
    path: Path
    files: tuple[Path, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    structure: pytree.TreeSpec | None = field(default=None, compare=False)

    @property
    def batch(self) -> int | None:
        """The batch size if the file fixes it, else None."""
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else 1

    @property
    def size_bytes(self) -> int:
        """Bytes of every file that the device needs."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Latency:
    """Times of one call, in milliseconds.

    Attributes:
        median: half of the calls were faster.
        p90: nine tenths of the calls were faster.
        runs: number of timed calls.
        p10: a tenth of the calls were faster: what a call takes while little else runs on the machine.
        parts: the medians of successive parts of the measurement. The parts of models that were measured together ran at the
            same times; empty where the calls weren't cut into parts.
        p1: a hundredth of the calls were faster; None where that isn't known.
    """

    median: float
    p90: float
    runs: int
    p10: float
    parts: tuple[float, ...] = ()
    p1: float | None = None

    @property
    def undisturbed(self) -> float:
        """What a call takes that nothing else on the machine disturbs, in milliseconds: that of the fastest hundredth."""
        return self.p10 if self.p1 is None else self.p1


@dataclass(frozen=True)
class Measurement:
    """Latency, size, peak memory and energy of one lowered model, as measured.

    Attributes:
        latency_ms: time of one call with `batch` samples.
        size_bytes: bytes of all files that the device needs.
        peak_memory_bytes: largest resident size of a fresh process that imports only the runtime and NumPy, loads the
            file and runs it (the interpreter and the runtime's libraries included); None if it was not measured.
        model_memory_bytes: the part of that peak which came after the imports, that is the loaded model and its
            activations; None if it was not measured.
        threads: threads within an op.
        batch: samples per call.
        runtime: name and version of the runtime.
        energy_mj: millijoules that a call adds to what the machine takes at rest, as the processor's counters tell; None if it
            was not measured.
    """

    latency_ms: Latency
    size_bytes: int
    peak_memory_bytes: int | None
    model_memory_bytes: int | None
    threads: int
    batch: int
    runtime: str
    energy_mj: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurement as plain JSON values."""
        values = asdict(self)
        del values["latency_ms"]["parts"], values["latency_ms"]["p1"]  # only `speedup` reads them
        return values


@dataclass(frozen=True)
class Parity:
    """How close a lowered file is to the graph that it was lowered from.

    Attributes:
        max_abs_error: largest absolute difference between two corresponding output values.
        top1_agreement: share of positions where both have the same largest entry along axis 1 of the first output;
            None where that output has fewer than two axes, or a single entry there.
    """

    max_abs_error: float
    top1_agreement: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ExecutedNode:
    """One node that the runtime executed, after its own optimisations.

    Attributes:
        name: the runtime's name of the node.
        op: the runtime's op, such as "QLinearConv".
        module: path of the user's module that the node came from; None where the runtime made the node, or where its origin
            isn't known.
        node: name of the graph's node that it came from, as in the rows of `graph.cost()`; None in the same two cases.
        latency_us: median time in microseconds (profiling itself adds a little to each node).
        integer: whether the node multiplies integers.
        macs: multiply-accumulates of the shapes that the runtime executed, at the profile's batch; if the runtime pads
            channels, the padding counts too.
    """

    name: str
    op: str
    module: str | None
    node: str | None
    latency_us: float
    integer: bool
    macs: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the node as plain JSON values."""
        return asdict(self)
