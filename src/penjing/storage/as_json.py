"""How arguments of nodes, signatures, nestings and parts stand in a `.penjing` file as JSON and come back."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.graph.capture.constants import Folded
from penjing.graph.capture.parts import Call, CapturedPart, Given, Output
from penjing.graph.inputs import Input, Signature
from penjing.graph.ranges import Ranges

_DTYPES = {str(v).removeprefix("torch."): v for v in vars(torch).values() if isinstance(v, torch.dtype)}
_FORMATS = {str(v).removeprefix("torch."): v for v in vars(torch).values() if isinstance(v, torch.memory_format)}
_LAYOUTS = {"strided": torch.strided}


def encode(value: Any) -> Any:
    """JSON for an argument of a node: numbers, strings and lists as they are, the rest as {kind: value}."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, slice):
        return {"slice": [encode(value.start), encode(value.stop), encode(value.step)]}
    for kind, types in _KINDS.items():
        if isinstance(value, types):
            return {kind: str(value).removeprefix("torch.")}
    raise PenjingError(f"The value {value!r} of type {type(value).__name__} can't be stored in a .penjing file.")


_KINDS: dict[str, type] = {
    "dtype": torch.dtype,
    "device": torch.device,
    "memory_format": torch.memory_format,
    "layout": torch.layout,
}


