"""Lays the chosen grids over the weights of layers; a weight that several layers share gets one grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.ops import LAYERS, node_arguments
from penjing.quantization.grids import Laid, Rows, Scaled, Shared
from penjing.quantization.rounding import Rounding
from penjing.quantization.weights.choices import Choice
from penjing.quantization.weights.places import place_of, weight_of

LARGEST_BIAS = (
    2.0**30
)  # in steps of the bias: half of int32's range, since the sum of the products needs the other half


@dataclass(frozen=True)
class LaidWeight:
    """A weight with the grid that was laid over it.

    Attributes:
        place: module path under which the user finds the weight.
        path: path of the parameter.
        layers: the nodes that read the weight, in order of execution.
        choice: the grid and grain that the user chose.
        laid: the scales, codes or tables that the grid gives, in rows of the choice's grain.
    """

    place: str
    path: str
    layers: tuple[fx.Node, ...]
    choice: Choice
    laid: Laid | Scaled | Shared


def lay_weights(
    graph: Graph,
    layers: Sequence[fx.Node],
    choice_of: Callable[[fx.Node], Choice | None],
    input_scales: Mapping[fx.Node, float | None],
) -> list[LaidWeight]:
    """Lays each layer's grid over its weight; the graph stays as it is.

    Args:
        graph: the graph that holds the float weights.
        layers: nodes that read a weight with its output channels on axis 0, or embeddings with their rows there, in order
            of execution.
        choice_of: gives the grid and grain of a layer.
        input_scales: scale of each layer's quantised input; None where that has no constant scale.

    Raises:
        PenjingError: layers that share a weight were given different grids, or a grid has no zero for pruned weights.
    """
    sharing: dict[int, list[fx.Node]] = {}
    for layer in layers:
        sharing.setdefault(id(graph.tensor(weight_of(layer))), []).append(layer)
    return [_lay(graph, group, choice_of, input_scales) for group in sharing.values()]


def _lay(
    graph: Graph,
    layers: list[fx.Node],
    choice_of: Callable[[fx.Node], Choice | None],
    input_scales: Mapping[fx.Node, float | None],
) -> LaidWeight:
    path = weight_of(layers[0])
    # An embedding follows the layer that multiplies by its table.
    choices = [choice_of(layer) for layer in [one for one in layers if one.target in LAYERS] or layers]
    choice = choices[0]
    if choice is None or any(other != choice for other in choices):
        names = ", ".join(f"'{layer.meta.get('module') or place_of(layer)}'" for layer in layers)
        raise PenjingError(f"The layers {names} share the weight '{path}' and can't have different grids for it.")
    weight = graph.tensor(path).detach().float()
    mask = graph.masks.get(path)
    if mask is not None and not bool(mask.all()) and not choice.grid.entry.zero:
        raise PenjingError(
            f"'{place_of(layers[0])}' was pruned, and '{choice.grid.name}' has no zero to keep its weights at; give it "
            "another grid in per_layer=…."
        )
    least = _least_scales(graph, layers, input_scales)
    if least is not None and choice.grain.kind != "channel":
        # A bias is rounded to multiples of one scale per channel; groups leave it in floating point.
        least = least.amax().reshape(1) if choice.grain.kind == "tensor" else None
    rows = Rows(choice.grain.rows(weight), least, bool((weight == 0).any()))
    return LaidWeight(place_of(layers[0]), path, tuple(layers), choice, choice.grid.lay(rows))


def _least_scales(
    graph: Graph, layers: Sequence[fx.Node], input_scales: Mapping[fx.Node, float | None]
) -> Tensor | None:
    """Returns the smallest scale of each channel with which the layers' biases fit into int32, `(channels,)`.

    Runtimes round a bias to int32 multiples of the weight's scale times the input's scale. The limit matters for channels
    whose weights are (almost) zero while the bias isn't. None where no bias sets a limit.
    """
    found = []
    for layer in layers:
        bias, scale = node_arguments(layer)[2], input_scales.get(layer)  # an embedding has neither
        if isinstance(bias, fx.Node) and bias.op == "get_attr" and scale is not None:
            found.append(graph.tensor(str(bias.target)).detach().float().abs() / (scale * LARGEST_BIAS))
    return torch.stack(found).amax(0) if found else None


def round_weights(graph: Graph, weights: Sequence[LaidWeight], rounding: Rounding, generator: torch.Generator) -> None:
    """Changes every weight on an integer grid to the value of the integer that the rounding chooses for it."""
    for weight in weights:
        if isinstance(weight.laid, Laid):
            laid, values = weight.laid, weight.choice.grain.rows(graph.tensor(weight.path).detach())
            real = values.double() / laid.scale.double()[:, None]
            set_integers(graph, weight, rounding(real, generator) + laid.zero_point[:, None])


def set_integers(graph: Graph, weight: LaidWeight, integers: Tensor) -> None:
    """Changes a weight so that rounding to nearest gives these integers.

    Args:
        graph: the graph whose parameter is changed.
        weight: a weight on an integer grid.
        integers: `(rows, weights)`; integers beyond the grid are clamped to its ends.
    """
    laid = weight.laid
    assert isinstance(laid, Laid)
    clipped = integers.clamp(laid.grid.low, laid.grid.high) - laid.zero_point[:, None]
    with torch.no_grad():
        parameter = graph.tensor(weight.path)
        parameter.copy_((clipped * laid.scale[:, None]).reshape(parameter.shape))
