"""Which ops PyTorch runs for a file, one by one, with their times."""

import statistics
import time
from typing import Any

import numpy as np
from torch import Tensor, fx

from penjing.graph.cost import MACS, op_name
from penjing.graph.normalize import node_arguments
from penjing.targets._origins import KEY
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.torch._session import Program, threads_of

WARM_UP_RUNS = 3


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every executed op in order; see `ExecutedNode`. Quantised weights become floats here, so none is integer."""
    program = Program(artifact)
    args, kwargs = program.call(inputs)
    clock = _Clock(program.module)
    leaves = program.module.graph.process_inputs(*args, **kwargs)
    with threads_of(threads):
        for _ in range(WARM_UP_RUNS + runs):
            clock.run(*leaves, enable_io_processing=False)
    modules = program.notes.get("modules", {})
    return [_row(node, clock, modules) for node in clock.times]


class _Clock(fx.Interpreter):
    """Runs node by node, and notes the times of those that give tensors, and the shapes of all values."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.times: dict[fx.Node, list[float]] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        start = time.perf_counter()
        value = super().run_node(n)
        took = time.perf_counter() - start
        tensors = [v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, Tensor)]
        if tensors:
            self.shapes[n] = tuple(tensors[0].shape)
            if n.op == "call_function":
                self.times.setdefault(n, []).append(took)
        return value


def _row(node: fx.Node, clock: _Clock, modules: dict[str, str]) -> ExecutedNode:
    origin = (node.meta.get("custom") or {}).get(KEY)
    counter = MACS.get(node.target)
    return ExecutedNode(
        name=node.name,
        op=op_name(node),
        module=modules.get(origin) if origin else None,
        node=origin,
        latency_us=statistics.median(clock.times[node][WARM_UP_RUNS:]) * 1e6,
        integer=False,
        macs=counter(node, node_arguments(node), clock.shapes.__getitem__) if counter else 0,
    )
