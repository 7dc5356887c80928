"""One pass over calibration data that feeds all observers and keeps no activation longer than the graph does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.quantize.observers import Statistics

NO_DATA = (
    "Quantising activations, and corrections, need calibration data, some hundred samples: give data.calibration, or any "
    "iterable of batches (activations=None without corrections quantises the weights alone and needs none)."
)


def calibrate(graph: Graph, data: Any, watched: Mapping[fx.Node, Statistics]) -> None:
    """Runs `graph` on all calibration batches and feeds the values of the `watched` nodes to their statistics.

    Args:
        graph: in evaluation mode.
        data: a `Data`, whose calibration batches are taken, or an iterable of batches. Such a batch is a tensor, or a
            sequence that begins with the model's inputs in order (what comes behind them, labels, is left out).
        watched: statistics by node of `graph.program.graph`.

    Raises:
        PenjingError: there is no data, or a value that isn't finite; the message names the layer.
    """
    watcher = _Watcher(graph.program, watched)
    with torch.no_grad():
        for inputs in flat_batches(graph, data):
            watcher.run(*inputs)


def flat_batches(graph: Graph, data: Any) -> Iterator[list[Tensor]]:
    """Yields the graph's flat inputs, on its device, for each calibration batch; `data` and errors as for `calibrate`."""
    device = next((tensor.device for tensor in graph.tensors().values()), torch.device("cpu"))
    empty = True
    for inputs in _calls(graph, data):
        yield [tensor.to(device) for tensor in graph.signature.flatten(inputs, {})]
        empty = False
    if empty:
        raise PenjingError("The calibration data holds no batches. " + NO_DATA)


def check_repeatable(data: Any) -> None:
    """Makes sure that the calibration data can be read more than once.

    Raises:
        PenjingError: it is an iterator, which is used up after one pass.
    """
    if hasattr(data, "__next__"):
        raise PenjingError(
            "Corrections read the calibration data again, and an iterator is used up after one pass; give a list of "
            "batches, a data loader or a penjing.Data."
        )


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


class _Watcher(fx.Interpreter):
    """Frees every value after its last reader, as `fx.Interpreter` does."""

    def __init__(self, program: fx.GraphModule, watched: Mapping[fx.Node, Statistics]) -> None:
        super().__init__(program)
        self._watched = watched

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._watched:
            if value.numel() and not bool(torch.stack(value.aminmax()).isfinite().all()):
                where = n.meta.get("module") or n.name
                raise PenjingError(
                    f"The output of '{where}' holds NaN or infinity on the calibration data; "
                    "check the model's weights and the data."
                )
            self._watched[n].update(value)
        return value
