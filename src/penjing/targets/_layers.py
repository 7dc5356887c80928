"""The cost of each of the user's modules: counts from the graph beside the times that the runtime took."""

from typing import Any

from penjing.graph import Cost, Row
from penjing.targets._records import ExecutedNode


def layers_of(cost: Cost, nodes: list[ExecutedNode]) -> dict[str, dict[str, Any]]:
    """Returns the cost of each module for one sample, and the time that its nodes took, by the module's path.

    Modules that multiply nothing and hold no parameters are left out. `roofline` tells more, for a machine's peaks.
    """
    times: dict[str, float] = {}
    integer: dict[str, bool] = {}
    for node in nodes:
        if node.module:
            times[node.module] = times.get(node.module, 0.0) + node.latency_us / 1e3
            integer[node.module] = integer.get(node.module, False) or node.integer
    return {
        name: _layer(members, times.get(name), integer.get(name, False))
        for name, members in rows_of_layers(cost).items()
    }


def rows_of_layers(cost: Cost) -> dict[str, list[Row]]:
    """Returns the rows of each module that multiplies or holds parameters, by the module's path."""
    rows: dict[str, list[Row]] = {}
    for row in cost.rows:
        rows.setdefault(row.module or row.node, []).append(row)
    return {
        name: members
        for name, members in rows.items()
        if any(row.macs or row.params or not row.counted for row in members)
    }


def main_row(rows: list[Row]) -> Row:
    """Returns the row that stands for a module: that with the most MACs, a quantiser's at last."""
    return max(rows, key=lambda row: (row.macs, not row.op.startswith(("quantize", "dequantize")), row.params))


def _layer(rows: list[Row], milliseconds: float | None, integer: bool) -> dict[str, Any]:
    """Sums the costs of a module's nodes; op and shape are those of its main one."""
    main = main_row(rows)
    return {
        "op": main.op,
        "latency_ms": milliseconds,
        "params": sum(row.params for row in rows),
        "macs": sum(row.macs for row in rows),
        "counted": all(row.counted for row in rows),
        "shape": list(main.output_shape),
        "integer": integer,
    }
