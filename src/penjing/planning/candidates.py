"""Candidates: plans that are drafted, lowered and measured on the target beside the original, and the choice among them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Plan
from penjing.planning.journal import meeting
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Problem, within
from penjing.targets import Artifact, find_target, lower, measure_together, profile
from penjing.techniques import Technique, level

WORTH = 0.98  # integers stay only if they take at most this share of the time in floating point
RUNS = 300  # timed calls of each file of a level, after which its measuring ends
SECONDS = 6.0  # seconds, for all files of a level together, after which its measuring ends anyway
LEAST_SECONDS = 0.5  # the same, where the deadline leaves less
MEASURING = 0.1  # share of the time until the deadline that timing the files of a level may take

Options = tuple[Option, ...]


def original_of(problem: Problem) -> Artifact:
    """Returns the file of the original, beside which candidates are measured.

    Raises:
        PenjingError: there is no such file.
    """
    if problem.original is None:
        raise PenjingError("This solver measures on a target, and the problem has no file of the original.")
    return problem.original


def tell_if_all_in_float(problem: Problem) -> None:
    """Says so where integers were asked for and the target computes nothing in integers."""
    if "quantize" in problem.techniques and not problem.capabilities.has_integers:
        problem.say(
            f"{problem.deployment.target} computes nothing in integers, so every candidate is in floating point."
        )


def levels(problem: Problem, stage: str, graph: Graph) -> list[Options]:
    """Returns the options that the techniques of a stage propose for a graph, level by level."""
    can = problem.capabilities
    found: dict[tuple[object, ...], list[Option]] = {}
    for technique in problem.techniques.values():
        if technique.stage == stage:
            for option in technique.propose(graph, problem.data, can, problem.scope):
                found.setdefault(level(option, technique), []).append(option)
    return [tuple(options) for options in found.values()]


# Measuring


@dataclass(frozen=True)
class _Draft:
    """A draft of a plan: its options, its lowered file, and what is counted in its graph."""

    options: Options
    file: Artifact
    counted: Mapping[str, float]


def measure_level(problem: Problem, options: Options, *, mixed: bool = True) -> list[MeasuredPlan]:
    """Measures a level in floating point and in few bits, and in a mixture of both where their profiles promise a gain.

    Where the budget limits the latency, a layer that a chain would stand for stays whole in all of the candidates if a profile
    of the file in floating point shows the chain to be slower. There is no candidate where nothing is left of the level then. A
    budget of other limits takes slower chains too, since they are smaller.

    Args:
        problem: the problem.
        options: the level.
        mixed: whether a mixture is tried at all.
    """
    names = ["float"]
    try:
        thin = drafted(problem, problem.graph, options)
        if thin is None:  # a technique found its options useless for this graph
            return []
        file = _lowered(problem, thin, "float")
        if slower := _slower_than_before(problem, options, file):
            options = _whole_again(problem, options, slower)
            if all("reason" in option.found for option in options):
                return []
            thin = drafted(problem, problem.graph, options)
            assert thin is not None, "a part of what could be drafted can be drafted"
            file = _lowered(problem, thin, "float")
        files = [_Draft(options, file, thin.cost().by_limit)]
        proposed = list[Options]()
        for some in levels(problem, "numbers", thin):  # proposed for the thin graph, whose places may be others
            if (graph := drafted(problem, thin, some)) is not None:
                names.append(f"integer-{len(proposed)}")
                file = _lowered(problem, graph, names[-1])
                files.append(_Draft((*options, *some), file, graph.cost().by_limit))
                proposed.append(some)
        found = _timed(problem, thin, files)
        plain, *others = files
        for some, draft, candidate in zip(proposed, others, tuple(found[1:]), strict=True):
            slower = _better_in_float(problem, (plain.file, draft.file), found[0], candidate) if mixed else ()
            left = _left_alone(problem, some, slower)
            graph = drafted(problem, thin, left) if slower and problem.left > 0 else None
            if graph is not None:
                names.append("mixed")
                file = _lowered(problem, graph, "mixed")
                found += _timed(problem, thin, [_Draft((*options, *left), file, graph.cost().by_limit)])
        for candidate in found:
            problem.measured(candidate)
        return found
    finally:
        for name in names:
            for path in find_target(problem.deployment.target).files(problem.file(name)):
                path.unlink(missing_ok=True)


def drafted(problem: Problem, graph: Graph, options: Options) -> Graph | None:
    """Returns a draft of the graph with these options; None where a technique finds its options useless."""
    made: Graph | None = graph
    for technique, some in _by_technique(problem, options):
        made = None if made is None else technique.draft(made, some, problem.data)
    return made


def _left_alone(problem: Problem, options: Options, paths: Sequence[str]) -> Options:
    """Returns options that leave the modules at these paths as they are."""
    return tuple(
        option for technique, some in _by_technique(problem, options) for option in technique.leave(some, paths)
    )


def _whole_again(problem: Problem, options: Options, paths: Sequence[str]) -> Options:
    """Returns options of which those that replace the layers at these paths leave them alone."""
    return tuple(
        one
        for option in options
        for one in (problem.techniques[option.technique].leave([option], paths) if _replaces(option) else [option])
    )


def _replaces(option: Option) -> bool:
    """Tells whether an option of a structure stands for another layer than the graph's, and doesn't only cut widths."""
    return option.place.kind == "weight"


def _instead_of(option: Option) -> list[str]:
    """Returns the paths of the layers in whose place an option puts others: its own, and those that go with it."""
    return [option.place.path, *option.setting.get("layers", ())]


def _by_technique(problem: Problem, options: Options) -> Iterable[tuple[Technique, list[Option]]]:
    for name in dict.fromkeys(option.technique for option in options):
        yield problem.techniques[name], [option for option in options if option.technique == name]


def _lowered(problem: Problem, graph: Graph, name: str) -> Artifact:
    return lower(graph, problem.deployment.target, problem.file(name))


def _timed(problem: Problem, thin: Graph, drafts: Sequence[_Draft]) -> list[MeasuredPlan]:
    """Times these drafts in turns with the original, and returns a candidate for each of them."""
    anchor = problem.anchor
    together = {"original": original_of(problem)} | {str(place): draft.file for place, draft in enumerate(drafts)}
    together |= {} if anchor is None else {"anchor": anchor.file}
    times = measure_together(
        together, threads=problem.deployment.threads, batch=problem.deployment.batch, runs=RUNS, memory=False,
        seconds=max(LEAST_SECONDS, min(SECONDS, MEASURING * problem.left)),
    )  # fmt: skip
    # A busy machine interrupts a long call more often than a short one, so that medians compare badly there.
    before = times["original"].latency_ms.undisturbed
    found = []
    for place, draft in enumerate(drafts):
        after, size = times[str(place)].latency_ms.undisturbed, draft.file.size_bytes
        one = MeasuredPlan(
            Plan(draft.options), thin.cost().params, after / before, after, size, True, counted=draft.counted
        )
        if anchor is not None and one.integer == anchor.integer:
            now = times["anchor"].latency_ms.undisturbed / before
            one = replace(one, correction=max(1.0, anchor.latency / now))
        found.append(meeting(one, problem))
    return found


# Choosing


def _share(candidate: MeasuredPlan) -> float:
    """Returns the expected latency of a candidate over the original's; all candidates here are measured."""
    assert candidate.expected is not None
    return candidate.expected


