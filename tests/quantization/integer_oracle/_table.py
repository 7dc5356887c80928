"""The table of integer forms, and the words in which one is written: codes, a call, a kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from integer_oracle._fixed_point import LARGEST_PRODUCT, FixedPoint
from penjing.errors import PenjingError

INT32 = 2**31 - 1
INT64 = 2**63 - 1


@dataclass(frozen=True)
class Codes:
    """What integers stand for: `real = scale · (integer − zero_point)`.

    Attributes:
        scale: a float32, or one number per index of the last axis for a linear layer's sums.
        zero_point: the integer that stands for 0.
        low: the smallest integer.
        high: the largest.
    """

    scale: np.ndarray | np.float32
    zero_point: int
    low: int
    high: int

    def restored(self, values: Tensor) -> Tensor:
        """Returns the reals that integers stand for, float32; the shape stays."""
        return (values - self.zero_point).float() * torch.as_tensor(self.scale)

    def rounded(self, reals: np.ndarray) -> np.ndarray:
        """Returns the nearest codes, as ONNX defines QuantizeLinear: divided in float32, halves to even, then clipped."""
        steps = np.rint(np.asarray(reals, np.float32) / self.scale) + self.zero_point
        return np.clip(steps, self.low, self.high).astype(np.int64)

    @property
    def largest(self) -> int:
        """The largest distance of a code from the zero point."""
        return max(abs(self.low - self.zero_point), abs(self.high - self.zero_point))

    def same_grid(self, other: "Codes") -> bool:
        """Tells whether equal integers stand for equal reals."""
        return bool(np.array_equal(self.scale, other.scale)) and self.zero_point == other.zero_point


class NoIntegerForm(PenjingError):
    """An op that can't be computed in integers, as it stands."""


def no_integer_form(node: fx.Node, what: str) -> NoIntegerForm:
    """Returns the error that a node can't be computed in integers, because of `what`."""
    op = str(node.target).removeprefix("aten.").partition(".")[0]
    where = node.meta.get("module") or node.name
    return NoIntegerForm(
        f"'{op}' in '{where}' {what}, so the graph can't run with integers alone; replace the op, or leave in floating "
        "point only what stands at the ends of the network."
    )


@dataclass(frozen=True)
class Kernel:
    """How to compute a node.

    Attributes:
        function: takes the values of `operands`, returns the node's value (or a tuple of them).
        operands: nodes.
        codes: what the result's integers stand for.
    """

    function: Callable[..., Any]
    operands: tuple[fx.Node, ...]
    codes: Codes


@dataclass(frozen=True)
class Weight:
    """A layer's constant weight: integers without zero point, and a scale per output channel.

    Attributes:
        values: int64, output channels on axis 0.
        scales: float32 `(channels,)`.
    """

    values: Tensor
    scales: np.ndarray


@dataclass(frozen=True)
class Call:
    """A node whose integer form is asked for, and what is known about what it reads and where its result goes.

    Attributes:
        node: the node.
        known: the codes of every node held in integers so far.
        out: the grid that the result is rounded to, within the bounds of the clips between; None if it isn't.
        weight_of: reads a layer's weight.
        constant_of: evaluates what depends on parameters and buffers alone.
    """

    node: fx.Node
    known: dict[fx.Node, Codes]
    out: Codes | None
    weight_of: Callable[[fx.Node], Weight]
    constant_of: Callable[[fx.Node], Tensor]

    def codes(self, operand: Any) -> Codes:
        """Returns what an operand's integers stand for.

        Raises:
            NoIntegerForm: it is held in floating point, or as sums that nothing rounded yet.
        """
        codes = self.known.get(operand)
        if codes is None or codes.scale.ndim:
            raise self.error(f"reads '{operand}', which isn't rounded to integers")
        return codes

    @property
    def grid(self) -> Codes:
        """The grid of the result.

        Raises:
            NoIntegerForm: the result isn't rounded.
        """
        if self.out is None:
            raise self.error("makes values that nothing rounds to a grid")
        return self.out

    def error(self, what: str) -> NoIntegerForm:
        """Returns an error that says which op of which module can't be computed in integers, and what to do."""
        return no_integer_form(self.node, what)

    def rescaled(self, bound: int, factor: Any) -> Callable[[Tensor], Tensor]:
        """Returns a function that brings sums to the result's grid.

        Args:
            bound: no sum is larger than this.
            factor: a sum's scale divided by the grid's, shaped to broadcast against the sums.

        Raises:
            NoIntegerForm: the fixed-point product may pass 64 bits.
        """
        grid, fixed = self.grid, FixedPoint.of(factor)
        self.check(bound * fixed.largest_factor(), LARGEST_PRODUCT)

        def rescale(sums: Tensor) -> Tensor:
            return (fixed.multiply(sums) + grid.zero_point).clamp(grid.low, grid.high).int()

        return rescale

    def check(self, bound: int, limit: int) -> None:
        """Raises an error if integers that may become as large as `bound` could overflow."""
        if bound > limit:
            raise self.error("makes sums that 64 bits can't hold")

    def accumulator(self, bound: int) -> torch.dtype:
        """Returns int32, or int64 where sums as large as `bound` need it."""
        self.check(bound, INT64)
        return torch.int32 if bound <= INT32 else torch.int64


Form = Callable[..., Kernel]
FORMS: dict[Any, Form] = {}


def integer(*targets: Any) -> Callable[[Form], Form]:
    """Registers the integer form of these ops.

    A form is called once, before anything runs, with a `Call` and the op's arguments in the order of its schema (defaults
    filled in, tensors as nodes). Whatever is real it turns into integers then; its kernel sees integers alone.
    """

    def add(function: Form) -> Form:
        FORMS.update(dict.fromkeys(targets, function))
        return function

    return add
