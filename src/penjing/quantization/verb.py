"""The verb `quantize`: turns a float graph into a graph that computes what the target's integer kernels will compute."""

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
from penjing.quantization.weights.tables import in_order, with_own_tables

ROUNDS = 3  # how often inputs are equalised, at most


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
    include: Sequence[str] = (),
) -> Graph:
    """Rounds the weights and activations of a trained graph to few bits, without further training; returns a new graph.

    Batch norms are folded. Weights are symmetric integers with one scale per output channel, unless the arguments name
    another grid or grain; activations are affine with one scale per tensor, chosen from the values on calibration data. Pairs
    of quantise and dequantise ops stand where the target fuses them, and the ops between them, into integer kernels. Weights
    on integer grids stay float parameters with a pair behind them, so the graph can be trained; lowering stores them as
    integers. Codebooks, ternary and binary weights are stored as codes, and their tables and scales can be trained.

    Args:
        graph: a float graph; it stays as it was.
        data: a `Data` with a calibration part, or an iterable of batches; see `flat_batches`. Not needed for weights alone.
        weights: the weights' grid, a name from `grids` with its number: "int8", "int4", "uint8", "power_of_two:8",
            "codebook:16", "ternary", "binary". Integers and powers of two have 2 to 16 bits.
        activations: the activations' grid, "uint8" or another of 2 to 16 bits, signed or not; "auto" takes the grid that the
            target prefers; "dynamic" finds the range of each linear layer's input at run time and needs no data; None rounds
            weights only, which makes the model smaller, and faster where it waits for memory.
        observer: how the activations' ranges are found: a name from `observers`, with its parameter behind a colon where
            it has one ("percentile:99.9").
        grain: which weights share a scale: "tensor", "channel" (of the output), "group:SIZE" (along a channel's weights);
            "auto" is the grid's own, "channel" for integers.
        rounding: how weights are rounded to an integer grid, a name from `roundings`; "quantease" finds the integers with the
            least error of each layer's output on the data; "adaround:1000" learns them, with that many iterations for each
            layer; "brecq" learns whole blocks.
        corrections: corrections before and after rounding. "auto" gives each channel of each layer the mean that it has in
            floating point and, where its weights have a scale for each output channel, the variance too. Both are estimated
            from the first 40 calibration samples: with fewer samples less is changed, and nothing with fewer than 16.
            Otherwise one or several names from `penjing.quantization.corrections`, each of which reads all calibration data
            again; () for none.
        per_layer: grids of single layers, by pattern of their module path: "float32" leaves a layer in floating point, and
            "int8/channel" names a grain too. The first pattern that fits wins.
        exclude: patterns of module paths ("layer1.*", "head"); the modules that they match, and all modules below these,
            compute in floating point.
        target: the runtime for which the pairs are placed, a name in `penjing targets`, or the record of what another runtime
            can do. "torch" computes nothing in integers, so it needs `activations=None` or `simulate=True`.
        placement: "integer" leaves only excluded layers in floating point, and raises an error where the target has no
            integer kernel for another layer; "fastest" also leaves such layers, and those of `in_float`, in floating point.
        in_float: patterns, as in `exclude`, of layers that were measured to be faster in floating point; the plan gives this
            reason for them. `penjing.compress` measures it.
        simulate: whether to allow grids and grains that the target doesn't run in integers; values are rounded to the grid
            all the same.
        seed: seed of roundings that draw random numbers.
        include: patterns, as in `exclude`, of the only layers that are rounded; by default all.

    Raises:
        PenjingError: a name is unknown, a pattern matches nothing, there is no calibration data, activations aren't finite or
            never change, or the graph is quantised already or has nothing to quantise.

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
    return quantize_with(
        graph,
        data,
        QuantizationSettings(
            weights, activations, observer, grain, rounding, corrections, per_layer or {}, exclude, target, placement,
            in_float, simulate, seed, include,
        ),
    )  # fmt: skip


def quantize_with(graph: Graph, data: Any, settings: QuantizationSettings) -> Graph:
    """Does what `quantize` does, with these settings as its arguments."""
    asked = read_request(graph, data, settings)
    made, notes = _quantized(_float_graph(graph, data, asked), data, asked), dict[str, dict[str, Json]]()
    if _is_suspect(made, asked):
        made, notes = _mended(graph, data, asked, made)
    return _recorded(made, asked, notes)


def quantize_plainly(graph: Graph, data: Any, settings: QuantizationSettings) -> Graph:
    """Does what `quantize` does with these settings, but rounds to nearest, corrects nothing, and measures no noise.

    The nodes keep the names that they have in `graph`.
    """
    asked = read_request(graph, data, replace(settings, rounding=NEAREST, corrections=()))
    made = _quantized(_float_graph(graph, data, asked), data, asked, measures_noise=False)
    return _recorded(made, asked, {})


def places_of_integers(graph: Graph, data: Any, settings: QuantizationSettings) -> dict[str, Mapping[str, Json]]:
    """Returns the places of the layers whose weights `quantize` would round with these settings, and the setting of each.

    Raises:
        NothingToQuantize: there is no such layer.
        PenjingError: `quantize` would raise it before it reads any data.
    """
    asked = read_request(graph, data, settings)
    placed, recurrent = _place(add_sample_axes(fold_batch_norms(graph)), asked)
    layers = [(place_of(layer), asked.choices.of(layer)) for layer in (*placed.tables, *placed.layers)]
    chosen = dict([*layers, *((weight.place, weight.choice) for weight in recurrent)])
    return {path: asked.setting(choice) for path, choice in chosen.items() if choice is not None}


@dataclass(frozen=True)
class _Quantized:
    """A quantised graph, with the facts about it that its plan records and later steps need.

    Attributes:
        graph: the quantised graph; its plan has no records yet.
        reference: the float graph; None where nothing has needed it so far.
        first: the first samples of the calibration data, as batches of flat inputs.
        layers: the place and bits of each layer with few-bit weights, by the name of its node.
        chosen: the chosen grid and grain of each such layer, by place.
        corrected: the statistics that corrections="auto" corrected, by place.
        recurrent: the weights of recurrent layers.
        tables: the chosen grid and grain of each embedding whose table is rounded, by place.
        in_integers: names of the nodes that compute in integers.
        in_float: the places that stay in floating point, and why.
        noise: the noise of the layers; None where it wasn't measured.
    """

    graph: Graph
    reference: Graph | None
    first: list[list[Tensor]]
    layers: Mapping[str, LayerBits]
    chosen: Mapping[str, Choice]
    corrected: Mapping[str, str]
    recurrent: Sequence[LaidWeight]
    tables: Mapping[str, Choice]
    in_integers: frozenset[str]
    in_float: Mapping[Place, dict[str, str]]
    noise: Noise | None


def _float_graph(graph: Graph, data: Any, asked: QuantizeRequest) -> Graph:
    """Returns a copy of the float graph, ready to be quantised: batch norms folded, and corrected as asked for."""
    small = add_sample_axes(fold_batch_norms(graph))
    for correct in asked.before:
        correct(small, data)
    return small


def _quantized(small: Graph, data: Any, asked: QuantizeRequest, measures_noise: bool = True) -> _Quantized:
    """Quantises a float graph in place; measures the layers' noise if `measures_noise` and the request allow it."""
    placed, recurrent = _place(small, asked)
    layers = {
        layer.name: (place_of(layer), choice)
        for layer in placed.layers
        if (choice := asked.choices.of(layer)) is not None
    }
    in_integers = frozenset(node.name for node in placed.integer)
    tables = {place_of(table): choice for table in placed.tables if (choice := asked.choices.of(table)) is not None}
    in_float = kept_in_float(small, placed, asked.placement, asked.target, asked.is_excluded, asked.in_float)
    noise = Noise() if measures_noise and (asked.keep > 0 or asked.activations is not None) else None
    # Both graphs run on the same batches: where a layer's first axis isn't that of samples, single samples can't be compared.
    copied = bool(asked.keep or asked.after or asked.learned or noise is not None)
    reference = copy.deepcopy(small) if copied else small
    keep = asked.keep or (NOISE_SAMPLES if noise is not None else 0)
    first, inputs = _round_activations(small, reference, data, placed, asked, keep)
    found = lay_weights(small, in_order(small, [*placed.layers, *placed.tables]), asked.choices.of, inputs)
    _round_weights(small, reference, data, found, recurrent, asked)
    for correct in asked.after if found else ():
        correct(small, reference, data)
    corrected = shrunk_statistics(small, reference, first, noise) if asked.keep else {}
    if noise is not None and not noise.is_measured:
        look_at_noise(small, first, noise, reference)
    return _Quantized(
        small, reference if copied else None, first,
        {name: LayerBits(place, choice.grid.bits) for name, (place, choice) in layers.items()},
        dict(layers.values()), corrected, recurrent, tables, in_integers, in_float, noise,
    )  # fmt: skip


