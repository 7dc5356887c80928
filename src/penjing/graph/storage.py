"""The `.penjing` file: a zip of `graph.json`, `weights.safetensors` and `plan.json`.

Nothing in it is code: ops are looked up in an allow-list, everything else is JSON or raw tensors, and every size is
checked before anything is allocated. Names, which `torch.fx` writes into the code that it generates, are plain words.
So a file from a stranger can be opened.

    graph.json            format version, signature, nodes [{name, op, target, args, kwargs, module, source, …}],
                          tensors [{name, parameter, trained, persistent}], ties, masks, outputs
    weights.safetensors   each tensor once, under its first name; masks as "mask/NAME"
    plan.json             what was done to the graph

`compact` writes the same content entropy-coded into one stream instead.
"""

import json
import keyword
import math
import operator
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.files import atomic_path, atomic_write
from penjing.graph import modes, straight_through
from penjing.graph.as_json import (
    decode,
    encode,
    part_from_json,
    part_to_json,
    signature_from_json,
    signature_to_json,
    spec_from_json,
    spec_to_json,
)
from penjing.graph.compact import decode as decode_compact
from penjing.graph.compact import encode as encode_compact
from penjing.graph.compact import is_compact
from penjing.graph.graph import Graph

VERSION = 1
MEMBERS = ("graph.json", "weights.safetensors", "plan.json")
LARGEST_JSON = 256 * 2**20

