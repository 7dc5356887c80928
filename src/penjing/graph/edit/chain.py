"""A chain of layers in the place of one, as factorising its weight gives."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.errors import PenjingError
from penjing.graph.edit.rewriter import Writer
from penjing.graph.graph import Graph
from penjing.graph.ops import LAYERS, TRANSPOSED_CONVOLUTIONS, node_arguments
from penjing.graph.propagation import resized

aten = torch.ops.aten


@dataclass(frozen=True)
class Link:
    """One layer of a chain that stands for a single layer.

    Attributes:
        target: the ATen op; it takes an input, a weight, a bias and the rest of its arguments in this order.
        weight: shaped as the op wants it.
        bias: `(out_channels,)`, or None.
        arguments: those behind the bias: stride, padding, dilation, groups.
    """

    target: Any
    weight: Tensor
    bias: Tensor | None = None
    arguments: tuple[Any, ...] = ()


def replace_by_chain(graph: Graph, layers: Sequence[fx.Node], chain: Sequence[Link]) -> tuple[str, ...]:
    """Puts a chain of layers in the place of one layer, or of several layers that share one weight.

    The last link keeps the name of the node that it replaces, since it gives the same value; those before it are named
    after that node: `conv2d_3_link`, `conv2d_3_link_1`, …. All of them keep the module path and line of code of the layer.
    The chain's tensors are named after the weight: `features.0.weight` becomes `features.0.0.weight`, `features.0.1.weight`,
    …. They are trained if the weight is. A tensor of a link that is a parameter already, such as the layer's own bias,
    stays the same object. What only the replaced layers read is forgotten, under all of its names, with its mask.

    Args:
        graph: is changed; call `refresh()` on it afterwards.
        layers: convolutions or linear layers of `graph` that read the same weight.
        chain: the links, first to last. Layers that share a weight share the chain's tensors, too.

    Returns:
        The names of the chain's weights, first to last.

    Raises:
        PenjingError: a layer computes its weight, the layers read several weights, or the chain doesn't fit in the place of
            a layer. The graph is then as it was.
    """
    read = [_parameters(graph, layer) for layer in layers]
    path = read[0][0]
    weight = graph.tensor(path)
    if any(graph.tensor(own[0]) is not weight for own in read):
        names = ", ".join(sorted({own[0] for own in read}))
        raise PenjingError(f"One chain can't stand for layers of several weights: {names}. Replace them one by one.")
    for layer in layers:
        _check_fits(layer, chain)
    given = node_arguments(layers[0])[1].meta["val"]
    paths = [
        _register(graph, stem, link, weight) for stem, link in zip(_stems(graph, path, len(chain)), chain, strict=True)
    ]
    fetches = dict.fromkeys(one for layer in layers for one in node_arguments(layer)[1:3] if one is not None)
    for layer in layers:
        _write_chain(graph, layer, chain, paths, given)
    _forget(graph, fetches, {name for own in paths for name in own.values()})
    return tuple(own["weight"] for own in paths)


def replace_table(graph: Graph, lookups: Sequence[fx.Node], table: Tensor, matrix: Tensor) -> tuple[str, ...]:
    """Puts a narrower table and a linear layer in the place of a table that embeddings look up in.

    Names are those that `replace_by_chain` gives.

    Args:
        graph: is changed; call `refresh()` on it afterwards.
        lookups: all nodes that read the table; each looks up in it.
        table: (rows, rank).
        matrix: (width, rank), the weight of the linear layer.

    Returns:
        The names of the new table and of the matrix.
    """
    path = str(node_arguments(lookups[0])[0].target)
    weight = graph.tensor(path)
    links = [Link(aten.embedding.default, table), Link(aten.linear.default, matrix)]
    names = [
        _register(graph, stem, link, weight)["weight"] for stem, link in zip(_stems(graph, path, 2), links, strict=True)
    ]
    fetches = dict.fromkeys(node_arguments(lookup)[0] for lookup in lookups)
    for lookup in lookups:
        write = Writer.before(lookup, values=True)
        given = lookup.meta["val"]
        fetched = [write.fetch(name, resized(given, list(graph.tensor(name).shape))) for name in names]
        narrow = write.named(f"{lookup.name}_link", aten.embedding.default, fetched[0], *node_arguments(lookup)[1:])
        lookup.target, lookup.args, lookup.kwargs = aten.linear.default, (narrow, fetched[1]), {}
    _forget(graph, fetches, set(names))
    return tuple(names)


def _parameters(graph: Graph, layer: fx.Node) -> list[str]:
    """Returns the names of a layer's weight and, where it has one, bias."""
    if layer.target not in (*LAYERS, *TRANSPOSED_CONVOLUTIONS):
        raise PenjingError(f"{layer.name} is neither a convolution nor a linear layer: a chain can't stand for it.")
    nodes = [one for one in node_arguments(layer)[1:3] if one is not None]
    if any(one.op != "get_attr" for one in nodes):
        raise PenjingError(
            f"The layer {layer.meta.get('module') or layer.name} computes its weight or bias from other tensors, so a chain "
            "can't stand for it. Replace it before it is quantised, or leave it out."
        )
    return [str(one.target) for one in nodes]