def _is_suspect(made: _Quantized, asked: QuantizeRequest) -> bool:
    """Tells whether some layer has so much noise that the cause is worth finding."""
    return made.noise is not None and is_suspect(made.noise, made.layers, asked.read_grid)


def _mended(
    graph: Graph, data: Any, asked: QuantizeRequest, made: _Quantized
) -> tuple[_Quantized, dict[str, dict[str, Json]]]:
    """Equalises the inputs of noisy layers and quantises again; warns of layers that stay noisy.

    Returns:
        The quantised graph in the end, and notes on layers for the plan, by place.
    """
    rounds: list[dict[str, Tensor]] = []
    notes: dict[str, dict[str, Json]] = {}
    again = not hasattr(data, "__next__")  # an iterator has no more data to give
    reference = made.reference or _float_graph(graph, data, asked)
    # Each round may uncover noise of earlier layers, which the next round then removes.
    while again and len(rounds) < ROUNDS and _is_suspect(made, asked):
        own = own_noise(made.graph, reference, made.first, asked.placement)
        rounds.append(find_scales(own, reference, data, made.first, made.layers, asked.read_grid))
        even, done = _float_graph(graph, data, asked), list[str]()
        for scales in rounds:
            done = equalize_inputs(even, scales, made.in_integers, asked.placement.same)
        if not done:
            break
        reference = copy.deepcopy(even)
        made = _quantized(even, data, asked)
        notes |= {made.layers[name].place: {"inputs_equalised": True} for name in done}
    if made.noise is not None and _is_suspect(made, asked):
        levels = warn_of_noise(made.graph, reference, made.first, made.noise, made.layers, asked.placement)
        # In decibels: how far the signal's variation stands above the noise, or below it.
        notes |= {place: {**notes.get(place, {}), "signal_to_noise_db": level} for place, level in levels.items()}
    return made, notes


