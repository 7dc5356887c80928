"""Makes small wrong changes to the sources, one at a time, and counts how many of them the tests near by notice.

What is known of a change is kept in benchmarks/out as long as its file and the tests near it stay as they are.

The sources and tests are copied to a folder that is thrown away; each change of benchmarks/_mutants.py is made there, and the
tests near it run until the first fails. A change that no test notices has survived: then a test is missing, or the change
computes the same (which `_mutants.py` then says). Tests that fail without any change are an error.

    python benchmarks/mutants.py [--only TEXT]     where TEXT is part of a file's name: runs these, and publishes nothing
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import onnxruntime  # noqa: F401  # what takes seconds to import is imported here, once for all processes
import pytest
import scipy.optimize  # noqa: F401
import torch
import torch.onnx
import torchmetrics  # noqa: F401

from _mutants import MUTANTS, Mutant
from _tables import publish

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "out" / "mutants.json"
LONGEST = 600  # seconds for the near tests of one change; what makes them longer was noticed


class FirstFailure:
    """A plugin of pytest that remembers the first test that failed."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"{report.nodeid} (can't be read)"


# Penjing itself must not be imported here: each process imports its own changed one.


def _test(tree: Path, tests: tuple[str, ...], results: Connection) -> None:
    """Runs tests of a tree until one fails, in a process of its own; sends the name of that, or nothing."""
    os.chdir(tree)
    sys.path.insert(0, str(tree / "src"))
    os.environ |= {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    seen = FirstFailure()
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *(f"tests/{test}" for test in tests)]
    code = pytest.main(arguments, plugins=[seen])
    results.send(seen.name if code in (0, 1, 2) and (seen.name or code == 0) else f"pytest ended with {int(code)}")


def first_failure(tree: Path, tests: tuple[str, ...]) -> str:
    """Returns the first test of these that fails on a tree; "" if none does."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_test, args=(tree, tests, send))
    process.start()
    send.close()
    process.join(LONGEST)
    if process.is_alive():
        process.kill()
        process.join()
        return f"more than {LONGEST} s"
    try:
        return receive.recv()
    except EOFError:
        return f"the process ended with {process.exitcode}"


def noticed_by(tree: Path, mutant: Mutant) -> str:
    """Makes one change to a tree, and returns the first test that fails; the tree is then as it was."""
    path = tree / "src" / "penjing" / mutant.file
    before = path.read_text()
    if before.count(mutant.text) != 1:
        raise SystemExit(
            f"{mutant.file} has {mutant.text!r} {before.count(mutant.text)} times: bring _mutants.py up to date"
        )
    path.write_text(before.replace(mutant.text, mutant.other))
    try:
        return first_failure(tree, mutant.tests)
    finally:
        path.write_text(before)


def _key(mutant: Mutant) -> str:
    """Returns what the fate of a change hangs on: its file, the change, and the tests near it."""
    digest = hashlib.sha256(repr(mutant).encode() + (ROOT / "src" / "penjing" / mutant.file).read_bytes())
    for test in mutant.tests:
        near = ROOT / "tests" / test.partition("::")[0]
        for path in sorted(near.rglob("*.py")) or [near]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _known() -> dict[str, str]:
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts wrong changes that the tests near by notice.")
    parser.add_argument("--only", default="", help="part of the name of the files to change")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if only in mutant.file]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for name in ("pyproject.toml", "README.md", "docs", "benchmarks"):
            (tree / name).symlink_to(ROOT / name)
        known = _known()
        left = [mutant for mutant in chosen if _key(mutant) not in known]
        failing: dict[tuple[str, ...], str] = {}
        for mutant in left:
            if mutant.tests not in failing:
                failing[mutant.tests] = first_failure(tree, mutant.tests)
            if failing[mutant.tests]:
                continue
            fate = noticed_by(tree, mutant)
            known = _known() | {_key(mutant): fate}  # others may run at the same time
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(known, indent=1))
            print(mutant.file, mutant.text, mutant.other, fate or "SURVIVED", sep=" | ", flush=True)
        if any(failing.values()):
            raise SystemExit(f"fail without any change: {', '.join(filter(None, failing.values()))}")
        known = _known()
        for mutant in chosen:
            test = known[_key(mutant)]
            fate = "died" if test else "computes the same" if mutant.same else "survived"
            rows.append(
                [f"`{mutant.file}`", _code(mutant.text), _code(mutant.other), fate, _short(test) or mutant.same]
            )
    survived = sum(row[3] == "survived" for row in rows)
    died = sum(row[3] == "died" for row in rows)
    print(f"{died} of {len(rows)} died, {survived} survived")
    if not only:
        columns = ["file", "text", "in its place", f"{died} of {len(rows)} died", "noticed first by"]
        publish("mutants", columns, rows, {"died": died, "survived": survived, "changes": len(rows)})
    sys.exit(bool(survived))


def _code(text: str) -> str:
    return "`" + " ⏎ ".join(line.strip() for line in text.split("\n")).replace("|", "\\|") + "`" if text else ""


def _short(test: str) -> str:
    return f"`{test.removeprefix('tests/')}`" if test else ""


if __name__ == "__main__":
    main()
