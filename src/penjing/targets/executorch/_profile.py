"""What ExecuTorch really executes, kernel by kernel, from its own trace."""

import base64
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.executorch import _on_device
from penjing.targets.executorch._open import Kernel, PteNotes, read_notes
from penjing.targets.executorch._runtime import Loaded, open_program

RUN = "Execute"  # name of a run's part of the trace
DELEGATE, NATIVE = "DELEGATE_CALL", "native_call_"
NANOSECONDS = 1e-3  # in microseconds
# A kernel's time counts as at most 3 medians and 2 microseconds: beyond that, something else ran on the processor.
MOST_MEDIANS, MOST_NANOSECONDS = 3, 2000

# The kernels of XNNPACK that each op becomes. An activation that follows an op may be part of the op's kernel.
_LAYER = ("Convolution", "Deconvolution", "Fully Connected")  # a convolution over single positions is "Fully Connected"
_KINDS: Mapping[str, tuple[str, ...]] = {
    "convolution": _LAYER, "linear": _LAYER, "addmm": _LAYER, "mm": _LAYER, "bmm": ("Batch Matrix Multiply",),
    "add": ("Add",), "sub": ("Subtract",), "mul": ("Multiply",), "div": ("Divide",), "mean": ("Mean",),
    "max_pool2d": ("Max Pooling",), "avg_pool2d": ("Average Pooling",), "constant_pad_nd": ("Constant Pad",),
    "sigmoid": ("Sigmoid",), "_softmax": ("Softmax",), "hardswish": ("HardSwish",), "gelu": ("GELU",), "tanh": ("Tanh",),
}  # fmt: skip
_FAMILY = {kind: kinds for kinds in _KINDS.values() for kind in kinds}
_MULTIPLYING = {*_LAYER, "Batch Matrix Multiply", "Multiply"}
_LAYOUTS = {"NHWC", "NCHW", "NC", "ND", "NCW", "NWC"}


@dataclass(frozen=True)
class _Call:
    """One kernel in one run.

    Attributes:
        instruction: number of the program's instruction that it is, or is a part of.
        name: the runtime's name: "Convolution (NHWC, QS8, QC8W) IGEMM #2", or "native_call_slice_copy.Tensor_out".
        delegated: whether XNNPACK ran it.
        took: nanoseconds. XNNPACK's clock has whole microseconds, so a mean over runs tells more than a median.
    """

    instruction: int
    name: str
    delegated: bool
    took: int

    @property
    def op(self) -> str:
        """The name without the number that tells kernels of one kind apart."""
        return self.name.partition(" #")[0].removeprefix(NATIVE)

    @property
    def kind(self) -> str:
        """What it does: "Convolution", or "slice_copy"."""
        return self.op.partition(" (" if self.delegated else ".")[0]

    @property
    def integer(self) -> bool:
        """Whether it multiplies integers: the first of its types is that of the values that it reads."""
        types = [part.strip() for part in self.op.partition(" (")[2].partition(")")[0].split(",")]
        read = next((part for part in types if part not in _LAYOUTS), "")
        return self.delegated and self.kind in _MULTIPLYING and read.startswith("Q")


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every executed kernel in order; see `ExecutedNode`. Times are means, without what disturbed single runs."""
    tensors = [torch.from_numpy(inputs[spec.name]) for spec in artifact.inputs]
    loaded = Loaded(artifact.path, threads, traced=True)
    return rows(artifact, inputs, _on_device.traced(lambda: loaded(tensors), lambda: loaded.program, runs))


def rows(artifact: Artifact, inputs: dict[str, np.ndarray], trace: str) -> list[ExecutedNode]:
    """Returns the executed kernels, given the trace that `_on_device.profile` returned."""
    found = _runs(base64.b64decode(trace))[_on_device.WARM_UP_RUNS :]
    content = artifact.path.read_bytes()
    notes = read_notes(open_program(content, artifact.path), artifact.path)
    calls = list(zip(*found, strict=True))  # per kernel, its call in each run
    origins = _origins([times[0] for times in calls], notes)
    return [_row(times, origin, notes) for times, origin in zip(calls, origins, strict=True)]


def _runs(trace: bytes) -> list[list[_Call]]:
    """Returns the kernels of each run in order of execution."""
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

    parts = deserialize_from_etdump_flatcc(trace).run_data
    return [list(_calls(part.events)) for part in parts if part.name == RUN]


def _calls(events: Sequence[Any]) -> Iterator[_Call]:
    for event in (one.profile_event for one in events if one.profile_event is not None):
        took = event.end_time - event.start_time
        if event.delegate_debug_id_str is not None:
            yield _Call(event.instruction_id, event.delegate_debug_id_str, True, took)
        elif event.name is not None and event.name.startswith(NATIVE):
            yield _Call(event.instruction_id, event.name, False, took)


def _origins(calls: Sequence[_Call], notes: PteNotes) -> list[Kernel | None]:
    """Returns the noted node of each call; None where it can't be told.

    Within a part that XNNPACK runs, kernels of one kind stand in the order of their nodes. Where there are more or fewer of a
    kind than nodes, since some were fused or added, it isn't known which is which.
    """
    instructions = sorted({call.instruction for call in calls if call.delegated})
    known = dict(zip(instructions, notes.delegates, strict=False)) if len(instructions) == len(notes.delegates) else {}
    found: dict[int, Kernel] = {}
    groups: dict[tuple[int | None, tuple[str, ...]], list[int]] = {}
    for place, call in enumerate(calls):
        part = call.instruction if call.delegated else None
        groups.setdefault((part, _FAMILY.get(call.kind, (call.kind,))), []).append(place)
    for (part, kinds), places in groups.items():
        listed = notes.kernels if part is None else known.get(part, ())
        nodes = [node for node in listed if (_KINDS.get(node.op, ()) if part is not None else (node.op,)) == kinds]
        if len(nodes) == len(places):
            found |= dict(zip(places, nodes, strict=True))
    return [found.get(place) for place in range(len(calls))]


def _row(times: Sequence[_Call], origin: Kernel | None, notes: PteNotes) -> ExecutedNode:
    call = times[0]
    took = [one.took for one in times]
    most = MOST_MEDIANS * statistics.median(took) + MOST_NANOSECONDS
    return ExecutedNode(
        name=f"{call.instruction}: {call.name}",
        op=call.op,
        module=notes.modules.get(origin.node) if origin else None,
        node=origin.node if origin else None,
        latency_us=statistics.fmean(min(one, most) for one in took) * NANOSECONDS,
        integer=call.integer,
        macs=origin.macs if origin else 0,
    )
