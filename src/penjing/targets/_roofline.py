"""How near each layer comes to what the machine allows at best.

The model is the roofline (Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52, 2009): an op takes at least as long as its multiplications at the machine's
peak, and at least as long as moving its bytes at the machine's bandwidth. Which of the two is longer says what binds the op.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from penjing.checks import BATCH, a, checked
from penjing.graph import Cost, Row
from penjing.targets._device import Peaks
from penjing.targets._layers import main_row, rows_of_layers
from penjing.targets._records import ExecutedNode

FAR = 1 / 3  # share of its attainable speed below which a layer counts as far from it


@dataclass(frozen=True)
class RooflineRow:
    """One of the user's modules under a machine's roofline, for one call.

    Attributes:
        op: the ATen op of the module that multiplies most.
        kernels: the runtime's names of what it executed for the module, each once; empty where the module has no kernel of its
            own, since the runtime fused it into another's.
        shape: shape of the op's output, for one sample where the batch is free.
        params: entries of its parameters.
        macs: multiply-accumulates of the call, with all of its samples.
        counted: whether it is known how often all of its ops multiply.
        integer: whether any of its kernels multiplies integers.
        bytes: bytes of the values that its ops read and write and of the weights that they read, each once. Values are integers
            where the runtime computes an op in integers; weights that are rounded to integers are such in any case.
        latency_ms: milliseconds that its kernels took; None without a kernel.
        limit_ms: milliseconds that it takes at least, by the machine's peaks.
        bound: what it would wait for at this limit: "compute" or "memory".
    """

    op: str
    kernels: tuple[str, ...]
    shape: tuple[int, ...]
    params: int
    macs: int
    counted: bool
    integer: bool
    bytes: int
    latency_ms: float | None
    limit_ms: float
    bound: Literal["compute", "memory"]

    @property
    def intensity(self) -> float | None:
        """Multiply-accumulates per byte moved; None where nothing is moved."""
        return self.macs / self.bytes if self.bytes else None

    @property
    def reached(self) -> float | None:
        """The share of the attainable speed that the layer reaches: the limit over the time that it took.

        It may be more than 1: bytes that were still in a cache move faster than from memory. None where the layer has no kernel
        of its own, or where it isn't known how often it multiplies.
        """
        return self.limit_ms / self.latency_ms if self.latency_ms and self.counted else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as plain JSON values."""
        return {**asdict(self), "shape": list(self.shape), "kernels": list(self.kernels)} | {
            "macs_per_byte": self.intensity,
            "reached": self.reached,
        }


@checked(cost=a(Cost, "what graph.cost() returns"), peaks=a(Peaks, "device_facts(target).peaks"), batch=BATCH)
def roofline(cost: Cost, nodes: Sequence[ExecutedNode], peaks: Peaks, batch: int = 1) -> dict[str, RooflineRow]:
    """Returns how near each module comes to what the machine allows, by the module's path.

    Modules that multiply nothing and hold no parameters are left out. Of the other ops of a module, such as the softmax of an
    attention, those count that have a kernel of their own.

    Args:
        cost: the cost of the graph that the file was lowered from.
        nodes: what the runtime executed, as `profile` returns it.
        peaks: how fast the runtime is on the machine at best, as `device_facts` returns it.
        batch: samples of the profiled call.

    Raises:
        PenjingError: an argument is no such value.
    """
    kernels: dict[str, list[ExecutedNode]] = {}
    for node in nodes:
        if node.module:
            kernels.setdefault(node.module, []).append(node)
    return {name: _row(rows, kernels.get(name, []), peaks, batch) for name, rows in rows_of_layers(cost).items()}


def _row(rows: list[Row], kernels: Sequence[ExecutedNode], peaks: Peaks, batch: int) -> RooflineRow:
    main = main_row(rows)
    executed = {node.node for node in kernels}
    integers = {node.node for node in kernels if node.integer}
    moving = [row for row in rows if row.macs or row.params or row.node in executed]
    moved = sum(row.traffic.bytes(row.node in integers, batch) for row in moving)
    peak = {True: peaks.integer_macs or peaks.float_macs, False: peaks.float_macs}
    computing = sum(batch * row.macs / peak[row.node in integers] for row in rows)
    moving_seconds = moved / peaks.bytes
    return RooflineRow(
        op=main.op,
        kernels=tuple(dict.fromkeys(node.op for node in kernels)),
        shape=main.output_shape,
        params=sum(row.params for row in rows),
        macs=batch * sum(row.macs for row in rows),
        counted=all(row.counted for row in rows),
        integer=bool(integers),
        bytes=moved,
        latency_ms=sum(node.latency_us for node in kernels) / 1e3 if kernels else None,
        limit_ms=1e3 * max(computing, moving_seconds),
        bound="compute" if computing > moving_seconds else "memory",
    )


def far_from_limit(rows: Mapping[str, RooflineRow], below: float = FAR) -> float:
    """Returns the share of the layers' time that is spent in those that reach less than `below` of their attainable speed.

    Layers of which it isn't known what they could reach count as near. Without any time, it is 0.

    Args:
        rows: the layers, as `roofline` returns them.
        below: a share of the attainable speed.
    """
    total = sum(row.latency_ms or 0.0 for row in rows.values())
    far = sum(row.latency_ms or 0.0 for row in rows.values() if row.reached is not None and row.reached < below)
    return far / total if total else 0.0
