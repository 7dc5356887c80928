"""Checks that a file computes the same as its graph, at other input sizes than the exported ones.

An exporter may turn a free size into a fixed number by mistake; at the exported sizes that mistake doesn't show.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.targets._records import Artifact
from penjing.targets._registry import Session

EXPORTED_BATCH = 2  # samples; `torch.export` would fix an axis of size 1
# Share of the largest expected value. Another order of summation changes values by about 1e-6; a wrong size, by much more.
TOLERANCE = 1e-3
# Share of the output's norm, for graphs that round values: a value between two steps may be rounded to either, and every
# value that is computed from it then differs by whole steps.
ROUNDED_TOLERANCE = 0.1
ROUNDED_RATIO = (
    3  # a difference that is more than this many times that at the exported sizes doesn't come from rounding
)
# Share of the output's norm from which on no rounding explains a difference, even where it is as large at the exported sizes.
UNLIKE = 0.5
_COARSENESS = {torch.float16: 2**13, torch.bfloat16: 2**16}  # relative step of the dtype over that of float32
LARGE_MACS = 2 * 10**9  # MACs per sample; a larger graph is first run with one sample instead of three
SEED = 0
TRIES = 4  # sizes tried per scheme where one axis is checked by itself

Sizes = Mapping[str, int]


class Differs(PenjingError):
    """A file doesn't compute what its graph computes."""


@dataclass(frozen=True)
class _Free:
    """A free size: the axes that have this size, and its value in the exported file.

    Attributes:
        axes: the axes that have this size, each as (position of the input, axis).
        exported: the size with which the file was exported.
    """

    axes: tuple[tuple[int, int], ...]
    exported: int


def check_other_sizes(graph: Graph, artifact: Artifact, session: Session) -> None:
    """Compares a file with its graph on inputs whose free sizes differ from the exported ones and from one another.

    A graph without free axes is compared at the sizes that it has.

    Args:
        graph: the graph that was lowered, in any mode; it stays as it was.
        artifact: the file that was made from the graph.
        session: a session of that file.

    Raises:
        Differs: at sizes for which the graph works, the file fails or gives other shapes or values.
    """
    was_training = graph.training
    graph.eval()
    try:
        # A file with fixed sizes takes other numbers of samples in parts, so that all its inputs must have the same number.
        fixed = all(size is not None for spec in artifact.inputs for size in spec.shape)
        for together in (True,) if fixed else (False, True):
            free = _free_sizes(graph, together)
            trial = _Trial(graph, artifact, session, free)
            for sizes in _size_choices(graph, free):
                expected = trial.graph_at(sizes)
                if expected is not None:
                    trial.check(sizes, expected)
                    return
        trial.check_one_by_one()
    finally:
        graph.train(was_training)


def _free_sizes(graph: Graph, together: bool) -> dict[str, _Free]:
    """Returns the free sizes by name; axes that must have the same size share one entry.

    Args:
        graph: the graph, whose inputs name some of the sizes that axes share.
        together: also let axes share a size where they have the same size in the example, as two sequences may have.
    """
    found: dict[str, _Free] = {}
    for place, given in enumerate(graph.inputs):
        for axis in sorted(given.dynamic):
            name = (given.sizes[axis] if given.sizes else "") or ("batch" if axis == 0 else f"{given.name}_{axis}")
            if together:
                name = f"{'batch' if axis == 0 else 'size'} {given.shape[axis]}"
            size = EXPORTED_BATCH if axis == 0 and graph.batch is None else given.shape[axis]
            known = found.get(name, _Free((), size))
            found[name] = _Free((*known.axes, (place, axis)), known.exported)
    return found


