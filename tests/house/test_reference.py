"""The reference names every public name, each with the place where it is defined."""

import importlib
import re
from pathlib import Path

import penjing as pj

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "index.md"


def found(path: str) -> object:
    """Returns the object that a path such as "penjing.graph.graph.Graph" names."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_every_public_name_stands_in_the_reference_and_no_other():
    entries = dict(re.findall(r"^### pj\.(\w+)\n\n::: (\S+)$", PAGE.read_text(), re.MULTILINE))
    assert sorted([*entries, "__version__"]) == sorted(pj.__all__)
    assert all(found(path) is getattr(pj, name) for name, path in entries.items())
