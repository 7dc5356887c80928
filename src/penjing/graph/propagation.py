"""Shapes of every value in a graph, with the free axes kept symbolic.

`propagate` fills `node.meta["val"]`; `confirms` proves what an edit wrote there itself, in a tenth of the time; `runs`
tries another batch size; `sizes` reads concrete numbers out of it.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext, free_unbacked_symbols
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils._pytree import tree_map_only

from penjing.errors import PenjingError
from penjing.graph.ops import RECURRENT
from penjing.graph.recurrence import one_step

if TYPE_CHECKING:
    from penjing.graph.graph import Graph

log = logging.getLogger(__name__)

BATCH_HINT = 2
_PLAIN = (OpOverload, int, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
UNBACKED = "unbacked_bindings"  # key under which a propagation lists its new symbols for values that it can't know


class Watch(Protocol):
    """Sees each node while shapes are propagated; raises a PenjingError to refuse it."""

    def before(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before an op, with tensors that have shapes only."""

    def after(self, node: fx.Node, value: Any, shows: fx.Node | None) -> None:
        """Called with what a node gave, and the node whose memory that is a view of, if any."""


def propagate(graph: "Graph", watch: Watch | None = None) -> None:
    """Sets `node.meta["val"]` on all nodes of `graph`.

    Nothing is computed, on whatever arguments: ops that PyTorch knows no shapes of without data are refused where there is a
    `watch`.

    Raises:
        PenjingError: an op can't work on the shapes that reach it; the message names the op and the user's line.
    """
    environment = ShapeEnv()
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True, allow_fallback_kernels=watch is None)
    mode.cache_enabled = (
        False  # the propagator keeps what it met, and an entry of symbolic sizes costs as much as the call
    )
    fakes = [_fake_input(mode, given) for given in graph.inputs]
    device = next((tensor.device for tensor in graph.tensors().values()), torch.device("cpu"))
    propagator = _Propagator(graph.program, mode, watch)
    fake_tensors = logging.getLogger("torch._subclasses.fake_tensor")  # it prints a failure before raising it
    level = fake_tensors.level
    fake_tensors.setLevel(logging.CRITICAL)
    try:
        # The Python dispatcher keeps composite ops symbolic, where their C++ code would fix the batch.
        with torch.no_grad(), enable_python_dispatcher():
            propagator.propagate_dont_convert_inputs(*(fake.to(device) for fake in fakes))
    except PenjingError:
        raise
    except Exception as error:
        node = propagator.current
        where = "the graph" if node is None else " at ".join(filter(None, [str(node.target), node.meta.get("source")]))
        raise PenjingError(f"Shapes don't fit in {where}: {error}") from error
    finally:
        fake_tensors.setLevel(level)


class _Propagator(FakeTensorProp):
    """Remembers the node at work, for the error message, takes one step of recurrent layers, and asks PyTorch once for calls
    that have the same arguments: deep networks repeat a few.
    """

    current: fx.Node | None = None

    def __init__(self, program: fx.GraphModule, mode: FakeTensorMode, watch: Watch | None) -> None:
        super().__init__(program, mode)
        self.extra_traceback = False  # the error names the node
        self._watch = watch
        self._known: dict[Any, tuple[Any, Any, int | None]] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.current = n
        n.meta.pop(UNBACKED, None)  # the symbols of an earlier propagation, which this one doesn't know
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        is_op = n.op == "call_function" and isinstance(n.target, OpOverload)
        if is_op and self._watch is not None:
            self._watch.before(n, args, kwargs)
        key = _key(n.target, args, kwargs) if is_op else None
        if key is not None and key in self._known:
            result, n.meta["val"], shows = self._known[key]
        else:
            result = super().run_node(n)
            shows = _shown(n, args, result)
            if key is not None and UNBACKED not in n.meta:
                self._known[key] = result, n.meta.get("val"), shows
        n.meta.pop(UNBACKED, None)
        if self._watch is not None and n.op != "output":
            self._watch.after(n, result, n.args[shows] if shows is not None else None)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return _called(super().call_function, target, args, kwargs)


def _shown(node: fx.Node, args: Any, result: Any) -> int | None:
    """Returns the position of the argument whose memory the result is a view of, if any."""
    if node.op != "call_function" or not args or not isinstance(node.args[0], fx.Node):
        return None
    if not isinstance(node.target, OpOverload):
        return 0 if isinstance(result, Tensor) else None  # an element of a tuple
    shown, given = _leaves(result), _leaves(args[0])
    same = shown and given and shown[0].untyped_storage()._cdata == given[0].untyped_storage()._cdata
    return 0 if same else None


class _Unknown(Exception):
    """A value that calls can't be told apart by."""


def _key(*parts: Any) -> Any:
    """Returns what a call's result depends on, as far as shapes go; None where it can't be told."""
    try:
        return tuple(map(_frozen, parts))
    except _Unknown:
        return None


def _frozen(value: Any) -> Any:
    if isinstance(value, Tensor):
        numbers = [*value.shape, *value.stride(), value.storage_offset()]
        if not all(type(number) is int for number in numbers):
            numbers = [_frozen(number) for number in numbers]
        return Tensor, *numbers, value.dtype, value.device, value.is_conj(), value.is_neg(), value.requires_grad
    if isinstance(value, list | tuple):
        return type(value), *map(_frozen, value)
    if isinstance(value, dict):
        return dict, *((key, _frozen(one)) for key, one in value.items())
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return type(value), value.node.expr
    if isinstance(value, float):
        return float, repr(value)  # zero has two signs, and no NaN equals another
    if value is None or isinstance(value, _PLAIN):
        return type(value), value
    raise _Unknown


