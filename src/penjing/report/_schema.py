"""The keys and types of report.json, schema 1, and the check that a dict has them.

The shape is data: a dict lists its keys (a trailing "?" marks one that may be missing), a one-element list holds the
shape of its items, `Null(shape)` also allows null, and a plain type stands for itself. Other keys are fine.
"""

import math
from dataclasses import dataclass
from typing import Any

from penjing.errors import PenjingError

SCHEMA = 1
MOST = 10**100  # no measurement has as many digits; sums and ratios of smaller numbers stay finite


@dataclass(frozen=True)
class Null:
    """The shape of a value that is null where it was not measured."""

    shape: Any


NUMBER = Null(float)

_SIDE = {
    "metric": NUMBER,
    "latency_ms": Null({"median": NUMBER, "p90": NUMBER, "runs": Null(int)}),
    "size_bytes": NUMBER,
    "params": NUMBER,
    "macs": NUMBER,
    "peak_memory_bytes": NUMBER,
    "energy_mj": Null({"value": NUMBER, "source": Null(str)}),
}

_LAYER_SIDE = {
    "latency_ms": NUMBER,
    "params": NUMBER,
    "macs": NUMBER,
    "counted?": bool,
    "shape?": Null(list),
    "integer?": Null(bool),
}

_ZEROS = {
    "zeros": int,
    "weights": int,
    "faster": int,
    "smaller": int,
    "why": str,
    "deflated_bytes": Null({"baseline": NUMBER, "compressed": NUMBER}),
    "places": [{"place": str, "granularity": Null(str), "weights": int, "zeros": int, "faster": bool, "smaller": bool}],
}

REPORT = {
    "schema": int,
    "model": str,
    "target": {
        "name": str,
        "version": Null(str),
        "device": Null(str),
        "threads": Null(int),
        "batch": Null(int),
    },
    "budget": dict,
    "met": bool,
    "seed": Null(int),
    "provenance": {"command?": Null(str), "inputs?": Null(dict), "versions?": Null(dict), "machine?": Null(dict)},
    "baseline": _SIDE,
    "compressed": _SIDE,
    "ratios": {"latency": NUMBER, "size": NUMBER, "params": NUMBER, "macs": NUMBER},
    "parity": {
        "max_abs_error": NUMBER,
        "top1_agreement": NUMBER,
        "agreement_with_original?": NUMBER,
        "agreement_measure?": Null(str),
    },
    "constant_metric?": NUMBER,
    "learned?": Null(bool),
    "integer_macs": NUMBER,
    "uncounted?": [{"op": str, "module": str}],
    "zeros?": _ZEROS,
    "plan": [
        {
            "place": str,
            "kind?": str,
            "technique": str,
            "setting": object,
            "before": object,
            "after": object,
            "found?": object,
        }
    ],
    "seconds": dict,
    "headline?": str,
    "metric_name?": Null(str),
    "notes?": [str],
    "exclude?": Null([str]),
    "layers?": [{"name": str, "op": str, "before": Null(_LAYER_SIDE), "after": Null(_LAYER_SIDE)}],
}

_SAID = {float: "a number", int: "a whole number", str: "a string", bool: "true or false", dict: "an object"}


def check(report: Any) -> None:
    """Makes sure that `report` is what JSON can hold and what schema 1 asks for.

    Raises:
        PenjingError: naming the first key that is missing or holds the wrong thing.
    """
    if not isinstance(report, dict):
        raise PenjingError(f"The report must be an object, and is {_say(report)}.")
    if "schema" in report and report["schema"] != SCHEMA:
        raise PenjingError(
            f"The report has schema {report['schema']!r}, and this version of Penjing reads schema {SCHEMA}. "
            "Use the version that wrote it, or run the compression again."
        )
    _json(report, "")
    _match(report, REPORT, "")
    for stage, seconds in report["seconds"].items():
        _match(seconds, NUMBER, f"seconds.{stage}")


def _json(value: Any, path: str) -> None:
    """Walks everything, listed or not: a stray tensor or NaN would otherwise fail later and without a name."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise PenjingError(f"The report's '{path or 'top level'}' has the key {key!r}; keys must be strings.")
            _json(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _json(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise PenjingError(f"The report's '{path}' is {value}; a number that was not measured must be null.")
    elif isinstance(value, int | float) and not -MOST < value < MOST:
        raise PenjingError(f"The report's '{path}' is a number of more than a hundred digits, which nothing measures.")
    elif value is not None and not isinstance(value, str | int | float):
        raise PenjingError(f"The report's '{path}' is a {type(value).__name__}, which JSON can't hold.")


def _match(value: Any, shape: Any, path: str) -> None:
    if isinstance(shape, Null):
        if value is not None:
            _match(value, shape.shape, path)
    elif isinstance(shape, dict):
        _is(value, dict, path)
        for name, inner in shape.items():
            key = name.removesuffix("?")
            here = f"{path}.{key}" if path else key
            if key in value:
                _match(value[key], inner, here)
            elif key == name:
                raise PenjingError(f"The report lacks '{here}'; if it was not measured, it must be null.")
    elif isinstance(shape, list) or shape is list:
        if not isinstance(value, list | tuple):
            raise PenjingError(f"The report's '{path}' must be a list, and is {_say(value)}.")
        for index, item in enumerate(value if isinstance(shape, list) else ()):
            _match(item, shape[0], f"{path}[{index}]")
    else:
        _is(value, shape, path)


def _is(value: Any, kind: type, path: str) -> None:
    wanted: tuple[type, ...] = (int, float) if kind is float else (kind,)
    # A bool is an int to Python, and never a count or a measurement.
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind in (int, float)):
        raise PenjingError(f"The report's '{path}' must be {_SAID[kind]}, and is {_say(value)}.")


def _say(value: Any) -> str:
    text = repr(value)
    return "null" if value is None else text if len(text) <= 60 else f"{text[:57]}..."
