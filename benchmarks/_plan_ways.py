"""The ways to a small and fast network that `plan.py` compares: each plans, and finishes what was trained as a file."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import group_norm
from _quantisation_methods import Job, onnxruntime

TECHNIQUES: dict[str, dict[str, Any]] = {"prune": {"criterion": "taylor"}, "factorize": {}, "quantize": {}}
TRIES = 10  # limits on MACs that are tried, at most
CLOSE = 0.03  # share of the wanted latency by which a latency that is searched for may miss it
AMOUNTS = [
    0.1 * n for n in range(1, 10)
]  # shares of the channels that Torch-Pruning removes, the smallest that is fast enough
ROUND_TO = 8  # channels: kernels of other numbers are slow
TRY_SECONDS = 6.0  # of timing a file that is only tried


@dataclass(frozen=True)
class Case:
    """What is to be made faster.

    Attributes:
        name: the network's name in the zoo.
        weights: its trained weights.
        base: the network.
        data: the data.
        latency: the wanted share of its latency, such as "0.33x".
        batch: samples of a call.
    """

    name: str
    weights: Path
    base: pj.Graph
    data: pj.Data
    latency: str
    batch: int

    @property
    def wanted(self) -> float:
        """The wanted latency over that of the original."""
        return float(self.latency.removesuffix("x"))


@dataclass(frozen=True)
class Small:
    """A network before training.

    Attributes:
        graph: the network.
        plan: what was planned; None where something else than a plan made the network.
        told: what the row tells of it.
    """

    graph: pj.Graph
    plan: pj.Plan | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


Finish = Callable[[Small, Case, Path], tuple[pj.targets.Artifact, bool]]
"""Makes a file of a network, and tells whether it computes in integers."""


@dataclass(frozen=True)
class Way:
    """A way: how the network is made small, and how it becomes a file once it is trained."""

    plan: Callable[[Case], Small]
    finish: Finish


def planned(case: Case, way: str, folder: Path) -> Small:
    """Returns the network before training, found again where an earlier process planned it."""
    graph, plan, record = (folder / name for name in ("planned.penjing", "plan.json", "planned.json"))
    if not record.exists():
        start = time.perf_counter()
        small = WAYS[way].plan(case)
        small.graph.save(graph)
        if small.plan is not None:
            small.plan.write(plan)
        record.write_text(json.dumps({**small.told, "planning_seconds": round(time.perf_counter() - start, 1)}))
    return Small(pj.load(graph), pj.Plan.read(plan) if plan.exists() else None, json.loads(record.read_text()))


def by_solver(case: Case, solver: str, techniques: tuple[str, ...], limits: Mapping[str, str] | None = None) -> Small:
    """Plans by a solver, under the wanted latency or other limits."""
    budget = pj.Budget(latency=case.latency) if limits is None else pj.Budget(**limits)
    plan = pj.plan(
        case.base, case.data, budget=budget, techniques={name: TECHNIQUES[name] for name in techniques}, solver=solver,
        batch=case.batch,
    )  # fmt: skip
    kinds = [option.place.kind for option in plan if option.technique != "quantize"]
    small = pj.apply(case.base, plan, case.data) if kinds else case.base
    return Small(small, plan, {f"{kind}_options": kinds.count(kind) for kind in ("branch", "group", "weight")})


def by_macs(case: Case) -> Small:
    """Plans by the exact solver under a limit on MACs, which is bisected until the int8 file has the wanted latency.

    Where no limit comes close enough, the nearest one counts; the row tells how far it is.
    """
    low, high = 0.02, 1.0
    best, least = None, math.inf
    for _ in range(TRIES):
        share = (low * high) ** 0.5
        small = by_solver(case, "milp", BOTH, {"macs": f"{share:.4f}x"})
        reached = tried(small, case, as_planned)
        print(f"{share:.1%} of the MACs: {reached:.3f}× the latency", flush=True)
        if (miss := abs(reached / case.wanted - 1)) < least:
            best, least = replace(small, told={**small.told, "macs_limit": share, "tried_latency": reached}), miss
        if miss <= CLOSE:
            break
        low, high = (low, share) if reached > case.wanted else (share, high)
    assert best is not None
    return best


def by_torch_pruning(case: Case) -> Small:
    """Prunes by Torch-Pruning, the least that makes ONNX Runtime's own int8 file fast enough; else what is fastest."""
    found: dict[float, Small] = {}
    for amount in AMOUNTS:
        small = Small(group_norm(case.name, case.weights, amount, everywhere=False, round_to=ROUND_TO))
        reached = tried(small, case, by_onnxruntime)
        print(f"Torch-Pruning, {amount:.0%} of the channels: {reached:.3f}× the latency", flush=True)
        found[reached] = replace(small, told={"amount": amount, "tried_latency": reached})
        if reached <= case.wanted * (1 + CLOSE):
            break
    return found[min(found)]


