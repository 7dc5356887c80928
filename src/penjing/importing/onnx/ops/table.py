"""The table from an ONNX op to its form in PyTorch."""

from collections.abc import Callable
from typing import Any

from penjing.importing.onnx.node import Form, Node

Maker = Callable[[Node], Form]

FORMS: dict[str, Maker] = {}
"""The form of each op, by its type; of other domains than ONNX's own by "domain.type"."""

SIZES: dict[str, Callable[..., Any]] = {}
"""How each op computes with constants and sizes alone, from the node and NumPy arrays."""


def form(*ops: str) -> Callable[[Maker], Maker]:
    """Returns a decorator that registers a function as the form of these ops."""

    def add(maker: Maker) -> Maker:
        for op in ops:
            FORMS[op] = maker
        return maker

    return add


def functions(**calls: Callable[..., Any]) -> None:
    """Registers functions without attributes, which work entry by entry on all inputs."""
    for op, call in calls.items():
        FORMS[op] = lambda node, call=call: node.function(call, *node.operands())  # type: ignore[misc]


def on_sizes(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that registers how these ops compute with sizes."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for op in ops:
            SIZES[op] = function
        return function

    return add
