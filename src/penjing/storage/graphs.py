"""The `.penjing` file: what a graph is, as data alone.

Nothing in it is code: ops are looked up in a positive list and their arguments are checked (`admission`), everything else is
JSON or raw tensors, and every size is checked before anything is allocated. So a file from a stranger can be opened.

`plain` and `compact` are its two forms, with the same content.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.checks import FLAG, PATH, checked
from penjing.damage import DAMAGE, described
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.graph.graph import Graph
from penjing.graph.places import Plan
from penjing.storage import plain
from penjing.storage.admission import DTYPES, Calls, Values, largest_for, nodes_for
from penjing.storage.as_json import (
    folded_from_json,
    folded_to_json,
    part_from_json,
    part_to_json,
    signature_from_json,
    signature_to_json,
    spec_from_json,
    spec_to_json,
)
from penjing.storage.compact import decode as decode_compact
from penjing.storage.compact import encode as encode_compact
from penjing.storage.compact import is_compact
from penjing.storage.node_records import node_to_json, nodes_from_json

VERSION = 1

_PART_OF_A_NAME = re.compile(r"(?!__)[A-Za-z0-9_-]+")  # what is no identifier stands in double quotes


@checked(path=PATH, compact=FLAG)
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
    transient, calls = graph.transient(), Calls()
    description = {
        "penjing": VERSION,
        "name": graph.name,
        "batch": graph.batch,
        "lost_in_training": list(graph.lost_in_training),
        "signature": signature_to_json(graph.signature),
        "out_spec": spec_to_json(graph.out_spec),
        "nodes": [node_to_json(node, calls) for node in graph.program.graph.nodes],
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
        **({"folded": folded_to_json(graph.folded)} if graph.folded else {}),
    }
    try:
        if compact:
            atomic_write(path, encode_compact(description, stored, graph.plan.to_json()))
            return
        plain.write(path, description, stored, graph.plan.to_json())
    except OSError as error:
        raise PenjingError(f"{path} can't be written: {error.strerror or error}.") from error


@checked(path=PATH)
def load(path: Path | str, *, largest: int | None = None) -> Graph:
    """Reads a `.penjing` file, plain or compact. Safe on files from strangers; needs no class and no pickle.

    Args:
        path: the file.
        largest: how many bytes of memory it may need: the tensors of a compact file (a plain file is never larger in memory
            than on disk), and what the graph holds at once when it runs on its example's sizes. By default 256 MiB for
            the one and 1 GiB for the other, or 1,024 times the file, whichever is more. A file may have 4,096 nodes, or
            one for each 4 KiB of it, or one for each 128 KiB that are given here.

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
        description, tensors, plan = decode_compact(path.read_bytes(), largest) if compact else plain.read(path)
        _check_version(description)
        size = path.stat().st_size
        allowed = largest_for(size) if largest is None else largest
        graph = _rebuild(description, tensors, allowed, nodes_for(size, largest))
        if (read := Plan.from_json(plan)) or read.architecture is not None:  # an empty list tells nothing of the graph
            graph.plan = read
        return graph.refresh(watch=Values(allowed, graph.inputs))
    except PenjingError as error:
        raise PenjingError(f"{path} can't be loaded: {error}") from error
    except DAMAGE as error:
        raise PenjingError(f"{path} is no valid .penjing file: {described(error)}") from error


def _check_version(description: Any) -> None:
    if not isinstance(description, dict) or description.get("penjing") != VERSION:
        raise PenjingError(f"its format version is not {VERSION}; a newer Penjing may have written it")


def _rebuild(description: dict[str, Any], stored: dict[str, Tensor], largest: int, most_nodes: int) -> Graph:
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
        nodes_from_json(description["nodes"], tensors, most_nodes),
        tensors,
        signature_from_json(description["signature"]),
        spec_from_json(description["out_spec"]),
        batch=description["batch"],
        transient=transient,
        lost_in_training=description["lost_in_training"],
        name=str(description["name"]),
        folded=folded_from_json(description.get("folded", {}), tensors),
    )
    _check_whole(graph)
    _check_inputs(graph, largest)
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


def _check_whole(graph: Graph) -> None:
    """Raises unless the nodes take the inputs and give the outputs that the signature names."""
    nodes = list(graph.program.graph.nodes)
    outputs = [node for node in nodes if node.op == "output"]
    if len(outputs) != 1 or nodes[-1] is not outputs[0] or not isinstance(outputs[0].args[0], list | tuple):
        raise PenjingError("its nodes must end with one output")
    signature = graph.signature
    args, kwargs = pytree.tree_unflatten(list(signature.leaves), signature.spec)
    named = isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)
    if not named or not isinstance(args, tuple) or len(args) != len(signature.positional):
        raise PenjingError("its inputs are nested as those of no model")
    inputs = sum(node.op == "placeholder" for node in nodes)
    if inputs != len(graph.inputs):
        raise PenjingError("its inputs are not those that its signature names")
    if len(outputs[0].args[0]) != graph.out_spec.num_leaves:
        raise PenjingError("its outputs are not those that its signature names")
    if graph.batch is not None and (not isinstance(graph.batch, int) or graph.batch < 1):
        raise PenjingError(f"{graph.batch!r} is no batch size")


def _check_inputs(graph: Graph, largest: int) -> None:
    """Raises where the example's inputs alone take too much memory, or have a dtype of which none can be made."""
    for given in graph.inputs:
        if given.dtype not in DTYPES:
            raise PenjingError(f"the input '{given.name}' has the dtype {given.dtype}, which no model takes")
    needed = sum(math.prod(given.shape) * given.dtype.itemsize for given in graph.inputs)
    if needed > largest:
        raise PenjingError(f"its inputs take {needed:,} bytes, and {largest:,} are allowed; see load(path, largest=…)")


@checked(path=PATH)
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
