"""Reads the exporter's translations once in a process, where each export would parse the source of all of them anew."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch.onnx._internal.exporter._registration import ONNXRegistry

_READ = "from_torchlib"  # the class method that makes a registry of all translations
_reading = vars(ONNXRegistry)[_READ]


@cache
def _read(**options: Any) -> ONNXRegistry:
    registry: ONNXRegistry = _reading.__get__(None, ONNXRegistry)(**options)
    return registry


def _copied(**options: Any) -> ONNXRegistry:
    """Returns a registry of its own, since each export adds to it."""
    registry = copy.copy(_read(**options))
    registry.functions = {op: [*translations] for op, translations in registry.functions.items()}
    return registry


@contextmanager
def translations_read_once() -> Iterator[None]:
    """Keeps the exporter's translations in a `with` block: to read all 400 takes two thirds of a second, as long as the rest of
    a small network's export.
    """
    setattr(ONNXRegistry, _READ, staticmethod(_copied))
    try:
        yield
    finally:
        setattr(ONNXRegistry, _READ, _reading)
