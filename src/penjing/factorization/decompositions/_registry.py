"""The table of decompositions, what a decomposition is, and the factors that it gives."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.factorization.weighting import Weighting
from penjing.registry import Entry, Registry

Ranks = tuple[int, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class FactorLayer:
    """One of the layers that a decomposition gives, in the order of execution.

    Attributes:
        weight: (out, in / groups, *kernel); axes of the kernel that it doesn't cover have size 1.
        axes: the axes of the kernel that it covers, counted from 0: it takes the layer's stride and padding along them.
        groups: its groups of channels.
    """

    weight: Tensor
    axes: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class FactorShape:
    """The sizes of a `FactorLayer`, without values."""

    weight: Shape
    axes: tuple[int, ...]
    groups: int = 1


class Decomposition(ABC):
    """How a weight (out, in, *kernel) becomes the weights of a chain of layers."""

    ranks: ClassVar[tuple[str, ...]] = ("rank",)
    """Names of its ranks, in their order; one whose number of ranks depends on the kernel's axes says so in `full`."""
    depthwise: ClassVar[bool] = False
    """Whether some of its factors have a kernel for each channel."""

    @abstractmethod
    def unfit(self, shape: Shape) -> str:
        """Returns why a weight of this shape can't be decomposed so, a code that `penjing.report` has words for, or ""."""

    @abstractmethod
    def full(self, shape: Shape) -> Ranks:
        """Returns the highest ranks; with them the decomposition is exact."""

    @abstractmethod
    def shapes(self, shape: Shape, ranks: Ranks) -> list[FactorShape]:
        """Returns the shapes of the factors."""

    @abstractmethod
    def spectra(self, weighting: Weighting) -> tuple[Tensor, ...] | None:
        """Returns, for each rank, the singular values of which the rank keeps the first; None where there are none."""

    @abstractmethod
    def factors(self, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
        """Decomposes.

        Args:
            weighting: the weight in double precision, and how its errors count.
            ranks: within `full`.

        Raises:
            PenjingError: the decomposition doesn't converge.
        """

    def alike(self, shape: Shape, share: float) -> Ranks:
        """Returns ranks that are this share of the highest ones, at least 1: what rules vary to find a wanted cost."""
        return tuple(max(1, min(full, round(share * full))) for full in self.full(shape))

    def limits(self, shape: Shape, ranks: Ranks) -> Ranks:
        """Returns the highest value of each rank beside the others."""
        return self.full(shape)

    def within(self, shape: Shape, ranks: Ranks) -> Ranks:
        """Returns the nearest ranks below that go together; for ranks that a rule found one by one."""
        while (found := tuple(map(min, ranks, self.limits(shape, ranks)))) != ranks:
            ranks = found
        return ranks

    def check(self, shape: Shape, ranks: Ranks, path: str) -> None:
        """Refuses ranks that this weight can't have.

        Raises:
            PenjingError: there are too many or too few, or one is out of its range.
        """
        count = len(self.full(shape))
        if len(ranks) != count:
            raise PenjingError(f"{path} takes {count} rank{'s' * (count > 1)} in this decomposition, not {len(ranks)}.")
        limits = self.limits(shape, ranks)
        if any(not 1 <= rank <= most for rank, most in zip(ranks, limits, strict=True)):
            ranges = ", ".join(f"1 to {most}" for most in limits)
            asked = ", ".join(map(str, ranks))
            raise PenjingError(
                f"{path} can't have the rank{'s' * (count > 1)} {asked}: the valid range is {ranges}"
                f"{', in this order' if count > 1 else ''}."
            )

    def cost(self, shape: Shape, ranks: Ranks, stride: Sequence[int]) -> float:
        """Returns the multiplications per position of the output. Links in front of a stride have more positions."""
        total, left = 0.0, list(range(len(shape) - 2))
        for factor in self.shapes(shape, ranks):
            left = [axis for axis in left if axis not in factor.axes]
            total += math.prod(factor.weight) * math.prod(stride[axis] for axis in left)
        return total


@dataclass(frozen=True, kw_only=True)
class DecompositionEntry(Entry[type[Decomposition]]):
    """A registered decomposition: `register` decorates its class."""


decompositions = Registry("decomposition", DecompositionEntry)


def find(name: str) -> Decomposition:
    """Returns a decomposition by its name.

    Raises:
        PenjingError: there is none of that name.
    """
    return decompositions[name].function()


def composed(factors: Sequence[FactorLayer]) -> Tensor:
    """Returns the weight (out, in, *kernel) of the layer that factors are together; no two may cover the same axis."""
    whole = factors[0].weight
    for factor in factors[1:]:
        weight = factor.weight
        kernel = [a * b for a, b in zip(whole.shape[2:], weight.shape[2:], strict=True)]
        if factor.groups > 1:  # a kernel for each channel
            whole = whole * weight
            continue
        count = len(kernel)
        found = torch.tensordot(weight, whole, dims=([1], [0]))  # (out, *kernel of this, in, *kernel so far)
        pairs = [axis for own in range(count) for axis in (1 + own, 2 + count + own)]
        whole = found.permute(0, 1 + count, *pairs).reshape(len(weight), whole.shape[1], *kernel)
    return whole


def along(window: Sequence[int], axis: int) -> list[int]:
    """Returns the sizes of a kernel along one of its axes: the window's there, and 1 along all others."""
    return [size if place == axis else 1 for place, size in enumerate(window)]


def features(body: Tensor, axis: int, size: int) -> Tensor:
    """Returns what a layer behind `body` reads through a kernel along one more axis, as maps from the layer's columns.

    Args:
        body: (channels, in, *kernel), with size 1 along `axis`.
        axis: the axis of the kernel.
        size: its size.

    Returns:
        (channels · size, in, *kernel), the kernel with its new axis.
    """
    found = body.new_zeros(size, *body.shape[: 2 + axis], size, *body.shape[3 + axis :])
    for place in range(size):
        found[place].select(2 + axis, place).copy_(body.select(2 + axis, 0))
    return found.transpose(0, 1).flatten(0, 1)


def decompose(decomposition: Decomposition, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
    """Returns the factors of a weight; where errors of the outputs count, the last factor is fitted to them once more.

    Raises:
        PenjingError: the decomposition doesn't converge.
    """
    *factors, last = decomposition.factors(weighting, ranks)
    seen = composed(factors)
    for axis in last.axes:
        seen = features(seen, axis, last.weight.shape[2 + axis])
    fitted = weighting.refitted(seen.flatten(1))
    if fitted is None:
        return [*factors, last]
    return [*factors, FactorLayer(fitted.reshape(last.weight.shape), last.axes)]
