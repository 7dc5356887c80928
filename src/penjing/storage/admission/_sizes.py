"""Symbolic sizes: as numbers at the example's sizes, and compared at all sizes that the free axes may have."""

from collections.abc import Mapping
from typing import Any

import torch

from penjing.errors import PenjingError
from penjing.storage.admission._limits import LARGEST_LONG


def number(size: Any) -> int:
    """Returns the largest number that a size can be at the example's sizes; adds no guard to a symbolic one.

    Raises:
        PenjingError: it depends on values, without a bound.
    """
    if not isinstance(size, torch.SymInt):
        return int(size)
    symbolic = size.node
    if symbolic.has_hint():
        return int(symbolic.hint)
    most = symbolic.shape_env.bound_sympy(symbolic.expr).upper
    if not most.is_finite or most > LARGEST_LONG:
        raise PenjingError("a size has no bound before the graph runs")
    return int(most)


def numbers(sizes: Any) -> tuple[int, ...]:
    """Returns the sizes of a shape as numbers."""
    return tuple(number(size) for size in sizes)


def equal(first: Any, second: Any, firsts: Mapping[Any, Any]) -> bool:
    """Tells whether two sizes are equal whatever the free axes' sizes are; adds no guard to symbolic ones.

    Args:
        first: an integer, or a symbolic one.
        second: another.
        firsts: for the symbol of a free axis, that of the first axis which must have an equal size.
    """
    expressions = [one.node.expr.xreplace(firsts) if isinstance(one, torch.SymInt) else one for one in (first, second)]
    return bool(expressions[0] == expressions[1])
