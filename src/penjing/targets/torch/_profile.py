"""The ops that PyTorch runs for a file, one by one, with their times."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, fx

from penjing.graph.cost import MACS, op_name
from penjing.graph.ops import node_arguments
from penjing.graph.taps import Execution, Step
from penjing.targets._origins import KEY
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.torch._session import Program, threads_of

WARM_UP_RUNS = 3


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every executed op in order; see `ExecutedNode`. PyTorch widens quantised weights, so no op counts as integer."""
    program = Program(artifact)
    args, kwargs = program.call(inputs)
    times: dict[fx.Node, list[float]] = {}
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    execution = Execution(program.module, _timed(times, shapes))
    leaves = program.module.graph.process_inputs(*args, **kwargs)
    with threads_of(threads):
        for _ in range(WARM_UP_RUNS + runs):
            execution.run(*leaves, enable_io_processing=False)
    return [_row(node, times, shapes, program.notes.modules) for node in times]


def _timed(times: dict[fx.Node, list[float]], shapes: dict[fx.Node, tuple[int, ...]]) -> Step:
    """Returns a step that notes the times of the nodes that give tensors, in seconds, and the shapes of all values."""

    def step(execution: Execution, node: fx.Node) -> Any:
        start = time.perf_counter()
        value = execution.usual(node)
        took = time.perf_counter() - start
        tensors = [v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, Tensor)]
        if tensors:
            shapes[node] = tuple(tensors[0].shape)
            if node.op == "call_function":
                times.setdefault(node, []).append(took)
        return value

    return step


def _row(
    node: fx.Node,
    times: Mapping[fx.Node, list[float]],
    shapes: Mapping[fx.Node, tuple[int, ...]],
    modules: Mapping[str, str],
) -> ExecutedNode:
    origin = (node.meta.get("custom") or {}).get(KEY)
    counter = MACS.get(node.target)
    return ExecutedNode(
        name=node.name,
        op=op_name(node),
        module=modules.get(origin) if origin else None,
        node=origin,
        latency_us=statistics.median(times[node][WARM_UP_RUNS:]) * 1e6,
        integer=False,
        macs=counter(node, node_arguments(node), shapes.__getitem__) if counter else 0,
    )