_OPERATORS = {
    f"operator.{name}": getattr(operator, name)
    for name in (
        "getitem",
        "add",
        "sub",
        "mul",
        "floordiv",
        "truediv",
        "mod",
        "neg",
        "pow",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
    )
} | {f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")}
_OPERATORS |= {
    f"torch.{name}": getattr(torch, name) for name in ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not")
}
_OPERATOR_NAMES = {function: name for name, function in _OPERATORS.items()}
_NAMESPACES = ("aten", "quantized_decomposed")
_FORBIDDEN = {"from_file"}  # reads files of the machine
# All functional ATen ops whose names begin with two underscores; any other such name is one of Python's own.
_OPERATOR_OPS = {"__and__", "__or__", "__xor__", "__lshift__", "__rshift__"}
_PART_OF_A_NAME = re.compile(r"(?!__)[A-Za-z0-9_-]+")  # what is no identifier stands in double quotes


def save(graph: Graph, path: Path | str, *, compact: bool = False) -> None:
    """Writes `graph` to `path`; the file appears whole or not at all.

    Args:
        graph: what to write.
        path: the file.
        compact: entropy-code it; see docs/compact-format.md.

    Raises:
        PenjingError: the graph holds a name, an op or a value that the format has no place for, or `path` can't be
            written.
    """
    tensors, aliases, masks = graph.tensors(), graph.ties(), graph.masks
    for name in tensors:
        if not _names_tensor(name):
            raise PenjingError(
                f"The tensor '{name}' can't be stored in a .penjing file: each dotted part of its name must be made of "
                "letters, digits, underscores and hyphens, without two leading underscores. Rename it in the model."
            )
    stored = {name: t.detach().contiguous().cpu() for name, t in tensors.items() if name not in aliases}
    stored |= {f"mask/{name}": mask.cpu() for name, mask in masks.items()}
    transient = graph.transient()
    description = {
        "penjing": VERSION,
        "name": graph.name,
        "batch": graph.batch,
        "lost_in_training": list(graph.lost_in_training),
        "signature": signature_to_json(graph.signature),
        "out_spec": spec_to_json(graph.out_spec),
        "nodes": [_node_to_json(node) for node in graph.program.graph.nodes],
        "tensors": [
            {
                "name": n,
                "parameter": isinstance(t, nn.Parameter),
                "trained": t.requires_grad,
                "persistent": n not in transient,
            }
            for n, t in tensors.items()
        ],
        "ties": aliases,
        "masks": sorted(masks),
        "part": part_to_json(graph.part),
    }
    try:
        if compact:
            atomic_write(path, encode_compact(description, stored, graph.plan))
            return
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("graph.json", json.dumps(description), zipfile.ZIP_DEFLATED)
            archive.writestr("weights.safetensors", save_tensors(stored))
            archive.writestr("plan.json", json.dumps(graph.plan, indent=1))
    except OSError as error:
        raise PenjingError(f"{path} can't be written: {error.strerror or error}.") from error


def load(path: Path | str, *, largest: int | None = None) -> Graph:
    """Reads a `.penjing` file, plain or compact. Safe on files from strangers; needs no class and no pickle.

    Args:
        path: the file.
        largest: how many bytes of memory the tensors of a compact file may need; by default 256 MiB or 1,024 times the
            file, whichever is more. (A plain file is never larger in memory than on disk.)

    Raises:
        PenjingError: there is no such file, or it is not a whole and harmless `.penjing` file.
    """
    path = Path(path)
    if not path.is_file():
        raise PenjingError(f"There is no file {path}.")
    if path.suffix == ".pt2":
        raise PenjingError(
            f"{path} is a PyTorch file, not a .penjing file. Reading one is as trusting as running code; if it is your "
            "own, capture what penjing.graph.load_exported returns."
        )
    try:
        with path.open("rb") as stream:
            compact = is_compact(stream.read(16))
        description, tensors, plan = decode_compact(path.read_bytes(), largest) if compact else _read(path)
        _check_version(description, plan)
        graph = _rebuild(description, tensors)
        graph.plan = plan
        return graph.refresh()
    except PenjingError as error:
        raise PenjingError(f"{path} can't be loaded: {error}") from error
    except (
        zipfile.BadZipFile,
        safetensors.SafetensorError,
        ValueError,  # covers JSON and text encoding errors
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
        RecursionError,
        NotImplementedError,
        EOFError,
        OSError,
        OverflowError,
        AssertionError,
        SyntaxError,
        NameError,
        zipfile.LargeZipFile,
    ) as error:
        raise PenjingError(f"{path} is no valid .penjing file: {type(error).__name__}: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if sorted(members) != sorted(MEMBERS) or len(archive.infolist()) != len(MEMBERS):
            raise PenjingError(f"it must hold exactly {', '.join(MEMBERS)}")
        if members["weights.safetensors"].compress_type != zipfile.ZIP_STORED:
            raise PenjingError("weights.safetensors is compressed, which this format never does")
        if members["weights.safetensors"].file_size > path.stat().st_size:
            raise PenjingError("weights.safetensors claims to be larger than the file")
        for name in ("graph.json", "plan.json"):
            if members[name].file_size > LARGEST_JSON:
                raise PenjingError(f"{name} is larger than {LARGEST_JSON} bytes")
        description = json.loads(archive.read("graph.json"))
        plan = json.loads(archive.read("plan.json"))
        tensors = load_tensors(archive.read("weights.safetensors"))
    return description, tensors, plan


def _check_version(description: Any, plan: Any) -> None:
    if not isinstance(description, dict) or description.get("penjing") != VERSION:
        raise PenjingError(f"its format version is not {VERSION}; a newer Penjing may have written it")
    if not isinstance(plan, list) or not all(isinstance(step, dict) for step in plan):
        raise PenjingError("plan.json is not a list of records")


def _rebuild(description: dict[str, Any], stored: dict[str, Tensor]) -> Graph:
    ties = description["ties"]
    tensors: dict[str, Tensor] = {}
    transient = []
    for record in description["tensors"]:
        name, tensor = record["name"], stored.get(ties.get(record["name"], record["name"]))
        if not _names_tensor(name):
            raise PenjingError(f"{name!r} is no name of a tensor")
        if tensor is None:
            raise PenjingError(f"the tensor '{name}' is missing")
        first = ties.get(name, name)
        if first in tensors:
            tensors[name] = tensors[first]
            continue
        tensors[name] = nn.Parameter(tensor, record["trained"]) if record["parameter"] else tensor
        if not record["persistent"]:
            transient.append(name)
    graph = Graph(
        _nodes_from_json(description["nodes"], tensors),
        tensors,
        signature_from_json(description["signature"]),
        spec_from_json(description["out_spec"]),
        batch=description["batch"],
        transient=transient,
        lost_in_training=description["lost_in_training"],
        name=str(description["name"]),
    )
    _check_whole(graph)
    graph.part = part_from_json(description.get("part"))
    for name in description["masks"]:
        mask = stored[f"mask/{name}"]
        if mask.dtype != torch.bool or mask.shape != graph.tensor(name).shape:
            raise PenjingError(f"the mask of '{name}' doesn't fit it")
        graph.masks[name] = mask
    return graph


def _names_tensor(name: str) -> bool:
    """Tells whether a dotted name is safe in generated code, where it stands unescaped, and reaches no special method."""
    return all(_PART_OF_A_NAME.fullmatch(part) for part in name.split("."))


def _names_variable(name: str) -> bool:
    """Tells whether a name can be a variable of generated code that hides neither its `self` nor a special name."""
    return name.isidentifier() and not keyword.iskeyword(name) and name != "self" and not name.startswith("__")


def _check_whole(graph: Graph) -> None:
    """Raises unless the nodes take the inputs and give the outputs that the signature names."""
    nodes = list(graph.program.graph.nodes)
    outputs = [node for node in nodes if node.op == "output"]
    if len(outputs) != 1 or nodes[-1] is not outputs[0] or not isinstance(outputs[0].args[0], list | tuple):
        raise PenjingError("its nodes must end with one output")
    signature = graph.signature
    args, kwargs = pytree.tree_unflatten(list(signature.leaves), signature.spec)
    if not isinstance(kwargs, dict) or len(args) != len(signature.positional):
        raise PenjingError("its inputs are nested as those of no model")
    inputs = sum(node.op == "placeholder" for node in nodes)
    if inputs != len(graph.inputs):
        raise PenjingError("its inputs are not those that its signature names")
    if len(outputs[0].args[0]) != graph.out_spec.num_leaves:
        raise PenjingError("its outputs are not those that its signature names")
    if graph.batch is not None and (not isinstance(graph.batch, int) or graph.batch < 1):
        raise PenjingError(f"{graph.batch!r} is no batch size")


# Nodes


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    target = straight_through.swap(node.target, training=False)
    args, kwargs = list(node.args), dict(node.kwargs)
    if node.meta.get(modes.SWITCHES):
        args[modes.TRAINING_ARGUMENT[target]] = False  # a file holds the evaluation mode
    if modes.TRAINING_DROPOUT in node.meta:
        modes.set_attention_dropout(node, args, kwargs, 0.0)
    record = {
        "name": node.name,
        "op": node.op,
        "target": _target_to_json(node.op, target),
        "args": encode(args),
        "kwargs": {key: encode(value) for key, value in kwargs.items()},
        "module": node.meta.get("module", ""),
        "source": node.meta.get("source", ""),
    }
    if node.meta.get(modes.SWITCHES):
        record["switches"] = True
    if modes.TRAINING_DROPOUT in node.meta:
        record["dropout"] = node.meta[modes.TRAINING_DROPOUT]
    return record


def _nodes_from_json(records: list[dict[str, Any]], tensors: dict[str, Tensor]) -> fx.Graph:
    graph = fx.Graph()
    known: dict[str, fx.Node] = {}
    for record in records:
        op = record["op"]
        if op not in ("placeholder", "get_attr", "call_function", "output"):
            raise PenjingError(f"'{op}' is no kind of node")
        target = _target_from_json(op, record["target"])
        if op == "get_attr" and target not in tensors:
            raise PenjingError(f"a node reads the tensor '{target}', which is not in the file")
        if not _names_variable(record["name"]) or (op == "placeholder" and not _names_variable(target)):
            raise PenjingError(f"{record['name']!r} is no name of a node")
        if not all(key.isidentifier() and not keyword.iskeyword(key) for key in record["kwargs"]):
            raise PenjingError(f"the node '{record['name']}' has a keyword argument that is none")
        if op in ("placeholder", "get_attr") and (record["args"] or record["kwargs"]):
            raise PenjingError(f"the node '{record['name']}' takes arguments, and it is no call")
        args = tuple(decode(value, known) for value in record["args"])
        kwargs = {str(key): decode(value, known) for key, value in record["kwargs"].items()}
        made = (
            graph.output(args[0])
            if op == "output"
            else graph.create_node(op, target, args, kwargs, name=record["name"])
        )
        made.meta["module"], made.meta["source"] = str(record["module"]), str(record["source"])
        if record.get("switches"):
            made.meta[modes.SWITCHES] = bool(modes.TRAINING_ARGUMENT[target] < len(args))
        if "dropout" in record:
            if target not in modes.DROPOUT_PROBABILITY:
                raise PenjingError(f"the op '{record['target']}' has no dropout")
            made.meta[modes.TRAINING_DROPOUT] = float(record["dropout"])
        known[record["name"]] = made
    return graph


def _target_to_json(op: str, target: Any) -> str:
    if op != "call_function":
        return str(target)
    if target in _OPERATOR_NAMES:
        return _OPERATOR_NAMES[target]
    if isinstance(target, torch._ops.OpOverload):
        name = f"{target.namespace}.{target._schema.name.partition('::')[2]}.{target._overloadname}"
        if _is_allowed(target):
            return name
        raise PenjingError(
            f"The op {name} can't be stored in a .penjing file, which holds only PyTorch's own ops without side effects. "
            'Write the graph with lower(graph, target="torch"), or save its state_dict().'
        )
    raise PenjingError(f"The op {target} can't be stored in a .penjing file.")


def _target_from_json(op: str, target: str) -> Any:
    if op != "call_function":
        return target
    if target in _OPERATORS:
        return _OPERATORS[target]
    namespace, name, overload = target.split(".")
    if namespace not in _NAMESPACES or (name.startswith("__") and name not in _OPERATOR_OPS):
        raise PenjingError(f"the op '{target}' is not allowed")
    found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    if not isinstance(found, torch._ops.OpOverload) or not _is_allowed(found):
        raise PenjingError(f"the op '{target}' is not allowed")
    return found


def _is_allowed(op: torch._ops.OpOverload) -> bool:
    """Tells whether an op may stand in a file: PyTorch's own, without side effects."""
    name = op._schema.name.partition("::")[2]
    special = name.startswith("__") and name not in _OPERATOR_OPS
    return op.namespace in _NAMESPACES and not special and name not in _FORBIDDEN and not op._schema.is_mutable


def load_exported(path: Path | str) -> tuple[Any, Any]:
    """Loads a `.pt2` file. Reading one is as trusting as running code: only for files of your own.

    Returns:
        The module of the exported program, which `capture` takes, and the example inputs that it was exported with;
        None where the file holds none or the model takes keywords too.

    Raises:
        PenjingError: there is no such file, or it is no exported program.
    """
    if not Path(path).is_file():
        raise PenjingError(f"There is no file {path}.")
    try:
        program = torch.export.load(str(path))
        module = program.module(check_guards=False)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PenjingError(f"{path} can't be read as an exported program: {first}") from error
    # An exported module refuses to change its mode. Its mode is compiled in, so the flags mean nothing.
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)
    args, keywords = program.example_inputs or ((), {})
    return module, tuple(args) if args and not keywords else None
