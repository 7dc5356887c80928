"""Module paths from the names in an ONNX file: "/layer1/layer1.0/conv1/Conv" is layer1.0.conv1."""

import re

import onnx

from penjing.importing.network import clean_path

WEIGHT = ".weight"
SCOPES = "pkg.torch.onnx.name_scopes"


def scope_of(node: onnx.NodeProto) -> str:
    """Returns where torch's new exporter says that a node comes from, as it would be in a node's name; "" where it doesn't."""
    told = next((one.value for one in node.metadata_props if one.key == SCOPES), "")
    quoted = re.findall(r"'([^']*)'", told)
    return "/".join(quoted[-2:]) if len(quoted) > 1 else ""


def path_of(node: str, op: str, index: int, weight: str = "") -> str:
    """Returns the path for a node.

    Args:
        node: its name, or what `scope_of` gives; may be empty.
        op: its type.
        index: its place in the file.
        weight: the name of a layer's weight; "" for an op without one.
    """
    if weight.endswith(WEIGHT) and "/" not in weight and "::" not in weight:
        return clean_path(weight.removesuffix(WEIGHT).split("."))
    parts = [part for part in re.split("/", node) if part]
    scopes: list[str] = []
    for part in parts:
        if scopes and part.startswith(f"{scopes[-1]}."):  # torch's old exporter repeats the path of a container
            scopes.pop()
        scopes.append(part)
    if weight and len(scopes) > 1:  # the last part names the op, the one before it the layer
        scopes.pop()
    return clean_path(".".join(scopes).split(".")) or f"{op.rpartition('.')[2].lower()}_{index}"