def _ms(candidate: MeasuredPlan) -> float:
    assert candidate.latency_ms is not None
    return candidate.latency_ms * candidate.correction


def in_words(candidate: MeasuredPlan) -> str:
    """Says what a candidate is and what was measured of it."""
    expected = "" if candidate.correction == 1 else f" ({_share(candidate):.2f}× expected once it is finished)"
    return f"{candidate}: {candidate.latency:.2f}× the latency{expected}, {candidate.size_bytes:,} bytes"


def gains_by_mixing(found: Sequence[MeasuredPlan]) -> bool:
    """Tells whether a mixture of integers and floating point was measured to be faster than integers wherever possible."""
    mixed = [_share(one) for one in found if one.left_alone]
    whole = [_share(one) for one in found if one.integer and not one.left_alone]
    return bool(mixed) and (not whole or min(mixed) <= WORTH * min(whole))


def preferred(found: Sequence[MeasuredPlan]) -> MeasuredPlan | None:
    """Returns the plainest candidate of a level that keeps the budget, unless another one's speed is worth it.

    Integers are taken only if they are faster than floating point, or if they alone keep the budget. A mixture is taken only
    if it is faster than integers everywhere. None if no candidate keeps the budget.
    """
    keeping = [candidate for candidate in found if candidate.meets]
    whole = min((c for c in keeping if c.numbers and not c.left_alone), key=_share, default=None)
    mixed = min((c for c in keeping if c.left_alone), key=_share, default=None)
    integer = mixed if mixed and (whole is None or _share(mixed) <= WORTH * _share(whole)) else whole
    plain = next((c for c in keeping if not c.numbers), None)
    if plain is None or integer is None:
        return plain or integer
    return integer if _share(integer) <= WORTH * _share(plain) else plain


