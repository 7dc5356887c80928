"""Writing a benchmark's results: JSON beside the script, and its table into a page between two markers."""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results.md"


def machine() -> dict[str, Any]:
    """Names the machine and the versions that a table was made with."""
    from penjing.targets import processor

    names = ("penjing", "torch", "onnxruntime", "numpy")
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()} | {
        name: version(name) for name in names
    }


def shown(columns: list[str], rows: list[list[Any]]) -> str:
    """Returns a table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def with_earlier(name: str, rows: list[list[Any]], keys: int) -> list[list[Any]]:
    """Returns rows with those of the last publication that they don't replace, sorted.

    Args:
        name: of the table.
        rows: the new ones.
        keys: columns that name a row.

    Raises:
        SystemExit: the last publication was made on another machine or with other versions.
    """
    earlier = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    if earlier["machine"] != machine():
        raise SystemExit(f"{name}.json was made elsewhere: {earlier['machine']}. Run all rows anew.")
    return sorted({tuple(row[:keys]): row for row in [*earlier["rows"], *rows]}.values())


def earlier(name: str, keys: int) -> dict[tuple[Any, ...], list[Any]]:
    """Returns the rows of the last publication by the columns that name them, wherever they were made.

    Args:
        name: of the table; its numbers but for seconds don't depend on the machine.
        keys: columns that name a row.
    """
    path = Path(__file__).parent / f"{name}.json"
    return {tuple(row[:keys]): row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


def publish(
    name: str, columns: list[str], rows: list[list[Any]], more: dict[str, Any] | None = None, page: Path = RESULTS
) -> None:
    """Prints a table, writes `benchmarks/NAME.json`, and puts the table into a page at `<!-- NAME -->`."""
    command = " ".join(["python", *sys.argv])
    record = {"command": command, "machine": machine(), "columns": columns, "rows": rows, **(more or {})}
    (Path(__file__).parent / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    table = shown(columns, rows)
    print(table)
    text = page.read_text()
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in text:
        raise SystemExit(f"{page} has no marker {begin}")
    head, rest = text.split(begin)
    where = f"`{command}`, on {record['machine']['processor']}, {record['machine']['cores']} cores; " + ", ".join(
        f"{key} {value}" for key, value in record["machine"].items() if key not in ("processor", "cores")
    )
    page.write_text(head + begin + "\n" + table + "\n\n" + where + "\n" + end + rest.split(end)[1])
