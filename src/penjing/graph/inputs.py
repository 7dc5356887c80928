"""What a graph takes: the flat list of its inputs, how a call is bound to it, and what is said when a call doesn't fit."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.graph.ranges import UNKNOWN, Ranges


@dataclass(frozen=True)
class Input:
    """One tensor among a graph's flat inputs.

    Attributes:
        name: readable name, unique in the graph.
        shape: the example's shape.
        dtype: the only dtype that is accepted.
        dynamic: axes whose size is free; the others must be as in `shape`.
        ranges: what values the example holds, so that token ids stay in the vocabulary.
        sizes: a name for the size of each free axis ("" for the others); equal names are equal sizes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    dynamic: frozenset[int] = frozenset()
    ranges: Ranges = UNKNOWN
    sizes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, example: Tensor, dynamic: frozenset[int], sizes: tuple[str, ...] = ()) -> "Input":
        """Describes `example`."""
        return cls(name, tuple(example.shape), example.dtype, dynamic, Ranges.of(example, dynamic), sizes)

    def example(self, batch: int | None, batch_axis: int | None, generator: torch.Generator) -> Tensor:
        """Returns random values of the example's shape, within its ranges."""
        shape = list(self.shape)
        if batch is not None and batch_axis is not None and batch_axis in self.dynamic:
            shape[batch_axis] = batch
        return self.ranges.sample(shape, self.dtype, generator)


@dataclass(frozen=True)
class Signature:
    """How calls of the user's model map to the flat inputs of a graph.

    Attributes:
        spec: pytree of `(args, kwargs)` as captured; its leaves are tensors and constants.
        leaves: per leaf an `Input`, or the constant that was captured (None, number, string).
        positional: the names of the captured positional arguments.
        order: all parameter names of the user's `forward`, in order.
    """

    spec: pytree.TreeSpec
    leaves: tuple[Any, ...]
    positional: tuple[str, ...]
    order: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The tensor leaves."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Input))

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Returns the tensors of a call in the graph's order.

        A mapping as the only argument holds the arguments by name, as batches of many text datasets do, unless the model was
        captured with a mapping as its first argument.

        Raises:
            PenjingError: the call doesn't fit what was captured.
        """
        leaves, spec = pytree.tree_flatten(_reordered(self._bind(args, kwargs), self.spec))
        if spec != self.spec:
            raise PenjingError(
                f"The inputs are nested otherwise than when the model was captured: expected {self.spec}, got {spec}."
            )
        if not torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            for expected, value in zip(self.leaves, leaves, strict=True):
                _check(expected, value)
            self._check_sizes(leaves)
        return [value for expected, value in zip(self.leaves, leaves, strict=True) if isinstance(expected, Input)]

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        first = args[0] if len(args) == 1 and not kwargs else None
        if isinstance(first, Mapping) and not self._begins_with_mapping():
            args, kwargs = (), dict(first)
        count = len(self.positional)
        spare = [name for name in self.order[count:] if name not in kwargs]
        if len(args) > count + len(spare):
            raise PenjingError(f"{len(args)} positional inputs were given; the model was captured with {count}.")
        named = {**dict(zip(self.order[count:], args[count:], strict=False)), **kwargs}
        missing = [name for name in self.positional[len(args) :] if name not in named]
        if missing:
            raise PenjingError(f"Missing input '{missing[0]}': the model was captured with {', '.join(self.names())}.")
        twice = [name for name in (*self.positional, *self.order[count:])[: len(args)] if name in kwargs]
        if twice:
            raise PenjingError(f"Input '{twice[0]}' was given twice, by position and by name.")
        bound = (*args[:count], *(named.pop(name) for name in self.positional[len(args) :]))
        captured = self.keywords()
        absent = [name for name in captured if name not in named]
        surplus = [name for name in named if name not in captured and named[name] is not None]
        if absent or surplus:
            near = difflib.get_close_matches(surplus[0], self.names(), 1) if surplus else []
            meant = f"; did you mean '{near[0]}'?" if near else "."
            what = f"Missing input '{absent[0]}'" if absent else f"Unexpected input '{surplus[0]}'"
            found = f" and not with '{surplus[0]}'" if absent and surplus else ""
            raise PenjingError(f"{what}: the model was captured with {', '.join(self.names())}{found}{meant}")
        return bound, {name: named[name] for name in captured}

    def _begins_with_mapping(self) -> bool:
        """Tells whether the model's first argument is itself a mapping."""
        first = self.spec.child(0).children()[:1]
        return any(one.type is not None and issubclass(one.type, Mapping) for one in first)

    def _check_sizes(self, leaves: Sequence[Any]) -> None:
        """Free axes of one name must agree, as the batch of several inputs."""
        known: dict[str, tuple[str, int, int]] = {}
        for expected, value in zip(self.leaves, leaves, strict=True):
            for axis, name in enumerate(expected.sizes if isinstance(expected, Input) else ()):
                if not name:
                    continue
                first, at, size = known.setdefault(name, (expected.name, axis, value.shape[axis]))
                if size != value.shape[axis]:
                    what = "batch" if axis == at == 0 else "size"
                    raise PenjingError(
                        f"Inputs '{first}' and '{expected.name}' must have the same {what}: axis {at} of the one has "
                        f"size {size}, axis {axis} of the other {value.shape[axis]}."
                    )

    def keywords(self) -> list[str]:
        """The names of the captured keyword arguments."""
        return list(self.spec.child(1).context)

    def names(self) -> list[str]:
        """The names of all captured arguments."""
        return [*self.positional, *self.keywords()]


def _reordered(value: Any, spec: pytree.TreeSpec) -> Any:
    """Returns `value` with its dictionaries in the order of those that were captured."""
    if spec.is_leaf():
        return value
    children = spec.children()
    if spec.type is dict and type(value) is dict and set(value) == set(spec.context):
        return {key: _reordered(value[key], child) for key, child in zip(spec.context, children, strict=True)}
    if spec.type in (tuple, list) and type(value) is spec.type and len(value) == len(children):
        return spec.type(_reordered(one, child) for one, child in zip(value, children, strict=True))
    return value


def _check(expected: Any, value: Any) -> None:
    if not isinstance(expected, Input):
        if isinstance(value, Tensor) or value != expected:
            raise PenjingError(
                f"The model was captured with the constant {expected!r} where {value!r} was given now; "
                "capture it again with that value."
            )
        return
    if not isinstance(value, Tensor):
        raise PenjingError(f"Input '{expected.name}' must be a tensor, not {type(value).__name__}.")
    shape = ", ".join("*" if axis in expected.dynamic else str(n) for axis, n in enumerate(expected.shape))
    wrong = value.dim() != len(expected.shape) or any(
        n != m
        for axis, (n, m) in enumerate(zip(value.shape, expected.shape, strict=False))
        if axis not in expected.dynamic
    )
    if wrong:
        raise PenjingError(
            f"Input '{expected.name}' has shape {tuple(value.shape)}; the model was captured for ({shape}). "
            "Axes marked * are free; more of them can be freed with capture(..., dynamic=…)."
        )
    both_float = value.dtype.is_floating_point and expected.dtype.is_floating_point
    if value.dtype != expected.dtype and not both_float:
        raise PenjingError(
            f"Input '{expected.name}' has dtype {value.dtype}; the model was captured for {expected.dtype}."
        )
