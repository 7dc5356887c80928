"""Feeds inner values to statistics in passes over calibration data, and keeps no activation longer than the graph does."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.evidence.memory import Found, fingerprint_of, memory_of
from penjing.evidence.pieces import can_cut, pieces, sample_count
from penjing.evidence.reader import flat_batches
from penjing.evidence.statistics import Accumulator, Memorable, NotFinite, can_be_remembered
from penjing.graph import Graph
from penjing.graph.taps import Execution, Step


def observe(
    graph: Graph,
    data: Any,
    watched: Mapping[fx.Node, Accumulator],
    *,
    keep: int = 0,
    compute: Step = Execution.usual,
) -> list[list[Tensor]]:
    """Runs `graph` on all calibration batches and feeds the values of the `watched` nodes to their statistics.

    Args:
        graph: a graph in evaluation mode.
        data: see `flat_batches`.
        watched: empty statistics by node of `graph.program.graph`. Where the data have a memory and all statistics can
            be remembered, only those that the memory doesn't hold are fed.
        keep: the number of samples to return.
        compute: computes each node.

    Returns:
        The flat inputs of the first `keep` samples, or of all if there are fewer, in pieces that run fast.

    Raises:
        PenjingError: there are no data, or a value isn't finite; the message names the layer.
    """
    whole = any(getattr(statistics, "whole_batches", False) for statistics in watched.values())
    memory = memory_of(data)
    if memory is None or not watched or not all(map(can_be_remembered, watched.values())):
        return _observed(graph, data, watched, keep, compute, whole)
    known: Any = watched  # all of them are `Memorable`
    parts: dict[str, tuple[fx.Node, Memorable]] = {
        f"{node.name}: {one.kind}": (node, one) for node, one in known.items()
    }
    ours = all(type(one).__module__.startswith("penjing.") for one in watched.values())
    kept: list[list[Tensor]] | None = None

    def find(missing: list[str]) -> dict[str, Found]:
        nonlocal kept
        kept = _observed(graph, data, dict(parts[name] for name in missing), keep, compute, whole)
        return {name: parts[name][1].state_dict() for name in missing}

    about = {"graph": fingerprint_of(graph), "whole batches": whole}
    for name, state in memory.gather("observed", about, parts, find, across_processes=ours).items():
        parts[name][1].load_state_dict(state)
    if kept is None:
        kept = first_samples(graph, data, keep, whole=whole) if keep else []
    return kept


def _observed(
    graph: Graph, data: Any, watched: Mapping[fx.Node, Accumulator], keep: int, compute: Step, whole: bool
) -> list[list[Tensor]]:
    """Makes the pass; arguments, result and errors are those of `observe`."""
    kept: list[list[Tensor]] = []
    execution = Execution(graph.program, _watching(watched, compute))
    batches = _Counted(flat_batches(graph, data))
    with torch.no_grad():
        for inputs in pieces(graph, batches, whole=whole):
            keep -= _keep(graph, inputs, keep, kept)
            try:
                execution.run(*inputs)
            except _NotFiniteAt as found:
                raise _not_finite_in_batch(graph, inputs, batches.count, found.place) from None
    return kept


def first_samples(graph: Graph, data: Any, count: int, *, whole: bool = False) -> list[list[Tensor]]:
    """Returns the flat inputs of the first samples, in pieces that run fast; errors are those of `observe`.

    Args:
        graph: see `observe`.
        data: see `observe`.
        count: the number of samples.
        whole: whether batches stay uncut.
    """
    kept: list[list[Tensor]] = []
    for inputs in pieces(graph, flat_batches(graph, data), whole=whole):
        count -= _keep(graph, inputs, count, kept)
        if count <= 0:
            break
    return kept


def _keep(graph: Graph, inputs: list[Tensor], most: int, kept: list[list[Tensor]]) -> int:
    """Copies samples, so that their whole batch isn't kept; copies the whole batch where it can't be cut.

    Returns the number of samples.
    """
    if most > 0:
        cut = can_cut(graph, inputs)
        kept.append([(tensor[:most] if cut else tensor).clone() for tensor in inputs])
    return sample_count(inputs)


def not_finite(place: str) -> PenjingError:
    """Returns the error for a layer whose output isn't finite."""
    return PenjingError(
        f"The output of '{place}' holds NaN or infinity on the calibration data; check the model's weights and the data."
    )


class _Counted:
    """An iterator that counts the items it has yielded."""

    def __init__(self, batches: Iterator[list[Tensor]]) -> None:
        self._batches, self.count = batches, 0

    def __iter__(self) -> Iterator[list[Tensor]]:
        return self

    def __next__(self) -> list[Tensor]:
        batch = next(self._batches)
        self.count += 1
        return batch


class _NotFiniteAt(Exception):
    """A watched value holds NaN or infinity; `place` tells the user which layer computes the value."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


def _not_finite_in_batch(graph: Graph, inputs: Sequence[Tensor], number: int, place: str) -> PenjingError:
    """Returns the error for a value that isn't finite; names the input if the input isn't finite, else the layer."""
    for given, tensor in zip(graph.inputs, inputs, strict=True):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return PenjingError(
                f"The calibration data holds NaN or infinity, in the input '{given.name}' of batch {number}."
            )
    return not_finite(place)


def _watching(watched: Mapping[fx.Node, Accumulator], compute: Step) -> Step:
    """Returns a step of execution that feeds each watched value to its statistics."""

    def step(execution: Execution, node: fx.Node) -> Any:
        value = compute(execution, node)
        if node in watched:
            try:
                watched[node].update(value)
            except NotFinite:
                raise _NotFiniteAt(str(node.meta.get("module") or node.name)) from None
        return value

    return step
