"""Measures how much rounding one layer alone changes the outputs, for each layer and several grids."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.capabilities import DEFAULT, Capabilities, Placement
from penjing.checks import COUNT, TEXT, checked, several
from penjing.errors import PenjingError
from penjing.evidence.memory import remembering
from penjing.evidence.pieces import sample_count
from penjing.evidence.reader import check_repeatable, flat_batches
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.ops import LAYERS, LOOKUPS, RECURRENT
from penjing.graph.taps import Execution, all_values, constant_values
from penjing.quantization.doors import RULES
from penjing.quantization.placement.of_target import checked_target, used_of
from penjing.quantization.placement.rewritten import place_rewritten
from penjing.quantization.placement.sample_axis import add_sample_axes
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.verb import quantize_plainly
from penjing.quantization.weights.choices import read_choices
from penjing.quantization.weights.dtype import check_float32
from penjing.quantization.weights.places import place_of

SAMPLES = 64  # calibration samples on which noise is measured by default
ops = torch.ops.quantized_decomposed


@checked(
    **{name: RULES[name] for name in ("graph", "activations", "observer", "grain", "per_layer")},
    **{name: RULES[name] for name in ("exclude", "target", "placement", "in_float")},
    weights=several(TEXT, "names of grids"),
    samples=COUNT,
)
def sensitivity(
    graph: Graph,
    data: Any,
    weights: Sequence[str],
    *,
    samples: int = SAMPLES,
    activations: str | None = "auto",
    observer: str = "minmax",
    grain: str = "auto",
    per_layer: Mapping[str, str] | None = None,
    exclude: Sequence[str] = (),
    target: Capabilities | str = DEFAULT,
    placement: str = "fastest",
    in_float: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Measures how much noise each layer adds to the outputs when it alone is rounded.

    A layer is rounded together with its input: the weights to the grid, and the input, where it is quantised, to the
    activations' grid. The noise is the power of the outputs' error over the power of the outputs, summed over all
    outputs: 0.01 is 20 dB. Errors of different layers are nearly uncorrelated, so the noises of several layers add up (Lin
    et al. 2016, Fixed Point Quantization of Deep Convolutional Networks, section 3, arXiv:1511.06393).

    Args:
        graph: a float graph; it stays as it was.
        data: calibration data that can be read several times; see `quantize`.
        weights: grids to compare, as for `quantize`.
        samples: how many calibration samples the noise is measured on, rounded up to whole batches.
        activations: see `quantize`.
        observer: see `quantize`.
        grain: see `quantize`.
        per_layer: see `quantize`; a layer that it names has its own grid in every comparison.
        exclude: see `quantize`.
        target: see `quantize`; ops that the target can't run are simulated.
        placement: see `quantize`.
        in_float: see `quantize`.

    Returns:
        The noise by the layer's module path, then by the grid's name.

    Raises:
        PenjingError: the errors of `quantize`; or the data can be read only once; or all outputs are zero.

    Example:
        >>> noise = sensitivity(graph, data, ["int4", "int8"])  # doctest: +SKIP
        >>> max(noise, key=lambda place: noise[place]["int4"])  # doctest: +SKIP
        'features.0.0'
    """
    settings = QuantizationSettings(
        activations=activations, observer=observer, grain=grain, per_layer=per_layer or {}, exclude=exclude, target=target,
        placement=placement, in_float=in_float, simulate=True,
    )  # fmt: skip
    return noise_of(graph, data, weights, settings, samples)


def noise_of(
    graph: Graph, data: Any, weights: Sequence[str], settings: QuantizationSettings, samples: int = SAMPLES
) -> dict[str, dict[str, float]]:
    """Does what `sensitivity` does for quantisations with these settings, whose weights' grid `weights` replaces in turn."""
    check_repeatable(data)
    data = remembering(data)
    check_float32(graph)
    settings = replace(settings, weights=weights[0], simulate=True)
    reference = add_sample_axes(fold_batch_norms(graph))
    choices = read_choices(graph, settings)
    used = used_of(checked_target(settings), settings.activations, simulate=True).placement
    place_rewritten(reference, used, lambda node: choices.of(node) is None)
    variants = {
        name: _roundings(quantize_plainly(graph, data, replace(settings, weights=name)), reference, used)
        for name in weights
    }
    power, noise = 0.0, {name: dict.fromkeys(rounded, 0.0) for name, rounded in variants.items()}
    with torch.no_grad():
        for inputs in _first(flat_batches(reference, data), samples):
            values = all_values(reference.program, inputs)
            wanted = _outputs(values[reference.program.graph.output_node()])
            power += sum(float(output.double().square().sum()) for output in wanted)
            for layer in reference.program.graph.nodes:
                for name, rounded in variants.items():
                    if layer in rounded:
                        made = _outputs(_with_one_rounded(reference, values, layer, rounded[layer], inputs))
                        noise[name][layer] += sum(
                            float((a.double() - b.double()).square().sum()) for a, b in zip(made, wanted, strict=True)
                        )
    if not power:
        raise PenjingError(f"All outputs of {graph.name} are zero on the calibration data: no noise can be compared.")
    result: dict[str, dict[str, float]] = {}
    for name, layers in noise.items():
        for layer, found in layers.items():
            at = result.setdefault(place_of(layer), {})
            at[name] = at.get(name, 0.0) + found / power
    return result


