"""Prints what `penjing channels` found: how much can be pruned, then a line per group, then why the rest stays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Column, Table

from penjing.cli.screen import Screen, styled
from penjing.graph.channels.explain import Explanation, Saving, Stay
from penjing.graph.cost import uncounted


def as_record(found: Explanation) -> dict[str, Any]:
    """Returns the explanation as plain JSON values."""
    return {
        "parameters": found.params,
        "removable_parameters": found.removable,
        "parameters_at_half": found.params_at_half,
        "macs": found.macs,
        "macs_at_half": found.macs_at_half,
        "uncounted": [{"node": row.node, "module": row.module, "op": row.op} for row in found.uncounted],
        "groups": [
            {
                "name": saving.group.name,
                "units": saving.group.units,
                "params": saving.params,
                "macs": saving.macs,
                "made_by": saving.group.made_by(),
                "shrinks": saving.shrinks,
            }
            for saving in found.savings
        ],
        "pinned": [vars(stay) for stay in found.stays],
    }


def show(name: str, found: Explanation, screen: Screen) -> None:
    """Prints the explanation as text and tables.

    Args:
        name: name of the model.
        found: the explanation of its channels.
        screen: the screen to print on.
    """
    share = found.removable / max(found.params, 1)
    if found.savings:
        left = (
            f"half of the channels would leave {found.params_at_half / found.params:.1%} of the {found.params:,} parameters and "
            f"{found.macs_at_half / max(found.macs, 1):.1%} of the {_short(found.macs)} multiply-accumulates (MACs)"
        )
    else:
        left = f"no channel can go; all {found.params:,} parameters stay"
    whats = list(dict.fromkeys(stay.what for stay in found.stays))
    pinned = f"; pinned: {_listed(whats)}" if whats else ""
    screen.print(styled(f"{name}: {left}{pinned}.", "bold"))
    if found.savings:
        screen.print(
            f"{_percent(share)} of its parameters can go, in {len(found.savings)} groups of channels. A channel goes from the "
            "layer that makes it and from all layers that it runs through."
        )
        _show_groups(found.savings, screen)
    if found.uncounted:
        screen.print(uncounted(found.uncounted))
    if found.stays:
        _show_stays(found.stays, screen)


@dataclass
class _Line:
    """One line of the table: layers whose names differ in one number only, and whose other columns are equal."""

    names: list[str]
    numbers: tuple[str, ...]
    also: list[str]

    def takes(self, name: str, numbers: tuple[str, ...]) -> bool:
        if numbers != self.numbers or name.count(".") != self.names[0].count("."):
            return False
        columns = list(zip(*(one.split(".") for one in (*self.names, name)), strict=True))
        varying = [column for column in columns if len(set(column)) > 1]
        return len(varying) == 1 and all(part.isdigit() for part in varying[0])

    def name(self) -> str:
        """Returns "layer3.{1-7}.conv" for seven layers, as a shell would abbreviate their names."""
        parts = []
        for column in zip(*(one.split(".") for one in self.names), strict=True):
            if len(set(column)) == 1:
                parts.append(column[0])
            else:
                values = [int(part) for part in column]
                run = values == list(range(values[0], values[0] + len(values))) and len(values) > 2
                parts.append(f"{{{values[0]}-{values[-1]}}}" if run else f"{{{','.join(map(str, values))}}}")
        return ".".join(parts)


def _show_groups(savings: Sequence[Saving], screen: Screen) -> None:
    named: dict[str, list[Saving]] = {}
    for saving in savings:
        named.setdefault(saving.group.name, []).append(saving)
    lines: list[_Line] = []
    for name, kinds in named.items():
        also = list(dict.fromkeys(path for kind in kinds for path in kind.shrinks))
        numbers = (
            str(sum(kind.group.units for kind in kinds)) + ("*" if len(kinds) > 1 else ""),
            _span(kind.params for kind in kinds),
            _span(kind.macs for kind in kinds),
            str(len(also)),
        )
        line = next((line for line in lines if line.takes(name, numbers)), None)
        if line is None:
            lines.append(_Line([name], numbers, also))
        else:
            line.names.append(name)
    table = _table(
        Column("channels of", overflow="fold"),
        Column("how many", justify="right"),
        Column("each saves\nparameters", justify="right"),
        Column("\nMACs", justify="right"),
        Column("and shrinks", ratio=1, min_width=24, no_wrap=True, overflow="ellipsis"),
    )
    for line in lines:
        units, params, macs, others = line.numbers
        others = f"{others}: {', '.join(line.also)}" if line.also else ""
        many = f"{len(line.names)} × {units}" if len(line.names) > 1 else units
        table.add_row(line.name(), many, params, macs, others)
    screen.print(table)
    if len(named) < len(savings):
        screen.print("* of several kinds, read by different layers: each kind is a group of its own.")


def _show_stays(stays: Sequence[Stay], screen: Screen) -> None:
    causes: dict[tuple[str, str], dict[str, None]] = {}
    for stay in stays:
        causes.setdefault((stay.why, _line(stay.source)), {})[stay.what] = None
    code = [Column("in the model's code", overflow="fold")] if any(source for _, source in causes) else []
    table = _table(Column("what must stay", overflow="fold"), Column("because", overflow="fold"), *code)
    for (why, source), whats in causes.items():
        table.add_row(_listed(list(whats)), why, *([source] if code else []))
    screen.print(table)


def _table(*columns: Column) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, expand=any(column.ratio for column in columns))


def _listed(names: Sequence[str], most: int = 2) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f", {more} more" if more > 0 else "")


def _line(source: str) -> str:
    """Returns a source line without the folders of its file: "net.py:12 return self.head(x)"."""
    where, _, code = source.partition(" ")
    return f"{Path(where).name} {code}".strip()


def _span(numbers: Iterable[int]) -> str:
    values = sorted(numbers)
    return "–".join(dict.fromkeys(map(_short, (values[0], values[-1]))))


def _percent(share: float) -> str:
    """Returns a share in percent, which is never rounded up to the whole."""
    return "all" if share == 1 else f"{min(share, 0.9999):.{2 if share > 0.999 else 1}%}"


def _short(number: float) -> str:
    """Returns a number in at most five characters: "950", "12.3k", "1.6M"."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 1000 or unit == "T":
            break
        number /= 1000
    return f"{number:.0f}{unit}" if unit == "" or number >= 100 else f"{number:.1f}{unit}"
