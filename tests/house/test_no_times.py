"""No test measures how long something took: it would fail on a busy machine. Tests of time make it up: see `made_time`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns"}


def durations(source: str) -> Iterator[int]:
    """Yields the lines in which something is subtracted from a clock's reading, other than a number to lie in the past."""
    if not any(clock in source for clock in CLOCKS):  # which spares parsing most files
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Call):
            function = node.left.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
            if name in CLOCKS and not isinstance(node.right, ast.Constant):
                yield node.lineno


def test_no_test_measures_a_duration():
    found = {path.relative_to(TESTS): list(durations(path.read_text("utf-8"))) for path in TESTS.rglob("*.py")}
    assert len(found) > 100 and not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("assert time.monotonic() - start < 3", True),
        ("taken = perf_counter() - begun", True),
        ("recover(deadline=time.monotonic() - 1)", False),
        ("until = time.monotonic() + 60", False),
        ("share = whole() - part", False),
    ],
)
def test_a_duration_is_told_from_other_uses_of_a_clock(line, told):
    assert bool(list(durations(line))) == told
