"""Bounds and checks while shapes are propagated: what a call takes and gives, before anything is computed.

`Values` watches a propagation. Before a call it checks what its kernel takes on trust; behind it, it counts bytes and
multiplications, at the example's sizes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from penjing.errors import PenjingError
from penjing.graph.inputs import Input
from penjing.graph.ops import node_arguments
from penjing.storage.admission._limits import LARGEST_LONG, integers
from penjing.storage.admission._ops import name_of
from penjing.storage.admission._sizes import equal, number, numbers
from penjing.storage.admission._trust import CHECKS
from penjing.storage.admission._work import TEMPORARIES, WORK

LARGEST_DEFAULT = 2**30
LARGEST_RATIO = 1024
PASSES = 64
"""How often a graph may write as much as all that it may hold at once: a network has some hundred layers, of which few are
as large as the largest."""
WORK_PER_BYTE = 1024
"""Multiplications per byte that a graph may hold at once: a convolution of 3×3 over 512 channels has 1,152 for each byte of
its own output, and is never the whole graph."""
LARGEST_EXPRESSION = 64
"""Terms of a symbolic number: sums of free sizes have a few."""


def largest_for(file_size: int) -> int:
    """Returns how many bytes a graph from a file of that many bytes may hold at once, unless the caller says more."""
    return max(LARGEST_DEFAULT, LARGEST_RATIO * file_size)


class Values:
    """Watches the propagation of one graph.

    Args:
        largest: bytes that the graph may hold at once at the example's sizes, beside its weights.
        inputs: the graph's, in order.
    """

    def __init__(self, largest: int, inputs: Sequence[Input]) -> None:
        self._largest = largest
        self._inputs = iter(inputs)
        # For the symbol of each free axis, that of the first axis of the same size name: calls check that those are equal.
        self._firsts: dict[Any, Any] = {}
        self._by_size_name: dict[str, Any] = {}
        self._owner: dict[fx.Node, fx.Node] = {}
        self._bytes: dict[fx.Node, int] = {}
        self._waiting: dict[fx.Node, int] = {}
        self._live = self._written = self._work = 0

    def before(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Checks what a call is given.

        Raises:
            PenjingError: its kernel would trust what is wrong, or a computed integer is out of its argument's bounds.
        """
        _check_computed_integers(node, args, kwargs)
        check = CHECKS.get(node.target)
        if check is not None:
            check(node, _by_name(node.target, args, kwargs), lambda a, b: equal(a, b, self._firsts))

    def after(self, node: fx.Node, value: Any, shows: fx.Node | None) -> None:
        """Counts what a node gave.

        Args:
            node: which.
            value: tensors without data, or a number.
            shows: the node whose memory the value is a view of, if any.

        Raises:
            PenjingError: a number has no bound, or the graph holds, writes or multiplies too much.
        """
        tensors = _tensors(value)
        if node.op == "placeholder":
            for size, name in zip(tensors[0].shape, next(self._inputs).sizes, strict=False):
                if name and isinstance(size, torch.SymInt):
                    self._firsts[size.node.expr] = self._by_size_name.setdefault(name, size.node.expr)
        if not tensors and node.op == "call_function":
            _check_number(node, value)
        amount = sum(math.prod(numbers(tensor.shape)) * tensor.element_size() for tensor in tensors)
        self._check(node, amount, self._largest, "bytes")
        if node.op == "get_attr":
            amount = 0
        owner = self._owner[node] = node if shows is None else self._owner.get(shows, shows)
        if owner is node:
            self._bytes[node] = amount
            self._live += amount
        self._waiting[owner] = self._waiting.get(owner, 0) + len(node.users)
        self._written += amount
        if node.op == "call_function" and isinstance(node.target, OpOverload):
            self._count(node)
        self._check(node, self._live, self._largest, "bytes at once")
        self._check(node, self._written, PASSES * self._largest, "bytes in all")
        self._check(node, self._work, WORK_PER_BYTE * self._largest, "multiplications")
        for given in node.all_input_nodes:
            self._release(self._owner[given])
        if not node.users:
            self._waiting[owner] += 1
            self._release(owner)

    def _release(self, owner: fx.Node) -> None:
        self._waiting[owner] -= 1
        if not self._waiting[owner]:
            self._live -= self._bytes.get(owner, 0)
            self._bytes[owner] = 0

    def _count(self, node: fx.Node) -> None:
        work, temporary = WORK.get(node.target), TEMPORARIES.get(node.target)
        if work is None and temporary is None:
            return

        def shape(given: fx.Node) -> tuple[int, ...]:
            return numbers(_tensors(given.meta["val"])[0].shape)

        arguments = node_arguments(node)
        self._work += work(node, arguments, shape) if work else 0
        if temporary is not None:
            needed = temporary(node, arguments, shape) * _tensors(node.meta["val"])[0].element_size()
            self._check(node, self._live + needed, self._largest, "bytes at once")

    def _check(self, node: fx.Node, amount: int, most: int, what: str) -> None:
        if amount > most:
            raise PenjingError(
                f"up to '{node.name}' ({node.target}) it takes {amount:,} {what} to run, and {most:,} are allowed; if you "
                f"trust it, allow more with load(path, largest={self._largest * -(-amount // most)})"
            )


def _check_computed_integers(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Applies to integers that other nodes compute the bounds that those in the file have, at the example's sizes."""
    arguments = {argument.name: argument for argument in node.target._schema.arguments}  # type: ignore[union-attr]
    written = {**dict(zip(arguments, node.args, strict=False)), **node.kwargs}
    for name, value in {**dict(zip(arguments, args, strict=False)), **kwargs}.items():
        every, ours = (one if isinstance(one, list | tuple) else [one] for one in (value, written[name]))
        for one, source in zip(every, ours, strict=False):
            if not isinstance(source, fx.Node) or not isinstance(one, int | torch.SymInt):
                continue
            if isinstance(one, torch.SymInt) and not one.node.has_hint():
                continue  # read out of a tensor: it only says where something is taken, which kernels check
            low, high = integers(name_of(node.target), name)  # type: ignore[arg-type]
            if "int" in str(arguments[name].real_type) and not low <= number(one) <= high:
                raise PenjingError(
                    f"the node '{node.name}' gives {node.target} the computed argument {name}={number(one)}, which is not "
                    f"within {low} to {high}"
                )


def _by_name(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    arguments = op._schema.arguments
    defaults = {argument.name: argument.default_value for argument in arguments}
    return {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}


def _tensors(value: Any) -> list[Tensor]:
    return [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, Tensor)]


def _check_number(node: fx.Node, value: Any) -> None:
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        symbolic: Any = value.node
        if _terms(symbolic.expr) > LARGEST_EXPRESSION:
            raise PenjingError(f"the number '{node.name}' is an expression of more than {LARGEST_EXPRESSION} terms")
        if not symbolic.has_hint():
            return
        value = symbolic.hint
    if isinstance(value, int) and abs(value) > LARGEST_LONG:
        raise PenjingError(f"the number '{node.name}' has more than 63 bits")


def _terms(expression: Any) -> int:
    count, waiting = 0, [expression]
    while waiting and count <= LARGEST_EXPRESSION:
        waiting += waiting.pop().args
        count += 1
    return count
