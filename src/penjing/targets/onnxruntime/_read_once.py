"""Reads the source of ONNX Script's translations once in a process, where each export would read all of it anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from onnxscript import TracedOnnxFunction

_SIGNATURE = "function_ir"  # the property that parses a translation's source for its signature
_parsed = vars(TracedOnnxFunction).get(_SIGNATURE)


@cache
def _signature(translation: Any) -> Any:
    assert isinstance(_parsed, property)
    return _parsed.__get__(translation)


@contextmanager
def translations_read_once() -> Iterator[None]:
    """Keeps the signatures of translations in a `with` block: to parse all 400 takes half a second, a third of the time in
    which a small network is exported. A version of ONNX Script that doesn't parse them has nothing to keep.
    """
    if not isinstance(_parsed, property):
        yield
        return
    setattr(TracedOnnxFunction, _SIGNATURE, property(_signature))
    try:
        yield
    finally:
        setattr(TracedOnnxFunction, _SIGNATURE, _parsed)
