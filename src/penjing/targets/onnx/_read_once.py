"""Keeps what each export of PyTorch's would find anew, though it is the same in all of a process's exports.

These are the exporter's translations, whose source it parses; the table of decompositions; and the list of composite ops.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._ops import OperatorBase
from torch.export import exported_program
from torch.onnx._internal.exporter import _decomp
from torch.onnx._internal.exporter._registration import ONNXRegistry

_READ = "from_torchlib"  # the class method that makes a registry of all translations
_COMPOSITE = "_collect_all_valid_cia_ops"  # finds the ops that are made of others, wherever they were registered
_TABLE = "create_onnx_friendly_decomposition_table"
_IMPLEMENT = "py_impl"  # the method by which an op gets an implementation for a dispatch key
_reading = vars(ONNXRegistry)[_READ]
_collecting, _tabulating = getattr(exported_program, _COMPOSITE, None), getattr(_decomp, _TABLE)
_implementing = vars(OperatorBase)[_IMPLEMENT]
_KEY = "CompositeImplicitAutograd"


@cache
def _read(**options: Any) -> ONNXRegistry:
    registry: ONNXRegistry = _reading.__get__(None, ONNXRegistry)(**options)
    return registry


def _copied(**options: Any) -> ONNXRegistry:
    """Returns a registry of its own, since each export adds to it."""
    registry = copy.copy(_read(**options))
    registry.functions = {op: [*translations] for op, translations in registry.functions.items()}
    return registry


@cache
def _composite_of(registered: tuple[int, int]) -> Any:
    assert _collecting is not None
    return _collecting()


def _composite() -> Any:
    """Returns the composite ops; they are looked for anew once another op or namespace is registered."""
    return _composite_of((len(torch._C._dispatch_get_registrations_for_dispatch_key(_KEY)), len(torch.ops._dir)))


@cache
def _table_of(implemented: frozenset[Any]) -> dict[Any, Any]:
    found: dict[Any, Any] = _tabulating(implemented)
    return found


def _table(implemented: Any) -> dict[Any, Any]:
    """Returns a table of its own, since PyTorch takes entries out of it."""
    return dict(_table_of(frozenset(implemented)))


def _implement(self: Any, key: Any) -> Callable[[Any], Any]:
    """Does what PyTorch's method does, without making the types of its annotations at each of some 6,000 calls of an export."""
    if not isinstance(key, torch._C.DispatchKey) or key in self.py_kernels or key == torch._C.DispatchKey.Python:
        found: Callable[[Any], Any] = _implementing(self, key)
        return found

    def add(function: Any) -> Any:
        self.py_kernels[key] = function
        self._dispatch_cache.clear()
        return function

    return add


@contextmanager
def read_once() -> Iterator[None]:
    """Keeps all this in a `with` block: to find it anew takes as long as the rest of a small network's export, twice."""
    changes = [
        (ONNXRegistry, _READ, _reading, staticmethod(_copied)),
        (_decomp, _TABLE, _tabulating, _table),
        (OperatorBase, _IMPLEMENT, _implementing, _implement),
        *([] if _collecting is None else [(exported_program, _COMPOSITE, _collecting, _composite)]),
    ]
    for owner, name, _, kept in changes:
        setattr(owner, name, kept)
    try:
        yield
    finally:
        for owner, name, usual, _ in changes:
            setattr(owner, name, usual)
