"""Carries out options: decomposes weights, and writes chains of layers in the place of the layers that read them."""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.factorization.decompositions import Decomposition, FactorLayer, composed
from penjing.factorization.decompositions import find as find_decomposition
from penjing.factorization.decompositions._registry import decompose
from penjing.factorization.forms import forms
from penjing.factorization.layers import Layer, layers
from penjing.factorization.metrics import ErrorMetric, begin, goal, metrics
from penjing.graph import Graph, Option, Place
from penjing.graph.edit.chain import Link, replace_by_chain, replace_table
from penjing.graph.ops import node_arguments
from penjing.graph.places import unknown_place
from penjing.report import LEFT_ALONE

log = logging.getLogger("penjing.factorize")


@dataclass(frozen=True)
class _Setting:
    """The setting of an option that factorises a layer."""

    method: str
    metric: str
    form: str
    batches: int
    seed: int
    ranks: tuple[int, ...]
    speedup: float = 0.0  # of a level, all of whose layers have about this many times fewer multiplications


def carry_out(graph: Graph, options: Sequence[Option], data: Data | None, *, lenient: bool = False) -> Graph:
    """Returns a graph in which layers are factorised; `graph` stays as it was.

    Args:
        graph: the original.
        options: those with a reason leave their layer alone.
        data: the data that metrics look at.
        lenient: whether a layer whose decomposition doesn't converge is left alone, which the plan then says.

    Raises:
        PenjingError: a layer isn't there, or can't be factorised so; a setting makes no sense; data are missing.
    """
    there = layers(graph)
    wanted = []
    for option in options:
        if option.place.path not in there or option.place.kind != "weight":
            raise unknown_place(option.place, [Place("weight", path) for path in there], graph.name)
        if "reason" not in option.found:
            wanted.append((option, *_checked(option, there[option.place.path])))
    order = {path: place for place, path in enumerate(there)}
    wanted.sort(key=lambda one: order[one[0].place.path])
    replaced = [graph.tensor(there[option.place.path].weight.name) for option, _, _ in wanted]
    small, done = copy.deepcopy(graph, {id(one): one for one in replaced}), dict[Place, Option]()  # copies what stays
    for _, some in groupby(wanted, key=lambda one: (one[1].metric, one[1].batches, one[1].seed)):
        part = list(some)
        metric = _metric(graph, data, part[0][1], [there[option.place.path] for option, _, _ in part])
        for option, setting, decomposition in part:
            layer = there[option.place.path]
            aim = goal(metric, layer, graph, small)
            try:
                factors = decompose(decomposition, aim.weighting, setting.ranks)
            except PenjingError as error:
                if not lenient:
                    raise PenjingError(f"{layer.path}: {error}") from error
                log.warning("%s is left as it was. %s", layer.path, error)
                _own(small, graph.tensor(layer.weight.name))
                left = {name: value for name, value in option.setting.items() if name != "ranks"}
                done[option.place] = Option(option.place, "factorize", left, None, None, {"reason": str(error)})
                continue
            whole = composed(factors)
            _write(graph, small, layer, factors, aim.moved(whole), setting.form)
            told = {**option.found, "error": round(aim.weighting.error(whole), 6)}
            done[option.place] = replace(option, found=told)
    small.plan = graph.plan + [done.get(option.place, option) for option in options]
    return small.refresh()


def _own(small: Graph, shared: Tensor) -> None:
    """Gives a graph a copy of a tensor that it shares with the original."""
    own = copy.deepcopy(shared)
    for path in [path for path, tensor in small.tensors().items() if tensor is shared]:
        small.set_tensor(path, own)


def _checked(option: Option, layer: Layer) -> tuple[_Setting, Decomposition]:
    """Returns an option's setting and its decomposition.

    Raises:
        PenjingError: the setting makes no sense for this layer.
    """
    setting = option.setting_as(_Setting)
    option.check_after("ranks", list(setting.ranks))
    forms[setting.form]
    decomposition = find_decomposition(setting.method)
    if reason := layer.reason or decomposition.unfit(layer.shape):
        raise PenjingError(f"{layer.path} can't be factorised by {setting.method}. It is {LEFT_ALONE[reason]}.")
    decomposition.check(layer.shape, setting.ranks, layer.path)
    return setting, decomposition


def _metric(graph: Graph, data: Data | None, setting: _Setting, found: Sequence[Layer]) -> ErrorMetric:
    entry = metrics[setting.metric]
    if entry.needs and data is None:
        raise PenjingError(
            f"metric='{setting.metric}' looks at data: pass the data with which the plan was made, or use metric='weights'."
        )
    metric = entry.function()
    begin(metric, Evidence(graph, (), data, setting.batches, setting.seed), found)
    return metric


def _write(
    graph: Graph, small: Graph, layer: Layer, factors: Sequence[FactorLayer], moved: Tensor | None, form: str
) -> None:
    """Puts a chain of layers, or the form's ops, in the place of a layer."""
    names = {node.name: node for node in small.program.graph.nodes}
    nodes = [names[node.name] for node in layer.nodes]
    weight = graph.tensor(layer.weight.name)
    if layer.is_table:
        first, last = (factor.weight.to(weight) for factor in factors)
        replace_table(small, nodes, first.T, last)
        return
    links = list(_links(nodes[0], factors, weight, _bias(small, nodes[0], moved)))
    with torch.no_grad():
        paths = replace_by_chain(small, nodes, links)
    forms[form].function(small, paths, factors)


def _bias(small: Graph, layer: fx.Node, moved: Tensor | None) -> Tensor | None:
    """Returns the bias of the last link: the layer's own, moved so that the mean of the outputs stays where that is known."""
    _, weight, given = node_arguments(layer)[:3]
    own = small.tensor(str(given.target)) if isinstance(given, fx.Node) else None
    if moved is None:
        return own
    like = small.tensor(str(weight.target))
    before = torch.zeros(len(moved), dtype=moved.dtype) if own is None else own.detach().double().cpu()
    return nn.Parameter((before + moved).to(like), like.requires_grad)


def _links(layer: fx.Node, factors: Sequence[FactorLayer], weight: Tensor, bias: Tensor | None) -> Iterator[Link]:
    for place, factor in enumerate(factors):
        own = bias if place == len(factors) - 1 else None
        values = factor.weight.to(weight)
        axes = values.dim() - 2
        if not axes:
            yield Link(layer.target, values, own)
        else:
            yield Link(layer.target, values, own, _arguments(layer, factor, axes))


def _arguments(layer: fx.Node, factor: FactorLayer, axes: int) -> tuple[Any, ...]:
    """Returns stride, padding, dilation and groups of a factor: the layer's along the axes that it covers."""
    _, _, _, stride, padding, dilation, _ = node_arguments(layer)

    def along(values: Any, otherwise: int) -> list[int]:
        each = list(values) * axes if len(values) == 1 else list(values)
        return [each[axis] if axis in factor.axes else otherwise for axis in range(axes)]

    # "same" and "valid" mean no padding along an axis of size 1
    given = padding if isinstance(padding, str) else along(padding, 0)
    return along(stride, 1), given, along(dilation, 1), factor.groups
