"""Where 8-bit integers are faster than float32 in ONNX Runtime on this CPU, and where they can't be: one kind of layer a row.

    python benchmarks/why_int8_is_slow.py                   # runs what is missing, then fills docs/why-int8-is-slow.md
    python benchmarks/why_int8_is_slow.py --table           # only fills the page with what is finished
    python benchmarks/why_int8_is_slow.py --only stem       # runs the rows whose name holds "stem", publishes nothing

Each row is a chain of equal layers with a ReLU behind each, written in float and in integers, so that what happens at the
two ends hardly counts; a stem stands alone, with the rounding of the image that it needs. Both files run in turns, on one
thread, and medians are compared. A run that was killed goes on where it stopped.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import penjing as pj
from _rows import Rows
from _tables import publish
from penjing import targets
from penjing.targets import measure_together

NAME = "why_int8_is_slow"
PAGE = Path(__file__).parents[1] / "docs" / "why-int8-is-slow.md"
RUNS, SECONDS = 300, 15.0
COLUMNS = [
    "layer", "input", "layers", "float32, ms", "int8, ms", "int8 is faster by", "MACs in integers",
    "time outside of layers, float32", "the same, int8",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: what the row is called.
        shape: of one sample.
        layers: how many in the chain.
        layer: makes one, with what stands behind it.
        batch: samples per call.
        settings: of `quantize`.
    """

    name: str
    shape: tuple[int, ...]
    layers: int
    layer: Callable[[], nn.Module]
    batch: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    def network(self) -> nn.Module:
        """The chain, in evaluation mode."""
        torch.manual_seed(0)
        return nn.Sequential(*(self.layer() for _ in range(self.layers))).eval()


class FloatBetween(nn.Module):
    """A convolution and an op for which the runtime has no integer kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.conv(x))


def conv(channels: int, kernel: int = 3, groups: int = 1) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups)
        return nn.Sequential(layer, nn.ReLU())

    return make


def stem() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, padding=1), nn.ReLU())


def linear(features: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(features, features), nn.ReLU())


def cases() -> list[Case]:
    """Every row, in the table's order."""
    widths = [(16, 32), (32, 32), (64, 28), (128, 28), (256, 14), (512, 7)]
    odd = [(48, 28), (49, 28), (63, 28)]
    rows = [Case(f"3×3 convolution, {c} channels", (c, s, s), 6, conv(c)) for c, s in widths]
    rows += [Case(f"3×3 convolution, {c} channels", (c, s, s), 6, conv(c)) for c, s in odd]
    rows += [Case(f"1×1 convolution, {c} channels", (c, s, s), 6, conv(c, 1)) for c, s in [(64, 28), (256, 14)]]
    depthwise = [(32, 112), (96, 56), (384, 14)]
    rows += [Case(f"3×3 depthwise, {c} channels", (c, s, s), 6, conv(c, 3, c)) for c, s in depthwise]
    rows += [Case("3×3 stem, stride 2, 3 to 32 channels", (3, 224, 224), 1, stem)]
    rows += [Case("tiny: 3×3 convolution, 8 channels", (8, 8, 8), 16, conv(8))]
    rows += [Case("tiny: 1×1 convolution, 16 channels", (16, 4, 4), 16, conv(16, 1))]
    for batch in (1, 64):
        rows.append(Case(f"linear, 1024 features, batch {batch}", (1024,), 6, linear(1024), batch))
    rows += [Case("3×3 convolution, 64 channels, a GELU behind each", (64, 28, 28), 6, lambda: FloatBetween(64))]
    signed = {"activations": "int8"}
    rows += [Case("3×3 convolution, 64 channels, signed activations", (64, 28, 28), 6, conv(64), 1, signed)]
    rows += [Case("1×1 convolution, 64 channels, signed activations", (64, 28, 28), 6, conv(64, 1), 1, signed)]
    return rows


def run(case: Case) -> dict[str, Any]:
    """Measures one row."""
    inputs = torch.randn(8, *case.shape)
    graph = pj.capture(case.network(), inputs[:2])
    graphs = {"float": graph, "int8": pj.quantize(graph, [inputs], **case.settings)}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: targets.lower(made, path=Path(folder, f"{name}.onnx")) for name, made in graphs.items()}
        times = measure_together(files, threads=1, batch=case.batch, runs=RUNS, seconds=SECONDS, memory=False)
        outside = {name: share_outside(file, case.batch) for name, file in files.items()}
        share = targets.integer_macs(files["int8"], graph.cost().macs)
    return {
        "milliseconds": {name: measured.latency_ms.median for name, measured in times.items()},
        "outside": outside,
        "integer_macs": share,
    }


def share_outside(file: targets.Artifact, batch: int) -> float:
    """Returns the share of time that nodes take which multiply nothing: rounding, reordering, lone activations."""
    nodes = targets.profile(file, threads=1, batch=batch)
    total = sum(node.latency_us for node in nodes)
    return sum(node.latency_us for node in nodes if not node.macs) / total if total else 0.0


def row(case: Case, found: dict[str, Any]) -> list[str]:
    """Returns a finished row as the table shows it."""
    before, after = (found["milliseconds"][name] for name in ("float", "int8"))
    size = "×".join(map(str, case.shape)) + (f", batch {case.batch}" if case.batch > 1 else "")
    return [
        case.name, size, str(case.layers), f"{before:.3f}", f"{after:.3f}", f"{before / after:.2f}×",
        f"{found['integer_macs']:.0%}", f"{found['outside']['float']:.0%}", f"{found['outside']['int8']:.0%}",
    ]  # fmt: skip


def main() -> None:
    """Runs what is missing, then publishes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="run only rows whose name holds this, and publish nothing")
    parser.add_argument("--table", action="store_true", help="publish what is finished")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(NAME if options.only is None else f"{NAME}_tried")
    for case in cases():
        if not options.table and (options.only is None or options.only in case.name):
            rows.once([case.name], lambda case=case: run(case))
    if options.only is None:
        table = [row(case, rows.get([case.name])) for case in cases() if rows.has([case.name])]
        publish(NAME, COLUMNS, table, page=PAGE)


if __name__ == "__main__":
    main()
