"""Writes `.penjing` files by hand, as a stranger would who doesn't use Penjing."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

X = {"node": "x"}


def call(target: str, *args: Any, name: str = "y", **kwargs: Any) -> dict[str, Any]:
    """The record of a node that calls an op; nodes among its arguments are `{"node": NAME}`."""
    return _node(name, "call_function", target, list(args), kwargs)


def write(
    path: Path,
    *calls: dict[str, Any],
    shape: Sequence[int] = (2, 3),
    dtype: str = "float32",
    free: Sequence[int] = (),
    tensors: Mapping[str, Tensor] | None = None,
    output: str | None = None,
) -> Path:
    """Writes a file with one input `x`, tensors that are nodes of their own name, these calls, and one output.

    Args:
        path: the file.
        calls: records of nodes.
        shape: of the input.
        dtype: of the input.
        free: its free axes.
        tensors: by name.
        output: the name of the node that is given out; the last by default.
    """
    tensors = dict(tensors or {})
    nodes = [_node("x", "placeholder", "x", [], {})]
    nodes += [_node(name, "get_attr", name, [], {}) for name in tensors]
    nodes += list(calls)
    nodes.append(_node("output", "output", "output", [[{"node": output or nodes[-1]["name"]}]], {}))
    leaf = {"name": "x", "shape": list(shape), "dtype": dtype, "dynamic": list(free), "range": [0, 3]}
    leaf["sizes"] = ["batch" if axis in free else "" for axis in range(len(shape))]
    description = {
        "penjing": 1, "name": "stranger", "batch": None, "lost_in_training": [],
        "signature": {
            "spec": {"tuple": [{"tuple": ["leaf"]}, {"dict": []}]}, "leaves": [leaf], "positional": ["x"], "order": ["x"],
        },
        "out_spec": {"tuple": ["leaf"]}, "nodes": nodes, "ties": {}, "masks": [], "part": None,
        "tensors": [{"name": name, "parameter": False, "trained": False, "persistent": True} for name in tensors],
    }  # fmt: skip
    return pack(path, json.dumps(description).encode(), save(tensors or {"unused": torch.zeros(1)}))


def pack(path: Path, description: bytes, weights: bytes) -> Path:
    """Writes the zip."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("graph.json", description, zipfile.ZIP_DEFLATED)
        archive.writestr("weights.safetensors", weights)
        archive.writestr("plan.json", b"[]")
    return path


def _node(name: str, op: str, target: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "op": op, "target": target, "args": args, "kwargs": kwargs, "module": "", "source": ""}
