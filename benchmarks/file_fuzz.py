"""Opens changed `.penjing` files, plain and compact, and runs the graphs that load, in processes of bounded memory.

Each file is one of eleven small networks, changed in one to three ways that know its structure: ops, arguments, shapes,
sizes, tensors, the zip, the header of safetensors, the sections of the compact format, or plain bytes (see
tests/storage/graph_mutations.py, plain_mutations.py, compact_mutations.py). Even seeds make plain files, odd ones compact.

A file may be refused with a PenjingError, or give a graph. A graph that loads is run on its example inputs and, where sizes
are free, on inputs in which each of these is another, larger and smaller. An op may refuse there what it only sees when it
runs, such as an index beyond its table (RuntimeError, IndexError, ValueError from PyTorch). All else is a failure:

    crash       the death of the process
    hang        more than 2 seconds of its processor's time, or a minute without any
    exception   another exception while loading or running, however it is caught
    memory      loading or running asks for more than the process may have
    left        a file beside the one that was opened

    python benchmarks/file_fuzz.py [--files 200000] [--workers 2] [--from 0] [--out benchmarks/out]
    python benchmarks/file_fuzz.py --seed 17 [--keep m.penjing]       makes and opens that one file again

It goes on where it was interrupted: what each thousand of files gave is kept in a folder of --out that belongs to the state
of the sources, and all that is there is counted.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.fx import graph_module
from torch.utils import _pytree as pytree

from _tables import machine, publish
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.graph import Graph, load
from penjing.graph.inputs import Input
from penjing.storage.admission import ADMITTED

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "storage"))
import compact_mutations
import hostile_networks
import plain_mutations

ROOT = Path(__file__).parents[1]
FILES = 200_000
BLOCK = 1000  # files whose results are kept together
SECONDS = 2.0  # of processor time for each file, loaded and run
STUCK = 60.0  # seconds in which a process gets no processor time, however busy the machine
BOUND = 4 * 2**20  # `largest=` of compact files
MEMORY = 256 * 2**20  # beyond what the process had before: the bound, loading, and running
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # files live for some milliseconds
MAY_RAISE = (PenjingError, RuntimeError, IndexError, ValueError)  # when a graph runs

# Who refuses, by the file of the innermost function of ours.
REFUSED_BY = {
    "files": "the container",
    "plain": "the container",
    "_file": "the container",
    "_bytes": "the container",
    "as_json": "the description",
    "node_records": "the description",
    "ranges": "the description",
    "storage": "the description",
    "graph": "the description",
    "_arguments": "the list of ops and their arguments",
    "_ops": "the list of ops and their arguments",
    "_limits": "the list of ops and their arguments",
    "propagation": "the shapes",
    "_trust": "what kernels trust",
    "_values": "the bounds of memory and work",
    "_work": "the bounds of memory and work",
}


# One file


def networks() -> tuple[list[str], tuple[str, ...]]:
    """Captures the networks. Returns their names, and the ops that files may hold."""
    names = list(hostile_networks.NETWORKS)
    for name in names:
        hostile_networks.content(name)
    return names, tuple(sorted(ADMITTED))


def hostile_file(seed: int, names: list[str], ops: tuple[str, ...]) -> bytes:
    """Returns the file of a seed."""
    random = Random(seed)
    name = random.choice(names)
    content, whole = hostile_networks.content(name), hostile_networks.files(name)[True]
    if seed % 2 == 0:
        return plain_mutations.mutate(content, random, ops)
    if random.random() < 0.3:
        return compact_mutations.mutate(whole, random)
    return compact_mutations.mutate_graph(content, whole, random, ops)


def open_and_run(path: Path) -> str:
    """Loads a file and runs what it gives. Returns what came of it."""
    try:
        graph = load(path, largest=BOUND)
    except PenjingError as error:
        return "memory: load" if _lacked_memory(error) else f"refused by {_refuser(error)}"
    except MemoryError:
        return "memory: load"
    except BaseException as error:
        return f"exception: load: {type(error).__name__}: {_line(error)}"
    if sum(_bytes(given) for given in graph.inputs) > MEMORY // 8:
        return "loaded, and its inputs are too large to be tried"
    first, *others = [_run(graph, shapes) for shapes in _sizes(graph)]
    failures = [outcome for outcome in (first, *others) if outcome.partition(":")[0] in FAILURES]
    return failures[0] if failures else first


def _sizes(graph: Graph) -> list[list[list[int]]]:
    """Returns the shapes of all inputs: the example's, then others where sizes are free."""
    shapes = [list(given.shape) for given in graph.inputs]
    free = dict.fromkeys(_free(graph))
    if not free:
        return [shapes]
    larger = dict(
        zip(free, range(3, 3 + 2 * len(free), 2), strict=True)
    )  # all differ, so that none is taken for another
    several = [larger, dict.fromkeys(free, 1), dict.fromkeys(free, 0)]
    return [shapes, *(_resized(graph, sizes) for sizes in several)]


def _free(graph: Graph) -> list[str]:
    return [_size_name(given, axis) for given in graph.inputs for axis in sorted(given.dynamic)]


