"""Which axes of a model's inputs are free: asking export for them, and checking that it gave them."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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


log = logging.getLogger(__name__)

Call = tuple[tuple[Any, ...], dict[str, Any]]


def resized(graph: Graph, call: Call, dynamic: Mapping[str, Sequence[int]], double: bool) -> Call:
    """Returns a call with the axes of `dynamic`, but for the first, twice as long or half as long; so are the axes whose
    sizes the model wants to equal one of them, as the batch of a recurrent layer's state.
    """
    names = {
        leaf.sizes[axis]
        for leaf, axes in zip(graph.signature.leaves, _asked(graph, dynamic), strict=True)
        for axis in axes
        if isinstance(leaf, Input) and axis > 0
    }

    def wanted(size: int) -> int:
        return 2 * size if double else (size + 1) // 2

    return _with_sizes(graph, call, names, wanted)


def _asked(graph: Graph, dynamic: Mapping[str, Sequence[int]]) -> list[Sequence[int]]:
    """Returns, for each leaf of a call, which of its axes were asked to be free."""
    signature = graph.signature
    args, keywords = pytree.tree_unflatten(list(signature.leaves), signature.spec)
    of = [(dynamic.get(name, ()), value) for name, value in zip(signature.positional, args, strict=True)]
    of += [(dynamic.get(name, ()), value) for name, value in keywords.items()]
    return [axes for axes, value in of for _ in pytree.tree_leaves(value)]


def _with_sizes(graph: Graph, call: Call, names: set[str], wanted: Callable[[int], int]) -> Call:
    """Returns a call whose free axes of these names have another size, repeated or cut."""
    leaves, spec = pytree.tree_flatten(call)
    result = []
    for leaf, given in zip(leaves, graph.signature.leaves, strict=True):
        for axis, name in enumerate(given.sizes if isinstance(given, Input) else ()):
            if name and name in names:
                leaf = _repeated(leaf, axis, wanted(leaf.shape[axis]))
        result.append(leaf)
    return pytree.tree_unflatten(result, spec)  # type: ignore[return-value]


def _repeated(tensor: Tensor, axis: int, wanted: int) -> Tensor:
    """Repeats, or cuts, a tensor along an axis."""
    size = tensor.shape[axis]
    if size == wanted or size == 0:
        return tensor
    return torch.cat([tensor] * math.ceil(wanted / size), axis).narrow(axis, 0, wanted)


def batch_size(args: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    """Returns the size of the first tensor's first axis, if it has one."""
    first = next(leaf for leaf in pytree.tree_leaves((args, keywords)) if isinstance(leaf, Tensor))
    return first.shape[0] if first.dim() > 0 and first.shape[0] > 0 else None


def with_batch(model: nn.Module, call: Call, dynamic: Mapping[str, Sequence[int]], size: int, wanted: int) -> Call:
    """Repeats, or cuts, the tensors whose batch is `size` to `wanted` samples: along their first axes, or, where the model
    fails then, along an axis of that size that is to be free, as of a recurrent layer's state.
    """
    if wanted == size:
        return call

    def along(extra: Sequence[int], leaf: Any) -> Any:
        axes = [axis for axis in extra if 0 < axis < leaf.dim() and leaf.shape[axis] == size] or [0]
        for axis in axes if leaf.dim() and (axes != [0] or leaf.shape[0] == size) else ():
            leaf = _repeated(leaf, axis, wanted)
        return leaf

    def resized(extra: Mapping[str, Sequence[int]]) -> Call:
        def of(name: str, value: Any) -> Any:
            return pytree.tree_map_only(Tensor, lambda leaf: along(extra.get(name, ()), leaf), value)

        args, keywords = call
        names = positional_names(model, len(args))
        return tuple(map(of, names, args)), {name: of(name, value) for name, value in keywords.items()}

    usual = resized({})
    if any(axis > 0 for axes in dynamic.values() for axis in axes) and not _works(model, usual):
        return resized(dynamic)
    return usual


def _works(model: nn.Module, call: Call) -> bool:
    args, keywords = pytree.tree_map_only(Tensor, torch.clone, call)
    try:
        with torch.no_grad():
            model(*args, **keywords)
    except Exception as error:  # whatever a model raises at a size that it wasn't written for
        log.info("%s doesn't work at another batch: %s", type(model).__name__, error)
        return False
    return True


def with_other_batch(graph: Graph, call: Call, size: int, wanted: int) -> Call:
    """Returns a call of a graph whose batch is `size` with another batch, along all axes that must equal it."""
    leaves = zip(pytree.tree_leaves(call), graph.signature.leaves, strict=True)
    names = {
        given.sizes[0]
        for leaf, given in leaves
        if isinstance(given, Input) and given.sizes and leaf.shape[0] == size and given.sizes[0]
    }
    return _with_sizes(graph, call, names, lambda _: wanted)


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
