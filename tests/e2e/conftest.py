"""A user's folder (a small network, some photos), and two ways to run the command line in it."""

import importlib
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import COMPRESS, NETWORK, Ran, draw, environment


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The user's folder: net.py, photos/train, photos/val, and flat/ without labels. Tests don't change what is in it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "net.py").write_text(NETWORK)
    draw(folder / "photos" / "train", 20, seed=0)
    draw(folder / "photos" / "val", 10, seed=1)
    (folder / "flat").mkdir()
    for index, file in enumerate(sorted((folder / "photos" / "val").rglob("*.png"))):
        shutil.copy(file, folder / "flat" / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def shell(home) -> Callable[..., Ran]:
    """Runs `python -m penjing …` in a fresh process."""

    def run(*arguments: object, **options: Any) -> Ran:
        command = [sys.executable, "-m", "penjing", *map(str, arguments)]
        done = subprocess.run(command, cwd=home, env=environment(), capture_output=True, text=True, **options)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def start(home) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts `python -m penjing …` in a fresh process and returns it."""

    def run(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "penjing", *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=home, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return run


@pytest.fixture
def penjing(home, monkeypatch, capfd) -> Callable[..., Ran]:
    """Runs the command line in this process, which saves the imports."""

    def run(*arguments: object) -> Ran:
        from penjing.cli import main

        monkeypatch.chdir(home)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["penjing", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        with warnings.catch_warnings():
            try:
                main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that the tests start, so that both compute the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quick(monkeypatch) -> None:
    """Measures plans on a device whose latency follows the file's size, and the finished model briefly."""
    candidates = importlib.import_module("penjing.planning.candidates")

    def by_size(files, **options):
        sizes = {name: file.size_bytes / 1e3 for name, file in files.items()}
        return {name: SimpleNamespace(latency_ms=SimpleNamespace(undisturbed=size)) for name, size in sizes.items()}

    monkeypatch.setattr(candidates, "measure_together", by_size)
    monkeypatch.setattr(candidates, "_better_in_float", lambda *_: ())
    monkeypatch.setattr(importlib.import_module("penjing.run.verification"), "RUNS", 20)
    # A fresh process for each file's memory takes a second, most of it for imports; the finished run measures it in earnest.
    monkeypatch.setattr("penjing.targets.bench._this_process.FreshProcess.memory", lambda self, job: (2**26, 2**20))


@pytest.fixture
def chosen(quick, monkeypatch) -> None:
    """Takes half of the channels and int8 without measuring anything."""
    from penjing import capabilities
    from penjing.graph import Plan
    from penjing.planning import MeasuredPlan, Problem, Solution
    from penjing.techniques import level

    def levels(problem: Problem, name: str) -> list[list[Any]]:
        technique, can = problem.techniques[name], capabilities.find(problem.deployment.target)
        found: dict[Any, list[Any]] = {}
        for option in technique.propose(problem.graph, problem.data, can, problem.scope):
            found.setdefault(level(option, technique), []).append(option)
        return list(found.values())

    def far_from_half(options: Any) -> tuple[float, int]:
        share = sum(option.after for option in options) / sum(option.before for option in options)
        return abs(share - 0.5), -len(options)  # of equals that of more groups

    def solve(problem: Problem) -> Solution:
        half = min(levels(problem, "prune"), key=far_from_half)
        (integers,) = levels(problem, "quantize")
        taken = MeasuredPlan(Plan((*half, *integers)), 1500, 0.5, 0.1, 5000, True)
        return Solution(taken, (taken,))

    monkeypatch.setattr(importlib.import_module("penjing.compress"), "find_solver", lambda name: solve)


@pytest.fixture(scope="session")
def finished(shell, home) -> Path:
    """The folder of a run as a user makes it, in a process of its own, measured in earnest. Copy it to change it."""
    ran = shell(*COMPRESS, "--out", "out")
    assert ran.code == 0, ran.text
    (home / "out.txt").write_text(ran.out)
    (home / "err.txt").write_text(ran.err)
    return home / "out"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def before_recovery(copied) -> Path:
    """The finished run as it stood when recovery began."""
    for path in copied.iterdir():
        if path.name != ".penjing":
            path.unlink()
    for name in ("recovered.penjing", "recovered.json", "recover.checkpoint"):
        (copied / ".penjing" / name).unlink()
    return copied