def _size_name(given: Input, axis: int) -> str:
    return (given.sizes[axis] if given.sizes else "") or f"{given.name} {axis}"


def _resized(graph: Graph, sizes: dict[str, int]) -> list[list[int]]:
    return [
        [sizes[_size_name(given, axis)] if axis in given.dynamic else size for axis, size in enumerate(given.shape)]
        for given in graph.inputs
    ]


def _run(graph: Graph, shapes: list[list[int]]) -> str:
    generator = torch.Generator().manual_seed(0)
    try:
        tensors = iter(
            given.ranges.sample(shape, given.dtype, generator)
            for given, shape in zip(graph.inputs, shapes, strict=True)
        )
        leaves = [next(tensors) if isinstance(leaf, Input) else leaf for leaf in graph.signature.leaves]
        args, keywords = pytree.tree_unflatten(leaves, graph.signature.spec)
        with torch.no_grad():
            graph(*args, **keywords)
        return "loaded and ran"
    except MAY_RAISE as error:
        if _lacked_memory(error):
            return "memory: run"
        if isinstance(error, PenjingError) or not _is_ours(error):
            return "loaded, an op refused its values"
        return f"exception: run: {type(error).__name__}: {_line(error)}"
    except BaseException as error:
        return f"exception: run: {type(error).__name__}: {_line(error)}"


def _is_ours(error: BaseException) -> bool:
    """Tells whether an exception comes out of a line of Penjing's own, rather than out of the graph's."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and Path(frame.tb_frame.f_code.co_filename).is_relative_to(ROOT / "src")


def _bytes(given: Any) -> int:
    count = given.dtype.itemsize
    for size in given.shape:
        count *= size
    return count


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:100]


def _lacked_memory(error: BaseException) -> bool:
    """Tells whether an allocation failed. PyTorch has no type for that on the CPU."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, MemoryError) or "can't allocate memory" in str(chain) or "bad_alloc" in str(chain):
            return True
        chain = chain.__cause__
    return False


def _refuser(error: BaseException) -> str:
    """Returns which part of Penjing found the fault: the innermost one on the way to it."""
    while isinstance(error.__cause__, BaseException):
        error = error.__cause__
    found, frame = "storage", error.__traceback__
    while frame is not None:
        place = Path(frame.tb_frame.f_code.co_filename)
        if "penjing" in place.parts:
            found = place.stem if place.parent.name != "compact" or place.stem in REFUSED_BY else "the tensors"
        frame = frame.tb_next
    return REFUSED_BY.get(found, found)


# A process that opens many


@dataclass
class Limits:
    """What a process is given besides its files."""

    names: list[str]
    ops: tuple[str, ...]