@dataclass(frozen=True)
class _Rounding:
    """The rounded weights and input of one layer.

    Attributes:
        weights: the rounded weights, by the node of the float graph that fetches the float ones.
        source: the layer's input as a node of the quantised graph; of the float graph where the input isn't rounded.
        grid: the arguments of `quantize_per_tensor` behind the tensor, for an input that is rounded in front of ops
            that pass integers on; else None.
    """

    weights: Mapping[fx.Node, Tensor]
    source: Any
    grid: tuple[Any, ...] | None


def _roundings(quantized: Graph, reference: Graph, placement: Placement) -> dict[fx.Node, _Rounding]:
    """Returns the rounding of each layer of the float graph, found by node name in the quantised graph."""
    known = constant_values(quantized.program)
    layers = {node.name: node for node in quantized.program.graph.nodes}
    found = {}
    for node in reference.program.graph.nodes:
        if node.target not in LAYERS | LOOKUPS | RECURRENT:
            continue
        layer = layers[node.name]
        given, made = (pytree.tree_leaves((n.args, n.kwargs)) for n in (node, layer))
        weights = {
            fetched: known[rounded]
            for fetched, rounded in zip(given, made, strict=True)
            if _is_fetched(fetched) and not _is_fetched(rounded) and rounded in known
        }
        if weights:
            is_read = (
                node.target in LAYERS
            )  # the inputs of recurrent layers and the indices of embeddings aren't rounded
            grid = _grid_of(layer.args[0], placement) if is_read else None
            found[node] = _Rounding(weights, layer.args[0] if is_read else node.args[0], grid)
    return found


def _is_fetched(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _grid_of(value: Any, placement: Placement) -> tuple[Any, ...] | None:
    """Returns the grid of a value that was rounded in front of ops that pass integers on; None for any other value."""
    node = value
    while isinstance(node, fx.Node) and node.target in placement.same:
        node = node.args[0]
    rounds = isinstance(node, fx.Node) and node.target is ops.dequantize_per_tensor.default
    return tuple(node.args[1:]) if rounds and node is not value else None


def _read(node: fx.Node, values: Mapping[str, Any]) -> Any:
    """Returns the value of the float graph's node of that name; computes nodes inside a rounding from such values."""
    if node.name in values:
        return values[node.name]
    assert node.op == "call_function", node
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: _read(source, values))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _with_one_rounded(
    reference: Graph, values: Mapping[fx.Node, Any], layer: fx.Node, rounding: _Rounding, inputs: Sequence[Tensor]
) -> Any:
    """Returns the graph's outputs with one layer rounded; only the nodes from this layer on run again."""
    before = itertools.takewhile(lambda node: node is not layer, reference.program.graph.nodes)
    known = {node: values[node] for node in before}
    arguments, keywords = fx.map_arg((layer.args, layer.kwargs), lambda node: rounding.weights.get(node, values[node]))
    if layer.target in LOOKUPS:
        known[layer] = layer.target(*arguments, **keywords)  # type: ignore[operator]
        return Execution(reference.program).run(*inputs, initial_env=known)
    named = {node.name: value for node, value in values.items()}
    x = fx.map_arg(rounding.source, lambda node: _read(node, named))
    if rounding.grid is not None:
        x = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *rounding.grid), *rounding.grid)
    value = layer.target(x, *arguments[1:], **keywords)  # type: ignore[operator]
    return Execution(reference.program).run(*inputs, initial_env=known | {layer: value})


def _outputs(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _first(batches: Iterator[list[Tensor]], samples: int) -> Iterator[list[Tensor]]:
    seen = 0
    for inputs in batches:
        yield inputs
        seen += sample_count(inputs)
        if seen >= samples:
            return
