"""The table from an ATen op to the rule that writes it."""

from collections.abc import Callable
from typing import Any

from penjing.targets.litert._lowering import Rule

_RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Registers the decorated function as the rule of these ops."""

    def add(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(targets, function))
        return function

    return add


def find(target: Any) -> Rule | None:
    """Returns the rule of an op; None where it has none."""
    return _RULES.get(target)
