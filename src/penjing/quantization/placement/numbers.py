"""Checks that a target can compute with the grids that the user asks for; the errors name the grids that it can."""

from collections.abc import Iterable

from penjing.capabilities import TARGETS, Capabilities, Largest
from penjing.errors import PenjingError
from penjing.quantization.grids import Grid, find_grid, integers
from penjing.quantization.weights.choices import Choice, find_choice


def check_numbers(
    target: Capabilities, activations: Grid | None, weights: Iterable[Choice], tables: Iterable[Choice] = ()
) -> None:
    """Makes sure that the target can run these grids.

    Args:
        target: what the target can do.
        activations: the grid of the activations; None where they stay in floating point.
        weights: the grids and grains of the weights.
        tables: the grids and grains of tables in which rows are looked up.

    Raises:
        PenjingError: the target can't run one of them; the message lists those that it can.
    """
    if activations is not None:
        check_integers(target)
    name, numbers = target.name, target.numbers
    simulate = "simulate=True gives the grid's values all the same, without the target's speed."
    if activations is not None and not _holds(numbers.activations, activations.name):
        raise PenjingError(
            f"{name} has no integer arithmetic for '{activations.name}' activations. It has it for "
            f"{_listed(numbers.activations)}. {simulate}"
        )
    for choice in tables:
        if not _holds(numbers.tables.get(choice.grain.kind, {}), choice.grid.name):
            held = "; ".join(f"per {kind} {_listed(largest)}" for kind, largest in numbers.tables.items())
            can = f"It looks rows up in tables of these grids: {held}" if held else "Its tables stay in floating point"
            raise PenjingError(f"{name} can't look up in a table of {choice.words}. {can}. {simulate}")
    table = numbers.weights_alone if activations is None else numbers.weights
    for choice in weights:
        if not _holds(table.get(choice.grain.kind, {}), choice.grid.name):
            able = "; ".join(f"per {kind} {_listed(largest)}" for kind, largest in table.items())
            alone = " activations=None runs more grids, in floating point." if activations is not None else ""
            raise PenjingError(
                f"{name} can't multiply {choice.words} in integers. It can: {able}.{alone} {simulate}"
                if activations is not None
                else f"{name} can't run {choice.words}. It can: {able}. {simulate}"
            )


def check_weights(target: Capabilities, grid: str) -> None:
    """Makes sure that the target multiplies weights on a grid with the activations that it prefers.

    Raises:
        PenjingError: the grid is unknown, or the target can't multiply it; the message lists the grids that it can.
    """
    check_numbers(target, integers(target.numbers.preferred), [find_choice(grid, "auto")])


def check_integers(target: Capabilities) -> None:
    """Makes sure that the target has integer arithmetic at all.

    Raises:
        PenjingError: the target has none; the message says what it can do instead, and which targets have it.
    """
    if not target.has_integers:
        others = " or ".join(f"target='{name}'" for name, other in TARGETS.items() if other.has_integers)
        raise PenjingError(
            f"{target.name} computes nothing in integers. activations=None stores weights in few bits for it and computes "
            f"in floating point; simulate=True rounds values all the same, without any speed; {others} computes in integers."
        )


def _holds(largest: Largest, name: str) -> bool:
    grid = find_grid(name)
    return grid.entry.name in largest and grid.number <= largest[grid.entry.name]


def _listed(largest: Largest) -> str:
    return ", ".join(_range(key, number) for key, number in largest.items())


def _range(key: str, number: int) -> str:
    """Returns a range of grids as text: "int2…int8", "codebook:2…256", "ternary"."""
    if not number:
        return key
    stem = key.removesuffix("N") if key.endswith("N") else f"{key}:"
    return f"{stem}2…{stem if key.endswith('N') else ''}{number}"
