"""The latency of a whole model, from the latencies of its kernels and a few measurements of whole models."""

import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from penjing import records
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.places import Json
from penjing.planning.latency.interpolation import family_of
from penjing.planning.latency.kernels import FLOAT32, INT8, Kernel, activations_of, kernels_of
from penjing.planning.latency.table import LatencyTable
from penjing.planning.problem import Deployment
from penjing.targets import ExecutedNode, find_target, lower, measure_together, profile

PROFILES = 12  # profiles of a whole model; the fastest counts for each node
SECONDS = 8.0  # seconds of measuring whole models in turns
NODE_US = 2.0  # microseconds that a profile adds to a node, where no measurement says otherwise: 1.8 to 3.2 were seen
TRUST = 0.05  # relative error of a whole model's measurement, against which what is known beforehand is weighed
NODE_SPREAD_US = 3.0  # how far the microseconds that a profile adds may well be from NODE_US


@dataclass(frozen=True)
class Whole:
    """A whole model as it was measured.

    Attributes:
        numbers: "float32" or "int8": what its layers compute in.
        kernels: its kernels by node.
        executed: what the runtime executed.
        us: microseconds of a call.
        activations: the nodes of activations that belong to the op before, each with the node of that op.
    """

    numbers: str
    kernels: Mapping[str, Kernel]
    executed: Sequence[ExecutedNode]
    us: float
    activations: Mapping[str, str]


@dataclass(frozen=True)
class Context:
    """What kernels take within a model, beside what they take by themselves, in one kind of numbers.

    Attributes:
        scale: of all kernels: what the machine takes now, over what it took when the table was measured.
        factors: of single nodes: a sum that the runtime computes within a convolution takes nothing, and one in front of
            which it lays out its operands anew takes twice as long.
        executed: how many nodes the runtime executes for a node of the graph.
        rest_us: microseconds of nodes that have no kernel.
        rest_nodes: how many nodes that are.
    """

    scale: float
    factors: Mapping[str, float]
    executed: Mapping[str, float]
    rest_us: float
    rest_nodes: float


