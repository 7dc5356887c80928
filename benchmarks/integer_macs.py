"""Whole networks in integers alone: the share of multiplications that ONNX Runtime does in integers, and what it gains.

    python benchmarks/integer_macs.py

Quantised with `placement="integer"`, first and last layer included. Weights and calibration data are random: which kernels run,
and how long they take, doesn't depend on them. Float and integer file run in turns, one image, one thread, and medians are
compared. EfficientNet-Lite0 needs PyPI's `efficientnet-lite-pytorch`. A run that was killed goes on where it stopped.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import penjing as pj
from _rows import Rows
from _tables import publish
from penjing import targets
from why_int8_is_slow import PAGE, share_outside

NAME, LITE0 = "integer_macs", "EfficientNet-Lite0"
NETWORKS = ["resnet20", "resnet56", "mobilenet_v2", "shufflenet_v2", "squeezenet", LITE0]
RUNS, SECONDS = 300, 40.0
COLUMNS = [
    "network", "input", "million MACs", "float32, ms", "int8, ms", "int8 is faster by", "float32, MB", "int8, MB",
    "MACs in integers", "time outside of layers, float32", "the same, int8",
]  # fmt: skip


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns a network, in evaluation mode, and the shape of one input."""
    if name == LITE0:
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name("efficientnet-lite0").eval(), (3, 224, 224)
    entry = pj.zoo.networks[name]
    return entry.function().eval(), tuple(entry.shape)


def run(name: str) -> dict[str, Any]:
    """Quantises, lowers and measures one network."""
    torch.manual_seed(0)
    made, shape = network(name)
    graph = pj.capture(made, torch.randn(2, *shape))
    graphs = {"float": graph, "int8": pj.quantize(graph, [torch.randn(8, *shape)], placement="integer")}
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: pj.lower(graphs[kind], path=Path(folder, f"{kind}.onnx")) for kind in graphs}
        times = targets.measure_together(files, threads=1, runs=RUNS, seconds=SECONDS, memory=False)
        return {
            "shape": shape,
            "macs": graph.cost().macs,
            "integer_macs": targets.integer_macs(files["int8"], graph.cost().macs),
            "milliseconds": {kind: measured.latency_ms.median for kind, measured in times.items()},
            "bytes": {kind: file.size_bytes for kind, file in files.items()},
            "outside": {kind: share_outside(file, 1) for kind, file in files.items()},
        }


def row(name: str, found: dict[str, Any]) -> list[str]:
    """Returns a finished row as the table shows it."""
    times, sizes, outside = found["milliseconds"], found["bytes"], found["outside"]
    return [
        name, "×".join(map(str, found["shape"])), f"{found['macs'] / 1e6:.0f}",
        f"{times['float']:.2f}", f"{times['int8']:.2f}", f"{times['float'] / times['int8']:.2f}×",
        f"{sizes['float'] / 1e6:.2f}", f"{sizes['int8'] / 1e6:.2f}",
        f"{found['integer_macs']:.1%}", f"{outside['float']:.0%}", f"{outside['int8']:.0%}",
    ]  # fmt: skip


def main() -> None:
    """Runs what is missing, then publishes."""
    torch.set_num_threads(1)
    rows = Rows(NAME)
    able = [name for name in NETWORKS if name != LITE0 or rows.has([name]) or find_spec("efficientnet_lite_pytorch")]
    for name in set(NETWORKS) - set(able):
        print(f"{name} is left out: its package isn't installed")
    for name in able:
        rows.once([name], lambda name=name: run(name))
    publish(NAME, COLUMNS, [row(name, rows.get([name])) for name in able], page=PAGE)


if __name__ == "__main__":
    main()
