"""A weight in training: a float parameter behind a rounding, whose scale is learned or follows the weight; codes again later."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer
from penjing.graph.straight_through import ops
from penjing.quantization.grids import FEW_BITS, SMALLEST_SCALE, Laid, Rows, find_grid
from penjing.quantization.training._norms import Norm
from penjing.quantization.training._stages import bits_at
from penjing.quantization.training._twins import quantize_by_rule, quantize_by_sign, quantize_by_step
from penjing.quantization.weights.choices import Choice
from penjing.quantization.weights.laying import LARGEST_BIAS
from penjing.quantization.weights.places import weight_argument, weight_position

STAGED = ("intN", "uintN")
TERNARY_BITS = 2
SCALE, ZERO = "_scale", "_zero_point"
TENSOR_PAIR = (ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default)


@dataclass(frozen=True)
class Integers:
    """A weight as it is stored: `real = scale · (code − zero_point)`.

    Attributes:
        codes: `(rows, weights)` whole numbers in a floating-point tensor.
        scale: `(rows,)`, all above 0.
        zero_point: `(rows,)` int64.
        low: the smallest code.
        high: the largest code.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    low: int
    high: int

    def times(self, factor: Tensor) -> "Integers":
        """Returns the weight with each row multiplied by a number; a negative number also mirrors the codes."""
        mirrored, ends = factor < 0, self.low + self.high
        return Integers(
            torch.where(mirrored[:, None], ends - self.codes, self.codes),
            (self.scale * factor.abs()).clamp_min(SMALLEST_SCALE),
            torch.where(mirrored, ends - self.zero_point, self.zero_point),
            self.low,
            self.high,
        )

    def at_least(self, least: Tensor) -> "Integers":
        """Returns the weight with no scale below `least`, `(rows,)`; rows with smaller scales are rounded again."""
        scale, zero = self.scale.maximum(least), self.zero_point[:, None]
        codes = ((self.codes - zero) * (self.scale / scale)[:, None]).round() + zero
        return Integers(codes.clamp(self.low, self.high), scale, self.zero_point, self.low, self.high)

    @property
    def real(self) -> Tensor:
        """The real values that the codes stand for, `(rows, weights)`."""
        return (self.codes - self.zero_point[:, None]) * self.scale[:, None]


