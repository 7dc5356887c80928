"""Whether two programs agree: the proof that a graph gives what its model gives, at several sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.graph.capture.dynamic_axes import resized
from penjing.graph.capture.user_code import at_user_line, first_line
from penjing.graph.graph import Graph

TOLERANCE = 1e-3  # relative to the largest output; export reorders no arithmetic, so real differences are far larger


def verify(model: nn.Module, graph: Graph, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Raises if the graph gives something else than the model on these inputs."""
    expected, spec = pytree.tree_flatten(call_copied(model, args, keywords))
    try:
        with torch.no_grad():
            actual, other = pytree.tree_flatten(graph(*args, **keywords))
    except RuntimeError as error:
        raise PenjingError(
            f"The captured graph fails where the model works; a size in the model's code was taken as fixed: {error}"
        ) from error
    if spec != other:
        raise PenjingError("The captured graph returns other outputs than the model.")
    for want, have in zip(expected, actual, strict=True):
        if isinstance(want, Tensor) and not close(have, want, TOLERANCE):
            raise PenjingError(
                "The captured graph gives other values than the model; does the model draw random numbers or keep state "
                "between calls?"
            )


def verify_other_sizes(
    model: nn.Module,
    graph: Graph,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
) -> None:
    """Compares at half and at twice the size of the axes that were asked to be free; the model must work at one."""
    trials = [resized(graph, (args, keywords), dynamic, double) for double in (False, True)]
    failures: list[Exception] = []
    for trial in trials if any(axis > 0 for axes in dynamic.values() for axis in axes) else []:
        try:
            call_copied(model, *trial)
        except Exception as error:  # whatever it is: the model doesn't work at that size
            failures.append(error)
        else:
            verify(model, graph, *trial)
    if len(failures) == len(trials):
        raise PenjingError(
            f"The model fails at half and at twice the size of the axes that dynamic={dict(dynamic)!r} asks to be free: "
            f"{first_line(failures[1])}{at_user_line(failures[1])}"
        )


def close(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Tells whether two tensors agree to `tolerance` relative to the largest expected magnitude."""
    if actual.shape != expected.shape:
        return False
    if not (expected.dtype.is_floating_point or expected.dtype.is_complex):
        return bool(torch.equal(actual, expected))
    finite = expected.isfinite()
    if not torch.equal(finite, actual.isfinite()) or not torch.allclose(
        actual[~finite].to(expected.dtype), expected[~finite], equal_nan=True
    ):
        return False
    error = (actual - expected)[finite].abs()
    return error.numel() == 0 or float(error.max()) <= tolerance * max(float(expected[finite].abs().max()), 1e-6)


def call_copied(model: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Calls the model on copies of its inputs: some models write into them."""
    args, keywords = copied(args, keywords)
    with torch.no_grad():
        return model(*args, **keywords)


def copied(args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copies the tensors of a call."""
    copied: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(Tensor, torch.clone, (args, keywords))
    return copied