def decode(value: Any, known: dict[str, fx.Node]) -> Any:
    """Returns the argument that `encode` wrote; `known` holds the nodes so far by name."""
    if isinstance(value, list):
        return [decode(v, known) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    decoders: dict[str, Callable[[Any], Any]] = {
        "node": known.__getitem__,
        "float": float,
        "slice": lambda parts: slice(*(decode(part, known) for part in parts)),
        "dtype": _DTYPES.__getitem__,
        "memory_format": _FORMATS.__getitem__,
        "layout": _LAYOUTS.__getitem__,
        "device": lambda _: torch.device("cpu"),  # everything is loaded to the CPU; `.to()` moves it
    }
    return decoders[kind](content)


# Signature


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """JSON for how calls map to flat inputs."""
    return {
        "spec": spec_to_json(signature.spec),
        "positional": list(signature.positional),
        "order": list(signature.order),
        "leaves": [
            {
                "name": leaf.name,
                "shape": list(leaf.shape),
                "dtype": str(leaf.dtype).removeprefix("torch."),
                "dynamic": sorted(leaf.dynamic),
                **leaf.ranges.to_json(),
                "sizes": list(leaf.sizes),
            }
            if isinstance(leaf, Input)
            else {"constant": encode(leaf)}
            for leaf in signature.leaves
        ],
    }


def signature_from_json(record: dict[str, Any]) -> Signature:
    """Returns the signature of a record, if it makes sense."""
    leaves = []
    for leaf in record["leaves"]:
        if "constant" in leaf:
            leaves.append(decode(leaf["constant"], {}))
            continue
        shape = tuple(int(n) for n in leaf["shape"])
        if not isinstance(leaf["name"], str) or not set(leaf["dynamic"]) <= set(range(len(shape))):
            raise PenjingError(f"the input {leaf['name']!r} is described wrongly")
        if any(n < 0 for n in shape) or math.prod(shape) > 2**31:
            raise PenjingError(f"an input has the impossible shape {shape}")
        dynamic, sizes = frozenset(map(int, leaf["dynamic"])), tuple(map(str, leaf["sizes"]))
        if len(sizes) > len(shape):
            raise PenjingError(f"the input {leaf['name']!r} has names for {len(sizes)} sizes and {len(shape)} axes")
        ranges = Ranges.from_json(leaf, shape)
        free = [one.axis for one in ranges.columns if one.axis in dynamic]
        if free:
            raise PenjingError(f"the input {leaf['name']!r} has ranges for each index of axis {free[0]}, which is free")
        leaves.append(Input(str(leaf["name"]), shape, _DTYPES[leaf["dtype"]], dynamic, ranges, sizes))
    positional, order = tuple(record["positional"]), tuple(record["order"])
    if not all(isinstance(name, str) for name in (*positional, *order)):
        raise PenjingError("the names of its arguments are none")
    return Signature(spec_from_json(record["spec"]), tuple(leaves), positional, order)


def spec_to_json(spec: pytree.TreeSpec) -> Any:
    """Nesting as JSON: tuples, lists and dicts; other containers (model outputs of a library) are stored as the dict of
    their fields, so that a file opens where that library is absent.
    """
    if spec.is_leaf():
        return "leaf"
    children = [spec_to_json(child) for child in spec.children()]
    if spec.type in (tuple, list):
        return {spec.type.__name__: children}
    keys = spec.context if isinstance(spec.context, list | tuple) else range(len(children))
    keys = keys[0] if keys and isinstance(keys[0], list | tuple) else keys
    return {"dict": [[key, child] for key, child in zip(keys, children, strict=True)]}


def spec_from_json(record: Any) -> pytree.TreeSpec:
    """Returns the nesting of a record."""
    return pytree.tree_structure(_nest(record))


def _nest(record: Any) -> Any:
    if record == "leaf":
        return 0
    ((kind, children),) = record.items()
    if kind == "dict":
        return {key: _nest(child) for key, child in children}
    return {"tuple": tuple, "list": list}[kind](_nest(child) for child in children)


# Weights that a model computes


def folded_to_json(folded: Mapping[str, Folded]) -> dict[str, Any]:
    """JSON for what folded weights were computed from."""
    return {name: [list(one.sources), list(one.order)] for name, one in folded.items()}


def folded_from_json(record: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Folded]:
    """Returns what the folded weights of a record were computed from, if it makes sense."""
    folded = {}
    for name, (sources, order) in record.items():
        if order and (name not in tensors or sorted(order) != list(range(tensors[name].dim()))):
            raise PenjingError(f"the axes of the weight '{name}' are described wrongly")
        folded[name] = Folded(tuple(map(str, sources)), tuple(order))
    return folded


# Parts of a model


def part_to_json(part: CapturedPart | None) -> Any:
    """JSON for how a part is called; None where it is given an object that JSON has no form for."""
    if part is None:
        return None
    try:
        calls = [
            {"path": c.path, "spec": spec_to_json(c.spec), "leaves": [_leaf_to_json(v) for v in c.leaves]}
            for c in part.calls
        ]
    except PenjingError:  # the graph is whole without it, and `write_into` takes part=…
        return None
    return {"calls": calls, "outputs": [[output.call, output.leaf] for output in part.outputs]}


def part_from_json(record: Any) -> CapturedPart | None:
    """Returns the part of a record, if each of its calls takes what stands before it."""
    if record is None:
        return None
    calls: list[Call] = []
    for one in record["calls"]:
        spec, leaves = spec_from_json(one["spec"]), tuple(_leaf_from_json(leaf, len(calls)) for leaf in one["leaves"])
        if spec.num_leaves != len(leaves):
            raise PenjingError(f"the call of '{one['path']}' is described wrongly")
        calls.append(Call(str(one["path"]), leaves, spec))
    return CapturedPart(tuple(calls), tuple(_output(call, leaf, len(calls)) for call, leaf in record["outputs"]))


def _leaf_to_json(leaf: Any) -> Any:
    if isinstance(leaf, Output):
        return {"output": [leaf.call, leaf.leaf]}
    return {"given": leaf.position} if isinstance(leaf, Given) else {"constant": encode(leaf)}


def _leaf_from_json(record: Any, calls: int) -> Any:
    ((kind, content),) = record.items()
    if kind == "constant":
        return decode(content, {})
    if kind == "output":
        call, leaf = content
        return _output(call, leaf, calls)
    if kind != "given" or not isinstance(content, int) or content < 0:
        raise PenjingError(f"{record!r} is nothing that a part is called with")
    return Given(content)


def _output(call: Any, leaf: Any, calls: int) -> Output:
    if not (isinstance(call, int) and isinstance(leaf, int) and 0 <= call < calls and leaf >= 0):
        raise PenjingError(f"a part takes result {leaf!r} of its call {call!r}, and there is none")
    return Output(call, leaf)