def _place(small: Graph, asked: QuantizeRequest) -> tuple[Placed, list[LaidWeight]]:
    """Decides which values are rounded; rewrites ops that the target runs in integers only in another form.

    Raises:
        NothingToQuantize: no layer can be rounded.
        PenjingError: a layer would stay in floating point with placement='integer', or groups don't divide a layer's weights.
    """
    placed = place_rewritten(small, asked.placement, asked.is_excluded)
    if asked.strict:
        check_all_integer(small, placed, asked.target, asked.is_excluded)
    recurrent = lay_recurrent(small, asked.choices.of)
    placed = with_own_tables(small, placed, asked.choices.of, asked.choices.usual, asked.numbers)
    if not placed.layers and not placed.tables and not recurrent:
        left = " that isn't excluded" if asked.choices.exclude or asked.choices.include else ""
        kinds = "linear layer or embedding" if asked.dynamic else "convolution, linear layer or embedding"
        other = " Other layers need calibration data and activations='auto'." if asked.dynamic else ""
        name = asked.target.name
        raise NothingToQuantize(f"{small.name} has no {kinds}{left} that {name} could run in 8 bits.{other}")
    check_groups(small, [*placed.layers, *placed.tables], asked.choices.of)
    return placed, recurrent


def _round_activations(
    small: Graph, reference: Graph, data: Any, placed: Placed, asked: QuantizeRequest, keep: int
) -> tuple[list[list[Tensor]], dict[fx.Node, float | None]]:
    """Inserts the ops that round the layers' inputs, if inputs are rounded.

    Returns:
        The first `keep` samples, and the scale of each layer's input where that is a constant.
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
    """Inserts the ops that round the weights, or their codes; learns the weights' integers if the rounding is a learned one."""
    stored, how = [*found, *recurrent], asked.rounding
    generator = torch.Generator().manual_seed(asked.seed)
    if not asked.learned and how.name != NEAREST:  # the pairs themselves round to nearest
        round_weights(small, stored, how.function, generator)
    insert_weights(small, stored)
    small.refresh(shapes_known=not asked.dynamic)
    if asked.learned:
        learn_rounding(small, reference, data, found, how, asked.iterations, generator)


def _recorded(made: _Quantized, asked: QuantizeRequest, notes: Mapping[str, Mapping[str, Json]]) -> Graph:
    """Writes into the graph's plan what was done to each layer, and returns the graph.

    Args:
        made: the quantised graph and the facts about it.
        asked: the request.
        notes: further facts on layers, by place.
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
    for path, choice in made.tables.items():
        if path not in made.chosen:  # a layer that multiplies by the table has named its place already
            looked_up = {"looked_up": True}
            done.append(
                Option(Place("weight", path), "quantize", asked.setting(choice), FLOAT, choice.grid.name, looked_up)
            )
    small.plan += done
    return small
