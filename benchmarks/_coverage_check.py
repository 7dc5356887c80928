"""One network of the coverage benchmark in a process of its own, forked from one that has loaded the libraries.

`_coverage_check.py TOOL` reads lines `[name, record, errors, seconds, quick]` and answers each with a line that says how the
process ended. The file `record` is written anew after each column, so that what was found stays if the process is stopped.
"""

import importlib
import json
import math
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from _coverage_models import Case, build

# Loaded once and not by every network's process; Penjing itself isn't.
LIBRARIES = (
    "torchvision",
    "timm",
    "transformers",
    "torchmetrics",
    "accelerate",
    "onnxruntime",
    "onnxscript",
    "sklearn",
)
AMOUNT = 0.5
BATCHES = (2, 3)
TOLERANCE = 1e-3


class Failed(Exception):
    """A column that wasn't reached or came out otherwise than it should."""


class Record:
    """What is known of one network, on disk after every step."""

    def __init__(self, path: Path, tool: str, name: str) -> None:
        self.path = path
        self.data: dict[str, Any] = {"model": name, "tool": tool, "columns": {}, "seconds": {}, "cpu_seconds": {}}
        self.data["peak_mb"] = {}
        self.write()

    def write(self) -> None:
        """Writes the file whole or not at all."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.data))
        os.replace(partial, self.path)

    def peak(self, stage: str) -> None:
        """Notes the most memory that the process has held so far."""
        self.data["peak_mb"][stage] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

    def timed(self, stage: str, act: Callable[[], Any]) -> Any:
        """Runs a step and notes its seconds, of the clock and of the processor."""
        self.data["stage"] = stage
        self.write()
        clock, processor = time.perf_counter(), time.process_time()
        value = act()
        self.data["seconds"][stage] = round(time.perf_counter() - clock, 3)
        self.data["cpu_seconds"][stage] = round(time.process_time() - processor, 3)
        self.peak(stage)
        return value

    def column(self, name: str, act: Callable[[], Any]) -> Any:
        """Runs the step behind a column; True if it went well, else the first line of what went wrong."""
        try:
            value = self.timed(name, act)
        except Exception as error:
            self.data["columns"][name] = _first_line(error)
            self.data.setdefault("errors", {})[name] = "".join(traceback.format_exception(error))[-3000:]
            self.write()
            return None
        self.data["columns"][name] = True
        self.write()
        return value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return _portable(f"{type(error).__name__}: {lines[0]}")[:400]


def _portable(text: str) -> str:
    """Names of files without where this machine keeps them."""
    return re.sub(r"[^\s'\"]*/site-packages/", "", text)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _shapes(values: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in values]


def _check_shapes(expected: list[Tensor], found: list[Tensor]) -> None:
    if _shapes(expected) != _shapes(found):
        raise Failed(f"output shapes {_shapes(found)}, not {_shapes(expected)}")
    if not all(bool(value.isfinite().all()) for value in found if value.is_floating_point()):
        raise Failed("outputs aren't finite")


def _check_equal(expected: list[Tensor], found: list[Tensor], tolerance: float) -> float:
    _check_shapes(expected, found)
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.numel():
            scale = float(a.double().abs().max()) or 1.0
            worst = max(worst, float((a.double() - b.double()).abs().max()) / scale)
    if not worst <= tolerance:
        raise Failed(f"outputs differ by {worst:.2e} of the largest")
    return worst


def _sized(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    return tuple(torch.cat([value] * batch)[:batch] for value in inputs)


def _loss(outputs: list[Tensor]) -> Tensor:
    return sum((value.float() ** 2).mean() for value in outputs if value.is_floating_point())  # type: ignore


def _gradients(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    model.train()
    model.zero_grad()
    loss = _loss(_tensors(model(*inputs)))
    loss.backward()
    return loss.item()


def _train_step(model: nn.Module, inputs: tuple[Tensor, ...], expected: set[str]) -> None:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = _gradients(model, inputs)
    if not math.isfinite(loss):
        raise Failed(f"the loss is {loss}")
    without = sorted(n for n, value in model.named_parameters() if n in expected and value.grad is None)
    if without:
        raise Failed(f"{len(without)} parameters have no gradient any more, such as {without[0]}")
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    if all(torch.equal(before[name], value) for name, value in model.named_parameters()):
        raise Failed("no parameter changed")


def check_penjing(record: Record, case: Case, quick: bool) -> None:
    """All columns of Penjing; if it must be quick, all but ONNX Runtime's."""
    import penjing as pj
    from penjing.targets import run

    weights = [*case.model.parameters(), *case.model.buffers()]
    record.data["weights_mb"] = round(sum(v.numel() * v.element_size() for v in weights) / 2**20, 1)
    if case.detector is None:
        graph = record.column("captured", lambda: pj.capture(case.model, case.inputs))
    else:
        inputs = case.images if isinstance(case.part, list) else case.inputs
        graph = record.column("captured", lambda: pj.capture(case.detector, inputs, part=case.part))
    if graph is None:
        return
    record.data["params"] = sum(value.numel() for value in graph.parameters())
    record.data["nodes"] = len(graph.program.graph.nodes)
    found = record.column("labelled", lambda: pj.channels(graph))
    if found is None:
        return
    _note_pins(record, graph, found)
    small = record.column("pruned", lambda: pj.prune(graph, AMOUNT, criterion="l2"))
    if small is None:
        return
    record.data["left"] = round(sum(value.numel() for value in small.parameters()) / record.data["params"], 4)

    def runs(batch: int) -> None:
        given = graph.example_inputs(batch)
        if graph.batch is not None and batch != graph.batch:
            with torch.no_grad():
                case.model(
                    *_sized(case.inputs, batch)
                )  # if the model itself fixes its batch, it's no fault of the graph
            raise Failed(f"the graph fixes the batch at {graph.batch}; the model takes {batch} as well")
        with torch.no_grad():
            _check_shapes(list(graph.program(*given)), list(small.program(*given)))

    for batch in BATCHES:
        record.column(f"runs at batch {batch}", lambda batch=batch: runs(batch))
    given = graph.example_inputs(2, seed=1)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        expected = list(small.program(*given))

        def onnx() -> float:
            artifact = pj.lower(small, "onnxruntime", Path(folder) / "model.onnx")
            return _check_equal(expected, _tensors(run(artifact, *given)), TOLERANCE)

        def reloads() -> None:
            small.save(Path(folder) / "model.penjing")
            _check_equal(expected, list(pj.load(Path(folder) / "model.penjing").program(*given)), 1e-6)

        if not quick:
            record.data["onnx_error"] = record.column("runs in ONNX Runtime", onnx)
        record.column("reloads", reloads)

    def trains() -> None:
        torch.manual_seed(1)
        _gradients(graph, given)
        with_gradient = {name for name, value in graph.named_parameters() if value.grad is not None}
        _train_step(small, given, with_gradient)

    record.column("trains", trains)
    if case.detector is not None:

        def whole() -> None:
            small.eval()
            wrapper = case.part if isinstance(case.part, nn.Module) else None
            detector = small.write_into(case.detector, part=wrapper).eval()
            with torch.no_grad():
                detector(*case.images)

        record.column("whole detector runs", whole)


