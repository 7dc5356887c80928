"""Changes what stands in a `.penjing` file, knowing what it means: ops, arguments, shapes, sizes, tensors.

The change is made before the file is put together, so that it reaches the code behind the checks of the container, which
plain_mutations.py and compact_mutations.py attack. Used by test_hostile_files.py and by benchmarks/file_fuzz.py.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor

Json = Any

SIZES = (-(2**63), -(2**31), -7, -2, -1, 0, 1, 2, 3, 5, 8, 64, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
BEYOND = (2**63, -(2**63) - 1, 2**64, 10**30, 10**1000)  # more than 64 bits
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"))
STRINGS = ("", "mean", "reflect", "bilinear", "ij,jk->ik", "...->", "%4000000000d", "a" * 5000, "𝔵\0", "__class__")
FORMATS = ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format", "load")
DTYPES = tuple(sorted({str(d).removeprefix("torch.") for d in vars(torch).values() if isinstance(d, torch.dtype)}))
NUMERIC = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
BINARY = ("getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge")
UNARY = ("operator.neg", "math.ceil", "math.floor", "math.trunc", "torch.sym_int", "torch.sym_float", "torch.sym_not")
ARITHMETIC = (*(f"operator.{name}" for name in BINARY), *UNARY, "torch.sym_max", "torch.sym_min")


# What a second change raises where the first left nothing to change: then another is tried.
UNCHANGEABLE = (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError, RecursionError)


DEEPEST = 12  # levels of nesting at which something is changed


@dataclass
class Content:
    """What a file holds, whichever its format."""

    description: dict[str, Json]
    tensors: dict[str, Tensor]
    plan: list[Json]

    def copy(self) -> "Content":
        """Returns one that can be changed; it shares the tensors, which are replaced and never written to."""
        return Content(copy.deepcopy(self.description), dict(self.tensors), copy.deepcopy(self.plan))

    @property
    def nodes(self) -> list[Json]:
        return self.description["nodes"]

    @property
    def inputs(self) -> list[Json]:
        return [leaf for leaf in self.description["signature"]["leaves"] if isinstance(leaf, dict) and "name" in leaf]

    def calls(self) -> list[Json]:
        return [node for node in self.nodes if node["op"] == "call_function"]


def changed(content: Content, random: Random, ops: tuple[str, ...] = ()) -> Content:
    """Returns a copy of a whole content, changed in one to three of the ways below.

    Args:
        content: what to change.
        random: decides.
        ops: names of ops that are put in more often than others.
    """
    while True:
        copied = content.copy()
        with suppress(*UNCHANGEABLE):
            _change(copied, random, ops)
            return copied


def _change(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    if random.random() < 0.85:
        _cut(content, random)
    if random.random() < 0.7:
        _fix(content, random)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_WAYS)(content, random, ops)


# What makes a file quicker to load, so that more of them are tried


def _cut(content: Content, random: Random) -> None:
    """Makes one node, or two, all that the graph gives; loading drops whatever else there is."""
    names = [node["name"] for node in content.calls()]
    if names:
        _give(content, [random.choice(names) for _ in range(random.choice((1, 1, 2)))])


def _fix(content: Content, random: Random) -> None:
    """Fixes all sizes."""
    for leaf in content.inputs:
        leaf["dynamic"] = []


def _give(content: Content, names: list[str]) -> None:
    content.nodes[-1]["args"] = [[{"node": name} for name in names]]
    content.description["out_spec"] = {"tuple": ["leaf"] * len(names)}


# Ops


@cache
def every_op() -> tuple[str, ...]:
    """Returns the names of all ops of PyTorch's own and of the quantisers, as they stand in files."""
    found = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        namespace, _, rest = name.partition("::")
        if namespace in ("aten", "quantized_decomposed", "prim", "prims", "quantized"):
            op, _, overload = rest.partition(".")
            found.append(f"{namespace}.{op}.{overload or 'default'}")
    return tuple(found)


def _some_op(random: Random, ops: tuple[str, ...]) -> str:
    chosen = random.random()
    if ops and chosen < 0.75:
        return random.choice(ops)
    return random.choice(ARITHMETIC if chosen < 0.8 else every_op())


