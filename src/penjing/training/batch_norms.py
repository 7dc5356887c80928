"""The running statistics of a network's batch norms, computed anew with the weights as they are."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.graph import Graph
from penjing.graph.modes import SWITCHES, TRAINING_ARGUMENT
from penjing.graph.ops import aten, node_arguments
from penjing.tasks import run_on, sample_count

SAMPLES = 10_000  # samples: a mean over so many differs from the true one by 1 % of a sample's deviation
MOMENTUM_ARGUMENT = 6  # position in `aten.batch_norm`
VARIABLE = 2  # samples: a single one has no variance


@dataclass(frozen=True)
class _Norm:
    """A batch norm's running statistics.

    Attributes:
        mean: (channels,).
        variance: (channels,).
        calls: of a module, how often the norm was called, which the module counts; None in a graph.
    """

    mean: Tensor
    variance: Tensor
    calls: Tensor | None


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Returns the running means and variances of all batch norms, in graphs and in plain modules."""
    return [tensor for norm in _norms(network) for tensor in (norm.mean, norm.variance)]


def reestimate(network: nn.Module, inputs: Iterable[Sequence[Tensor]], stop: Callable[[], bool] = lambda: False) -> int:
    """Replaces the running statistics of all batch norms by their means over some batches; leaves the network in eval mode.

    Norms normalise by the batch meanwhile, and dropout is off, as it is where the statistics will be used. Each batch counts by
    its number of samples; those of a single sample are left out.

    Args:
        network: a graph or a plain module; its weights stay.
        inputs: of one batch each.
        stop: asked before each batch whether this was enough.

    Returns:
        The number of samples that were seen. At 0 the statistics are as they were.

    References:
        Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3, arXiv:2105.07576 (precise statistics);
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima, section 3.2, arXiv:1803.05407 (of averaged weights).
    """
    norms = _norms(network)
    before = [(norm.mean.clone(), norm.variance.clone()) for norm in norms]
    found = [(torch.zeros_like(norm.mean), torch.zeros_like(norm.variance)) for norm in norms]
    counts, samples = [0] * len(norms), 0
    with torch.no_grad(), normalising_by_batch(network):
        for given in inputs if norms else ():
            if stop():
                break
            size = sample_count(given)
            if size < VARIABLE:
                continue
            for norm in norms:
                if norm.calls is not None:
                    norm.calls.zero_()
            run_on(network, given)
            samples += size
            for place, norm in enumerate(norms):
                if norm.calls is None or norm.calls > 0:  # a module may leave a norm out
                    counts[place] += size
                    for mean, value in zip(found[place], (norm.mean, norm.variance), strict=True):
                        mean += (value - mean) * (size / counts[place])
    for norm, count, old, new in zip(norms, counts, before, found, strict=True):
        norm.mean.copy_(new[0] if count else old[0])
        norm.variance.copy_(new[1] if count else old[1])
    return samples


def _norms(network: nn.Module) -> list[_Norm]:
    """Returns all batch norms with running statistics; those that share statistics, once."""
    found: dict[int, _Norm] = {}
    for module in network.modules():
        if isinstance(module, Graph):
            for node in _nodes(module):
                mean, variance = (module.tensor(str(argument.target)) for argument in node_arguments(node)[3:5])
                found.setdefault(id(mean), _Norm(mean, variance, None))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            found.setdefault(
                id(module.running_mean), _Norm(module.running_mean, module.running_var, module.num_batches_tracked)
            )
    return list(found.values())


def _nodes(graph: Graph) -> list[fx.Node]:
    """Returns a graph's batch norms that follow its mode and keep running statistics, in order of execution."""
    nodes = [n for n in graph.program.graph.nodes if n.target is aten.batch_norm.default and n.meta.get(SWITCHES)]
    return [node for node in nodes if all(_is_fetched(one) for one in node_arguments(node)[3:5])]


def _is_fetched(value: object) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


@contextmanager
def normalising_by_batch(network: nn.Module) -> Iterator[None]:
    """While the block runs, running statistics are the last batch's: their mean where a norm is called several times."""
    network.eval()
    modules = [one for one in network.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]
    momenta = [module.momentum for module in modules]
    calls = [None if one.num_batches_tracked is None else one.num_batches_tracked.clone() for one in modules]
    graphs = [module for module in network.modules() if isinstance(module, Graph)]
    nodes = {node: (node.args, node.kwargs) for graph in graphs for node in _nodes(graph)}
    for module in modules:
        module.train()
        module.momentum = None  # the mean over calls, which the module counts
    for graph in graphs:
        times: dict[int, int] = {}  # calls so far of the norms that share a mean
        for node in _nodes(graph):
            arguments = node_arguments(node)
            shared = id(graph.tensor(str(arguments[3].target)))
            times[shared] = times.get(shared, 0) + 1
            arguments[TRAINING_ARGUMENT[node.target]] = True
            arguments[MOMENTUM_ARGUMENT] = 1 / times[shared]
            node.args, node.kwargs = tuple(arguments), {}
        graph.program.recompile()
    try:
        yield
    finally:
        for module, momentum, called in zip(modules, momenta, calls, strict=True):
            module.eval()
            module.momentum = momentum
            if module.num_batches_tracked is not None and called is not None:
                module.num_batches_tracked.copy_(called)
        for node, (args, kwargs) in nodes.items():
            node.args, node.kwargs = args, kwargs
        for graph in graphs:
            graph.program.recompile()
