"""Commands that change nothing: channels, list, targets; profile has a file of its own."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from penjing.cli.app import app
from penjing.cli.compressing import AsJson, Model, Units, Weights
from penjing.cli.place_patterns import Patterns
from penjing.cli.screen import Screen, printable
from penjing.errors import PenjingError, unknown_name

if TYPE_CHECKING:
    from penjing.graph import Graph
    from penjing.registry import Registry
    from penjing.targets import DeviceFacts, Peaks

FAMILIES = {  # the package of each family's registry, by the family's name on the command line
    "criteria": "penjing.pruning",
    "granularities": "penjing.pruning",
    "allocations": "penjing.pruning",
    "schedules": "penjing.pruning",
    "grids": "penjing.quantization",
    "observers": "penjing.quantization",
    "roundings": "penjing.quantization",
    "corrections": "penjing.quantization",
    "methods": "penjing.quantization",
    "decompositions": "penjing.factorization",
    "rank_rules": "penjing.factorization",
    "metrics": "penjing.factorization",
    "forms": "penjing.factorization",
    "signals": "penjing.distillation",
    "balances": "penjing.distillation",
    "distillation_schedules": "penjing.distillation",
    "teachers": "penjing.training",
    "penalties": "penjing.penalties",
    "augmentations": "penjing.training.augmentations",
    "techniques": "penjing.planning",
    "solvers": "penjing.planning.solvers",
    "networks": "penjing.zoo",
    "tasks": "penjing.tasks",
}

SYNONYMS = {  # other words that people use, and the family that they look for
    "quantisers": "grids", "quantizers": "grids", "quantise": "grids", "quantize": "grids", "bits": "grids",
    "pruners": "criteria", "prune": "criteria", "saliencies": "criteria", "criterion": "criteria",
    "factorize": "decompositions", "factorise": "decompositions", "ranks": "rank_rules", "losses": "signals",
    "distillation": "signals", "regularizers": "penalties", "regularisers": "penalties", "models": "networks", "zoo": "networks",
    "augment": "augmentations", "runtimes": "targets", "backends": "targets", "devices": "targets",
}  # fmt: skip

MaybeData = Annotated[str | None, typer.Option("--data", help="where example inputs come from, if the model has none")]


def _graph(model: str, weights: Path | None, data: str | None) -> "Graph":
    from penjing.data import load
    from penjing.models import load_model

    return load_model(model, weights, load(data) if data else None).graph()


def _number(title: str) -> Column:
    return Column(title, justify="right")


@app.command("channels")
def channels_command(
    model: Model,
    weights: Weights = None,
    data: MaybeData = None,
    include: Patterns = None,
    exclude: Patterns = None,
    units: Units = "auto",
    as_json: AsJson = False,
) -> None:
    """Shows which channels can be removed together, what each saves, and why the rest must stay."""
    from penjing.cli import _channels
    from penjing.graph import channels
    from penjing.graph.channels.explain import explain

    graph = _graph(model, weights, data)
    found = explain(graph, channels(graph, include=include or (), exclude=exclude or (), units=units))
    if as_json:
        print(json.dumps(_channels.as_record(found), indent=2))
    else:
        _channels.show(graph.name, found, Screen())


def _registry(family: str) -> "Registry[Any, ...]":
    found: Registry[Any, ...] = getattr(importlib.import_module(FAMILIES[family]), family)
    return found


@app.command("list")
def list_command(
    family: Annotated[
        str | None, typer.Argument(help=", ".join(FAMILIES), autocompletion=lambda: list(FAMILIES))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists every method that is registered, with its source and what it needs."""
    family = SYNONYMS.get(family, family) if family is not None else None
    if family == "targets":
        raise PenjingError("penjing targets lists the runtimes, and says which of them are usable here.")
    if family is not None and family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    chosen = {name: _registry(name) for name in ([family] if family else FAMILIES)}
    if as_json:
        entries = {
            title: [
                {"name": e.name, "source": e.source, "needs": sorted(e.needs), "summary": e.summary}
                for e in registry.values()
            ]
            for title, registry in chosen.items()
        }
        print(json.dumps(entries, indent=2))
        return
    screen = Screen()
    if not screen.is_terminal:  # whole lines, for grep and cut
        for title, registry in chosen.items():
            for entry in registry.values():
                print(
                    "\t".join(
                        map(printable, (title, entry.name, entry.summary, ", ".join(sorted(entry.needs)), entry.source))
                    )
                )
        return
    for title, registry in chosen.items():
        name = Column("name", no_wrap=True)  # users type names, so names are never wrapped, however narrow the screen
        table = Table(name, "what it does", "needs", "source", title=title, title_justify="left")
        for entry in registry.values():
            table.add_row(entry.name, entry.summary, ", ".join(sorted(entry.needs)), entry.source)
        screen.print(table)


@app.command("targets")
def targets_command(
    facts: Annotated[
        bool,
        typer.Option("--facts", help="also what this machine is, and how fast each usable runtime is on it at best"),
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of the runtimes, for --facts")] = 1,
    as_json: AsJson = False,
) -> None:
    """Shows which runtimes are usable on this machine, and what to install for the others."""
    from penjing.targets import available, device_facts, machine_facts

    found = available()
    peaks = {one.name: device_facts(one.name, threads).peaks for one in found if one.usable} if facts else {}
    if as_json:
        rows = [asdict(one) | ({"peaks": _plain(peaks.get(one.name))} if facts else {}) for one in found]
        print(json.dumps({"machine": machine_facts().to_dict(), "targets": rows} if facts else rows, indent=2))
        return
    screen = Screen()
    table = Table("target", "usable", "version", "note")
    for one in found:
        table.add_row(one.name, "yes" if one.usable else "no", one.version or "", one.note)
    screen.print(table)
    if facts:
        _show_machine(screen, machine_facts())
        _show_peaks(screen, peaks)


def _show_peaks(screen: Screen, peaks: "Mapping[str, Peaks | None]") -> None:
    """Says how fast each usable runtime is at best."""
    titles = ("float32, GMAC/s", "int8, GMAC/s", "reading weights, GB/s")
    table = Table(Column("at best", no_wrap=True), *map(_number, titles))
    for name, told in peaks.items():
        if told is not None:
            numbers = (told.float_macs, told.integer_macs, told.bytes)
            table.add_row(name, *("" if number is None else f"{number / 1e9:.0f}" for number in numbers))
    screen.print(table)


def _plain(peaks: "Peaks | None") -> dict[str, Any] | None:
    return None if peaks is None else asdict(peaks)


def _show_machine(screen: Screen, facts: "DeviceFacts") -> None:
    """Says what the machine is; what its system doesn't tell is left out."""
    rows = {
        "processor": facts.processor,
        "architecture": facts.architecture,
        "system": facts.system,
        "cores": str(facts.cores),
        "clock": "" if facts.clock_hz is None else f"{facts.clock_hz / 1e9:.2f} GHz",
        "memory": "" if facts.memory_bytes is None else f"{facts.memory_bytes / 2**30:.1f} GiB",
        "caches": ", ".join(f"{name} {size / 2**10:,.0f} KiB" for name, size in facts.cache_bytes.items()),
        "instructions": " ".join(facts.instructions),
    }
    table = Table("this machine", "")
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    screen.print(table)
