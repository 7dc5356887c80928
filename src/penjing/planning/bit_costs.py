"""How many bytes and milliseconds each layer costs on the target, by the grid of its weights."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from penjing.graph import Graph, fold_batch_norms
from penjing.planning.problem import Problem
from penjing.quantization import FLOAT, find_grid, modules_by_place, weights_by_place
from penjing.targets import Artifact, lower, measure_together, profile

SECONDS = 3.0  # seconds of measuring files in turns
SCALE_BYTES = 4  # bytes of a scale in float32


class Costs:
    """Bytes and milliseconds of layers and of whole networks.

    If the problem has a file of the original, sizes are those of files, in which a weight has the next number of bits that
    the target stores. If not, sizes are counted: a weight has its grid's bits and a scale per output channel, and all other
    tensors are as they are once batch norms are folded.

    Attributes:
        original_bytes: size of the float network in bytes.
    """

    def __init__(self, problem: Problem) -> None:
        """Finds the size of the problem's graph, which is in floating point."""
        graph = problem.graph
        self._problem, self._original = problem, problem.original
        self._weights, self._modules = weights_by_place(graph), modules_by_place(graph)
        self._original_ms = 0.0
        self._profiles: dict[bool, dict[str, float]] = {}
        self.original_bytes = (
            _bytes_read(fold_batch_norms(graph)) if self._original is None else self._original.size_bytes
        )

    @property
    def original_ms(self) -> float:
        """Median milliseconds of a call of the float network, one sample, one thread."""
        assert self._original is not None
        if not self._original_ms:
            self._original_ms = self._timed({"original": self._original})["original"]
        return self._original_ms

    def bytes(self, place: str, grid: str) -> float:
        """Returns the bytes that a layer's weights take on a grid."""
        return sum(self._bytes(weight, grid) for weight in self._weights[place])

    def _bytes(self, weight: Tensor, grid: str) -> float:
        if grid == FLOAT:
            return 4 * weight.numel()
        chosen = find_grid(grid.partition("/")[0])
        bits = chosen.bits
        if self._original is not None:
            bits = min(size for size in self._problem.capabilities.numbers.stored if size >= bits)
        table = chosen.number if chosen.counts_values else len(weight)
        return weight.numel() * bits / 8 + SCALE_BYTES * table

    def ms(self, place: str, grid: str) -> float:
        """Returns the milliseconds of a layer in floating point or in integers. Call `profile` first.

        Times are known by module: layers that one module computes share its time in proportion to their weights' sizes.
        """
        module = self._modules[place]
        together = [other for other, computed in self._modules.items() if computed == module]
        share = self.bytes(place, FLOAT) / sum(self.bytes(other, FLOAT) for other in together)
        return share * self._profiles[grid == FLOAT].get(module, 0.0)

    def profile(self, small: Graph) -> None:
        """Measures the times of the layers, in the float network and in a quantised one."""
        assert self._original is not None
        small_file = self._lowered(small, "profiled")
        medians = self._timed({"original": self._original, "small": small_file})
        self._original_ms = medians["original"]
        for is_float, file, total in (
            (True, self._original, medians["original"]),
            (False, small_file, medians["small"]),
        ):
            nodes = profile(file, self._problem.deployment.threads, self._problem.deployment.batch)
            scale = total / (sum(node.latency_us for node in nodes) or 1.0)  # profiling adds a little to every node
            found: dict[str, float] = {}
            for node in nodes:
                if node.module is not None:
                    found[node.module] = found.get(node.module, 0.0) + node.latency_us * scale
            self._profiles[is_float] = found

    def whole(self, small: Graph, kinds: Sequence[str]) -> dict[str, float]:
        """Returns the size and the latency of a quantised network, as "bytes" and "ms".

        Args:
            small: the network.
            kinds: which of the two are asked for.
        """
        if self._original is None:
            grids = {place: grid for place, grid in grids_of(small).items() if place in self._weights}
            once = {id(weight): (weight, grid) for place, grid in grids.items() for weight in self._weights[place]}
            saved = sum(self._bytes(weight, FLOAT) - self._bytes(weight, grid) for weight, grid in once.values())
            return {"bytes": self.original_bytes - saved}
        file = self._lowered(small, "small")
        found: dict[str, float] = {"bytes": file.size_bytes}
        if "ms" in kinds:
            medians = self._timed({"original": self._original, "small": file})
            found["ms"] = (
                medians["small"] / medians["original"] * self.original_ms
            )  # the machine's speed drifts for both
        return {kind: found[kind] for kind in kinds}

    def _lowered(self, graph: Graph, name: str) -> Artifact:
        return lower(graph, self._problem.deployment.target, self._problem.file(name))

    def _timed(self, files: Mapping[str, Artifact]) -> dict[str, float]:
        deployment = self._problem.deployment
        found = measure_together(
            files, threads=deployment.threads, batch=deployment.batch, seconds=SECONDS, memory=False
        )
        return {name: one.latency_ms.median for name, one in found.items()}


def grids_of(small: Graph) -> dict[str, str]:
    """Returns the grid of each quantised layer, by module path; "float32" for layers that went back to hold the metric.

    Layers that were never meant to be quantised, which a plan lists only with the reason, aren't included.
    """
    return {
        step.place.path: str(step.after)
        for step in small.plan.of("quantize")
        if step.after != FLOAT or step.found.get("reason") == "metric"
    }


def _bytes_read(graph: Graph) -> int:
    """Returns the size in bytes of all tensors that the graph's nodes read."""
    read = [graph.tensor(str(node.target)) for node in graph.program.graph.nodes if node.op == "get_attr"]
    return sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in read}.values())
