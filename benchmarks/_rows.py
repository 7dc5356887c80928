"""Finished rows of a benchmark, which a run that was killed finds again."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Rows:
    """Finished rows, one line of JSON each, that a run which was killed finds again."""

    def __init__(self, name: str) -> None:
        self.path = HERE / f"{name}.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = {_key(row["key"]): row for row in map(json.loads, lines)}

    def has(self, key: Iterable[Hashable]) -> bool:
        """Tells whether this row is finished."""
        return _key(key) in self.rows

    def once(self, key: Iterable[Hashable], run: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the row of this key, which is run only if no earlier run finished it."""
        key = list(key)
        if not self.has(key):
            row = {"key": key, **run()}
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            self.rows[_key(key)] = row
        return self.rows[_key(key)]

    def get(self, key: Iterable[Hashable]) -> dict[str, Any]:
        """Returns a finished row."""
        if not self.has(key):
            raise SystemExit(f"{self.path.name} has no row {list(key)}: run the benchmark first.")
        return self.rows[_key(key)]


def _key(key: Iterable[Any]) -> str:
    return json.dumps(list(key))
