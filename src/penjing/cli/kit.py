"""A kit for a device without a network: what `penjing profile` writes for it, and what it shows of its result."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from penjing.cli.screen import Screen

if TYPE_CHECKING:
    from penjing.graph import Graph
    from penjing.targets import Artifact


def export_kit(
    folder: Path, graph: "Graph", artifact: "Artifact | None", target: str, threads: int, batch: int, as_json: bool
) -> None:
    """Writes a kit for a graph, or for a file that was made of it, and says how it is used, or in JSON what it is."""
    from penjing.graph import fold_batch_norms
    from penjing.targets import find_target, lower, write_kit

    with tempfile.TemporaryDirectory() as temporary:
        if artifact is None:
            artifact = lower(graph, target, Path(temporary, f"model{find_target(target).suffix}"))
        cost = fold_batch_norms(graph).cost()
        write_kit(folder, artifact, cost, name=graph.name, threads=threads, batch=batch)
    if as_json:
        record = {"kit": str(folder), "name": graph.name, "target": artifact.target, "threads": threads, "batch": batch}
        print(json.dumps(record, indent=2))
        return
    Screen().print(
        f"{folder}/ measures {graph.name} on any device with {artifact.target}. Copy it there, run `python3 measure.pyz` in it, "
        f"put the result.json that it writes into {folder}/ here, and run `penjing profile --import {folder}/result.json`."
    )


def show_result(result: Path, as_json: bool) -> None:
    """Shows what a kit measured."""
    from penjing.targets import import_kit, layers_of

    found = import_kit(result)
    rows = layers_of(found.cost, found.nodes)
    if as_json:
        record = {
            "name": found.name,
            "target": found.target,
            "machine": found.machine.to_dict(),
            "measurement": found.measurement.to_dict(),
            "nodes": [asdict(node) for node in found.nodes],
            "layers": rows,
        }
        print(json.dumps(record, indent=2))
        return
    total = sum(row["latency_ms"] or 0.0 for row in rows.values()) or 1.0
    table = Table("layer", "op", *(Column(title, justify="right") for title in ("ms", "share", "MACs")))
    for name, row in rows.items():
        took = row["latency_ms"]
        times = ("fused", "") if took is None else (f"{took:.3f}", f"{took / total:.1%}")
        table.add_row(name, row["op"], *times, f"{row['macs']:,}")
    measured = found.measurement
    latency, memory = measured.latency_ms, measured.peak_memory_bytes
    screen = Screen()
    screen.print(table)
    screen.print(
        f"{found.name} by {measured.runtime} on {found.machine.processor or found.machine.architecture}, {measured.threads} "
        f"thread(s), batch {measured.batch}: {latency.median:.3f} ms (median of {latency.runs} calls; 90th percentile "
        f"{latency.p90:.3f} ms), {measured.size_bytes:,} bytes"
        + ("." if memory is None else f", {memory / 2**20:.1f} MiB of memory at most.")
    )
