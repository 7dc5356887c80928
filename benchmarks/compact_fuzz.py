"""Loads mutated compact files in processes of bounded memory, and counts what comes of it.

Most changes are made to the unpacked contents, which are then packed again with lengths and checksum that fit: see
tests/graph/compact_mutations.py. A file may be refused with a PenjingError or give a graph. All else is a failure: another
exception, the death of the process, more than 10 seconds of its processor's time, or more memory than the bound that `load`
is given plus what loading takes besides tensors.

    python benchmarks/compact_fuzz.py [FILES]
"""

import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import torch
from torch import nn

from _tables import publish
from penjing.errors import PenjingError
from penjing.graph import capture, load
from penjing.graph.compact import decode
from penjing.graph.straight_through import ops

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "graph"))
from compact_mutations import mutate

FILES = 100_000
CHUNK = 2000  # files for each process
SECONDS = 10  # for each file
BOUND = 4 * 2**20  # `largest=`
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # files live for a millisecond
BESIDES = 60 * 2**20  # description, graph and generated code, of all files of a process
HANGS_AFTER = 600  # seconds without progress, however busy the machine


class Small(nn.Module):
    """One tensor of each kind and form: pruned and shared, quantised, float, integer, a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.pruned, self.quantized = nn.Linear(24, 40), nn.Linear(40, 6)
        table = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.25, -0.5, 1.0])
        self.pruned.weight.data = table[torch.randint(8, (40, 24))] * (torch.rand(24) > 0.5)
        self.register_buffer("scale", self.quantized.weight.detach().abs().amax(1) / 7)
        self.register_buffer("zero", torch.zeros(6, dtype=torch.int64))

    def forward(self, x):
        grid = (self.scale, self.zero, 0, -7, 7, torch.int8)
        w = ops.dequantize_per_channel(ops.quantize_per_channel(self.quantized.weight, *grid), *grid)
        return nn.functional.linear(self.pruned(x), w, self.quantized.bias)


def compact_file() -> bytes:
    torch.manual_seed(0)
    graph = capture(Small(), torch.randn(2, 24)).rounded()
    graph.masks["pruned.weight"] = (graph.tensor("pruned.weight") != 0) | (torch.rand(40, 24) > 0.95)
    with tempfile.TemporaryDirectory() as folder:
        graph.save(Path(folder) / "m.penjing", compact=True)
        return (Path(folder) / "m.penjing").read_bytes()


def run(whole: bytes, seed: int, count: int, progress, results) -> None:
    """Loads `count` files; `progress` says how many were begun, so that the one that kills the process is known."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BOUND + BESIDES,) * 2)
    signal.signal(signal.SIGPROF, _too_long)
    random, outcomes, slowest = Random(seed), Counter(), 0.0
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        path = Path(folder) / "m.penjing"
        for _ in range(count):
            progress.value += 1
            content = mutate(whole, random)
            path.write_bytes(content)
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            outcomes[_load(path, content)] += 1
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - began)
    results.put((outcomes, slowest))


def _load(path: Path, content: bytes) -> str:
    try:
        load(path, largest=BOUND)
        return "loaded"
    except PenjingError:
        pass
    except MemoryError:
        return "memory"
    except TimeoutError:
        return "time"
    except Exception as error:
        return f"failed: {type(error).__name__}: {str(error)[:60]}"
    try:
        decode(content, BOUND)
        return "refused: the graph"
    except PenjingError as error:
        return "refused: the checksum" if "checksum" in str(error) else "refused: the contents"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError, RuntimeError):
        return "refused: the contents"


def _too_long(*_) -> None:
    raise TimeoutError


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    torch.set_num_threads(1)
    whole = compact_file()
    context = multiprocessing.get_context("fork")
    outcomes, slowest, began = Counter(), 0.0, time.monotonic()
    for seed, start in enumerate(range(0, files, CHUNK)):
        progress, results = context.Value("i", 0), context.SimpleQueue()
        count = min(CHUNK, files - start)
        process = context.Process(target=run, args=(whole, seed, count, progress, results))
        process.start()
        seen = -1
        while process.is_alive() and seen < progress.value:
            seen = progress.value
            process.join(HANGS_AFTER)
        if process.exitcode is None:
            process.kill()
            outcomes[f"hang: seed {seed}, file {progress.value}"] += 1
        elif process.exitcode:
            outcomes[f"crash {process.exitcode}: seed {seed}, file {progress.value}"] += 1
        else:
            found, longest = results.get()
            outcomes, slowest = outcomes + found, max(slowest, longest)
        print(start + count, dict(outcomes), f"slowest {slowest:.2f} s, {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(bool(conclude(outcomes, slowest, files, len(whole))))


def conclude(outcomes: Counter, slowest: float, files: int, size: int) -> dict[str, int]:
    """Publishes the counts. Returns the failures."""
    fine = ("refused: the checksum", "refused: the contents", "refused: the graph", "loaded")
    failures = {what: number for what, number in outcomes.items() if what not in fine}
    rows = [[what, f"{outcomes[what]:,}"] for what in fine]
    rows += [["crash, hang, other exception, memory above the bound", f"{sum(failures.values()):,}"]]
    rows += [["slowest file, seconds of processor time", f"{slowest:.2f}"]]
    publish("compact_fuzz", [f"{files:,} mutated files of {size:,} bytes", ""], rows, {"failures": failures})
    return failures


if __name__ == "__main__":
    main()
