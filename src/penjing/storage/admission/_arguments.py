"""Checks a call before it is ever made: its arguments are those of the op's schema, and each number is within bounds.

`Calls.check` looks at nodes and constants alone. What depends on shapes and dtypes is checked in `_values`, when they are
known.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from penjing.errors import PenjingError
from penjing.storage.admission import _limits
from penjing.storage.admission._ops import ADMITTED, REFUSED, TAKES_NUMBERS, name_of

_PYTHON = "getitem add sub mul floordiv truediv mod neg pow eq ne lt le gt ge"
_MATH = "ceil floor trunc"
_SYMBOLIC = "sym_int sym_float sym_max sym_min sym_not"
OPERATORS: dict[str, Callable[..., Any]] = {
    f"{where}.{name}": getattr(module, name)
    for where, module, names in (("operator", operator, _PYTHON), ("math", math, _MATH), ("torch", torch, _SYMBOLIC))
    for name in names.split()
}
"""Functions on numbers that may stand in a file beside ops, by their names there. They take numbers only (`getitem` takes a
tuple of tensors and an index): strings and lists have an arithmetic whose results grow without bound."""

_NAMES = {function: name for name, function in OPERATORS.items()}
_UNARY = {operator.neg, math.ceil, math.floor, math.trunc, torch.sym_int, torch.sym_float, torch.sym_not}
LARGEST_EXPONENT = 64
LARGEST_DEGREE = 64
"""Sizes that are multiplied in one number: the bound on 63 bits holds at the example's sizes, where a size may be 1, whose
powers stay 1. At others each factor adds its own digits."""

_DTYPES = (
    "float32 float64 float16 bfloat16 bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float8_e4m3fn float8_e5m2 "
    "complex64 complex128"
)
DTYPES = frozenset(getattr(torch, name) for name in _DTYPES.split())
"""The dtypes that ops may be asked for, and inputs have: none of PyTorch's quantised ones."""


class ValueKind(Enum):
    """What a node gives, as far as its op alone tells."""

    TENSOR = auto()
    TENSORS = auto()
    SIZE = auto()  # a number computed from shapes: bounded when shapes are propagated
    ITEM = auto()  # a number read out of a tensor: known only when the graph runs


