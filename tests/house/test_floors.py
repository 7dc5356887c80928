"""The house as CONTRIBUTING.md draws it: every import of every file goes down its floors, and none goes round in a circle."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "penjing"
TABLE = ROOT / "CONTRIBUTING.md"

# `graph.save(path)` is a method that users know; what it does stands one floor higher, and is imported when it is called.
UPWARD = {("graph/graph.py", "storage"), ("graph/__init__.py", "storage")}


@cache
def floors() -> dict[str, int]:
    """Returns the floor of every folder and file that stands directly in the package, as the table numbers them."""
    found: dict[str, int] = {}
    for line in TABLE.read_text().splitlines():
        row = re.match(r"\| (\d+) \| (.*?) \|", line)
        if row:
            for name in re.findall(r"`([\w./]+)`", row[2]):
                found[name.removesuffix("/").removesuffix(".py")] = int(row[1])
    return found


def unit(module: str) -> str:
    """Returns the folder or file directly in the package that a module belongs to: "graph" of "penjing.graph.cost"."""
    return module.split(".")[1] if "." in module else "__init__"


def module_of(path: Path, sources: Path) -> str:
    parts = path.relative_to(sources.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache  # copies of the package hold the same text in all files but one
def statements(source: str) -> tuple[tuple[ast.Import | ast.ImportFrom, bool], ...]:
    """Returns the imports of a text and whether each stands in a function; not those that only a type checker sees."""
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    found = []
    while waiting:
        node, late = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append((node, late))
        hidden = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        late = late or isinstance(node, ast.FunctionDef)
        waiting += [(inner, late) for inner in (node.orelse if hidden else ast.iter_child_nodes(node))]
    return tuple(found)


def imports(path: Path, modules: set[str], late: bool = True) -> Iterator[str]:
    """Yields the modules of the package that a file imports.

    Args:
        path: the file.
        modules: of the package.
        late: whether imports within functions count.
    """
    for node, within in statements(path.read_text()):
        if within and not late:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "penjing":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in modules else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] == "penjing")


def private_names(path: Path, modules: set[str]) -> Iterator[str]:
    """Yields the private functions and values that a file takes from another file of the package, with their modules."""
    for node, _ in statements(path.read_text()):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "penjing":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                if name.name.startswith("_") and not name.name.startswith("__") and inner not in modules:
                    yield inner


def faults(sources: Path) -> list[str]:
    """Returns what is wrong with the imports of a package, a sentence each."""
    files = sorted(sources.rglob("*.py"))
    modules = {module_of(path, sources) for path in files}
    found, order = list[str](), TopologicalSorter[str]()
    packages = {module_of(path, sources) for path in files if path.name == "__init__.py"}
    for path in files:
        own, name = module_of(path, sources), path.relative_to(sources).as_posix()
        for module in set(imports(path, modules)):
            here, there = unit(own), unit(module)
            if here != there and floors()[there] >= floors()[here] and (name, there) not in UPWARD:
                found.append(f"{name} imports {module}, which stands on floor {floors()[there]}")
            if here != there and any(part.startswith("_") for part in module.split(".")[1:]):
                found.append(f"{name} imports {module}, which is another package's own")
        found += [f"{name} imports {one}, which is another file's own" for one in private_names(path, modules)]
        for module in set(imports(path, modules, late=False)):
            if module != own and not {own, module} & packages:
                order.add(own, module)
    try:
        order.prepare()
    except CycleError as error:
        found.append(f"a circle of imports: {', '.join(sorted(set(error.args[1])))}")
    return sorted(found)


def test_everything_in_the_package_stands_on_a_floor():
    there = {path.stem for path in SOURCES.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there == set(floors())


def test_every_import_goes_down_and_none_goes_round():
    assert faults(SOURCES) == []


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        (
            "graph/cost.py",
            "from penjing.pruning import criteria",
            "graph/cost.py imports penjing.pruning.criteria, which stands on",
        ),
        (
            "pruning/_prune.py",
            "import penjing.quantization",
            "pruning/_prune.py imports penjing.quantization, which stands on",
        ),
        (
            "run/clock.py",
            "from penjing.pruning import _units",
            "penjing.pruning._units, which is another package's own",
        ),
        (
            "graph/cost.py",
            "def late():\n    from penjing.planning import plan",
            "graph/cost.py imports penjing.planning",
        ),
        (
            "graph/places.py",
            "import penjing.graph.graph",
            "a circle of imports: penjing.graph.graph, penjing.graph.places",
        ),
        (
            "graph/cost.py",
            "from penjing.graph.places import _name",
            "graph/cost.py imports penjing.graph.places._name, which is another file's own",
        ),
    ],
    ids=["a climb", "a sibling", "a private module", "a climb within a function", "a circle", "a private name"],
)
def test_a_forbidden_import_is_found(file, line, said, tmp_path):
    package = tmp_path / "penjing"
    for path in SOURCES.rglob("*.py"):
        copy = package / path.relative_to(SOURCES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (package / file).write_text(
        f"{line}\n{(package / file).read_text()}".replace("from __future__", "# from __future__")
    )
    assert any(said in fault for fault in faults(package)), faults(package)