@dataclass(eq=False)
class TrainedWeight:
    """A weight whose rounding is trained.

    Attributes:
        path: path of the float parameter.
        choice: the weight's grid and grain.
        layers: names of the layers that read the weight, in order of execution.
        learned: whether the weight's scale is learned, which is possible only with fewer than 8 bits.
        stages: numbers of bits before the final one; see `bits_at`.
        norm: the batch norm behind the layer, if the norm stays while training.
        bits: number of bits that the weight has now; 0 where its grid has no stages.
    """

    path: str
    choice: Choice
    layers: tuple[str, ...]
    learned: bool
    stages: tuple[int, ...] = ()
    norm: Norm | None = None
    bits: int = field(default=0, init=False)
    _node: fx.Node = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.learned = self.learned and self._own_bits < FEW_BITS
        if self.prefix:
            self.bits = bits_at(0.0, self._own_bits, self.stages)

    # The kind of rounding

    @property
    def prefix(self) -> str:
        """The name of the weight's integer grid without the number of bits; empty where the grid has no stages."""
        name = self.choice.grid.entry.name
        if name == "ternary" and self.learned:
            return "int"
        return name.removesuffix("N") if name in STAGED else ""

    @property
    def has_rule(self) -> bool:
        """Tells whether the grid's own rule rounds the weight in each step, and finds the scale again each time."""
        return not self.choice.grid.is_integer and not self.learned

    @property
    def is_sign(self) -> bool:
        """Tells whether the rounded weight is minus or plus a learned step."""
        return self.choice.grid.entry.name == "binary" and self.learned

    @property
    def learns_now(self) -> bool:
        """Tells whether the scale is learned at this point: not in stages of 8 bits or more."""
        return self.learned and self.bits < FEW_BITS

    @property
    def _own_bits(self) -> int:
        return self.choice.grid.number or TERNARY_BITS

    def _rows(self, graph: Graph) -> Tensor:
        return self.choice.grain.rows(graph.tensor(self.path).detach())

    def _lay(self, graph: Graph) -> Any:
        grid = find_grid(f"{self.prefix}{self.bits}") if self.prefix else self.choice.grid
        rows = self._rows(graph).float()
        return grid.lay(Rows(rows, zeros=bool((rows == 0).any())))

    # Training

    def insert(self, graph: Graph, weight: Tensor) -> None:
        """Replaces the stored form of the weight in a quantised graph by a float parameter and a rounding.

        Args:
            graph: the graph that will be trained; call `refresh()` on it afterwards.
            weight: the weight in floating point, before it was quantised.
        """
        graph.set_tensor(self.path, nn.Parameter(weight.detach().clone(), weight.requires_grad))
        layers = {node.name: node for node in graph.program.graph.nodes if node.name in self.layers}
        write = Writer.before(layers[self.layers[0]])
        latent = write.fetch(self.path)
        if self.has_rule:
            node = write(quantize_by_rule, latent, self.choice.grid.name, self.choice.grain.name)
        else:
            laid = self._lay(graph)
            scale = laid.scale.clone()
            graph.set_tensor(self.path + SCALE, nn.Parameter(scale, weight.requires_grad) if self.learned else scale)
            scaled = (latent, write.fetch(self.path + SCALE))
            if self.is_sign:
                node = write(quantize_by_sign, *scaled)
            else:
                graph.set_tensor(self.path + ZERO, laid.zero_point.clone())
                zero, ends = write.fetch(self.path + ZERO), (laid.grid.low, laid.grid.high)
                node = write(quantize_by_step, *scaled, zero, *ends, False, self.learns_now)
        for layer in layers.values():
            layer.update_arg(weight_position(layer), node)
        self._node = node

    def lay_anew(self, graph: Graph) -> None:
        """Computes the scales again from the weight's present values."""
        laid: Laid = self._lay(graph)
        with torch.no_grad():
            graph.tensor(self.path + SCALE).copy_(laid.scale)
            graph.tensor(self.path + ZERO).copy_(laid.zero_point)

    def set_bits(self, bits: int) -> None:
        """Sets the number of bits, and so the smallest and the largest integer; the scale stays.

        The graph must be recompiled afterwards.
        """
        grid = find_grid(f"{self.prefix}{bits}")
        laid: Any = grid.lay(Rows(torch.ones(1, 1)))
        self.bits = bits
        self._node.args = (*self._node.args[:3], laid.grid.low, laid.grid.high, False, self.learns_now)

    def bits_at(self, progress: float) -> int:
        """Returns how many bits the weight should have at this share of the training; 0 where its grid has no stages."""
        return bits_at(progress, self._own_bits, self.stages) if self.prefix else 0

    # Back to the stored form

    def integers(self, graph: Graph) -> Integers:
        """Returns the integers to which the trained graph rounds the weight."""
        rows = self._rows(graph)
        if self.has_rule:
            laid = self._lay(graph)
            zero = torch.zeros(len(laid.scale), dtype=torch.int64, device=rows.device)
            return Integers(laid.codes.to(rows.dtype), laid.scale, zero, laid.grid.low, laid.grid.high)
        scale = graph.tensor(self.path + SCALE).detach()
        if self.is_sign:
            zero = torch.zeros(len(scale), dtype=torch.int64, device=rows.device)
            return Integers(torch.where(rows < 0, -1.0, 1.0).to(rows.dtype), scale, zero, -1, 1)
        zero, (low, high) = graph.tensor(self.path + ZERO), self._node.args[3:5]
        codes = ((rows * (1.0 / scale[:, None])).round() + zero[:, None]).clamp(low, high)  # type: ignore[arg-type]
        return Integers(codes, scale, zero, int(low), int(high))  # type: ignore[call-overload]

    def write(self, stored: Graph, found: Integers) -> None:
        """Writes the codes and scales to a quantised graph.

        Args:
            stored: a graph that was quantised with the same choices.
            found: the codes and scales, in rows of the grain.
        """
        tensors = stored.tensors()
        with torch.no_grad():
            if self.choice.grid.is_integer:
                tensors[self.path].copy_(found.real.reshape(tensors[self.path].shape))
            else:
                codes = tensors[f"{self.path}_codes"]
                codes.copy_(found.codes.reshape(codes.shape).to(codes.dtype))
            if self.path + SCALE in tensors:
                scale = tensors[self.path + SCALE]
                scale.copy_(found.scale.reshape(scale.shape))
                if self.choice.grid.is_integer:
                    zero = tensors[self.path + ZERO]
                    zero.copy_(found.zero_point.reshape(zero.shape))
                return
        pair = _pair_of(stored, self.layers[0])
        for node in pair:
            node.args = (node.args[0], float(found.scale), int(found.zero_point), *node.args[3:])


def _pair_of(stored: Graph, layer: str) -> tuple[fx.Node, fx.Node]:
    """Returns the quantise and the dequantise node of a layer's weight, which has one scale."""
    node = next(node for node in stored.program.graph.nodes if node.name == layer)
    restored = weight_argument(node)
    assert isinstance(restored, fx.Node) and isinstance(restored.args[0], fx.Node)
    assert (restored.args[0].target, restored.target) == TENSOR_PAIR
    return restored.args[0], restored


def least_scale(bias: Tensor, input_scale: float) -> Tensor:
    """Returns the smallest scale of each channel with which runtimes hold the bias in 32 bits, `(channels,)`."""
    return bias.detach().abs() / (input_scale * LARGEST_BIAS)
