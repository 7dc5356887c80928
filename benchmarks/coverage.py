"""Coverage of structured pruning: 139 networks of timm, torchvision and transformers, beside Torch-Pruning 1.6.1.

python benchmarks/coverage.py [--jobs N] [--only PATTERN…] [--tool penjing|torch-pruning|both] [--again NAME…] [--failed]

Needs torchvision, timm, transformers and torch-pruning beside Penjing. Each network runs in a process of its own, on one
thread; finished ones are in OUT (a line of JSON each) and are not run again. With `--publish` the tables go into the docs.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _coverage_tables import LARGE, load, summarize, why

HERE = Path(__file__).parent
STARTED = "started"
TOOLS = {"penjing": ("penjing", "export"), "torch-pruning": ("torch-pruning",)}


def main() -> None:
    """Runs what is missing, then prints the summary."""
    options = _options()
    done = load(options.out)
    wanted = [name for name in _names() if any(fnmatch.fnmatch(name, p) for p in options.only)]
    tools = [t for tool in TOOLS if options.tool in (tool, "both") for t in TOOLS[tool]]
    if options.no_memory:
        tools = [tool for tool in tools if tool != "export"]
    for tool in [] if options.summary else tools:
        work = [name for name in wanted if _is_missing(done.get((name, tool)), name, options)]
        if tool == "export":  # of a small network, what export loads outweighs the weights
            known = load(options.out)
            work = [name for name in work if known.get((name, "penjing"), {}).get("weights_mb", 0) >= LARGE]
        lock = threading.Lock()
        with ThreadPoolExecutor(options.jobs) as pool:
            for record in pool.map(lambda name, tool=tool: run(name, tool, options.limit, options.quick), work):
                print(_line(record), flush=True)
                if STARTED not in record["columns"]:  # nothing is known of a network whose process never came to it
                    with lock, options.out.open("a") as file:
                        file.write(json.dumps(record) + "\n")
    summarize(load(options.out), wanted, publish=options.publish)


def _is_missing(old: dict[str, Any] | None, name: str, options: argparse.Namespace) -> bool:
    again = any(fnmatch.fnmatch(name, pattern) for pattern in options.again)
    return old is None or again or bool(options.failed and why(old)) or (old.get("quick") and not options.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "coverage.jsonl")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, one thread each")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="such as 'timm/vit*'")
    parser.add_argument("--tool", choices=[*TOOLS, "both"], default="both")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="run these though they are finished")
    parser.add_argument("--failed", action="store_true", help="run those again that failed")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument(
        "--quick", action="store_true", help="skip ONNX Runtime; a later run without it makes up for it"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the export whose memory is compared")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--publish", action="store_true", help="write the tables into docs/results.md")
    return parser.parse_args()


def _names() -> list[str]:
    """The list, from a process of its own: this one stays small, since peaks of memory are inherited."""
    code = "import json, _coverage_models; print(json.dumps(_coverage_models.names()))"
    return json.loads(subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True, capture_output=True).stdout)


class Server:
    """A process that has loaded the libraries and forks one process per network; one per thread and tool."""

    _own = threading.local()

    def __init__(self, tool: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TIMM_FUSED_ATTN": "0" if tool == "torch-pruning" else "1"}
        command = [sys.executable, "-W", "ignore", str(HERE / "_coverage_check.py"), tool]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @classmethod
    def of(cls, tool: str) -> "Server":
        """Returns this thread's."""
        servers = cls._own.__dict__.setdefault("servers", {})
        if tool not in servers:
            servers[tool] = cls(tool)
        return servers[tool]

    def ask(self, *request: Any) -> str:
        """Returns how the network's process ended; "" if well."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"The process that forks ended with code {self.process.wait()}.")
        return json.loads(answer)


def run(name: str, tool: str, limit: float, quick: bool = False) -> dict[str, Any]:
    """Runs one tool on one network and returns its record, also if the process was stopped or died."""
    with tempfile.TemporaryDirectory() as folder:
        path, errors = Path(folder) / "record.json", Path(folder) / "errors"
        server = Server.of(tool)
        started = time.perf_counter()
        ended = server.ask(name, str(path), str(errors), limit, quick)
        said = errors.read_text(errors="replace").strip().splitlines() if errors.exists() else []
        record = json.loads(path.read_text()) if path.exists() else {"model": name, "tool": tool, "columns": {}}
    record["total_seconds"] = round(time.perf_counter() - started, 1)
    if not record.pop("finished", False):
        last = f": {said[-1]}" if said and "code" in ended else ""
        record["columns"][record.pop("stage", STARTED)] = (ended + last)[:400]
    return record


def _line(record: dict[str, Any]) -> str:
    found = "; ".join(f"{column}: {why}" for column, why in why(record).items()) or "ok"
    left = f"{record['left']:.3f}" if "left" in record else "-"
    return f"{record['tool']:14}{record['model']:44}{left:>6}{record['total_seconds']:7.0f} s  {found[:220]}"


if __name__ == "__main__":
    main()
