"""Assembles a run's report: the request, the changes, the measurements and the provenance, in words and numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from penjing import report
from penjing.capabilities import find
from penjing.graph import Graph
from penjing.graph.cost import uncounted
from penjing.planning import Solution
from penjing.run import stages
from penjing.run.clock import Clock, seconds_until
from penjing.run.correction import misses_of
from penjing.run.provenance import provenance
from penjing.run.recovery import Recovery
from penjing.run.request import CompressRequest, perhaps_random
from penjing.run.samples import told
from penjing.run.workspace import Workspace
from penjing.run.zeros import zeros_on
from penjing.targets import find_target


def assemble_report(
    space: Workspace,
    asked: CompressRequest,
    small: Graph,
    *,
    solution: Solution,
    recovery: Recovery,
    measured: Mapping[str, Any],
    inputs: Mapping[str, str],
    clock: Clock,
) -> dict[str, Any]:
    """Returns the content of `report.json`.

    Args:
        space: where the result is, and how long each stage took.
        asked: what the user asked for.
        small: the compressed graph, with its plan.
        solution: the candidate that was chosen, and all that were measured.
        recovery: how training went.
        measured: the part of the report that `verify` returned.
        inputs: SHA-256 of the files that the model came from.
        clock: the run's limit.
    """
    settings, target = space.settings, find_target(measured["target"]["name"])
    left_out = small.cost().uncounted
    content = {
        "schema": 1,
        "model": small.name,
        "budget": {key: value for key, value in asdict(asked.budget).items() if value is not None},
        "seed": asked.training.seed,
        "provenance": {**provenance(inputs, settings, space.out), "training": recovery.variant},
        "plan": [report.row(step.to_json()) for step in small.plan],
        "zeros": zeros_on(
            find(measured["target"]["name"]),
            small,
            {
                "baseline": target.files(space.inner / stages.lowered(asked.suffix)),
                "compressed": target.files(space.out / f"model{asked.suffix}"),
            },
        ),
        "seconds": {stage: round(seconds, 2) for stage, seconds in space.seconds.items()},
        "notes": [
            *(f"{miss}." for miss in misses_of(space)),
            *_notes(asked, solution, recovery, measured, clock),
            *([uncounted(left_out)] if left_out else []),
        ],
        "uncounted": [{"op": row.op, "module": row.module or row.node} for row in left_out],
        "include": settings["include"],
        "exclude": settings["exclude"],
        "settings": settings,
        "candidates": [candidate.as_row() for candidate in solution.measured],
        **measured,
    }
    return {**content, "headline": report.headline(content)}


def _cut_short(solution: Solution, recovery: Recovery, measured: Mapping[str, Any], clock: Clock) -> list[str]:
    """Says what the time limit cut short, whether the budget may be missed for that reason, and how to go on."""
    parts = []
    if solution.short_of_time:
        widths = sum(not candidate.numbers for candidate in solution.measured)  # each width is measured in float, too
        parts.append(f"of the widths only {widths} were measured")
    if recovery.short_of_time:
        parts.append("training was shortened or left out")
    if not parts:
        return []
    limit = "The time limit" if clock.minutes is None else f"The limit of {clock.minutes:g} min"
    why = ", which may be why the budget was not met" if measured["missed"] else ""
    return [
        f"{limit} cut this run short: {' and '.join(parts)}{why}. Given more time, the same command goes on from there."
    ]


def _stands_in(parity: Mapping[str, Any]) -> list[str]:
    """Names the measure by which networks were compared without labels."""
    if parity["agreement_with_original"] is None:
        return []
    value, measure = parity["agreement_with_original"], parity["agreement_measure"]
    return [f"Without labels, agreement with the original stands in for the metric: {measure}, which is {value:.4f}."]


def _notes(
    asked: CompressRequest, solution: Solution, recovery: Recovery, measured: Mapping[str, Any], clock: Clock
) -> list[str]:
    notes = list(recovery.notes)
    if not solution.complete:
        notes.append("Measuring candidates was interrupted; the same command goes on with it.")
    if measured["missed"]:
        notes.append(f"The budget was not met: {'; '.join(measured['missed'])}.")
    notes += measured["warnings"]
    if asked.data.split is not None and asked.data.split.held_out:
        notes.append(told(asked.data.split))
    notes += map(perhaps_random, asked.untrained_teachers)
    if measured["baseline"]["metric"] is None:
        notes += _stands_in(measured["parity"])
        if not asked.trained:
            notes.append(
                "No weights were given: unless the model's factory reads its own, they are random, and the model's answers "
                "mean nothing."
            )
    if not solution.taken.meets:
        notes.append(f"No candidate kept the budget of {asked.budget}; the one that came nearest was taken.")
    elif not solution.plan:
        notes.append("Float is already the fastest within your budget: nothing was pruned or quantised.")
    if "quantize" in asked.techniques and not find(asked.deployment.target).has_integers:
        notes.append(f"Nothing was quantised: {asked.deployment.target} computes nothing in integers.")
    notes += _cut_short(solution, recovery, measured, clock)
    if (late := -seconds_until(clock.end)) > 0:
        notes.append(
            f"The limit of {clock.minutes:g} min was passed by {late:.0f} s, to measure and verify this result."
        )
    return notes
