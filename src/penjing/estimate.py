"""How long a run will take, roughly, and what it will write: measured on a few steps before it begins."""

import math
import time
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path

import torch

from penjing.data import Data
from penjing.graph import Graph

EXPORT_SECONDS_PER_NODE = 0.012
CANDIDATES = 8


@dataclass(frozen=True)
class Estimate:
    """What to expect of a run.

    Attributes:
        minutes_choose: for measuring candidates on the target.
        minutes_train: for recovery.
        out: where everything is written.
        bytes_written: about how much.
    """

    minutes_choose: float
    minutes_train: float
    out: Path
    bytes_written: int

    def __str__(self) -> str:
        total = self.minutes_choose + self.minutes_train
        return (
            f"This will take about {_minutes(total)} ({_minutes(self.minutes_choose)} to measure candidates, "
            f"{_minutes(self.minutes_train)} to train) and write about {self.bytes_written / 1e6:.0f} MB to {self.out}/."
        )


def estimate(graph: Graph, data: Data, epochs: int, out: Path) -> Estimate:
    """Times a forward pass of a batch and returns the estimate.

    A training step costs about three forward passes, the teacher's is a fourth.
    """
    cost = graph.cost()
    exports = 2 * CANDIDATES * len(cost.rows) * EXPORT_SECONDS_PER_NODE + CANDIDATES * 8
    train = 0.0
    loader = data.train if data.train is not None else data.calibration
    if loader is not None and epochs > 0 and isinstance(loader, Sized):
        inputs, _ = data.task.split(next(iter(loader)))
        train = 4 * _seconds(graph, inputs) * len(loader) * epochs
    return Estimate(exports / 60, train / 60, out, 4 * cost.weight_bytes + 5_000_000)


def _seconds(graph: Graph, inputs: tuple[torch.Tensor, ...]) -> float:
    times = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            graph(*inputs)
            times.append(time.perf_counter() - start)
    return min(times)


def _minutes(minutes: float) -> str:
    return "under a minute" if minutes < 1 else f"{math.ceil(minutes)} min"