def _other_op(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    if calls := content.calls():
        random.choice(calls)["target"] = _some_op(random, ops)


def _new_op(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Puts in an op with arguments that its schema takes, most of them; it is given back, or stands in for another."""
    target = _some_op(random, ops)
    at = random.randrange(len(content.nodes) - 1) + 1 if random.random() < 0.3 else len(content.nodes) - 1
    node = _call(content, target, random, at)
    content.nodes.insert(at, node)
    name = node["name"]
    if _gives_several(target) or random.random() < 0.03:
        at += 1
        part = {**node, "name": f"{name}_part", "target": "operator.getitem", "kwargs": {}}
        content.nodes.insert(at, part | {"args": [{"node": name}, random.choice((0, 0, 1, -1, 9))]})
        name = f"{name}_part"
    places = [place for later in content.nodes[at + 1 : -1] for place in _references(later)]
    if places and random.random() < 0.3:
        holder, key = random.choice(places)
        holder[key] = {"node": name}
    else:
        _give(content, [name])


def _call(content: Content, target: str, random: Random, at: int) -> dict[str, Json]:
    """Returns a call whose arguments have the types of the op's schema, and come from the nodes before `at`."""
    before = [node["name"] for node in content.nodes[:at] if node["op"] != "output"]
    args: list[Json] = []
    kwargs: dict[str, Json] = {}
    for name, kind, needed, keyword in _arguments(target):
        if not needed and random.random() < 0.4:
            if not keyword:
                break
            continue
        value = _argument(name, kind, random, before)
        if keyword:
            kwargs[name] = value
        else:
            args.append(value)
    name = f"new_{random.randrange(10**6)}"
    return {"name": name, "op": "call_function", "target": target, "args": args, "kwargs": kwargs} | {
        "module": "",
        "source": "",
    }


@cache
def _arguments(target: str) -> tuple[tuple[str, str, bool, bool], ...]:
    """Returns name, type, whether it must be given, and whether by its name alone, for each argument of an op."""
    if target.partition(".")[0] in ("operator", "math", "torch"):
        return (("a", "any", True, False), ("b", "any", True, False))[: 1 if target in UNARY else 2]
    schema = _schema(target)
    if schema is None:
        return (("a", "Tensor", True, False),)
    return tuple((a.name, str(a.type), not a.has_default_value(), a.kwarg_only) for a in schema.arguments)


@cache
def _schema(target: str) -> Any:
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.rpartition(".")
    try:
        return torch._C._get_schema(f"{namespace}::{name}", "" if overload == "default" else overload)
    except RuntimeError:  # one of Python's names that look like an op's
        return None


@cache
def _gives_several(target: str) -> bool:
    schema = _schema(target)
    return schema is not None and (
        len(schema.returns) > 1 or str(schema.returns[0].type if schema.returns else "") == "List[Tensor]"
    )


def _argument(name: str, kind: str, random: Random, before: list[str]) -> Json:
    """Returns an argument of a type, most often one that is plausible."""
    if random.random() < 0.06:
        return _value(random, before)
    if kind.startswith("Optional["):
        return None if random.random() < 0.5 else _argument(name, kind[9:-1], random, before)
    if kind.startswith("List["):
        count = random.choice((0, 1, 1, 2, 2, 2, 3, 4, 5, 7))
        return [_argument(name, kind[5:-1], random, before) for _ in range(count)]
    if name in ("dtype", "out_dtype", "layout", "memory_format"):
        return _named(name, random)
    return _MAKERS.get(kind, _value)(random, before)


def _named(name: str, random: Random) -> Json:
    if name == "layout":
        return {"layout": "strided"}
    if name == "memory_format":
        return {"memory_format": random.choice(FORMATS)}
    return {"dtype": random.choice(NUMERIC if random.random() < 0.9 else DTYPES)}


def _node(random: Random, before: list[str]) -> Json:
    return {"node": random.choice(before)} if before else None


def _int(random: Random, before: list[str]) -> Json:
    return random.choice((-1, 0, 0, 1, 1, 2, 3, 4, 6)) if random.random() < 0.75 else random.choice(SIZES + BEYOND)


def _float(random: Random, before: list[str]) -> Json:
    value = random.choice(FLOATS)
    return value if abs(value) < float("inf") else {"float": repr(value)}


def _number(random: Random, before: list[str]) -> Json:
    return random.choice((_int, _float, _bool))(random, before)


def _bool(random: Random, before: list[str]) -> Json:
    return random.random() < 0.5


def _string(random: Random, before: list[str]) -> Json:
    return random.choice(STRINGS)


_MAKERS: dict[str, Callable[[Random, list[str]], Json]] = {
    "Tensor": _node,
    "int": _int,
    "float": _float,
    "number": _number,
    "bool": _bool,
    "str": _string,
    "Device": lambda random, before: {"device": "cpu"},
}


def _value(random: Random, before: list[str]) -> Json:
    """Returns any value that can stand in JSON, most of them in a wrong place."""
    made: tuple[Callable[[], Json], ...] = (
        lambda: None,
        lambda: _node(random, before),
        lambda: {"node": random.choice(("nothing", "output", "x", 0, None))},
        lambda: random.choice(SIZES),
        lambda: random.choice(BEYOND),
        lambda: _float(random, before),
        lambda: float("nan"),  # as the bare word NaN
        lambda: _bool(random, before),
        lambda: random.choice(STRINGS),
        lambda: [],
        lambda: [_value(random, before) for _ in range(random.choice((1, 2, 3)))],
        lambda: [random.choice(SIZES)] * random.choice((1, 2, 4, 300)),
        lambda: _nested(random.choice((2, 30, 900))),
        lambda: {},
        lambda: {"slice": [_value(random, before) for _ in range(random.choice((3, 3, 2)))]},
        lambda: {"dtype": random.choice(DTYPES)},
        lambda: {"memory_format": random.choice(FORMATS)},
        lambda: {"float": random.choice(("nan", "inf", "1e999", "one", None))},
        lambda: {"device": random.choice(("cpu", "cuda:0", "meta"))},
    )
    return random.choice(made)()


def _nested(depth: int) -> Json:
    value: Json = []
    for _ in range(depth):
        value = [value]
    return value


# Arguments


def _places(value: Json) -> Iterator[tuple[Any, Any]]:
    """Yields holder and key of every value in nested JSON, as deep as arguments are nested and a little deeper."""
    waiting = [(value, 0)]
    while waiting:
        holder, depth = waiting.pop()
        for key, inner in holder.items() if isinstance(holder, dict) else enumerate(holder):
            yield holder, key
            if isinstance(inner, dict | list) and depth < DEEPEST:
                waiting.append((inner, depth + 1))


def _references(node: Json) -> list[tuple[Any, Any]]:
    """Returns holder and key of every reference to a node in another's arguments."""
    places = [*_places(node["args"]), *_places(node["kwargs"])]
    return [(holder, key) for holder, key in places if isinstance(holder[key], dict) and "node" in holder[key]]


def _other_argument(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Puts another value in the place of an argument, or of something within one: of the same type, or of any."""
    nodes = content.nodes
    node = random.choice(content.calls() or nodes)
    places = [*_places(node["args"]), *_places(node["kwargs"])]
    if not places:
        return
    holder, key = random.choice(places)
    old = holder[key]
    before = [other["name"] for other in nodes[: nodes.index(node)]]
    same: Callable[[Random, list[str]], Json] = _value
    if random.random() < 0.6:
        same = {bool: _bool, int: _int, float: _float, str: _string}.get(type(old), _value)
        same = _node if isinstance(old, dict) and "node" in old else same
    holder[key] = same(random, before)


def _argument_list(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Drops, doubles, swaps, adds an argument or names it."""
    node = random.choice(content.calls() or content.nodes)
    args, before = node["args"], [other["name"] for other in content.nodes if other is not node]
    way = random.randrange(6)
    if way == 0 and args:
        args.pop(random.randrange(len(args)))
    elif way == 1 and args:
        args.append(copy.deepcopy(random.choice(args)))
    elif way == 2:
        random.shuffle(args)
    elif way == 3:
        args.extend(_value(random, before) for _ in range(random.choice((1, 3, 400))))
    elif way == 4:
        known = [name for name, *_ in _arguments(node["target"])] if node["op"] == "call_function" else []
        node["kwargs"][random.choice([*known, "out", "self", "nothing"])] = _value(random, before)
    else:
        node["args"] = _value(random, before)


# Nodes


def _node_list(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Drops, doubles, moves, renames or retypes a node."""
    nodes = content.nodes
    at = random.randrange(len(nodes))
    way = random.randrange(6)
    if way == 0:
        del nodes[at]
    elif way == 1:
        nodes.insert(at, copy.deepcopy(random.choice(nodes)))
    elif way == 2:
        nodes.insert(random.randrange(len(nodes)), nodes.pop(at))
    elif way == 3:
        nodes[at]["name"] = random.choice([*STRINGS, "self", "torch", "x", random.choice(nodes)["name"]])
    elif way == 4:
        nodes[at]["op"] = random.choice(("placeholder", "get_attr", "output", "call_module", "call_method", "root"))
    else:
        nodes[at]["target"] = random.choice([*STRINGS, "x", *content.tensors, "training", "_parameters"])


def _chain(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Repeats a call many times, each on the one before: in time or in memory it may grow with every one."""
    calls = [node for node in content.calls() if _references(node)]
    if not calls:
        return
    first = random.choice(calls)
    small = len(list(_places(first["args"]))) < 20  # else the making alone would take seconds
    number = random.choice((3, 10, 30)) if random.random() < 0.99 or not small else random.choice((4_000, 30_000))
    twice = random.random() < 0.5
    last = first["name"]
    for count in range(number):
        node = copy.deepcopy(first) if number < 100 else {**first, "args": copy.copy(first["args"])}
        node["name"] = f"{last[:40]}_{count}"
        places = _references({**node, "kwargs": {}})
        for holder, key in places[: 2 if twice else 1]:
            holder[key] = {"node": last}
        last = node["name"]
        content.nodes.insert(len(content.nodes) - 1, node)
    _give(content, [last])


def _arithmetic(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Computes with constants, each result again, and gives the result to an op in the place of a number."""
    before: list[str] = [node["name"] for node in content.nodes if str(node["target"]).startswith("aten.sym_size")]
    operands: list[Json] = [10, 10**8, 2**62, "a", "%4000000000d", [0], 1e308, 0, -1, 3, *[{"node": n} for n in before]]
    for count in range(random.choice((1, 2, 3, 60))):
        target = random.choice(ARITHMETIC)
        name = f"number_{count}"
        args = [random.choice(operands) for _ in _arguments(target)]
        content.nodes.insert(
            len(content.nodes) - 1,
            {"name": name, "op": "call_function", "target": target, "args": args, "kwargs": {}}
            | {"module": "", "source": ""},
        )
        operands += [{"node": name}] * 4
    takes = {"name": "sized", "op": "call_function", "kwargs": {}, "module": "", "source": ""}
    target = random.choice(("aten.zeros.default", "aten.arange.default", "aten.reshape.default", "aten.add.Tensor"))
    first = content.nodes[0]["name"]
    number = {"node": name}
    shaped = {"aten.zeros.default": [[number, 2]], "aten.arange.default": [number]}
    shaped |= {"aten.reshape.default": [{"node": first}, [number, -1]], "aten.add.Tensor": [{"node": first}, number]}
    content.nodes.insert(len(content.nodes) - 1, takes | {"target": target, "args": shaped[target]})
    _give(content, ["sized"])


# Inputs, outputs and records


def _input(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Changes what an input is said to be."""
    if not content.inputs:
        return
    leaf = random.choice(content.inputs)
    rank = len(leaf["shape"])
    way = random.randrange(6)
    if way == 0 and rank:
        leaf["shape"][random.randrange(rank)] = random.choice(SIZES + BEYOND)
    elif way == 1:
        leaf["shape"] = [random.choice((0, 1, 2, 3, 6)) for _ in range(random.choice((0, 1, 2, 3, 4, 5, 70)))]
    elif way == 2:
        leaf["dtype"] = random.choice(DTYPES)
    elif way == 3:
        leaf["dynamic"] = random.choice(([0], [0, 1], list(range(rank)), [-1], [0, 0], [2**40], ["a"]))
    elif way == 4:
        leaf["range"] = [random.choice(SIZES + BEYOND), random.choice(SIZES + BEYOND)]
    else:
        leaf["sizes"] = [random.choice(("", "batch", "s0", "𝔵")) for _ in range(rank)]


def _nesting(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Nests inputs or outputs otherwise."""
    made: Json = "leaf"
    for _ in range(random.choice((1, 2, 5, 800))):
        made = random.choice(
            ({"tuple": [made]}, {"list": [made, "leaf"]}, {"dict": [["a", made]]}, {"dict": [[[], made]]}, {"set": []})
        )
    if random.random() < 0.5:
        content.description["out_spec"] = made
    else:
        content.description["signature"]["spec"] = made


def _record(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Changes what is said of a tensor: its name, its kind, its ties, its mask."""
    description = content.description
    names = [record["name"] for record in description["tensors"]]
    if not names:
        return
    way, name = random.randrange(5), random.choice(names)
    record = description["tensors"][names.index(name)]
    if way == 0:
        record["name"] = random.choice([*STRINGS, "forward", "program", f"{name}.{name}", random.choice(names)])
    elif way == 1:
        record[random.choice(("parameter", "trained", "persistent"))] = random.choice((True, False, None, "yes"))
    elif way == 2:
        description["ties"][name] = random.choice([*names, "nothing", name])
    elif way == 3:
        description["masks"].append(name)
        if random.random() < 0.7:
            content.tensors[f"mask/{name}"] = torch.ones(random.choice(((), (2,), content.tensors[name].shape))).bool()
    else:
        description["tensors"].append(copy.deepcopy(record))


def _any_value(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Puts another value anywhere into the description or the plan."""
    holder, key = random.choice([*_places(content.description), *_places(content.plan)])
    other, its = random.choice([*_places(content.description)])
    names = [node["name"] for node in content.nodes if isinstance(node, dict) and "name" in node]
    holder[key] = copy.deepcopy(other[its]) if random.random() < 0.3 else _value(random, names)


# Tensors


def _tensor(content: Content, random: Random, ops: tuple[str, ...]) -> None:
    """Gives a stored tensor another shape or dtype, or other values: what an op reads may be no index, no scale, no size."""
    if not content.tensors:
        return
    name = random.choice(list(content.tensors))
    tensor = content.tensors[name]
    way = random.randrange(6)
    if way == 0:
        content.tensors[name] = tensor.to(getattr(torch, random.choice(NUMERIC[:-1])))
    elif way == 1:
        shape = [random.choice((0, 1, 2, 3, 4, 8)) for _ in range(random.choice((0, 1, 2, 3, 4, 5)))]
        content.tensors[name] = torch.ones(shape).to(tensor.dtype)
    elif way == 2:
        content.tensors[name] = torch.zeros(0, dtype=tensor.dtype).reshape(0, random.choice((2**40, 2**62, 3)), 1)
    elif way == 3:
        content.tensors[name] = tensor.reshape(-1).reshape([1] * random.choice((0, 1, 20, 70)) + list(tensor.shape))
    elif way == 4:
        changed = tensor.clone().reshape(-1)
        if changed.numel():
            at = random.randrange(changed.numel())
            whole = not (changed.dtype.is_floating_point or changed.dtype.is_complex)
            changed[at] = _fitting(random, changed.dtype) if whole else random.choice(FLOATS)
        content.tensors[name] = changed.reshape(tensor.shape)
    else:
        other = random.choice(list(content.tensors))
        content.tensors[name], content.tensors[other] = content.tensors[other], tensor


def _fitting(random: Random, dtype: torch.dtype) -> int:
    """Returns an integer that the dtype can hold, near its ends or small."""
    if dtype == torch.bool:
        return random.randrange(2)
    return random.choice((torch.iinfo(dtype).min, torch.iinfo(dtype).max, -1 % (torch.iinfo(dtype).max + 1), 5, 100))


Way = Callable[[Content, Random, tuple[str, ...]], None]
_WAYS: tuple[Way, ...] = (
    *(_new_op,) * 6,
    *(_other_op,) * 2,
    *(_other_argument,) * 6,
    *(_argument_list,) * 2,
    _node_list,
    _chain,
    _arithmetic,
    _input,
    _nesting,
    _record,
    _any_value,
    *(_tensor,) * 3,
)


def to_json(value: Json) -> bytes:
    """Returns JSON as files hold it; numbers that JSON can't hold become the bare words NaN and Infinity."""
    return json.dumps(value, separators=(",", ":")).encode()
