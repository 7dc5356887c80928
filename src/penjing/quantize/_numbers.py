"""Which numbers a target computes with, and the error that lists them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penjing.errors import PenjingError
from penjing.quantize._choices import Choice
from penjing.quantize.grids import Grid, find_grid

# The name of a grid in `penjing list grids`, and the largest number behind it that the target takes (0: it has none).
Largest = Mapping[str, int]


@dataclass(frozen=True)
class Numbers:
    """The grids that a target computes with from its files.

    Attributes:
        activations: that it multiplies in integers.
        weights: that it multiplies with such activations in integers, by kind of grain.
        weights_alone: that it stores in the grid's bits (or the next size that it has) and multiplies with activations in
            floating point, by kind of grain.
        stored: the sizes in bits that a weight has in its files; a grid takes the next.
    """

    activations: Largest
    weights: Mapping[str, Largest]
    weights_alone: Mapping[str, Largest]
    stored: tuple[int, ...] = (4, 8, 16, 32)


def check_numbers(target: str, numbers: Numbers, activations: Grid | None, weights: Iterable[Choice]) -> None:
    """Makes sure that the target can run what is asked for.

    Raises:
        PenjingError: it can't; lists what it can.
    """
    simulate = "simulate=True gives the grid's values all the same, without the target's speed."
    if activations is not None and not _holds(numbers.activations, activations.name):
        raise PenjingError(
            f"{target} has no integer arithmetic for '{activations.name}' activations. It has it for "
            f"{_listed(numbers.activations)}. {simulate}"
        )
    table = numbers.weights_alone if activations is None else numbers.weights
    for choice in weights:
        if not _holds(table.get(choice.grain.kind, {}), choice.grid.name):
            able = "; ".join(f"per {kind} {_listed(largest)}" for kind, largest in table.items())
            alone = " activations=None runs more grids, in floating point." if activations is not None else ""
            raise PenjingError(
                f"{target} can't multiply {choice.words} in integers. It can: {able}.{alone} {simulate}"
                if activations is not None
                else f"{target} can't run {choice.words}. It can: {able}. {simulate}"
            )


def _holds(largest: Largest, name: str) -> bool:
    grid = find_grid(name)
    return grid.entry.name in largest and grid.number <= largest[grid.entry.name]


def _listed(largest: Largest) -> str:
    return ", ".join(_range(key, number) for key, number in largest.items())


def _range(key: str, number: int) -> str:
    """ "int2…int8", "codebook:2…256", "ternary"."""
    if not number:
        return key
    stem = key.removesuffix("N") if key.endswith("N") else f"{key}:"
    return f"{stem}2…{stem if key.endswith('N') else ''}{number}"