def excess(problem: Problem, candidate: MeasuredPlan) -> tuple[float, ...]:
    """Returns how far a candidate misses the budget: its costs, each over its limit, the largest first.

    Of two candidates that miss one limit equally far, the one is nearer that misses the others less. A cost that keeps its
    limit counts as all of it, since keeping it by more is worth nothing.
    """
    return tuple(
        sorted((max(share, problem.allowed(name)) for name, share in problem.used(candidate).items()), reverse=True)
    )


def better(problem: Problem, one: MeasuredPlan, other: MeasuredPlan) -> MeasuredPlan:
    """Returns the better of two candidates; of equal ones, the first.

    Of two that keep the budget it is the one with the lesser damage, or, where that isn't known or the same, the faster. One that
    keeps the budget is better than one that doesn't, and of two that don't, the one that comes nearer.
    """

    def rank(candidate: MeasuredPlan) -> tuple[float, ...]:
        if not candidate.meets:
            return (1.0, *excess(problem, candidate))
        damage, latency = (math.inf if value is None else value for value in (candidate.damage, candidate.expected))
        return (0.0, damage, latency)

    return min(one, other, key=rank)


def _slower_than_before(problem: Problem, options: Options, file: Artifact) -> tuple[str, ...]:
    """Returns the layers that take longer than in the original's file, of those that the options replace."""
    replaced = {option.place.path: _instead_of(option) for option in options if _replaces(option)}
    if not replaced or problem.budget.latency_limit() is None:
        return ()
    before, after = (_module_milliseconds(problem, one, every_node=True) for one in (original_of(problem), file))
    return tuple(
        place
        for place, paths in replaced.items()
        if place in before and after.get(place, 0.0) > sum(before.get(path, 0.0) for path in paths)
    )


def _better_in_float(
    problem: Problem, files: tuple[Artifact, Artifact], plain: MeasuredPlan, integer: MeasuredPlan
) -> tuple[str, ...]:
    """Returns the modules that are slower as integers, if leaving them in float promises a better candidate."""
    as_float, as_integer = (_module_milliseconds(problem, file) for file in files)
    slower = {name: ms - as_float[name] for name, ms in as_integer.items() if ms > as_float.get(name, ms)}
    assert integer.latency_ms is not None
    hoped = 1 - sum(slower.values()) / integer.latency_ms
    original_ms = _ms(integer) / _share(integer)
    fast_enough = within(problem.budget.latency_limit(), hoped * _ms(integer), original_ms)
    if hoped > WORTH or hoped * _share(integer) > WORTH * _share(plain) or not fast_enough:
        return ()
    return tuple(slower)


def _module_milliseconds(problem: Problem, file: Artifact, *, every_node: bool = False) -> dict[str, float]:
    """Returns the milliseconds of each module: of its nodes that multiply, or of all, those that only move values included."""
    times: dict[str, float] = {}
    for node in profile(file, problem.deployment.threads, problem.deployment.batch):
        if node.module and (node.macs or every_node):
            times[node.module] = times.get(node.module, 0.0) + node.latency_us / 1e3
    return times
