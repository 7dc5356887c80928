"""Measures kernels on any target: many of them side by side in one graph, lowered once and profiled several times."""

import json
import logging
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.planning.latency.boundaries import SAMPLES, between, boundary_graph
from penjing.planning.latency.kernels import DEQUANTIZE, FLOAT32, INT8, LAYERS, QUANTIZE, Kernel
from penjing.planning.problem import Deployment
from penjing.quantization import quantize
from penjing.targets import find_target, lower, profile

log = logging.getLogger(__name__)

PROFILES = 5  # profiles per file, in turns
BOUNDARIES = frozenset({QUANTIZE, DEQUANTIZE})
ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "hardtanh": F.relu6, "clamp": F.relu}


def side_by_side(kernels: Sequence[Kernel], deployment: Deployment) -> dict[Kernel, float]:
    """Returns the microseconds of kernels that have the same batch; what the target refuses is missing.

    Kernels in float, those in int8 and those between both are three files, which take turns. Of several profiles, each a
    median of many runs, the fastest counts for each kernel: what other processes do to the caches only ever adds. If a file
    can't be made of some kernels, each half of them is tried by itself, down to the kernel that the target refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for numbers in (FLOAT32, INT8):
            chosen = [kernel for kernel in kernels if kernel.numbers == numbers and kernel.op not in BOUNDARIES]
            files += _files(chosen, deployment, Path(folder))
        files += _files([kernel for kernel in kernels if kernel.op in BOUNDARIES], deployment, Path(folder))
        times: defaultdict[Kernel, list[float]] = defaultdict(list)
        for _ in range(PROFILES):
            for group, artifact in files:
                for kernel, us in _profiled(group, artifact, deployment).items():
                    times[kernel].append(us)
    return {kernel: min(values) for kernel, values in times.items()}


def _files(kernels: Sequence[Kernel], deployment: Deployment, folder: Path) -> list[tuple[Sequence[Kernel], Any]]:
    """Lowers kernels of the same numbers to as few files as can be made."""
    if not kernels:
        return []
    suffix = find_target(deployment.target).suffix
    path = folder / f"{len(list(folder.iterdir()))}_{id(kernels)}{suffix}"
    try:
        return [(kernels, lower(_graph(kernels, deployment.target), deployment.target, path))]
    except PenjingError as error:
        if len(kernels) == 1:
            log.info("%s can't be measured: %s", kernels[0].key, error)
            return []
        half = len(kernels) // 2
        return [*_files(kernels[:half], deployment, folder), *_files(kernels[half:], deployment, folder)]


def _graph(kernels: Sequence[Kernel], target: str) -> Graph:
    if kernels[0].op in BOUNDARIES:
        return boundary_graph(kernels, target)
    network = _SideBySide(kernels)
    generator = torch.Generator().manual_seed(0)
    example = tuple(torch.randn(SAMPLES, *shape[1:], generator=generator) for shape in network.shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = capture(network.eval(), example)
        return quantize(graph, [example], target=target) if kernels[0].numbers == INT8 else graph


def _profiled(kernels: Sequence[Kernel], artifact: Any, deployment: Deployment) -> dict[Kernel, float]:
    """Returns the microseconds of each kernel, all nodes of its module together."""
    executed = profile(artifact, deployment.threads, kernels[0].output[0])
    if not any(node.module for node in executed):
        raise PenjingError(
            f"{deployment.target} tells nothing of single layers, so no table of their latencies can be made. Take "
            "--solver widest_that_fits (solver='widest_that_fits' in Python), which measures whole models alone."
        )
    if kernels[0].op in BOUNDARIES:
        return between(kernels, executed)
    total: dict[int, float] = dict.fromkeys(range(len(kernels)), 0.0)
    for node in executed:
        head, _, rest = (node.module or "").partition(".")
        number = rest.partition(".")[0]
        feeds = rest.partition(".")[2].startswith("feeds")
        if head == "ops" and number.isdigit() and not feeds and "quantize" not in (node.node or ""):
            total[int(number)] += node.latency_us
    return {kernels[number]: us for number, us in total.items()}


class _SideBySide(nn.Module):
    """One op per kernel; kernels with inputs of the same shapes share them.

    In front of them, the first kernel's op runs once more, which nobody times: what is executed first in a call also takes what
    the call before left in the caches.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        super().__init__()
        # No op reads one tensor twice: runtimes could tell that the sum of a value and itself is its double.
        wanted = [list(enumerate(kernel.inputs)) for kernel in kernels]
        known = list(dict.fromkeys(one for places in wanted for one in places))
        self._first = kernels[0].inputs
        self.shapes = [*self._first, *(shape for _, shape in known)]
        self._places = [[len(self._first) + known.index(one) for one in places] for places in wanted]
        self.first = _Op(kernels[0])
        self.ops = nn.ModuleList(_Op(kernel) for kernel in kernels)

    def forward(self, *inputs: Tensor) -> Any:
        """Returns a part of what each op makes.

        A whole output would be kept until the end, so that each op would write into memory that no cache holds. Within a
        network, ops write where others wrote a moment ago.
        """
        outs = [self.first(*inputs[: len(self._first)])]
        outs += [op(*(inputs[at] for at in places)) for op, places in zip(self.ops, self._places, strict=True)]
        return tuple(out[:, :1] if out.dim() > 1 else out for out in outs)


def _feed(shape: Sequence[int]) -> nn.Module:
    """Returns a small layer that makes integers of this shape: ops that only move values are integer behind such a one."""
    if len(shape) == 4:
        return nn.Conv2d(shape[1], shape[1], 1, groups=shape[1])
    return nn.Linear(shape[-1], shape[-1])


class _Op(nn.Module):
    """The op of one kernel, with random weights, and the activation behind it."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel
        generator = torch.Generator().manual_seed(0)

        def made(shape: Sequence[int]) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / max(1, shape[-1]) ** 0.5)

        self.feeds = nn.ModuleList()
        if kernel.numbers == INT8 and not kernel.weight:
            self.feeds.extend(_feed(shape) for shape in kernel.inputs)
        if kernel.weight:
            self.weight, self.bias = made(kernel.weight), made(kernel.weight[:1])
        self.parameters_ = nn.ParameterList(made(shape) for shape in kernel.parameters)

    def forward(self, *inputs: Tensor) -> Any:
        """Runs the op."""
        kernel = self._kernel
        if self.feeds:
            inputs = tuple(feed(x) for feed, x in zip(self.feeds, inputs, strict=True))
        if kernel.op == "linear":
            out = F.linear(inputs[0], self.weight, self.bias)
        elif kernel.op in LAYERS:
            function: Any = getattr(F, kernel.op)
            out = function(
                inputs[0], self.weight, self.bias, kernel.stride, kernel.padding, kernel.dilation, kernel.groups
            )
        else:
            out = self._other(inputs)
        return ACTIVATIONS[kernel.activation](out) if kernel.activation else out

    def _other(self, inputs: Sequence[Tensor]) -> Any:
        kernel = self._kernel

        def real(value: Any) -> Any:
            if isinstance(value, Mapping):
                ((kind, at),) = value.items()
                return inputs[at] if kind == "input" else self.parameters_[at]
            return [real(one) for one in value] if isinstance(value, list) else value

        op: Any = getattr(getattr(torch.ops.aten, kernel.op), kernel.overload)
        given = list(zip(op._schema.arguments, map(real, json.loads(kernel.arguments)), strict=True))
        positional = [value for argument, value in given if not argument.kwarg_only]
        out = op(*positional, **{argument.name: value for argument, value in given if argument.kwarg_only})
        return out[0] if isinstance(out, list | tuple) else out