def _size_choices(graph: Graph, free: Mapping[str, _Free]) -> Iterator[Sizes]:
    """Yields sizes that all differ from the exported ones and from one another, those most likely to work first."""
    if not free:
        yield {}
        return
    large = graph.cost().macs > LARGE_MACS
    for scheme in SCHEMES:
        taken = {size.exported for size in free.values()}
        sizes: dict[str, int] = {}
        for name, size in free.items():
            is_batch = (0, 0) in size.axes and graph.batch is None
            candidates = iter([1, 3, 5] if large else [3, 5, 1]) if is_batch else scheme(size.exported)
            chosen = next((one for one in candidates if one not in taken), None)
            if chosen is None:
                break
            sizes[name] = chosen
            taken.add(chosen)
        else:
            yield sizes


def _near(size: int) -> Iterator[int]:
    """Yields sizes from just above half the exported one; the odd sizes among them show the most mistakes."""
    yield from range(max(size // 2 + 1, 3), 2 * size + 8)


def _halves(size: int) -> Iterator[int]:
    """Yields multiples of the largest power of two that is at most a quarter of the exported size.

    Networks that halve the size of images several times accept these.
    """
    step = max(1 << max((size // 4).bit_length() - 1, 0), 1)
    yield from (step * count for count in range(2, 16) if step * count > 1)


def _multiples(size: int) -> Iterator[int]:
    """Yields multiples of the exported size, which all divisors of the exported size divide too."""
    yield from (size * count for count in range(2, 8))


SCHEMES: tuple[Callable[[int], Iterator[int]], ...] = (_near, _halves, _multiples)


@dataclass(frozen=True)
class _Difference:
    """How a file's outputs differ from the graph's.

    Attributes:
        text: a clause for the error message that says what differs.
        error: size of the difference relative to the graph's values; infinite where the file fails or a shape differs.
    """

    text: str
    error: float


class _Trial:
    """Runs a graph and the file that was made from it on the same inputs."""

    def __init__(self, graph: Graph, artifact: Artifact, session: Session, free: Mapping[str, _Free]) -> None:
        self._graph, self._artifact, self._session, self._free = graph, artifact, session, free
        self._exported = {name: size.exported for name, size in free.items()}
        targets = {node.target for node in graph.program.graph.nodes}
        self._rounds = any(getattr(target, "namespace", "") == "quantized_decomposed" for target in targets)

    def graph_at(self, sizes: Sizes) -> list[Tensor] | None:
        """Returns the graph's outputs at these sizes; None where the graph itself fails."""
        try:
            with torch.no_grad():
                return [output.detach() for output in self._graph.program(*self._inputs(sizes))]
        except (RuntimeError, IndexError, ValueError):  # what ops raise where sizes don't fit them
            return None

    def check(self, sizes: Sizes, expected: list[Tensor]) -> None:
        """Raises `Differs` if the file's outputs at these sizes differ by more than rounding explains."""
        found = self._difference(sizes, expected)
        if found is None or self._is_rounding(found):
            return
        alone = ({**self._exported, name: size} for name, size in sizes.items() if len(sizes) > 1)
        for fewer in alone:  # name one size alone if that size is enough to make the outputs differ
            want = self.graph_at(fewer)
            less = self._difference(fewer, want) if want is not None else None
            if less is not None and not self._is_rounding(less):
                sizes, found = fewer, less
                break
        raise Differs(
            f"The file that was made of the graph doesn't compute what the graph computes{self._where(sizes)}: {found.text}. "
            + self._remedy(sizes)
        )

    def check_one_by_one(self) -> None:
        """Checks each free size by itself; warns of those for which the graph works only at the exported size."""
        stuck = []
        for name, free in self._free.items():
            trials = [one for scheme in SCHEMES for one in itertools.islice(scheme(free.exported), TRIES)]
            for size in (one for one in trials if one != free.exported):
                sizes = {**self._exported, name: size}
                if (expected := self.graph_at(sizes)) is not None:
                    self.check(sizes, expected)
                    break
            else:
                stuck.append(f"{self._axes(name)} (as size {free.exported})")
        if stuck:
            warnings.warn(
                f"The graph says that these sizes are free, but no other size was found at which it works: {'; '.join(stuck)}. "
                "The file was not compared with the graph at other sizes; use it only with inputs like the example's.",
                stacklevel=4,
            )

    def _difference(self, sizes: Sizes, expected: list[Tensor]) -> _Difference | None:
        """Returns how the worst of the outputs differs at these sizes; None where all outputs are close."""
        try:
            made = self._session.run(self._named(sizes))
        except PenjingError as error:
            return _Difference(f"there it fails ({error})", math.inf)
        tolerance = ROUNDED_TOLERANCE if self._rounds else TOLERANCE
        worst = _Difference("", tolerance)
        for name, have, want in zip(self._artifact.outputs, made, expected, strict=True):
            found = _compared(name, have, want, self._rounds)
            if found.error > worst.error * _COARSENESS.get(want.dtype, 1):
                worst = found
        return worst if worst.text else None

    def _is_rounding(self, found: _Difference) -> bool:
        """Tells whether a difference is small enough for roundings, and about as large as at the exported sizes."""
        if not self._rounds or found.error > UNLIKE:
            return False
        expected = self.graph_at(self._exported)
        known = self._difference(self._exported, expected) if expected is not None else None
        return known is not None and found.error <= ROUNDED_RATIO * known.error

    def _inputs(self, sizes: Sizes) -> tuple[Tensor, ...]:
        shapes = [list(given.shape) for given in self._graph.inputs]
        for name, size in sizes.items():
            for place, axis in self._free[name].axes:
                shapes[place][axis] = size
        generator = torch.Generator().manual_seed(SEED)
        return tuple(
            replace(given, shape=tuple(shape)).example(None, None, generator)
            for given, shape in zip(self._graph.inputs, shapes, strict=True)
        )

    def _named(self, sizes: Sizes) -> dict[str, np.ndarray]:
        return {
            spec.name: np.ascontiguousarray(value.numpy(), dtype=spec.dtype)
            for spec, value in zip(self._artifact.inputs, self._inputs(sizes), strict=True)
        }

    def _where(self, sizes: Sizes) -> str:
        changed = [name for name, size in sizes.items() if size != self._exported[name]]
        if not changed:
            return ""
        return " where " + " and ".join(
            f"{self._axes(name)} has size {sizes[name]} instead of {self._exported[name]}" for name in changed
        )

    def _axes(self, name: str) -> str:
        place, axis = self._free[name].axes[0]
        return f"axis {axis} of input '{self._graph.inputs[place].name}'"

    def _remedy(self, sizes: Sizes) -> str:
        changed = [name for name, size in sizes.items() if size != self._exported[name]]
        if not changed:
            return "An op was written wrongly for this runtime: try another target, or leave that op out."
        return (
            "Somewhere a size of the example became a number. Take sizes from x.shape where they are used, or capture the "
            "model for one size (leave the axis out of dynamic=) and lower a file for each size that is needed."
        )


def _compared(name: str, have: np.ndarray, want: Tensor, rounds: bool) -> _Difference:
    if have.shape != tuple(want.shape):
        return _Difference(f"output '{name}' has the shape {have.shape}, not {tuple(want.shape)}", math.inf)
    real = want.dtype.is_floating_point
    if not real:
        share = float((have != want.numpy()).mean()) if have.size and not rounds else 0.0
        return _Difference(f"{share:.0%} of the entries of output '{name}' differ", share)
    a, e = have.astype(np.float64), want.double().numpy()
    finite = np.isfinite(e)
    if not np.array_equal(finite, np.isfinite(a)):
        return _Difference(f"output '{name}' is infinite or NaN at other places", math.inf)
    a, e = a[finite], e[finite]
    if not e.size:
        return _Difference("", 0.0)
    measure = _norm if rounds else _largest
    error = measure(a - e) / max(measure(e), 1e-6)
    return _Difference(f"output '{name}' differs by {error:.2g} of its {'norm' if rounds else 'largest value'}", error)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.ravel()))


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())