def work(seeds: range, limits: Limits, now: Any, results: Connection) -> None:
    """Opens the files of these seeds. `now` holds the seed at work and the processor time at which it began."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # PyTorch warns of every other file
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        path = Path(folder) / "m.penjing"
        for seed in seeds:
            try:
                path.write_bytes(hostile_file(seed, limits.names, limits.ops))
            except MemoryError:
                path.write_bytes(b"")
            now[0], now[1] = seed, time.process_time()
            outcome = open_and_run(path)
            if os.listdir(folder) != ["m.penjing"]:
                outcome = f"left: {sorted(os.listdir(folder))[:3]}"
            results.send((seed, outcome, time.process_time() - now[1]))
            now[0] = -1
            graph_module._loader.eval_cache.clear()  # it keeps the code of every graph that there was
    now[0] = -1


@dataclass
class Block:
    """The files of a range of seeds, and what came of those that were opened."""

    seeds: range
    begun: int
    outcomes: list[Counter[str]] = field(default_factory=lambda: [Counter(), Counter()])
    failures: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0

    def note(self, seed: int, outcome: str, seconds: float) -> None:
        kind, _, _ = outcome.partition(":")
        self.outcomes[seed % 2][kind] += 1
        if kind in FAILURES:
            self.failures[seed] = outcome
        self.slowest = max(self.slowest, seconds)
        self.begun = seed + 1

    def as_json(self) -> dict[str, Any]:
        return {
            "outcomes": [dict(each) for each in self.outcomes],
            "failures": {str(seed): outcome for seed, outcome in self.failures.items()},
            "slowest": self.slowest,
        }


FAILURES = {
    "crash": "death of the process",
    "hang": f"more than {SECONDS:g} s of processor time",
    "exception": "another exception",
    "memory": "memory above the bound",
    "left": "a file left behind",
}


class Worker:
    """Opens a block of files in one process after another: a new one wherever one dies or hangs."""

    def __init__(self, block: Block, limits: Limits) -> None:
        self.block, self._limits = block, limits
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._now = context.RawArray("d", [self.block.begun, 0.0])
        self._results, theirs = context.Pipe(duplex=False)
        left = range(self.block.begun, self.block.seeds.stop)
        self._process = context.Process(target=work, args=(left, self._limits, self._now, theirs))
        self._process.start()
        theirs.close()
        self._seen, self._since = (0.0, -1.0), time.monotonic()

    def watch(self) -> bool:
        """Reads results and ends a process that hangs. Returns whether the block is done."""
        alive = self._process.is_alive()
        self._drain()
        if alive:
            self._end_what_hangs()
            return False
        self._process.join()
        if self.block.begun < self.block.seeds.stop:
            self._drain()
        if self.block.begun >= self.block.seeds.stop:
            return True
        self.block.note(self.block.begun, f"crash: signal {-(self._process.exitcode or 0)}", 0.0)
        return self._go_on()

    def _drain(self) -> None:
        try:
            while self._results.poll():
                self.block.note(*self._results.recv())
        except EOFError:
            pass

    def _end_what_hangs(self) -> None:
        seed, begun = self._now[0], self._now[1]
        used = _processor_seconds(self._process.pid)
        if (seed, used) != self._seen:
            self._seen, self._since = (seed, used), time.monotonic()
        stuck = time.monotonic() - self._since > STUCK
        if (used - begun > SECONDS and seed == self._now[0]) or stuck:
            self._process.kill()
            self._process.join()
            self._drain()
            if self.block.begun == int(seed):
                self.block.note(int(seed), "hang: stuck" if stuck else "hang: busy", used - begun)
            self._go_on()

    def _go_on(self) -> bool:
        if self.block.begun >= self.block.seeds.stop:
            return True
        self._start()
        return False


def _processor_seconds(pid: int | None) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# All of them


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    limits = Limits(*networks())
    if options.seed is not None:
        again(options.seed, limits, options.keep)
        return
    kept = options.out / f"file_fuzz-{_state()}"
    kept.mkdir(parents=True, exist_ok=True)
    starts = [start for start in range(options.first, options.files, BLOCK) if not (kept / f"{start}.json").exists()]
    running: list[Worker] = []
    began, whole = time.monotonic(), len(starts)
    while starts or running:
        while starts and len(running) < options.workers:
            start = starts.pop(0)
            running.append(Worker(Block(range(start, min(start + BLOCK, options.files)), start), limits))
        time.sleep(0.1)
        for worker in [worker for worker in running if worker.watch()]:
            running.remove(worker)
            block = worker.block
            atomic_write(kept / f"{block.seeds.start}.json", json.dumps(block.as_json()))
            done = whole - len(starts) - len(running)
            bad = dict(Counter(outcome for outcome in block.failures.values()))
            print(f"{done} of {whole} blocks, {time.monotonic() - began:.0f} s {bad or ''}", flush=True)
    sys.exit(bool(conclude(kept, options.files)))


def conclude(kept: Path, files: int) -> dict[str, str]:
    """Publishes what all blocks gave. Returns the failures by seed."""
    blocks = [json.loads(path.read_text()) for path in sorted(kept.glob("*.json"), key=lambda path: int(path.stem))]
    total = [Counter(), Counter()]
    for block in blocks:
        for sum_, part in zip(total, block["outcomes"], strict=True):
            sum_.update(part)
    failures = {seed: outcome for block in blocks for seed, outcome in block["failures"].items()}
    fine = sorted({*total[0], *total[1]} - set(FAILURES), key=lambda what: ("loaded" in what, what))
    rows = [[what, *(f"{one[what]:,}" for one in total)] for what in fine]
    rows += [[what, *(f"{one[kind]:,}" for one in total)] for kind, what in FAILURES.items()]
    rows += [["slowest file, seconds of processor time", f"{max(b['slowest'] for b in blocks):.2f}", ""]]
    counts = [f"{sum(one.values()):,}" for one in total]
    columns = ["", f"{counts[0]} plain files", f"{counts[1]} compact files"]
    publish("file_fuzz", columns, rows, {"files": sum(map(Counter.total, total)), "failures": failures})
    return failures


def again(seed: int, limits: Limits, keep: Path | None) -> None:
    """Makes the file of a seed and opens it, in a process of its own."""
    if keep is not None:
        keep.write_bytes(hostile_file(seed, limits.names, limits.ops))
    worker = Worker(Block(range(seed, seed + 1), seed), limits)
    while not worker.watch():
        time.sleep(0.1)
    print(*(worker.block.failures.values() or (+worker.block.outcomes[seed % 2])), f"{worker.block.slowest:.2f} s")


def _state() -> str:
    """Returns a name for the sources and the versions that decide what a seed gives."""
    digest = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode())
    folders: list[tuple[Path, str]] = [
        (ROOT / "src" / "penjing" / "graph", "**/*.py"),
        (ROOT / "src" / "penjing" / "storage", "**/*.py"),
        (ROOT / "tests" / "storage", "*_*s.py"),
    ]
    for folder, pattern in folders:
        for path in sorted(folder.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Opens changed .penjing files and counts what comes of it.")
    add: Callable[..., Any] = parser.add_argument
    add("--files", type=int, default=FILES, help="how many")
    add("--from", type=int, default=0, dest="first", help="the first seed")
    add("--workers", type=int, default=2, help="how many processes at once")
    add("--out", type=Path, default=ROOT / "benchmarks" / "out", help="where results are kept on the way")
    add("--seed", type=int, help="opens the file of this seed alone")
    add("--keep", type=Path, help="where the file of --seed is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