def _check_fits(layer: fx.Node, chain: Sequence[Link]) -> None:
    """Makes sure that a chain gives a tensor of the layer's shape."""
    where = f"The chain for {layer.meta.get('module') or layer.name}"
    given, wanted = node_arguments(layer)[0].meta["val"], layer.meta["val"]
    value = given
    with torch.no_grad():
        for number, link in enumerate(chain):
            own = [None if t is None else resized(given, list(t.shape)) for t in (link.weight, link.bias)]
            try:
                value = link.target(value, *own, *link.arguments)
            except RuntimeError as error:
                raise PenjingError(f"{where} doesn't fit together at its layer {number}: {error}") from error
    pairs = list(zip(value.shape, wanted.shape, strict=False))
    if value.dim() != wanted.dim() or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        raise PenjingError(f"{where} gives {list(value.shape)}, where the layer gives {list(wanted.shape)}.")


def _stems(graph: Graph, path: str, count: int) -> list[str]:
    """Returns what the names of each link's tensors begin with, from the name of the weight that they stand for."""
    owner, _, leaf = path.rpartition(".")
    own = leaf.removesuffix("weight").removesuffix("_")
    base = f"{owner}.{own}".strip(".")
    taken = graph.tensors()

    def is_free(stem: str) -> bool:
        links = tuple(f"{stem}.{number}".lstrip(".") for number in range(count))
        return stem not in taken and not any(
            name == link or name.startswith(f"{link}.") for link in links for name in taken
        )

    candidates = itertools.chain([base], (f"{base}.links{number or ''}".lstrip(".") for number in itertools.count()))
    stem = next(filter(is_free, candidates))
    return [f"{stem}.{number}".lstrip(".") for number in range(count)]


def _register(graph: Graph, stem: str, link: Link, weight: Tensor) -> dict[str, str]:
    """Gives the graph a link's tensors; returns their names."""
    names = {}
    for name, tensor in (("weight", link.weight), ("bias", link.bias)):
        if tensor is not None:
            own = tensor
            if not isinstance(
                tensor, nn.Parameter
            ):  # in order, as a file holds it: kernels for other orders round differently
                plain = tensor.detach().clone(memory_format=torch.contiguous_format)
                own = nn.Parameter(plain, weight.requires_grad)
            names[name] = f"{stem}.{name}"
            graph.set_tensor(names[name], own)
    return names


def _write_chain(
    graph: Graph, layer: fx.Node, chain: Sequence[Link], paths: Sequence[Mapping[str, str]], given: Tensor
) -> None:
    write = Writer.before(layer, values=True)
    value = node_arguments(layer)[0]
    for position, (link, own) in enumerate(zip(chain, paths, strict=True)):
        fetched = [
            write.fetch(own[name], resized(given, list(graph.tensor(own[name]).shape))) if name in own else None
            for name in ("weight", "bias")
        ]
        arguments = (value, *fetched, *link.arguments)
        if position < len(chain) - 1:
            value = write.named(f"{layer.name}_link", link.target, *arguments)
        else:
            layer.target, layer.args, layer.kwargs = link.target, arguments, {}


def _forget(graph: Graph, fetches: Collection[fx.Node], kept: Collection[str]) -> None:
    """Takes out nodes that fetch tensors for nobody any more, and the tensors that are then read nowhere."""
    tensors = {id(tensor): tensor for tensor in (graph.tensor(str(fetch.target)) for fetch in fetches)}
    for fetch in fetches:
        if not fetch.users:
            graph.program.graph.erase_node(fetch)
    read = {str(node.target) for node in graph.program.graph.nodes if node.op == "get_attr" and node.users}
    for tensor in tensors.values():
        names = [name for name, one in graph.tensors().items() if one is tensor and name not in kept]
        if read.isdisjoint(names):
            for name in names:
                graph.drop_tensor(name)
                graph.masks.pop(name, None)
                graph.folded.pop(name, None)