class Calls:
    """Checks the nodes of one graph, in their order."""

    def __init__(self) -> None:
        self._kinds: dict[fx.Node, ValueKind] = {}
        self._degrees: dict[fx.Node, int] = {}  # of numbers computed from sizes: as of a polynomial in the sizes

    def check(self, node: fx.Node, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Checks a node, all of whose inputs were checked.

        Args:
            node: which.
            target: what it calls in a file; while training, that of the node itself differs.
            args: what it is called with there.
            kwargs: what it is called with by name.

        Raises:
            PenjingError: its op may not stand in a file, or its arguments are none of that op's.
        """
        if node.op == "output":
            self._check_output(node, args)
        elif node.op != "call_function":
            self._kinds[node] = ValueKind.TENSOR
        elif isinstance(target, OpOverload):
            self._check_op(node, target, args, kwargs)
            self._kinds[node] = _kind_of_result(target)
        else:
            self._kinds[node] = self._check_operator(node, target, args, kwargs)

    def _check_output(self, node: fx.Node, args: Sequence[Any]) -> None:
        values = args[0] if len(args) == 1 else None
        if not isinstance(values, list | tuple) or len(values) > _limits.MOST_TENSORS:
            raise PenjingError("its output is no list")
        for value in values:
            if self._is(value, ValueKind.TENSORS) or isinstance(value, list | tuple | dict):
                raise PenjingError("one of its outputs is neither a tensor nor a number")

    # Ops

    def _check_op(self, node: fx.Node, op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        name = check_admitted(op)
        arguments = op._schema.arguments
        given = dict(zip((argument.name for argument in arguments), args, strict=False))
        if len(args) > len(arguments) or any(a.kwarg_only for a in arguments[: len(args)]):
            raise PenjingError(f"{_at(node)} gives {name} more arguments than it has")
        known = {argument.name for argument in arguments}
        for key, value in kwargs.items():
            if key in given or key not in known:
                raise PenjingError(f"{_at(node)} gives {name} the argument {key!r}, which it doesn't take")
            given[key] = value
        for argument in arguments:
            if argument.name not in given:
                if not argument.has_default_value():
                    raise PenjingError(f"{_at(node)} doesn't give {name} its argument '{argument.name}'")
            elif not self._fits(op, name, argument, given[argument.name]):
                raise PenjingError(
                    f"{_at(node)} gives {name} the argument {argument.name}={_short(given[argument.name])}, which isn't "
                    f"of type {argument.real_type}, or isn't within that argument's bounds"
                )

    def _fits(self, op: OpOverload, name: str, argument: Any, value: Any) -> bool:
        kind = str(argument.real_type)
        if kind.startswith("Optional["):
            if value is None:
                return True
            kind = kind.removeprefix("Optional[").removesuffix("]")
        if kind == "Tensor":
            return self._is(value, ValueKind.TENSOR) or (op in TAKES_NUMBERS and self._is_number(value))
        if kind in ("List[Tensor]", "List[Optional[Tensor]]"):
            return self._are_tensors(value, optional=kind != "List[Tensor]")
        if kind == "int":
            return self._is_integer(name, argument.name, value)
        if kind == "List[int]":
            return self._are_integers(name, argument, value)
        if kind in ("number", "float"):
            return self._is_number(value)
        if kind == "List[float]":
            return isinstance(value, list | tuple) and 0 < len(value) <= 3 and all(map(self._is_number, value))
        if kind == "bool":
            return isinstance(value, bool) and not (value and argument.name == "pin_memory")
        if kind == "str":
            return isinstance(value, str) and _limits.is_word(argument.name, value)
        return _CONSTANTS[kind](value)

    def _is(self, value: Any, *kinds: ValueKind) -> bool:
        return isinstance(value, fx.Node) and self._kinds.get(value) in kinds

    def _is_number(self, value: Any) -> bool:
        if isinstance(value, int):
            return abs(value) <= _limits.LARGEST_LONG + 1
        return isinstance(value, float) or self._is(value, ValueKind.SIZE, ValueKind.ITEM)

    def _is_integer(self, op: str, argument: str, value: Any) -> bool:
        low, high = _limits.integers(op, argument)
        if isinstance(value, int):
            return low <= value <= high
        # A number of the tensors' may only say where something is taken from: kernels check that, and not much else.
        return self._is(value, ValueKind.SIZE) or (
            argument in ("index", "start", "end") and self._is(value, ValueKind.ITEM)
        )

    def _are_integers(self, op: str, argument: Any, value: Any) -> bool:
        if not isinstance(value, list | tuple):  # PyTorch repeats one number where a list of N is wanted
            return argument.N is not None and self._is_integer(op, argument.name, value)
        if not all(self._is_integer(op, argument.name, one) for one in value):
            return False
        if argument.name == "path":  # the order in which einsum contracts: kernels trust its indices
            return False
        if argument.N is not None and argument.N > 1:
            empty = not value and argument.has_default_value() and argument.default_value == []
            return len(value) in (1, argument.N) or empty
        many = argument.name in ("split_size", "split_sizes", "indices")
        return len(value) <= (_limits.MOST_TENSORS if many else _limits.MOST_AXES)

    def _are_tensors(self, value: Any, *, optional: bool) -> bool:
        if not isinstance(value, list | tuple):
            return not optional and self._is(value, ValueKind.TENSORS)
        whole = all(self._is(one, ValueKind.TENSOR) or (optional and one is None) for one in value)
        return whole and 0 < len(value) <= _limits.MOST_TENSORS and any(one is not None for one in value)

    # Operators

    def _check_operator(
        self, node: fx.Node, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> ValueKind:
        if function not in _NAMES:
            raise PenjingError(f"{_at(node)}: the function {function} is not allowed in a file")
        name: str = _NAMES[function]
        if kwargs or len(args) != (1 if function in _UNARY else 2):
            raise PenjingError(f"{_at(node)} gives {name} another number of arguments")
        if function is operator.getitem:
            tensors, index = args
            if (
                not self._is(tensors, ValueKind.TENSORS)
                or type(index) is not int
                or not 0 <= index < _limits.MOST_TENSORS
            ):
                raise PenjingError(f"{_at(node)}: {name} takes tensors and a number, not {_short(args)}")
            return ValueKind.TENSOR
        if not all(map(self._is_number, args)):
            raise PenjingError(f"{_at(node)}: {name} takes numbers, not {_short(args)}")
        items = [self._is(value, ValueKind.ITEM) for value in args]
        if function is operator.pow:
            exponent = args[1]
            if not isinstance(exponent, int | float) or not abs(exponent) <= LARGEST_EXPONENT or any(items):
                raise PenjingError(
                    f"{_at(node)}: an exponent must be a number from -{LARGEST_EXPONENT} to {LARGEST_EXPONENT}"
                )
        if function is operator.mul and all(items):  # doubles its digits, and has no bound before the graph runs
            raise PenjingError(f"{_at(node)} multiplies two numbers that are known only when the graph runs")
        self._degrees[node] = self._degree(function, args)
        if self._degrees[node] > LARGEST_DEGREE:
            raise PenjingError(f"{_at(node)} is a product of more than {LARGEST_DEGREE} sizes")
        return ValueKind.ITEM if any(items) else ValueKind.SIZE

    def _degree(self, function: Any, args: Sequence[Any]) -> int:
        """Returns how many sizes are multiplied in what a function gives; a size of a tensor counts as one."""
        degrees = [self._degrees.get(value, 1) if isinstance(value, fx.Node) else 0 for value in args]
        if function is operator.pow:
            return degrees[0] * math.ceil(abs(args[1]))
        if function in (operator.mul, operator.truediv, operator.floordiv):
            return sum(degrees)
        return max(degrees)


_CONSTANTS: dict[str, Callable[[Any], bool]] = {
    "ScalarType": lambda value: isinstance(value, torch.dtype) and value in DTYPES,
    "Layout": lambda value: value == torch.strided,
    "Device": lambda value: isinstance(value, torch.device),
    "MemoryFormat": lambda value: isinstance(value, torch.memory_format),
    "Generator": lambda value: False,
}


def check_admitted(op: OpOverload) -> str:
    """Returns the name of an op in files.

    Raises:
        PenjingError: it may not stand in one.
    """
    name = name_of(op)
    if ADMITTED.get(name) is not op:
        why = f": {REFUSED[name]}" if name in REFUSED else ""
        raise PenjingError(f"the op {name} is not allowed in a file{why}")
    return name


def operator_name(function: Any) -> str | None:
    """Returns the name in files of a function on numbers, or None if it is no such function."""
    return _NAMES.get(function) if callable(function) else None


def _kind_of_result(op: OpOverload) -> ValueKind:
    returns = [str(one.type) for one in op._schema.returns]
    if len(returns) != 1:
        return ValueKind.TENSORS
    return {"Tensor": ValueKind.TENSOR, "List[Tensor]": ValueKind.TENSORS, "int": ValueKind.SIZE}.get(
        returns[0], ValueKind.ITEM
    )


def _at(node: fx.Node) -> str:
    return f"the node '{node.name}'"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