@dataclass(frozen=True)
class Correction:
    """What a few measurements of whole models tell about the sum of kernels.

    Attributes:
        contexts: by kind of numbers.
        node_us: microseconds that the profile, of which the table is made, adds to each executed node.
        call_us: microseconds of a call, whatever is in the model.
    """

    contexts: Mapping[str, Context]
    node_us: float
    call_us: float

    def to_json(self) -> dict[str, Json]:
        """Returns the correction as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Json) -> "Correction":
        """Makes a correction from the JSON that `to_json` returned.

        Raises:
            PenjingError: the JSON isn't a correction's.
        """
        found = records.convert(record, _Record, "correction", whole=True)
        return cls(found.contexts, found.node_us, found.call_us)


@dataclass(frozen=True)
class _Record:
    contexts: dict[str, Context]
    node_us: float
    call_us: float


class Predictor:
    """Predicts milliseconds of whole models: a sum over nodes, and a rest.

    A solver takes `node_ms` as the price of one node, for any numbers of channels on both sides, and `rest_ms` as what any
    plan pays; `ms` is nothing but the sum of both.
    """

    def __init__(self, table: LatencyTable, correction: Correction) -> None:
        self.table, self.correction = table, correction

    def node_ms(self, node: str, kernel: Kernel) -> float:
        """Returns the milliseconds of one node of the graph within the model; never negative.

        Args:
            node: its name; factors of its surroundings are those of the node of this name in the measured models.
            kernel: the node's kernel, of whatever numbers of channels.
        """
        context = self.correction.contexts[kernel.numbers]
        if node not in context.factors and not kernel.weight and not self.table.knows(kernel):
            return 0.0  # what is left of a sum whose branch is gone: the runtime merges it with the op before
        executed = context.executed.get(node, 1.0)
        us = context.factors.get(node, 1.0) * self.table.ms(kernel) * 1e3 - executed * self.correction.node_us
        return max(0.0, context.scale * us) / 1e3

    def rest_ms(self, numbers: str) -> float:
        """Returns the milliseconds that any plan pays whose layers compute in these numbers."""
        context = self.correction.contexts[numbers]
        us = context.rest_us - context.rest_nodes * self.correction.node_us
        return (context.scale * max(0.0, us) + self.correction.call_us) / 1e3

    def ms(self, kernels: Mapping[str, Kernel], numbers: str) -> float:
        """Returns the milliseconds of a whole model.

        Args:
            kernels: its kernels by node, as `kernels_of` gives them.
            numbers: what most of its layers compute in.
        """
        return sum(self.node_ms(node, kernel) for node, kernel in kernels.items()) + self.rest_ms(numbers)


def corrected(table: LatencyTable, wholes: Sequence[Whole]) -> Correction:
    """Fits the correction to whole models that were measured.

    What surrounds a node is read from the profile of the first model of its kind of numbers, the original. Then a scale for
    each kind of numbers, and the microseconds that profiles add to each node, are fitted to what the models took as a whole.

    Raises:
        PenjingError: a kernel of a layer isn't in the table.
    """
    contexts: dict[str, Context] = {}
    first: list[Whole] = []  # plans are compared with the originals, which the correction meets most closely
    for whole in wholes:
        if whole.numbers not in contexts:
            contexts[whole.numbers] = _context(table, whole)
            first.append(whole)
    kinds = list(contexts)

    def made(values: Sequence[float]) -> Correction:
        scaled = {
            kind: Context(math.exp(values[at]), one.factors, one.executed, one.rest_us, one.rest_nodes)
            for at, (kind, one) in enumerate(contexts.items())
        }
        return Correction(scaled, values[len(kinds)], values[len(kinds) + 1])

    def errors(values: np.ndarray) -> list[float]:
        predictor = Predictor(table, made(values.tolist()))
        own = [
            math.log(max(predictor.ms(w.kernels, w.numbers) * 1e3, 1e-3) / w.us) / (TRUST / 5 if w in first else TRUST)
            for w in wholes
        ]
        return [*own, (values[-2] - NODE_US) / NODE_SPREAD_US, values[-1] / 30.0]

    start = [*(0.0 for _ in kinds), NODE_US, 0.0]
    bounds = ([*(-3.0 for _ in kinds), 0.0, 0.0], [*(3.0 for _ in kinds), 10.0, 200.0])
    return made(least_squares(errors, start, bounds=bounds).x.tolist())


def _context(table: LatencyTable, whole: Whole) -> Context:
    """Reads from a profile what each node took within the model, over what its kernel takes by itself."""
    took, count = _by_node(whole)
    known = {node: kernel for node, kernel in whole.kernels.items() if table.knows(kernel)}
    by_itself = {node: table.ms(kernel) * 1e3 for node, kernel in known.items()}
    layers = [node for node, kernel in known.items() if kernel.weight and took.get(node) and by_itself[node] > 0]
    if not layers:
        raise PenjingError("The table holds none of the model's layers: measure its kernels first.")
    speed = sum(took[node] for node in layers) / sum(by_itself[node] for node in layers)
    ratios = {node: took.get(node, 0.0) / speed / us for node, us in by_itself.items() if us > 0}
    alike: defaultdict[Kernel, list[float]] = defaultdict(list)
    for node in layers:
        alike[family_of(known[node])].append(ratios[node])
    for node in layers:  # what one node took is noise where its like took something else
        ratios[node] = statistics.median(alike[family_of(known[node])])
    without = [node for node in took if node not in ratios]
    executed = {node: count.get(node, 0.0) for node in ratios}
    return Context(1.0, ratios, executed, sum(took[n] for n in without) / speed, sum(count[n] for n in without))


def _by_node(whole: Whole) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the microseconds and the number of executed nodes of each node of the graph.

    What the runtime put in by itself, to lay out a value anew, counts for the nearest node that isn't a layer.
    """
    owners = [None if one.node is None else whole.activations.get(one.node, one.node) for one in whole.executed]

    def light(at: int) -> bool:
        owner = owners[at]
        return owner is not None and not (owner in whole.kernels and whole.kernels[owner].weight)

    took: defaultdict[str, float] = defaultdict(float)
    count: defaultdict[str, float] = defaultdict(float)
    for at, one in enumerate(whole.executed):
        owner = owners[at]
        if owner is None:
            near = sorted((n for n in range(len(owners)) if owners[n] is not None), key=lambda n: (abs(n - at), n))[:4]
            owner = next((owners[n] for n in near if light(n)), owners[near[0]] if near else "")
        took[owner or ""] += one.latency_us
        count[owner or ""] += 1
    return dict(took), dict(count)


def measure_wholes(
    graphs: Iterable[tuple[Graph, Graph]], deployment: Deployment, folder: Path | None = None
) -> list[Whole]:
    """Lowers models, measures them in turns, and profiles them.

    Args:
        graphs: float graphs, each with the graph to lower: itself, or the same quantised. The original comes first.
        deployment: where and how they run.
        folder: where the files are written and stay; a temporary one by default.
    """
    with tempfile.TemporaryDirectory() as temporary:
        target = find_target(deployment.target)
        place = Path(temporary) if folder is None else folder
        pairs = list(graphs)
        files = {
            str(at): lower(small, deployment.target, place / f"whole_{at}{target.suffix}")
            for at, (_, small) in enumerate(pairs)
        }
        times = measure_together(
            files, threads=deployment.threads, batch=deployment.batch, seconds=SECONDS, memory=False
        )
        profiles = [
            {name: profile(file, deployment.threads, deployment.batch) for name, file in files.items()}
            for _ in range(PROFILES)
        ]
    found = []
    for at, (graph, small) in enumerate(pairs):
        numbers = FLOAT32 if small is graph else INT8
        executed = fastest([one[str(at)] for one in profiles])
        us = times[str(at)].latency_ms.median * 1e3
        found.append(Whole(numbers, kernels_of(small, deployment.batch), executed, us, activations_of(small)))
    return found


def fastest(profiles: Sequence[Sequence[ExecutedNode]]) -> list[ExecutedNode]:
    """Returns the nodes of several profiles of one file, each with its fastest time: what disturbs only ever adds.

    A runtime that compiles a file anew for each profile may take other layouts once, with reorders between them. Those profiles
    count whose nodes are the same as in most others.
    """
    alike: dict[tuple[str, ...], list[Sequence[ExecutedNode]]] = {}
    for profile_ in profiles:
        alike.setdefault(tuple(node.name for node in profile_), []).append(profile_)
    most = max(alike.values(), key=len)
    return [min(calls, key=lambda call: call.latency_us) for calls in zip(*most, strict=True)]