def _note_pins(record: Record, graph: Any, found: Any) -> None:
    """Notes by what how much is pinned, and how many pinned axes of parameters lack an op or a line."""
    params = dict(graph.named_parameters())
    first = {id(value): name for name, value in params.items()}  # a tied parameter goes by the first of its names
    pins = [
        replace(pin, tensor=first[id(graph.tensor(pin.tensor))])
        for pin in found.pinned
        if id(graph.tensor(pin.tensor)) in first
    ]
    shares: dict[str, float] = {}
    for pin in pins:
        value = params[pin.tensor]
        share = value.numel() * pin.indices / max(1, value.shape[pin.axis]) / record.data["params"]
        why = _portable(f"{pin.op} at {pin.source}") if pin.source else pin.op
        shares[why] = shares.get(why, 0.0) + share
    most = sorted(shares.items(), key=lambda one: -one[1])[:6]
    record.data["pins"] = {why: round(share, 3) for why, share in most}
    record.data["groups"] = len(found.groups)
    entries = {
        (first.get(id(graph.tensor(entry.tensor))), entry.axis) for group in found.groups for entry in group.entries
    }
    record.data["ideal"] = round(_ideal(params, pins, entries), 4)
    # An input or output of the model is where it is; it has no line but the call's.
    silent = [pin for pin in pins if not pin.op or (not pin.source and pin.op not in ("input", "output"))]

    def explained() -> None:
        if silent:
            ops = sorted({pin.op for pin in silent})
            raise Failed(f"{len(silent)} pinned axes have no line, such as {silent[0].tensor}; ops: {', '.join(ops)}")

    record.data["unexplained"] = len(silent)
    record.column("explained", explained)


def _ideal(params: dict[str, Tensor], pins: list[Any], entries: set[tuple[str | None, int]]) -> float:
    """Share of parameters left if one half of every axis of channels went that no input or output pins."""
    fixed = {(pin.tensor, pin.axis): pin.indices for pin in pins if pin.op in ("input", "output")}
    axes = entries | {(pin.tensor, pin.axis) for pin in pins}
    left = 0.0
    for name, value in params.items():
        kept = [1 - (1 - fixed.get((name, a), 0) / n) * AMOUNT for a, n in enumerate(value.shape) if (name, a) in axes]
        left += value.numel() * math.prod(kept)
    return left / sum(value.numel() for value in params.values())


def check_export(record: Record, case: Case, _quick: bool) -> None:
    """Only what `torch.export` does, for its memory."""
    batch = torch.export.Dim("batch", min=2)
    shapes = tuple({0: batch} for _ in case.inputs)

    def export() -> None:
        try:
            torch.export.export(case.model, case.inputs, dynamic_shapes=shapes, strict=False)
        except Exception:  # a batch that can't be free is exported as it is
            torch.export.export(case.model, case.inputs, strict=False)

    record.column("exported", export)


def check(tool: str, name: str, path: Path, quick: bool) -> None:
    """Runs one tool on one network."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    record = Record(path, tool, name)
    if tool == "torch-pruning":
        from _coverage_torch_pruning import check_torch_pruning

        checks = check_torch_pruning
    else:
        import penjing  # noqa: F401 - so that both peaks hold the same libraries

        checks = check_penjing if tool == "penjing" else check_export
    case = record.timed("built", lambda: build(name))
    record.data["quick"] = quick
    checks(record, case, quick)
    record.data.pop("stage", None)
    record.data["finished"] = True
    record.write()


def _forked(tool: str, name: str, path: str, errors: str, limit: float, quick: bool) -> str:
    """Runs `check` in a forked process and returns how it ended; "" if it ended well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            output = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            check(tool, name, Path(path), quick)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return f"the process ended with code {code}" if code else ""
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"stopped after {limit:g} s"


def main() -> None:
    """Serves requests until there are no more."""
    tool = sys.argv[1]
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        print(json.dumps(_forked(tool, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