def _called(call: Callable[..., Any], target: Any, args: Any, kwargs: Any) -> Any:
    """Calls an op by an interpreter's own `call`, of recurrent layers one step."""
    if target not in RECURRENT:
        return call(target, args, kwargs)
    args = (*args, *(kwargs[argument.name] for argument in target._schema.arguments[len(args) :]))
    return one_step(lambda *step: call(target, step, {}), *args)


def confirms(graph: "Graph") -> bool:
    """Tells whether every op, run without data on the example's sizes, gives the shape and dtype that its node's
    `meta["val"]` holds. Says no, too, where that can't be found out: then `propagate` knows.
    """
    inputs = (node.meta["val"] for node in graph.program.graph.nodes if node.op == "placeholder")
    try:
        with torch.no_grad():
            _Confirmation(graph.program).run(
                *(torch.empty(_hints(v.shape), dtype=v.dtype, device="meta") for v in inputs)
            )
    except Exception as error:  # ops fail in any way there; what is really wrong, `propagate` finds and names
        log.debug("shapes can't be confirmed on the meta device: %s", error)
        return False
    return True


def runs(graph: "Graph", batch: int) -> bool:
    """Tells whether every op, run without data, works at this batch size; says no, too, where that can't be found out."""
    inputs = (
        torch.empty((batch, *given.shape[1:]) if 0 in given.dynamic else given.shape, dtype=given.dtype, device="meta")
        for given in graph.inputs
    )
    try:
        with torch.no_grad():
            _WithoutData(graph.program).run(*inputs)
    except Exception as error:
        log.debug("batch %d can't be tried on the meta device: %s", batch, error)
        return False
    return True


class _WithoutData(fx.Interpreter):
    """Runs a program on tensors that have shapes only."""

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().get_attr(target, args, kwargs).to("meta")

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map_only(torch.device, lambda _: torch.device("meta"), (args, kwargs))
        return _called(super().call_function, target, args, kwargs)


class _Confirmation(_WithoutData):
    """Stops at the first tensor that isn't as its node says."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        expected = n.meta.get("val")
        for have, want in zip(_leaves(result), _leaves(expected), strict=n.op == "call_function"):
            if (have.shape, have.dtype) != (_hints(want.shape), want.dtype):
                raise ValueError(f"{n.name} has the shape {tuple(have.shape)}, not {tuple(want.shape)}")
        return result


def _leaves(value: Any) -> list[Tensor]:
    return [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, Tensor)]


def _hints(shape: Any) -> torch.Size:
    return torch.Size(size.node.hint if isinstance(size, torch.SymInt) else size for size in shape)


def resized(value: Tensor, shape: list[Any]) -> Tensor:
    """Returns a tensor like `value` (a node's `meta["val"]`) of another shape, whose sizes may be symbolic."""
    mode: Any = value.fake_mode  # type: ignore[attr-defined]
    with mode, torch.no_grad():
        return torch.empty(shape, dtype=value.dtype, device=value.device)


def _fake_input(mode: FakeTensorMode, given: Any) -> Tensor:
    shape = [max(size, BATCH_HINT) if axis in given.dynamic else size for axis, size in enumerate(given.shape)]
    dynamics = [
        DimDynamic.DYNAMIC if axis in given.dynamic else DimDynamic.STATIC for axis, _ in enumerate(given.shape)
    ]
    with torch.no_grad():
        example = torch.empty(shape, dtype=given.dtype)
    context: Any = StatelessSymbolicContext(dynamic_sizes=dynamics, constraint_sizes=[None] * len(dynamics))
    return mode.from_tensor(example, symbolic_context=context)


def sizes(node: fx.Node, of: Callable[[Any], int]) -> tuple[int, ...]:
    """Returns the shape of a tensor node; `of` turns a symbolic size into a number."""
    return tuple(of(size) for size in node.meta["val"].shape)


def at_batch_one(graph: "Graph") -> Callable[[Any], int]:
    """Returns a function that gives a size's number at batch 1 and at the example's size for the other free axes.

    A size that depends on the values of the inputs (see `depends_on_values`) has no number of its own; it is given as 1.
    """
    values: dict[Any, int] = {}
    placeholders = [node for node in graph.program.graph.nodes if node.op == "placeholder"]
    for node, given in zip(placeholders, graph.inputs, strict=True):
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                values[size.node.expr] = 1 if axis == 0 else given.shape[axis]
    return lambda size: _number(size, values)


def _number(size: Any, values: dict[Any, int]) -> int:
    if not isinstance(size, torch.SymInt):
        return int(size)
    number = size.node.expr.subs(values)
    if number.is_number:
        return int(number)
    return 1 if size.node.hint is None else int(size.node.hint)


def depends_on_values(value: Any) -> bool:
    """Tells whether a size of a node's `meta["val"]` depends on the values of the inputs: how many entries aren't zero."""
    return bool(free_unbacked_symbols(value))
