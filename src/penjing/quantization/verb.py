"""The verb: from a float graph and calibration data to a graph that simulates integers exactly where they will be."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from penjing.capabilities import DEFAULT, Capabilities
from penjing.checks import checked
from penjing.errors import PenjingError
from penjing.evidence.observation import first_samples
from penjing.graph import Graph, Option, Place, fold_batch_norms
from penjing.graph.places import Json
from penjing.quantization.calibration.activations import lay_activations, scale_of
from penjing.quantization.calibration.mending import LayerBits, find_scales, is_suspect, warn_of_noise
from penjing.quantization.calibration.noise import SAMPLES as NOISE_SAMPLES
from penjing.quantization.calibration.noise import Noise, own_noise
from penjing.quantization.corrections import equalize_inputs, look_at_noise, shrunk_statistics
from penjing.quantization.doors import RULES
from penjing.quantization.placement.dynamic import insert_dynamic
from penjing.quantization.placement.insert import insert_activations, insert_weights
from penjing.quantization.placement.kept_in_float import kept_in_float
from penjing.quantization.placement.of_target import check_all_integer
from penjing.quantization.placement.rewritten import place_rewritten
from penjing.quantization.placement.sample_axis import add_sample_axes
from penjing.quantization.placement.sites import Placed
from penjing.quantization.request import NEAREST, QuantizeRequest, read_request
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.weights.choices import FLOAT, Choice, check_groups
from penjing.quantization.weights.laying import LaidWeight, lay_weights, round_weights
from penjing.quantization.weights.learning import learn_rounding
from penjing.quantization.weights.places import place_of
from penjing.quantization.weights.recurrent import lay_recurrent

ROUNDS = 3  # times that inputs are equalised, at most


class NothingToQuantize(PenjingError):
    """The graph holds no layer that the target could run in few bits."""


@checked(**RULES)
def quantize(
    graph: Graph,
    data: Any = None,
    *,
    weights: str = "int8",
    activations: str | None = "auto",
    observer: str = "minmax",
    grain: str = "auto",
    rounding: str = "nearest",
    corrections: str | Sequence[str] = "auto",
    per_layer: Mapping[str, str] | None = None,
    exclude: Sequence[str] = (),
    target: Capabilities | str = DEFAULT,
    placement: str = "fastest",
    in_float: Sequence[str] = (),
    simulate: bool = False,
    seed: int = 0,
) -> Graph:
    """Returns a graph that rounds weights and activations to few bits, after training and without any more of it.

    Batch norms are folded. Weights are symmetric integers with one scale per output channel unless asked otherwise;
    activations are affine with one scale per tensor, chosen from the values on calibration data. Pairs of quantise and
    dequantise ops stand where the target turns them and what is between them into integer kernels. Weights on integer
    grids stay float parameters with a pair behind them, so the graph can be trained; lowering stores them as integers.
    Codebooks, ternary and binary weights are stored as codes, and their tables and scales can be trained.

    Args:
        graph: a float graph; it stays as it was.
        data: a `Data` with a calibration part, or an iterable of batches; see `flat_batches`. Not needed for weights alone.
        weights: the weights' grid, a name from `grids` with its number: "int8", "int4", "uint8", "power_of_two:8",
            "codebook:16", "ternary", "binary". Integers and powers of two have 2 to 16 bits.
        activations: the activations' grid, "uint8" or another of 2 to 16 bits, signed or not; "auto" takes what the target
            prefers; "dynamic" finds the range of what each linear layer reads at run time and needs no data; None rounds
            weights only, which makes the model smaller, and faster where memory is what it waits for.
        observer: how the activations' ranges are found: a name from `observers`, with its parameter behind a colon where
            it has one ("percentile:99.9").
        grain: which weights share a scale: "tensor", "channel" (of the output), "group:SIZE" (along a channel's weights);
            "auto" is the grid's own, "channel" for integers.
        rounding: how weights are rounded to an integer grid, a name from `roundings`; "quantease" finds the best integers
            for what each layer gives on the data; "adaround:1000" learns them, with that many iterations for each layer;
            "brecq" learns whole blocks.
        corrections: what is put right before and after rounding. "auto" gives each channel of each layer the mean and, where
            its weights have a scale for each output channel, the variance that it has in floating point, as far as the
            first 40 calibration samples tell them: the fewer they are, the less is changed, and nothing with fewer than 16.
            Otherwise names from `penjing.quantization.corrections`, one or several, each of which reads all calibration data
            again; () for none.
        per_layer: grids of single layers by pattern of their module path, "float32" for none; the first that fits wins.
            "int8/channel" has a grain of its own.
        exclude: patterns of module paths ("layer1.*", "head"); what they name, or lies below it, computes in floating point.
        target: the runtime that the pairs are placed for, a name in `penjing list targets`, or a record of what another one
            can do. Of those, "torch" computes nothing in integers: it needs activations=None, or `simulate`.
        placement: "integer" leaves no layer in floating point but those excluded, and says so where the target has no
            integer kernel for one; "fastest" takes those, and `in_float`.
        in_float: patterns as in `exclude`, of layers that were measured to be faster in floating point; the plan names
            them. `penjing.compress` measures.
        simulate: allow grids and grains that the target doesn't run in integers; their values are still those of the grid.
        seed: of roundings that draw random numbers.

    Raises:
        PenjingError: unknown names, a pattern that matches nothing, no calibration data, activations that aren't finite or
            never change, a graph that is quantised already or has nothing to quantise.

    Example:
        >>> import torch
        >>> from penjing.graph import capture
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> graph = capture(net, torch.randn(2, 4))
        >>> small = quantize(graph, [torch.randn(16, 4) for _ in range(4)])
        >>> step = small.plan[0]
        >>> step.place.path, step.after, step.setting["activations"], step.found
        ('0', 'int8', 'uint8', {'corrected': 'mean and variance'})
    """
    return quantize_so(
        graph,
        data,
        QuantizationSettings(
            weights, activations, observer, grain, rounding, corrections, per_layer or {}, exclude, target, placement,
            in_float, simulate, seed,
        ),
    )  # fmt: skip


def quantize_so(graph: Graph, data: Any, settings: QuantizationSettings) -> Graph:
    """Returns what `quantize` does with these settings."""
    asked = read_request(graph, data, settings)
    made, notes = _made(_in_float(graph, data, asked), data, asked), dict[str, dict[str, Json]]()
    if _is_suspect(made, asked):
        made, notes = _mended(graph, data, asked, made)
    return _recorded(made, asked, notes)


def quantize_plainly(graph: Graph, data: Any, settings: QuantizationSettings) -> Graph:
    """Returns what `quantize` does with these settings, nodes named as in `graph`: rounded to nearest, nothing put right.

    No layer's noise is looked at either.
    """
    asked = read_request(graph, data, replace(settings, rounding=NEAREST, corrections=()))
    made = _made(_in_float(graph, data, asked), data, asked, looks=False)
    return _recorded(made, asked, {})


def places_of_integers(graph: Graph, data: Any, settings: QuantizationSettings) -> dict[str, Mapping[str, Json]]:
    """Returns the layers whose weights `quantize` would put on a grid with these settings, and the setting of each.

    Raises:
        NothingToQuantize: there is none.
        PenjingError: what `quantize` raises before it reads any data.
    """
    asked = read_request(graph, data, settings)
    placed, recurrent = _place(add_sample_axes(fold_batch_norms(graph)), asked)
    layers = [(place_of(layer), asked.choices.of(layer)) for layer in placed.layers]
    chosen = dict([*layers, *((weight.place, weight.choice) for weight in recurrent)])
    return {path: asked.setting(choice) for path, choice in chosen.items() if choice is not None}


@dataclass(frozen=True)
class _Made:
    """A quantised graph, and what it was made of.

    Attributes:
        graph: quantised; its plan has no records yet.
        reference: in floating point; None where nothing needed it so far.
        first: samples.
        layers: in few bits, by the name of their nodes.
        chosen: what was chosen for each, by place.
        corrected: what was put right without being asked for, by place.
        recurrent: weights of recurrent layers.
        in_integers: names of the nodes that compute in integers.
        in_float: places that stay in floating point, and why.
        noise: of the layers; None where it wasn't looked at.
    """

    graph: Graph
    reference: Graph | None
    first: list[list[Tensor]]
    layers: Mapping[str, LayerBits]
    chosen: Mapping[str, Choice]
    corrected: Mapping[str, str]
    recurrent: Sequence[LaidWeight]
    in_integers: frozenset[str]
    in_float: Mapping[Place, dict[str, str]]
    noise: Noise | None


def _in_float(graph: Graph, data: Any, asked: QuantizeRequest) -> Graph:
    """Returns a copy of the float graph as it is quantised."""
    small = add_sample_axes(fold_batch_norms(graph))
    for correct in asked.before:
        correct(small, data)
    return small


def _made(small: Graph, data: Any, asked: QuantizeRequest, looks: bool = True) -> _Made:
    """Quantises a float graph, which becomes the quantised one; looks at the layers' noise where that is asked for."""
    placed, recurrent = _place(small, asked)
    layers = {
        layer.name: (place_of(layer), choice)
        for layer in placed.layers
        if (choice := asked.choices.of(layer)) is not None
    }
    in_integers = frozenset(node.name for node in placed.integer)
    in_float = kept_in_float(small, placed, asked.placement, asked.target, asked.is_excluded, asked.in_float)
    noise = Noise() if looks and (asked.keep > 0 or asked.activations is not None) else None
    # Both graphs are looked at on the same samples: where a layer's axis 0 isn't that of samples, others can't be compared.
    copied = bool(asked.keep or asked.after or asked.learned or noise is not None)
    reference = copy.deepcopy(small) if copied else small
    keep = asked.keep or (NOISE_SAMPLES if noise is not None else 0)
    first, inputs = _round_activations(small, reference, data, placed, asked, keep)
    found = lay_weights(small, placed.layers, asked.choices.of, inputs)
    _round_weights(small, reference, data, found, recurrent, asked)
    for correct in asked.after if found else ():
        correct(small, reference, data)
    corrected = shrunk_statistics(small, reference, first, noise) if asked.keep else {}
    if noise is not None and not noise.is_measured:
        look_at_noise(small, first, noise, reference)
    return _Made(
        small, reference if copied else None, first,
        {name: LayerBits(place, choice.grid.bits) for name, (place, choice) in layers.items()},
        dict(layers.values()), corrected, recurrent, in_integers, in_float, noise,
    )  # fmt: skip


def _is_suspect(made: _Made, asked: QuantizeRequest) -> bool:
    return made.noise is not None and is_suspect(made.noise, made.layers, asked.read_grid)


def _mended(graph: Graph, data: Any, asked: QuantizeRequest, made: _Made) -> tuple[_Made, dict[str, dict[str, Json]]]:
    """Equalises the inputs of layers that rounding leaves little signal in, as far as it can, and warns of the others.

    Returns:
        What was made in the end, and by its path what came of a layer besides.
    """
    rounds: list[dict[str, Tensor]] = []
    notes: dict[str, dict[str, Json]] = {}
    # An iterator is used up. Each round may show what the one before uncovered, farther in front.
    again = not hasattr(data, "__next__")
    reference = made.reference or _in_float(graph, data, asked)
    while again and len(rounds) < ROUNDS and _is_suspect(made, asked):
        own = own_noise(made.graph, reference, made.first, asked.placement)
        rounds.append(find_scales(own, reference, data, made.first, made.layers, asked.read_grid))
        even, done = _in_float(graph, data, asked), list[str]()
        for scales in rounds:
            done = equalize_inputs(even, scales, made.in_integers, asked.placement.same)
        if not done:
            break
        reference = copy.deepcopy(even)
        made = _made(even, data, asked)
        notes |= {made.layers[name].place: {"inputs_equalised": True} for name in done}
    if made.noise is not None and _is_suspect(made, asked):
        levels = warn_of_noise(made.graph, reference, made.first, made.noise, made.layers, asked.placement)
        # In decibels: how far what varies stands above the noise, or below it.
        notes |= {place: {**notes.get(place, {}), "signal_to_noise_db": level} for place, level in levels.items()}
    return made, notes


def _place(small: Graph, asked: QuantizeRequest) -> tuple[Placed, list[LaidWeight]]:
    """Finds where integers will be; rewrites what the target can only run in integers otherwise.

    Raises:
        PenjingError: nowhere, or not everywhere where that is asked for, or groups don't divide a layer's weights.
    """
    placed = place_rewritten(small, asked.placement, asked.is_excluded)
    if asked.strict:
        check_all_integer(small, placed, asked.target, asked.is_excluded)
    recurrent = lay_recurrent(small, asked.choices.of)
    if not placed.layers and not recurrent:
        left = " that isn't excluded" if asked.choices.exclude else ""
        kinds = "linear layer" if asked.dynamic else "convolution or linear layer"
        other = " Other layers need calibration data and activations='auto'." if asked.dynamic else ""
        name = asked.target.name
        raise NothingToQuantize(f"{small.name} has no {kinds}{left} that {name} could run in 8 bits.{other}")
    check_groups(small, placed.layers, asked.choices.of)
    return placed, recurrent


def _round_activations(
    small: Graph, reference: Graph, data: Any, placed: Placed, asked: QuantizeRequest, keep: int
) -> tuple[list[list[Tensor]], dict[fx.Node, float | None]]:
    """Puts in what rounds the layers' inputs, if anything does.

    Returns:
        The first samples, where they are kept, and the scale of each layer's input, where it is a constant.
    """
    if asked.activations is not None:
        laid, first = lay_activations(small, data, placed, asked.placement, asked.activations, asked.observer, keep)
        restored = insert_activations(small, laid)
        return first, {layer: scale_of(layer.args[0], restored) for layer in placed.layers}
    first = first_samples(reference, data, keep) if keep else []
    if asked.dynamic:
        insert_dynamic(small, placed, asked.choices.of)
    return first, {}


def _round_weights(
    small: Graph,
    reference: Graph,
    data: Any,
    found: Sequence[LaidWeight],
    recurrent: Sequence[LaidWeight],
    asked: QuantizeRequest,
) -> None:
    """Puts in what rounds the weights, or their codes; learns to which integers they go where that is asked for."""
    stored, how = [*found, *recurrent], asked.rounding
    generator = torch.Generator().manual_seed(asked.seed)
    if not asked.learned and how.name != NEAREST:  # which the pairs do by themselves
        round_weights(small, stored, how.function, generator)
    insert_weights(small, stored)
    small.refresh(shapes_known=not asked.dynamic)
    if asked.learned:
        learn_rounding(small, reference, data, found, how, asked.iterations, generator)


def _recorded(made: _Made, asked: QuantizeRequest, notes: Mapping[str, Mapping[str, Json]]) -> Graph:
    """Writes into the plan what was done to each layer.

    Args:
        made: the graph, and what is known of it.
        asked: what the user asked for.
        notes: what else came of a layer, by its path.
    """
    small = made.graph
    done = []
    for path, choice in made.chosen.items():
        found = dict(notes.get(path, {}))
        found |= {"corrected": made.corrected[path]} if path in made.corrected else {}
        done.append(Option(Place("weight", path), "quantize", asked.setting(choice), FLOAT, choice.grid.name, found))
    for place, why in made.in_float.items():
        done.append(Option(place, "quantize", asked.setting(None), FLOAT, FLOAT, why))
    for path, choice in {weight.place: weight.choice for weight in made.recurrent}.items():
        found = {"reason": "inside"}  # its activations are inside of the op
        done.append(Option(Place("weight", path), "quantize", asked.setting(choice), FLOAT, choice.grid.name, found))
    small.plan += done
    return small
