"""Reads calibration and training data: the one place that turns batches into a graph's inputs and reports what is wrong."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.loaders import read
from penjing.tasks import moved

Inputs = tuple[Any, ...]

NO_DATA = (
    "Quantising activations, and corrections, need calibration data, some hundred samples: give data.calibration, or any "
    "iterable of batches (activations=None without corrections quantises the weights alone and needs none)."
)


def part_batches(data: Data, part: str) -> Iterator[tuple[Inputs, Any]]:
    """Yields the inputs and the targets of each batch of a part of the data; targets are None without labels.

    Args:
        data: the data; their task splits batches into inputs and targets.
        part: "train", "calibration" or "validation"; the part's loader isn't None.

    Raises:
        PenjingError: the loader or the task's `split` fails; the message names the batch and the line.
    """
    name, split = f"data.{part}", data.task.split
    return read((split(batch) for batch in read(getattr(data, part), name)), name)


def seeded_batches(
    data: Data, part: str, count: int, seed: int, device: torch.device, epoch: int = 0
) -> Iterator[tuple[Inputs, Any]]:
    """Yields the first batches of a part of the data; the same seed and epoch give the same batches.

    Args:
        data: see `part_batches`.
        part: see `part_batches`.
        count: the most batches.
        seed: seeds PyTorch's global generator, from which the loader draws order and augmentation; the generator's
            state is restored afterwards.
        device: the device to which the batches are moved.
        epoch: the epoch whose order and augmentation are read; a loader with `set_epoch` is set to it.

    Raises:
        PenjingError: the errors of `part_batches`, or there is no batch.
    """
    loader: Any = getattr(data, part)
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    found = False
    with torch.random.fork_rng():
        torch.manual_seed(seed + epoch)
        for inputs, targets in islice(part_batches(data, part), count):
            found = True
            yield moved(inputs, device), moved(targets, device)
    if not found:
        raise PenjingError("The data has no batches for the criterion to look at.")


def flat_batches(graph: Graph, data: Any) -> Iterator[list[Tensor]]:
    """Yields the graph's flat inputs, on its device, for each calibration batch.

    Args:
        graph: the graph that takes the inputs.
        data: a `Data`, whose calibration batches are read, or an iterable of batches. A batch is a tensor, or a
            sequence that begins with the model's inputs in order; items behind the inputs, such as labels, are ignored.

    Raises:
        PenjingError: there are no data; or a batch doesn't fit the graph or holds no sample, or the user's loader
            fails: the message names the batch.
    """
    device = device_of(graph)
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
    """Returns the advice for a batch of another size, such as a loader's last one, where the model's batch size is fixed."""
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
    """Raises an error for a batch without samples, or with another dtype than the model's inputs."""
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


def check_repeatable(data: Any) -> None:
    """Makes sure that the calibration data can be read more than once.

    Raises:
        PenjingError: the data are an iterator, which is used up after one pass.
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
        return (inputs for inputs, _ in part_batches(data, "calibration"))
    if data is None or isinstance(data, Tensor) or not hasattr(data, "__iter__"):
        raise PenjingError(f"{type(data).__name__} is no calibration data. " + NO_DATA)
    return (_inputs(graph, batch, number) for number, batch in enumerate(read(data, "The calibration data"), 1))


def _inputs(graph: Graph, batch: Any, number: int) -> Sequence[Any]:
    if isinstance(batch, Tensor):
        return (batch,)
    if isinstance(batch, list | tuple):
        return batch[: max(1, len(graph.signature.names()))]
    if isinstance(batch, Mapping):
        return (batch,)
    raise PenjingError(
        f"Calibration batch {number}: a batch is a tensor, a sequence of the model's inputs or a mapping of them by name, "
        f"not {type(batch).__name__}; give a penjing.Data whose task splits such batches."
    )


def device_of(graph: Graph) -> torch.device:
    """Returns the device of a graph's tensors; the processor where it has none."""
    return next((tensor.device for tensor in graph.tensors().values()), torch.device("cpu"))
