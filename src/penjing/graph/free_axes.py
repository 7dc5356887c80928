"""Which axes of a model's inputs are free: asking export for them, and checking that it gave them."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo

from penjing.errors import PenjingError
from penjing.graph.graph import Graph
from penjing.graph.inputs import Input


def dynamic_shapes(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    batch: int | None,
) -> dict[str, Any]:
    """Says for every axis of every input whether it is free, nested as the arguments of `forward` are."""

    def of(leaf: Any, extra: Sequence[int]) -> Any:
        if not isinstance(leaf, Tensor):
            return None
        free = set(extra)
        if batch is not None and leaf.dim() > 0 and leaf.shape[0] == batch:
            free.add(0)
        return {axis: Dim.AUTO if axis in free else Dim.STATIC for axis in range(leaf.dim())}

    def nested(name: str, value: Any) -> Any:
        return pytree.tree_map(lambda leaf: of(leaf, dynamic.get(name, ())), value)

    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **keywords).arguments
    return {
        name: tuple(nested(f"{name}_{i}", one) for i, one in enumerate(value))
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        else nested(name, value)
        for name, value in bound.items()
    }


def check_dynamic(dynamic: Mapping[str, Sequence[int]], inputs: Mapping[str, Any]) -> None:
    """Raises if `dynamic` names an input or an axis that isn't there."""
    for name, axes in dynamic.items():
        if name not in inputs:
            raise PenjingError(f"dynamic names the input '{name}'; the model's inputs are {', '.join(inputs)}.")
        for leaf in pytree.tree_leaves(inputs[name]):
            wrong = [axis for axis in axes if isinstance(leaf, Tensor) and not 0 <= axis < leaf.dim()]
            if wrong:
                raise PenjingError(f"dynamic names axis {wrong[0]} of the input '{name}', which has {leaf.dim()} axes.")


def check_freed(graph: Graph, dynamic: Mapping[str, Sequence[int]]) -> None:
    """Raises if an axis was asked to be free and the model fixes it."""
    args, keywords = pytree.tree_unflatten(list(graph.signature.leaves), graph.signature.spec)
    inputs = {**dict(zip(graph.signature.positional, args, strict=True)), **keywords}
    for name, axes in dynamic.items():
        for leaf in pytree.tree_leaves(inputs[name]):
            fixed = [axis for axis in axes if isinstance(leaf, Input) and axis not in leaf.dynamic]
            if fixed:
                raise PenjingError(
                    f"The model works with size {leaf.shape[fixed[0]]} of axis {fixed[0]} of input '{name}' only; "
                    "leave that axis out of dynamic."
                )


def resized(
    model: nn.Module,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    double: bool,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the inputs with the axes of `dynamic`, but for the batch, twice as long or half as long."""

    def resize(leaf: Any, axes: Sequence[int]) -> Any:
        for axis in axes if isinstance(leaf, Tensor) else ():
            if axis > 0:
                leaf = torch.cat([leaf, leaf], axis) if double else leaf.narrow(axis, 0, (leaf.shape[axis] + 1) // 2)
        return leaf

    def of(name: str, value: Any) -> Any:
        return pytree.tree_map(lambda leaf: resize(leaf, dynamic.get(name, ())), value)

    names = positional_names(model, len(args))
    return tuple(map(of, names, args)), {name: of(name, value) for name, value in keywords.items()}


def batch_size(args: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    """Returns the size of the first tensor's first axis, if it has one."""
    first = next(leaf for leaf in pytree.tree_leaves((args, keywords)) if isinstance(leaf, Tensor))
    return first.shape[0] if first.dim() > 0 and first.shape[0] > 0 else None


def with_batch(
    args: tuple[Any, ...], keywords: dict[str, Any], size: int, wanted: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Repeats, or cuts, the tensors whose batch is `size` to `wanted` samples."""

    def resize(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or leaf.shape[0] != size or wanted == size:
            return leaf
        return torch.cat([leaf] * math.ceil(wanted / size))[:wanted]

    return pytree.tree_map(resize, (args, keywords))  # type: ignore[no-any-return]


def limits_batch(exported: ExportedProgram) -> bool:
    """Tells whether the model looks at how large its batch is: export then gave the size a range, or made it a number."""
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if (
            node.op == "placeholder"
            and isinstance(value, Tensor)
            and value.dim()
            and isinstance(value.shape[0], torch.SymInt)
        ):
            limits = exported.range_constraints.get(value.shape[0].node.expr)  # none where it is a number
            if limits is None or limits.lower > 2 or limits.upper < int_oo:
                return True
    return False


def positional_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """Returns names for the first `count` positional inputs; those of `*args` are `args_0`, `args_1`, …"""
    names: list[str] = []
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names.extend(f"{name}_{i}" for i in range(count - len(names)))
        elif parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            names.append(name)
    return tuple(names[:count])


@contextmanager
def spelt_out_keywords(model: nn.Module, keywords: Mapping[str, Any]) -> Iterator[None]:
    """Gives `forward(**keywords)` a signature that names each keyword: export can't free the axes of others."""
    signature = inspect.signature(model.forward)
    collected = [p for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    extra = [name for name in keywords if name not in signature.parameters]
    if not collected or not extra:
        yield
        return
    named = [p for p in signature.parameters.values() if p not in collected]
    forward = model.forward

    def spelt_out(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    parameters = [*named, *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in extra)]
    spelt_out.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    own = model.__dict__.get("forward")
    model.__dict__["forward"] = spelt_out
    try:
        yield
    finally:
        del model.__dict__["forward"]
        if own is not None:
            model.__dict__["forward"] = own
