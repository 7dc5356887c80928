"""Planning and running: which nodes are integer, what each node's integers stand for, and one pass over them."""

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from integer_oracle import _weights
from integer_oracle._lookup import regridded
from integer_oracle._only_integers import OnlyIntegers
from integer_oracle._table import FORMS, Call, Codes, Kernel, NoIntegerForm, no_integer_form
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph
from penjing.graph.clips import CLIPS, EVERYTHING
from penjing.graph.ops import node_arguments

Step = tuple[fx.Node, tuple[fx.Node, ...], Callable[..., Any]]


class Part(IntEnum):
    """When a node runs."""

    BEFORE = 0  # in floating point, up to the first quantise
    INSIDE = 1  # in integers
    BEHIND = 2  # in floating point, from the last dequantise on


class Runner:
    """Runs a quantised graph with integer arithmetic alone between its first quantise and its last dequantise.

    Call it as the graph is called. While the integer part runs, a dispatch mode raises at any floating-point tensor. What
    no quantise follows, such as a softmax behind the last layer, runs in floating point; `in_float` names it. Everything
    real (scales, biases, tables) is turned into integers when a runner is made.

    Attributes:
        graph: the quantised graph, a copy in evaluation mode on the CPU.
        in_float: names of the nodes behind the integer part that compute in floating point.
        rounded: names of the graph's quantise nodes that the outputs depend on, in order of execution.

    Example:
        >>> import torch
        >>> from penjing.graph import capture
        >>> from penjing.quantization import quantize
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> x = torch.randn(16, 4)
        >>> small = quantize(capture(net, x), [x])
        >>> bool((Runner(small)(x) - small(x)).abs().max() < 0.01)
        True
    """

    def __init__(self, graph: Graph) -> None:
        """Plans the run.

        Raises:
            PenjingError: the graph's activations aren't quantised.
            NoIntegerForm: an op between two quantised values has no integer form; the message names it and its module.
        """
        self.graph = copy.deepcopy(graph).eval().cpu()
        plan = _Plan(self.graph)
        self._known = plan.known
        self._steps = plan.needed()
        self._last_readers = _last_readers(self._steps)
        self._outputs: tuple[Any, ...] = plan.outputs
        self.in_float = tuple(
            node.name for node, _, _ in self._steps[Part.BEHIND] if isinstance(node.meta.get("val"), Tensor)
        )

        self.rounded = tuple(
            node.name for part in Part for node, _, _ in self._steps[part] if node.target in _weights.QUANTIZE
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs on inputs nested as in the user's model; returns real outputs, nested as the model's.

        Raises:
            PenjingError: an input has another nesting, shape or dtype than the captured one.
        """
        return self._execute(args, kwargs, {}, {})

    def replay(self, codes: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Tensor]]:
        """Compares op by op with what a runtime computed, so that no difference grows on its way.

        Every op reads the runtime's integers, and its own are compared with the runtime's.

        Args:
            codes: the runtime's integers by the name of the quantise node, one of `rounded`; see `Graph.with_outputs`.
            *args: the inputs that they were computed from, as for a call.
            **kwargs: as for a call.

        Returns:
            The outputs, and by name our integers minus the runtime's.

        Raises:
            PenjingError: there is no quantise node of a name.
        """
        for name in codes:
            if name not in self.rounded:
                raise unknown_name("quantise node", name, self.rounded)
        differences: dict[str, Tensor] = {}
        return self._execute(args, kwargs, codes, differences), differences

    def _execute(self, args: Any, kwargs: Any, codes: Mapping[str, Tensor], differences: dict[str, Tensor]) -> Any:
        inputs = [node for node in self.graph.program.graph.nodes if node.op == "placeholder"]
        values: dict[fx.Node, Any] = dict(zip(inputs, self.graph.signature.flatten(args, kwargs), strict=True))
        for part in Part:
            with torch.no_grad(), OnlyIntegers() if part is Part.INSIDE else nullcontext():
                self._run(part, values, codes, differences)
        outputs = [self._output(node, values) for node in self._outputs]
        return pytree.tree_unflatten(outputs, self.graph.out_spec)

    def _run(
        self, part: Part, values: dict[fx.Node, Any], codes: Mapping[str, Tensor], differences: dict[str, Tensor]
    ) -> None:
        """Runs one part's steps; a value that nothing reads any more is let go."""
        for node, operands, function in self._steps[part]:
            given = [values[operand] for operand in operands]
            if part is Part.BEHIND:
                given = [self._real(operand, value) for operand, value in zip(operands, given, strict=True)]
            values[node] = function(*given)
            if node.name in codes:
                theirs = codes[node.name].int()
                differences[node.name] = values[node] - theirs
                values[node] = theirs
            for operand in set(operands):
                if self._last_readers[operand] is node and operand not in self._outputs:
                    del values[operand]

    def _real(self, node: fx.Node, value: Any) -> Any:
        codes = self._known.get(node)
        return value if codes is None else pytree.tree_map(codes.restored, value)

    def _output(self, node: Any, values: dict[fx.Node, Any]) -> Any:
        """Codes that the graph itself gives out stay codes."""
        if not isinstance(node, fx.Node):
            return node
        dtype = node.meta["val"].dtype
        return self._real(node, values[node]) if dtype.is_floating_point else values[node].to(dtype)


def _last_readers(steps: dict[Part, list[Step]]) -> dict[fx.Node, fx.Node]:
    return {operand: node for part in Part for node, operands, _ in steps[part] for operand in operands}


class _Plan:
    """One walk along the order of execution that gives every node its part, its step and the meaning of its integers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = [node for node in graph.program.graph.nodes if node.op != "output"]
        self.known: dict[fx.Node, Codes] = {}
        self.parts: dict[fx.Node, Part] = {}
        self.steps: dict[fx.Node, Step] = {}
        self.outputs: tuple[Any, ...] = tuple(graph.program.graph.output_node().args[0])  # type: ignore[arg-type]
        self._swallowed: set[fx.Node] = set()  # clips and quantise nodes that the node before them does, too
        self._rounded_later = self._before_a_quantise()
        for node in self.nodes:
            self.parts[node] = self._visit(node)
        if Part.INSIDE not in self.parts.values():
            raise PenjingError(
                f"{graph.name} has no quantised activations, so no integers to compute with; quantise it with "
                "calibration data and activations."
            )

    def needed(self) -> dict[Part, list[Step]]:
        """Returns each part's steps, in order, that the outputs depend on."""
        wanted = {node for node in self.outputs if isinstance(node, fx.Node)}
        steps: dict[Part, list[Step]] = {part: [] for part in Part}
        for node in reversed(self.nodes):
            if node in wanted and node in self.steps:
                steps[self.parts[node]].insert(0, self.steps[node])
                wanted.update(self.steps[node][1])
        return steps

    def _before_a_quantise(self) -> set[fx.Node]:
        """Returns the nodes whose values reach one that is rounded."""
        found: set[fx.Node] = set()
        for node in reversed(self.nodes):
            if node in found or node.target in _weights.QUANTIZE:
                found.update(node.all_input_nodes)
        return found

    def _visit(self, node: fx.Node) -> Part:
        if node.op == "placeholder":
            return Part.BEFORE
        if node.op == "get_attr":
            return self._step(node, Part.BEFORE, (), lambda: _weights.constant(self.graph, node))
        source: Any = node.args[0] if node.args else None
        if node in self._swallowed or (node.target in _weights.DEQUANTIZE and source in self.known):
            return self._integers(node, Kernel(lambda codes: codes, (source,), self.known[source]))
        if node.target in _weights.QUANTIZE:
            return self._quantize(node, source)
        reads_codes = any(operand in self.known for operand in node.all_input_nodes)
        if not isinstance(node.meta.get("val"), Tensor | list | tuple):  # a size
            part = max((self.parts[operand] for operand in node.all_input_nodes), default=Part.BEFORE)
            return self._call(node, part)
        if not reads_codes:
            late = any(self.parts[operand] is not Part.BEFORE for operand in node.all_input_nodes)
            return self._call(node, Part.BEHIND if late else Part.BEFORE)
        return self._compute(node)

    def _compute(self, node: fx.Node) -> Part:
        """Gives a node that reads integers its integer form, or lets it run behind them."""
        out, swallowed = self._rounding(node)
        try:
            if node.target not in FORMS:
                raise no_integer_form(node, "has no integer form")
            call = Call(
                node, self.known, out, lambda weight: _weights.weight(self.graph, node, weight),
                lambda value: _weights.constant(self.graph, value),
            )  # fmt: skip
            kernel = FORMS[node.target](call, *_arguments(node))
        except NoIntegerForm:
            if node in self._rounded_later:
                raise
            return self._call(node, Part.BEHIND)
        if kernel.codes is out:
            self._swallowed.update(swallowed)
        return self._integers(node, kernel)

    def _quantize(self, node: fx.Node, source: fx.Node) -> Part:
        grid = _weights.grid(self.graph, node)
        if source in self.known:
            return self._integers(node, Kernel(regridded(self.known[source], grid), (source,), grid))
        self.known[node] = grid

        def quantize(reals: Tensor) -> Tensor:
            return torch.from_numpy(grid.rounded(reals.numpy())).int()

        return self._step(node, Part.BEFORE, (source,), quantize)

    def _rounding(self, node: fx.Node) -> tuple[Codes | None, list[fx.Node]]:
        """Returns the grid that a node's result is rounded to, and the nodes from there on that do it: clips, quantise."""
        low, high = EVERYTHING
        passed: list[fx.Node] = []
        while len(node.users) == 1:
            node = next(iter(node.users))
            passed.append(node)
            if node.target in _weights.QUANTIZE:
                grid = _weights.grid(self.graph, node)
                ends = [end if math.isinf(bound) else int(grid.rounded(bound)) for bound, end in
                        ((low, grid.low), (high, grid.high))]  # fmt: skip
                return replace(grid, low=ends[0], high=ends[1]), passed
            bounds = CLIPS[node.target](node) if node.target in CLIPS else None
            if bounds is None:
                break
            low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in (low, high))
        return None, []

    def _integers(self, node: fx.Node, kernel: Kernel) -> Part:
        self.known[node] = kernel.codes
        part = max((self.parts[operand] for operand in kernel.operands), default=Part.BEFORE)
        if part is Part.BEHIND:
            raise no_integer_form(node, "reads values from behind the integers")
        return self._step(node, Part.INSIDE, kernel.operands, kernel.function)

    def _call(self, node: fx.Node, part: Part) -> Part:
        """Runs a node as it stands."""
        operands = tuple(node.all_input_nodes)

        def run(*values: Any) -> Any:
            known = dict(zip(operands, values, strict=True))
            args = fx.map_arg(node.args, known.__getitem__)
            return node.target(*args, **fx.map_arg(node.kwargs, known.__getitem__))  # type: ignore[operator]

        return self._step(node, part, operands, run)

    def _step(self, node: fx.Node, part: Part, operands: tuple[fx.Node, ...], function: Callable[..., Any]) -> Part:
        self.steps[node] = (node, operands, function)
        return part


def _arguments(node: fx.Node) -> list[Any]:
    return list(node.args) if not hasattr(node.target, "_schema") else node_arguments(node)
