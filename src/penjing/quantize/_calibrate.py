"""One pass over calibration data that feeds all observers and keeps no activation longer than the graph does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.taps import Execution, Step
from penjing.loaders import read
from penjing.quantize._pieces import can_cut, pieces, sample_count
from penjing.quantize._running import in_floats
from penjing.quantize.observers import Accumulator, NotFinite

NO_DATA = (
    "Quantising activations, and corrections, need calibration data, some hundred samples: give data.calibration, or any "
    "iterable of batches (activations=None without corrections quantises the weights alone and needs none)."
)


def calibrate(graph: Graph, data: Any, watched: Mapping[fx.Node, Accumulator], keep: int = 0) -> list[list[Tensor]]:
    """Runs `graph` on all calibration batches and feeds the values of the `watched` nodes to their statistics.

    Args:
        graph: in evaluation mode.
        data: a `Data`, whose calibration batches are taken, or an iterable of batches. Such a batch is a tensor, or a
            sequence that begins with the model's inputs in order (what comes behind them, labels, is left out).
        watched: statistics by node of `graph.program.graph`.
        keep: how many samples to return.

    Returns:
        The flat inputs of the first samples, as many as asked for and there are, in pieces that run fast.

    Raises:
        PenjingError: there is no data, or a value that isn't finite; the message names the layer.
    """
    kept: list[list[Tensor]] = []
    watcher = Execution(graph.program, _watching(watched))
    whole = any(getattr(statistics, "whole_batches", False) for statistics in watched.values())
    batches = _Counted(flat_batches(graph, data))
    with torch.no_grad():
        for inputs in pieces(graph, batches, whole=whole):
            keep -= _keep(graph, inputs, keep, kept)
            try:
                watcher.run(*inputs)
            except _NotFiniteAt as found:
                raise _not_finite_in_batch(graph, inputs, batches.count, found.place) from None
    return kept


def first_samples(graph: Graph, data: Any, count: int) -> list[list[Tensor]]:
    """Returns the flat inputs of the first samples, in pieces that run fast; arguments and errors as for `calibrate`."""
    kept: list[list[Tensor]] = []
    for inputs in pieces(graph, flat_batches(graph, data)):
        count -= _keep(graph, inputs, count, kept)
        if count <= 0:
            break
    return kept


def _keep(graph: Graph, inputs: list[Tensor], most: int, kept: list[list[Tensor]]) -> int:
    """Copies samples, so that the batch that they are part of isn't kept too; all where it can't be cut.

    Returns how many there were.
    """
    if most > 0:
        cut = can_cut(graph, inputs)
        kept.append([(tensor[:most] if cut else tensor).clone() for tensor in inputs])
    return sample_count(inputs)


def flat_batches(graph: Graph, data: Any) -> Iterator[list[Tensor]]:
    """Yields the graph's flat inputs, on its device, for each calibration batch; `data` and errors as for `calibrate`.

    A batch that doesn't fit, that holds no sample, or that the user's loader fails to make, is named by its number.
    """
    device = next((tensor.device for tensor in graph.tensors().values()), torch.device("cpu"))
    number = 0
    for number, inputs in enumerate(_calls(graph, data), 1):
        try:
            flat = graph.signature.flatten(inputs, {})
        except PenjingError as error:
            raise PenjingError(f"Calibration batch {number} doesn't fit. {error}{_fixed(graph, inputs)}") from error
        _check_batch(graph, flat, number)
        yield [tensor.to(device) for tensor in flat]
    if not number:
        raise PenjingError("The calibration data holds no batches. " + NO_DATA)


def _fixed(graph: Graph, inputs: Sequence[Any]) -> str:
    """Returns what to do about a batch of another size, as a loader's last one, where the model has a fixed one."""
    shapes = [
        (tuple(tensor.shape), given.shape)
        for given, tensor in zip(graph.inputs, pytree.tree_leaves(inputs), strict=False)
        if isinstance(tensor, Tensor)
    ]
    odd = any(found[1:] == tuple(wanted[1:]) and found[:1] != tuple(wanted[:1]) for found, wanted in shapes)
    if graph.batch is None or not odd:
        return ""
    return (
        f" The model takes batches of {graph.batch} alone: leave others out, as a DataLoader with drop_last=True does with "
        "a smaller last one."
    )


