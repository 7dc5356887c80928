"""One pass over calibration data that feeds all observers and keeps no activation longer than the graph does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.quantize._pieces import can_cut, pieces
from penjing.quantize._running import Running
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
    watcher = _Watcher(graph.program, watched)
    whole = any(getattr(statistics, "whole_batches", False) for statistics in watched.values())
    with torch.no_grad():
        for inputs in pieces(graph, flat_batches(graph, data), whole=whole):
            keep -= _keep(graph, inputs, keep, kept)
            watcher.run(*inputs)
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
    return len(inputs[0]) if inputs[0].dim() else 1


def flat_batches(graph: Graph, data: Any) -> Iterator[list[Tensor]]:
    """Yields the graph's flat inputs, on its device, for each calibration batch; `data` and errors as for `calibrate`."""
    device = next((tensor.device for tensor in graph.tensors().values()), torch.device("cpu"))
    empty = True
    for inputs in _calls(graph, data):
        yield [tensor.to(device) for tensor in graph.signature.flatten(inputs, {})]
        empty = False
    if empty:
        raise PenjingError("The calibration data holds no batches. " + NO_DATA)


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
        return (data.task.split(batch)[0] for batch in data.calibration)
    if data is None or isinstance(data, Tensor) or not hasattr(data, "__iter__"):
        raise PenjingError(f"{type(data).__name__} is no calibration data. " + NO_DATA)
    return (_inputs(graph, batch) for batch in data)


def _inputs(graph: Graph, batch: Any) -> Sequence[Any]:
    if isinstance(batch, Tensor):
        return (batch,)
    if isinstance(batch, list | tuple):
        return batch[: max(1, len(graph.signature.names()))]
    raise PenjingError(
        f"A calibration batch is a tensor or a sequence of the model's inputs, not {type(batch).__name__}; "
        "give a penjing.Data whose task splits such batches."
    )


class _Watcher(Running):
    """Feeds values to their statistics as they come."""

    def __init__(self, program: fx.GraphModule, watched: Mapping[fx.Node, Accumulator]) -> None:
        super().__init__(program)
        self._watched = watched

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._watched:
            try:
                self._watched[n].update(value)
            except NotFinite:
                if n.op == "placeholder":
                    raise PenjingError(
                        f"The calibration data holds NaN or infinity, in the input '{n.name}'."
                    ) from None
                raise not_finite(str(n.meta.get("module") or n.name)) from None
        return value