def unchanged(case: Case) -> Small:
    """Returns the network as it is."""
    return Small(case.base)


def tried(small: Small, case: Case, finish: Finish) -> float:
    """Returns the latency that an untrained network's file has, over that of the original."""
    with files_of(case) as files:
        together = {"original": lowered(case.base, files / "original.onnx")}
        together["tried"], _ = finish(small, case, files / "tried.onnx")
        return share_of(together, case, TRY_SECONDS)[0]


def share_of(together: Mapping[str, pj.targets.Artifact], case: Case, seconds: float) -> tuple[float, float, float]:
    """Returns the latency of the second file over that of the first, and the milliseconds of both, in turns."""
    times = pj.targets.measure_together(together, batch=case.batch, seconds=seconds, runs=5000, memory=False)
    before, after = (times[name].latency_ms.median for name in together)
    return after / before, before, after


# Files


def as_planned(small: Small, case: Case, file: Path) -> tuple[pj.targets.Artifact, bool]:
    """Takes the numbers that the plan has, layer by layer."""
    assert small.plan is not None
    if not any(option.technique == "quantize" for option in small.plan):
        return lowered(small.graph, file), False
    return lowered(pj.apply(small.graph, small.plan, case.data, stage="numbers"), file), True


def in_integers(small: Small, case: Case, file: Path) -> tuple[pj.targets.Artifact, bool]:
    """Quantises as `pj.quantize` does by default."""
    return lowered(pj.quantize(small.graph, case.data), file), True


def by_onnxruntime(small: Small, case: Case, file: Path) -> tuple[pj.targets.Artifact, bool]:
    """Quantises by ONNX Runtime's `quantize_static` with the same calibration images, weights per channel."""
    plain = lowered(small.graph, file.with_name(f"float_{file.name}"))
    images = torch.cat([inputs for inputs, _ in case.data.calibration or ()])
    steps = onnxruntime(Job(Path(), plain.path, Path(), images, file.with_suffix("")), per_channel=True)
    made = [one for one in steps if one is not None]
    assert isinstance(made[-1], Path)
    return pj.targets.open_artifact(made[-1]), True


def lowered(graph: pj.Graph, file: Path) -> pj.targets.Artifact:
    """Returns the file of a graph."""
    return pj.lower(graph, path=file)


@contextmanager
def files_of(case: Case) -> Iterator[Path]:
    """Yields a folder for files that only a measurement needs."""
    with tempfile.TemporaryDirectory(prefix=f"plan-{case.name}-") as folder:
        yield Path(folder)


BOTH = ("prune", "quantize")
WAYS = {
    "quantize": Way(unchanged, in_integers),
    "milp": Way(partial(by_solver, solver="milp", techniques=BOTH), as_planned),
    "milp by MACs": Way(by_macs, as_planned),
    "greedy": Way(partial(by_solver, solver="greedy", techniques=BOTH), as_planned),
    "widest_that_fits": Way(partial(by_solver, solver="widest_that_fits", techniques=BOTH), as_planned),
    "prune": Way(partial(by_solver, solver="milp", techniques=("prune",)), as_planned),
    "factorize": Way(partial(by_solver, solver="milp", techniques=("factorize", "quantize")), as_planned),
    "torch-pruning": Way(by_torch_pruning, by_onnxruntime),
}
