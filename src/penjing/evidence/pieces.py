"""Cuts calibration batches into pieces whose values fit in the processor's caches and in memory that is allocated already.

A large batch is slow, because the system allocates, zeroes and frees memory for each of its values, and it causes the
peak of memory. In pieces of a few samples, channels last, a mobile network takes half the time.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph
from penjing.graph.propagation import at_batch_one, sizes

MOST_BYTES = 2**23  # bytes of the largest value in a graph: 8 MiB
ALIKE = 1e-3  # share of the largest output by which kernels for different batch sizes may differ


def pieces(graph: Graph, batches: Iterable[list[Tensor]], *, whole: bool = False) -> Iterator[list[Tensor]]:
    """Yields batches of the graph's flat inputs, cut and laid out to run fastest.

    Batches stay whole where cutting isn't possible or not useful: where the graph's batch size is fixed, on a device
    other than the processor, and where a trial shows that outputs for a sample depend on the other samples in its
    batch.

    Args:
        graph: a graph in evaluation mode.
        batches: batches of flat inputs.
        whole: whether no batch is cut.
    """
    count = None if whole else _samples(graph)
    checked = False
    for given in batches:
        batch = [_channels_last(tensor) for tensor in given]
        if count is not None and not checked and _is_longer(batch, count):
            checked, count = True, count if _independent(graph, batch) else None
        if count is None or not _is_longer(batch, count):
            yield batch
            continue
        parts = -(-len(batch[0]) // count)  # no piece of one sample: some networks fail on that
        yield from map(list, zip(*(tensor.tensor_split(parts) for tensor in batch), strict=True))


def _samples(graph: Graph) -> int | None:
    """Returns the number of samples for a piece; None where batches can't be cut."""
    devices = {tensor.device.type for tensor in graph.tensors().values()}
    if devices - {"cpu"} or not all(0 in given.dynamic for given in graph.inputs):
        return None
    size = at_batch_one(graph)
    largest = max((_bytes(node, size) for node in graph.program.graph.nodes if node.op != "get_attr"), default=1)
    return max(2, MOST_BYTES // max(largest, 1))


def _bytes(node: fx.Node, size: Any) -> int:
    value = node.meta.get("val")
    return value.element_size() * torch.Size(sizes(node, size)).numel() if isinstance(value, Tensor) else 0


def sample_count(inputs: Sequence[Tensor]) -> int:
    """Returns the number of samples in a batch of flat inputs: the length of the first input that has axes."""
    return next((len(tensor) for tensor in inputs if tensor.dim()), 1)


def can_cut(graph: Graph, batch: list[Tensor]) -> bool:
    """Tells whether a batch can be cut: the graph takes any number of samples, and all inputs have the same number."""
    free = all(0 in given.dynamic for given in graph.inputs)
    return free and all(tensor.dim() and len(tensor) == len(batch[0]) for tensor in batch)


def _is_longer(batch: list[Tensor], count: int) -> bool:
    return len(batch[0]) > count and all(len(tensor) == len(batch[0]) for tensor in batch)


def _independent(graph: Graph, batch: list[Tensor]) -> bool:
    """Tells whether two samples get the same outputs alone as together with one or two more."""
    with torch.no_grad():
        many, few = (graph.program(*(tensor[:count] for tensor in batch)) for count in (4, 2))
    return all(
        a.dim()
        and len(a) == min(4, len(batch[0]))
        and len(b) == 2
        and float((a[:2] - b).norm()) <= ALIKE * float(b.norm())
        for a, b in ((a.double(), b.double()) for a, b in zip(many, few, strict=True))
    )


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
