"""A quantised graph in training: the callback that a training calls, and the stored graph in the end. Nothing here trains."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.capabilities import DEFAULT, Capabilities, find
from penjing.checks import TEXT, checked
from penjing.errors import PenjingError
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.ops import LAYERS, node_arguments
from penjing.quantization.calibration.activations import scale_of
from penjing.quantization.doors import RULES
from penjing.quantization.grids import SMALLEST_SCALE
from penjing.quantization.placement.insert import GRID_OF
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.training._activations import activations_of
from penjing.quantization.training._methods import methods
from penjing.quantization.training._norms import folded_norms, unfold
from penjing.quantization.training._stages import check_stages
from penjing.quantization.training._weights import SCALE, TrainedWeight, least_scale
from penjing.quantization.verb import quantize_plainly
from penjing.quantization.weights.choices import FLOAT, Choice, read_choices
from penjing.quantization.weights.places import place_of, weight_argument, weight_of

TIMES_LAID = 100  # how often per training the scales that aren't learned are computed again
WITH_NORM = ("intN", "uintN", "ternary", "binary")


class QuantizedTraining:
    """Lets a training learn with all roundings in place (quantisation-aware training).

    An object of this class is a callback, `training(graph, progress)`, to call after each optimiser step, and gives a term of
    the loss, `training.penalty(graph, progress)`. `penjing.quantize` uses it as the example does.

    Where each output channel of a layer has scales of its own, the layer's batch norm stays while training and is folded at
    the end, which changes no integer. Where a layer has one scale for all channels, a codebook or power-of-two scales, or
    computes in floating point, its batch norm is folded before the training.

    Attributes:
        graph: the graph to train, a copy whose roundings let gradients through. It can't be saved or lowered.
        same_throughout: whether the bits stay the same throughout the training: there are no stages.

    Example:
        >>> training = QuantizedTraining(graph, data, weights="ternary")  # doctest: +SKIP
        >>> recover(training.graph, data, teacher=graph, callbacks=[training], penalty=training.penalty)  # doctest: +SKIP
        >>> small = training.finish()  # doctest: +SKIP
    """

    @checked(**{name: rule for name, rule in RULES.items() if name not in ("rounding", "corrections")}, method=TEXT)
    def __init__(
        self,
        graph: Graph,
        data: Any = None,
        *,
        method: str = "lsq",
        stages: Sequence[int] = (),
        weights: str = "int8",
        activations: str | None = "auto",
        observer: str = "minmax",
        grain: str = "auto",
        per_layer: Mapping[str, str] | None = None,
        exclude: Sequence[str] = (),
        target: Capabilities | str = DEFAULT,
        placement: str = "fastest",
        in_float: Sequence[str] = (),
        simulate: bool = False,
        seed: int = 0,
        include: Sequence[str] = (),
    ) -> None:
        """Takes the arguments of `quantize`, which documents them, and two more: `method` and `stages`.

        Args:
            graph: a float graph; it stays as it was.
            data: calibration data.
            method: how the ranges are found while training, a name in `penjing list methods`.
            stages: numbers of bits that integer weights (and ternary ones with "lsq") have before their final one, each for
                an equal share of the training: (8, 4) before "int2".

        Raises:
            PenjingError: `quantize` would raise it; or the method is unknown, or the stages don't fall.
        """
        self._method = methods[method].function()
        stages = check_stages(stages)
        self.same_throughout = not stages
        settings = QuantizationSettings(
            weights=weights, activations=activations, observer=observer, grain=grain, per_layer=per_layer or {},
            exclude=exclude, target=target, placement=placement, in_float=in_float, simulate=simulate, seed=seed,
            include=include,
        )  # fmt: skip
        self._stored = quantize_plainly(graph, data, settings)
        self._stored.plan = graph.plan + (
            step if step.after == FLOAT else replace(step, found={**step.found, "trained": method})
            for step in self._stored.plan.options[len(graph.plan) :]
        )
        self._arguments = repr([
            method, stages, weights, activations, observer, grain, dict(per_layer or {}), list(exclude), list(in_float),
            find(target).name, placement, seed, list(include),
        ])  # fmt: skip
        choices = read_choices(graph, settings)
        self.graph = copy.deepcopy(self._stored)
        folded, norms = fold_batch_norms(graph), folded_norms(graph, self._stored)
        self._weights = _weights_of(folded, self._stored, choices.of, self._method.learns_weights, stages)
        with_norm = [weight for weight in self._weights if _keeps_norm(weight.choice) and len(weight.layers) == 1]
        back = unfold(self.graph, graph, norms, [weight.layers[0] for weight in with_norm])
        for weight in self._weights:
            weight.norm = back.get(weight.layers[0]) if weight in with_norm else None
            weight.insert(self.graph, (graph if weight.norm else folded).tensor(weight.path))
        self._activations = activations_of(self._stored, self._method.activations)
        for activation in self._activations:
            activation.insert(self.graph)
        self.graph.masks = {path: mask.clone() for path, mask in folded.masks.items() if path in self.graph.tensors()}
        self.graph.refresh()
        self._tick = 0

    # What a training calls

    def __call__(self, graph: nn.Module, progress: float) -> None:
        """Keeps learned ranges valid and updates the others, after an optimiser step.

        Args:
            graph: not used, since the object knows its graph.
            progress: share of the training's steps that are done, 0 to 1.
        """
        with torch.no_grad():
            for weight in self._weights:
                if weight.learned:
                    self.graph.tensor(weight.path + SCALE).clamp_(min=SMALLEST_SCALE)
        for activation in self._activations:
            activation.keep_in_bounds(self.graph)
        tick = int(progress * TIMES_LAID)
        follows = [weight for weight in self._weights if not weight.learns_now and not weight.has_rule]
        changed = [weight for weight in self._weights if weight.bits_at(progress) != weight.bits]
        for weight in changed:
            weight.set_bits(weight.bits_at(progress))
        if changed:
            self.graph.program.recompile()
        for weight in follows if tick > self._tick else ():
            if weight not in changed:
                weight.lay_anew(self.graph)
        for weight in changed:
            weight.lay_anew(self.graph)
        self._tick = tick

    def penalty(self, graph: nn.Module, progress: float) -> Tensor | None:
        """Returns a scalar to add to the loss of the next step; None where the method has no penalty."""
        terms = [term for activation in self._activations if (term := activation.penalty(self.graph)) is not None]
        return self._method.decay * torch.stack(terms).sum() if terms else None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the training, without the graph's tensors."""
        return {"made_of": self._arguments, "tick": self._tick, "bits": {w.path: w.bits for w in self._weights}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the state of another training with the same arguments.

        Raises:
            PenjingError: the other training had other arguments.
        """
        if state["made_of"] != self._arguments:
            raise PenjingError(f"This state is of the training {state['made_of']}, not of {self._arguments}.")
        self._tick = state["tick"]
        for weight in self._weights:
            if weight.bits != state["bits"][weight.path]:
                weight.set_bits(state["bits"][weight.path])
        self.graph.program.recompile()

    # The end

    def finish(self) -> Graph:
        """Returns the trained graph in the form that `quantize` gives: norms are folded, and scales are constants again.

        Raises:
            PenjingError: the training stopped before the weights had their final number of bits.
        """
        early = [weight.path for weight in self._weights if weight.bits != weight.bits_at(1.0)]
        if early:
            raise PenjingError(
                f"'{early[0]}' still has the bits of an earlier stage: the training stopped before its end. Train longer, "
                "or without stages=…."
            )
        stored = copy.deepcopy(self._stored)
        own = {weight.path for weight in self._weights}
        with torch.no_grad():
            trained = self.graph.tensors()
            for path, tensor in stored.tensors().items():
                if path in trained and not any(path == name or path.startswith(f"{name}_") for name in own):
                    tensor.copy_(trained[path])
        scales: dict[fx.Node, float] = {}
        for activation in self._activations:
            scales |= activation.write(stored, activation.found(self.graph))
        nodes = {node.name: node for node in stored.program.graph.nodes}
        for weight in self._weights:
            self._store(stored, weight, [nodes[name] for name in weight.layers], scales)
        stored.masks = {path: mask for path, mask in stored.masks.items() if path in stored.tensors()}
        return stored.refresh()

    def _store(self, stored: Graph, weight: TrainedWeight, layers: Sequence[fx.Node], scales: Any) -> None:
        """Writes one weight into the stored graph, and the bias that results from folding its norm."""
        found, biases = weight.integers(self.graph), []
        for layer in layers:
            bias = node_arguments(layer)[2]
            if isinstance(bias, fx.Node) and bias.op == "get_attr":
                biases.append((stored.tensor(str(bias.target)), scale_of(layer.args[0], scales)))
        if weight.norm is not None:
            found = found.times(_by_row(weight.norm.factor(self.graph), found.scale))
            with torch.no_grad():
                biases[0][0].copy_(weight.norm.folded_bias(self.graph))
        # As in `quantize`: with groups the bias stays in floating point; one scale per tensor must suit all channels' biases.
        for tensor, scale in biases if weight.choice.grain.kind != "group" else ():
            if scale is not None:
                least = least_scale(tensor, scale)
                found = found.at_least(least if len(found.scale) == len(least) else least.amax().reshape(1))
        weight.write(stored, found)


def _keeps_norm(choice: Choice) -> bool:
    return choice.grain.kind != "tensor" and choice.grid.entry.name in WITH_NORM


def _by_row(factor: Tensor, scale: Tensor) -> Tensor:
    """Repeats a number for each channel for each of the channel's rows, one or several."""
    return factor.repeat_interleave(len(scale) // len(factor))


def _weights_of(
    folded: Graph, quantized: Graph, choice_of: Any, learned: bool, stages: tuple[int, ...]
) -> list[TrainedWeight]:
    """Returns the weights that are trained together with their rounding.

    These are all quantised weights except codebooks, whose tables are parameters already.
    """
    was = {node.name: node for node in folded.program.graph.nodes}
    readers: dict[fx.Node, list[fx.Node]] = {}
    for node in quantized.program.graph.nodes:
        before = was.get(node.name)
        if before is None or len(before.args) < 2 or not _is_fetched(weight_argument(before)):
            continue
        if _is_fetched(weight_argument(node)) or not _is_quantized(weight_argument(node)):
            continue
        readers.setdefault(weight_argument(node), []).append(before)
    found = []
    for layers in readers.values():
        # An embedding follows the layer that multiplies by its table.
        choice, path = choice_of(next((one for one in layers if one.target in LAYERS), layers[0])), weight_of(layers[0])
        if choice is None:
            raise PenjingError(f"'{place_of(layers[0])}' was quantised without a choice of a grid.")
        learns = learned and choice.grid.entry.name != "power_of_two"  # its scales can't move in small steps
        found.append(TrainedWeight(path, choice, tuple(layer.name for layer in layers), learns, stages))
    return found


def _is_fetched(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _is_quantized(value: Any) -> bool:
    """Tells whether a value is a weight behind a pair, or codes times scales.

    Weights from a codebook are neither, nor are constants that are rounded as activations.
    """
    while isinstance(value, fx.Node) and value.op == "call_function":
        if "quantize" in str(value.target):
            return GRID_OF not in value.meta
        value = value.args[0] if value.args else None
    return False
