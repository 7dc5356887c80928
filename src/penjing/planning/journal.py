"""The journal of a solver: the candidates that it measured, level by level, and the prices that finished models correct."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from penjing import records
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.graph import Option
from penjing.lines import Lasting
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Problem

Journal = dict[str, list[MeasuredPlan]]
"""The candidates of each level, by the level's key."""


def key_of(options: Iterable[Option]) -> str:
    """Returns the key of a level, as text: what its options set, whether or not some were left out when it was measured."""
    return json.dumps([[one.technique, one.place.kind, one.place.path, one.setting] for one in options], sort_keys=True)


def write_journal(path: Path, levels: Iterable[Sequence[MeasuredPlan]]) -> None:
    """Writes the candidates of each level, whole or not at all."""
    atomic_write(path, json.dumps([[candidate.to_json() for candidate in found] for found in levels if found]))


def read_journal(path: Path) -> list[list[MeasuredPlan]]:
    """Returns the candidates of each level that a journal holds.

    Raises:
        PenjingError: the journal is damaged.
    """
    levels = records.convert(records.read(path), list[list[MeasuredPlan]], "levels")
    if not all(levels):
        raise PenjingError("a level of it has no candidate")
    return levels


def known(path: Path | None, say: Callable[[str], None]) -> Journal:
    """Returns what a journal holds; nothing where there is none, or a damaged one, which is told."""
    if path is None or not path.exists():
        return {}
    try:
        return by_level(candidate for found in read_journal(path) for candidate in found)
    except PenjingError as damage:
        say(Lasting(f"{path} is damaged ({damage}): all candidates are measured again."))
        return {}


def by_level(candidates: Iterable[MeasuredPlan]) -> Journal:
    """Returns the candidates by level, in the order in which they were measured."""
    levels: Journal = {}
    for candidate in candidates:
        levels.setdefault(key_of(candidate.structure), []).append(candidate)
    return levels


def corrected(
    candidates: Sequence[MeasuredPlan], taken: MeasuredPlan, latency: float, problem: Problem
) -> list[MeasuredPlan]:
    """Returns candidates with latencies that are corrected by what a finished model took.

    All of them were measured in one phase of the machine, and the finished model in another one, in which such numbers gain
    less. So the correction holds for all candidates that compute in integers, if the finished model does, or else for those
    that don't.

    Args:
        candidates: that were measured, `taken` among them.
        taken: the candidate of which the finished model was made.
        latency: median latency of the finished model over that of the original.
        problem: the problem, for its budget.
    """
    assert taken.expected
    factor = latency / taken.expected
    return [
        meeting(replace(one, correction=one.correction * factor), problem) if one.integer == taken.integer else one
        for one in candidates
    ]


def meeting(candidate: MeasuredPlan, problem: Problem) -> MeasuredPlan:
    """Returns the candidate with `meets` as its corrected latency, its size and what is counted say."""
    return replace(candidate, meets=problem.keeps(candidate))
