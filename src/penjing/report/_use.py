"""How the delivered file is used: by its script, and in a program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAGES = {"index.html": "open it in a browser: it classifies a photo that is dropped on it, without a server"}


@dataclass(frozen=True)
class Use:
    """What the page tells.

    Attributes:
        where: a sentence on where the commands work.
        commands: lines for a terminal.
        facts: names and values: the file's inputs, and what else lies in the folder.
    """

    where: str
    commands: str
    facts: Sequence[tuple[str, str]]


def use(report: Mapping[str, Any]) -> Use | None:
    """Returns how the file is used; None where the report doesn't tell."""
    told = report.get("usage")
    if told is None:
        return None
    given = "photo.jpg" if told["photos"] else told.get("examples") or "--help"
    without = "Penjing" if "torch" in told["packages"] else "Penjing and PyTorch"
    facts = [(f"{told['file']} takes", ", ".join(_input(one) for one in told.get("inputs") or ()))]
    if told["photos"]:
        facts.append(("preprocess.json", "says how a photo becomes an input; run.py does each step"))
    facts += [(name, PAGES[name]) for name in told.get("beside") or () if name in PAGES]
    return Use(
        f"In the folder of this page, on a machine without {without}:",
        f"pip install {' '.join(told['packages'])}\npython run.py {given}",
        facts,
    )


def _input(one: Mapping[str, Any]) -> str:
    shape = " × ".join("any" if size is None else f"{size}" for size in one["shape"])
    return f"{one['name']} ({shape or 'a number'}, {one['dtype']})"
