"""Searches over plans, against the exact solution: how near they come with equally many evaluations, and in equal minutes.

python benchmarks/search.py store RESNET56.safetensors CIFAR10.zip    # writes search_resnet56.json: what options cost and do
python benchmarks/search.py gaps     # compares all searches on that file, without a network; prints and publishes the table
python benchmarks/search.py network resnet20 RESNET20.safetensors CIFAR10.zip --minutes 20 [--latency 0.33x]    # all solvers
python benchmarks/search.py table    # publishes what of it is finished

"gaps": the damage of a choice is the sum of what its options do alone, so that the best choice is known exactly. Each search
evaluates 200 choices. "begun" searches begin with the repaired original, as the solvers do; "from scratch" they don't. The repair
alone tells what it brings without any search.

"network": each solver has equally many minutes for a run of `compress` without training; then the chosen network is trained for
equally many epochs, and judged as the file that the device loads. One seed.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import penjing as pj
from _pruning import network
from _rows import HERE, Rows
from _stored_problem import read, to_json
from _tables import publish
from penjing.evidence.memory import remembering
from penjing.planning import Deployment, Problem
from penjing.planning.assignment import DAMAGE, Assignment, assign
from penjing.planning.exploration import Exploration
from penjing.planning.search import Offer, Search
from penjing.planning.solvers import solvers
from penjing.targets import lower
from penjing.techniques import Scope, find
from plan import accuracy

STORED = HERE / "search_resnet56.json"
SHARES = (1.0,)  # of the stored limit, half of the latency
SEEDS = 2
OTHERS = {"hold_metric", "least_noise", "widest_that_fits"}  # solvers that choose grids, or one width for all
GAPS = ["latency", "search", "begun: gap", "worst of the seeds", "from scratch: gap", "choices", "seconds"]
NETWORK = [
    "network",
    "latency asked for",
    "minutes",
    "solver",
    "latency",
    "size",
    "accuracy",
    "lost",
    "damage expected",
]


def main() -> None:
    """Runs a subcommand."""
    asked = _asked()
    {"store": store, "gaps": gaps, "network": on_network, "table": table}[asked.what](asked)


def store(asked: argparse.Namespace) -> None:
    """Writes the problem of ResNet-56 at half of its latency, in floating point."""
    folder = HERE / "out" / "search"
    folder.mkdir(parents=True, exist_ok=True)
    graph = network("resnet56", asked.weights)
    original = lower(graph, "onnxruntime", folder / "original.onnx")
    problem = Problem(
        graph, remembering(pj.data.cifar10(asked.data, seed=0), folder / "evidence"), original, pj.Budget(latency="0.5x"),
        Deployment(), {"prune": find("prune", {"criterion": "taylor"})}, Scope(), folder / "candidates", say=print,
    )  # fmt: skip

    def write(search: Search, offer: Offer) -> None:
        (program,) = offer.programs
        STORED.write_text(json.dumps(to_json(program.assignment, program.limits())))

    Search(problem, "store").solution(write)
    print(f"Written: {STORED}")


def gaps(asked: argparse.Namespace) -> None:
    """Compares all searches with the exact solution."""
    problem, stored = read(STORED)
    whole = dict.fromkeys(problem.options, 0)
    rows: list[list[Any]] = []
    for share in asked.shares:
        limits = {name: limit * (share if name == "ms" else 1.0) for name, limit in stored.items()}
        exact = assign(problem, limits).totals[DAMAGE]
        latency = f"{share * stored['ms'] / problem.total('ms', whole):.2f}×"
        repaired = Exploration(problem, limits).repair(whole)
        rows.append([latency, "the repair alone", _percent(problem.total(DAMAGE, repaired) / exact - 1), "", "", 1, ""])
        for name in asked.searches:
            kept = Rows("search_gaps").once(
                [share, SEEDS, name],
                lambda name=name, limits=limits, exact=exact: _compared(name, problem, limits, exact),
            )
            rows.append([latency, name, *kept["row"]])
    publish("search", GAPS, rows)


def _compared(name: str, problem: Assignment, limits: dict[str, float], exact: float) -> dict[str, Any]:
    explore, whole = solvers[name].explore, dict.fromkeys(problem.options, 0)
    assert explore is not None
    found: dict[bool, list[float]] = {True: [], False: []}
    counts, start = [], time.perf_counter()
    for begun in (True, False):
        for seed in range(SEEDS):
            made = explore(Exploration(problem, limits, seed=seed, starts=(whole,) if begun else ()))
            best = made.best()
            assert best.excess == 0
            found[begun].append(best.damage / exact - 1)
            counts.append(len(made.all))
    seconds = (time.perf_counter() - start) / (2 * SEEDS)
    gap, scratch = (_percent(statistics.median(found[begun])) for begun in (True, False))
    return {"row": [gap, _percent(max(found[True])), scratch, max(counts), f"{seconds:.0f}"]}


def on_network(asked: argparse.Namespace) -> None:
    """Runs all solvers with equally many minutes for the whole run."""
    rows = Rows("search_network")
    for solver in asked.solvers:
        key = [asked.network, asked.latency, asked.minutes, asked.epochs, solver]
        rows.once(key, lambda solver=solver: _run(asked, solver))


def _run(asked: argparse.Namespace, solver: str) -> dict[str, Any]:
    out = HERE / "out" / "search" / f"{asked.network}-{asked.latency}-{asked.minutes:g}-{asked.epochs}-{solver}"
    graph, data = network(asked.network, asked.weights), pj.data.cifar10(asked.data, seed=0)
    planned = pj.compress(
        graph, data=data, budget=pj.Budget(latency=asked.latency), solver=solver, epochs=0, out=out,
        max_minutes=asked.minutes, progress=False,
    )  # fmt: skip
    plan = pj.Plan.read(out / "plan.json")
    small = pj.apply(graph, plan, data)
    pj.recover(small, data, teacher=graph, epochs=asked.epochs, progress=False, checkpoint=out / "training.pt")
    if any(option.technique == "quantize" for option in plan):
        small = pj.apply(small, plan, data, stage="numbers")
    reached = accuracy(lower(small, "onnxruntime", out / "trained.onnx"), data)
    report = planned.report
    taken = [option.found.get(DAMAGE) or 0.0 for option in plan if option.technique != "quantize"]
    return {
        "latency": 1 / report["ratios"]["latency"], "size": report["compressed"]["size_bytes"], "accuracy": reached,
        "lost": report["baseline"]["metric"] - reached, "damage": sum(taken),
    }  # fmt: skip


def table(_: argparse.Namespace) -> None:
    """Publishes what is finished."""
    found = [
        [
            *row["key"][:3], row["key"][4], f"{row['latency']:.2f}×", f"{row['size']:,}", f"{100 * row['accuracy']:.2f} %",
            f"{100 * row['lost']:.2f}", f"{row['damage']:.3f}",
        ]
        for row in Rows("search_network").rows.values()
    ]  # fmt: skip
    if not found:
        raise SystemExit("No solver is finished: run `network` first.")
    publish("search_network", NETWORK, found)


def _percent(share: float) -> str:
    return f"{max(0.0, share):.2%}"


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("store")
    one.add_argument("weights", type=Path)
    one.add_argument("data")
    one = commands.add_parser("gaps")
    one.add_argument("--shares", type=float, nargs="+", default=SHARES)
    one.add_argument(
        "--searches", nargs="+", default=sorted(n for n, entry in solvers.items() if entry.explore is not None)
    )
    commands.add_parser("table")
    one = commands.add_parser("network")
    one.add_argument("network")
    one.add_argument("weights", type=Path)
    one.add_argument("data")
    one.add_argument("--latency", default="0.33x")
    one.add_argument("--minutes", type=float, default=20)
    one.add_argument("--epochs", type=int, default=6)
    one.add_argument("--solvers", nargs="+", default=sorted({*solvers} - OTHERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