def _check_batch(graph: Graph, flat: Sequence[Tensor], number: int) -> None:
    """Refuses a batch without samples, of which there is nothing to observe, and one of another type than the model's."""
    for given, tensor in zip(graph.inputs, flat, strict=True):
        if not tensor.numel():
            raise PenjingError(
                f"Calibration batch {number} holds no sample: its input '{given.name}' has shape {tuple(tensor.shape)}."
            )
        if tensor.dtype != given.dtype:
            found, wanted = (str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, given.dtype))
            raise PenjingError(
                f"Calibration batch {number} doesn't fit. Input '{given.name}' has dtype {found}; the model was captured for "
                f"{wanted}: give x.to(torch.{wanted})."
            )


def not_finite(place: str) -> PenjingError:
    """Returns the error for a layer whose output isn't finite."""
    return PenjingError(
        f"The output of '{place}' holds NaN or infinity on the calibration data; check the model's weights and the data."
    )


def check_repeatable(data: Any) -> None:
    """Makes sure that the calibration data can be read more than once.

    Raises:
        PenjingError: it is an iterator, which is used up after one pass.
    """
    if hasattr(data, "__next__"):
        raise PenjingError(
            "Corrections, learned roundings and measured sensitivities read the calibration data again, and an iterator is "
            "used up after one pass; give a list of batches, a data loader or a penjing.Data."
        )


def has_none(data: Any) -> bool:
    """Tells whether there is no calibration data."""
    return data is None or (isinstance(data, Data) and data.calibration is None)


def _calls(graph: Graph, data: Any) -> Iterable[Sequence[Any]]:
    if isinstance(data, Data):
        if data.calibration is None:
            raise PenjingError("The data has no calibration part. " + NO_DATA)
        name, split = "data.calibration", data.task.split
        return read((split(batch)[0] for batch in read(data.calibration, name)), name)
    if data is None or isinstance(data, Tensor) or not hasattr(data, "__iter__"):
        raise PenjingError(f"{type(data).__name__} is no calibration data. " + NO_DATA)
    return (_inputs(graph, batch, number) for number, batch in enumerate(read(data, "The calibration data"), 1))


def _inputs(graph: Graph, batch: Any, number: int) -> Sequence[Any]:
    if isinstance(batch, Tensor):
        return (batch,)
    if isinstance(batch, list | tuple):
        return batch[: max(1, len(graph.signature.names()))]
    raise PenjingError(
        f"Calibration batch {number}: a batch is a tensor or a sequence of the model's inputs, not {type(batch).__name__}; "
        "give a penjing.Data whose task splits such batches."
    )


class _Counted:
    """Iterates and counts what it has yielded so far."""

    def __init__(self, batches: Iterator[list[Tensor]]) -> None:
        self._batches, self.count = batches, 0

    def __iter__(self) -> Iterator[list[Tensor]]:
        return self

    def __next__(self) -> list[Tensor]:
        batch = next(self._batches)
        self.count += 1
        return batch


class _NotFiniteAt(Exception):
    """A watched value holds NaN or infinity; `place` is where the user finds what computes it."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


def _not_finite_in_batch(graph: Graph, inputs: Sequence[Tensor], number: int, place: str) -> PenjingError:
    """Returns the error for a value that isn't finite: it names the input where that is the cause, else the layer."""
    for given, tensor in zip(graph.inputs, inputs, strict=True):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return PenjingError(
                f"The calibration data holds NaN or infinity, in the input '{given.name}' of batch {number}."
            )
    return not_finite(place)


def _watching(watched: Mapping[fx.Node, Accumulator]) -> Step:
    """Returns a step that feeds values to their statistics as they come."""

    def step(execution: Execution, node: fx.Node) -> Any:
        value = in_floats(execution, node)
        if node in watched:
            try:
                watched[node].update(value)
            except NotFinite:
                raise _NotFiniteAt(str(node.meta.get("module") or node.name)) from None
        return value

    return step
