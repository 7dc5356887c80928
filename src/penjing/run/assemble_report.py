"""Assembles a run's report: the request, the changes, the measurements and the provenance, in words and numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from penjing import report
from penjing.budget import LIMITED, Budget
from penjing.capabilities import find
from penjing.graph import Graph
from penjing.graph.cost import uncounted
from penjing.planning import Problem, Solution
from penjing.run import stages
from penjing.run.baseline import SAME
from penjing.run.clock import Clock, seconds_until
from penjing.run.correction import misses_of
from penjing.run.provenance import provenance
from penjing.run.recovery import Recovery
from penjing.run.request import CompressRequest, perhaps_random
from penjing.run.samples import told
from penjing.run.search_history import candidate_rows, compared_with
from penjing.run.usage import usage
from penjing.run.verification import READ
from penjing.run.workspace import Workspace
from penjing.run.zeros import zeros_on
from penjing.targets import find_target

FEW_STEPS = 200  # steps of training below which a fall of the metric may well be for lack of training


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
    return what_was_made(
        space,
        small,
        asked.budget,
        asked.training.seed,
        measured,
        inputs,
        [*_notes(asked, solution, recovery, measured, clock), *(f"{miss}." for miss in misses_of(space))],
        training=recovery.variant,
        training_details=list(recovery.details),
        training_epochs=[asdict(one) for one in recovery.epochs],
        data_source=asked.data.source,
        started_from=space.told.get("started_from"),
        candidates=candidate_rows(asked.budget, solution, measured["baseline"]),
        places=[one.as_row() for one in solution.places],
    )


def what_was_made(
    space: Workspace,
    small: Graph,
    budget: Budget,
    seed: int,
    measured: Mapping[str, Any],
    inputs: Mapping[str, str],
    notes: Sequence[str],
    *,
    training: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Returns the content of `report.json` for what a folder holds, however it was made.

    Args:
        space: where the result is, and how long each stage took.
        small: the compressed graph, with its plan.
        budget: the limits that were asked for.
        seed: the seed of everything random.
        measured: the part of the report that `verify` returned.
        inputs: SHA-256 of the files that the model came from.
        notes: sentences that a reader must know, the most important first.
        training: how the steps of the training were computed; None where nothing was trained.
        more: further keys of the report.
    """
    settings, target = space.settings, find_target(measured["target"]["name"])
    left_out = small.cost().uncounted
    content = {
        "schema": 1,
        "model": small.name,
        "budget": {key: value for key, value in asdict(budget).items() if value is not None},
        "seed": seed,
        "provenance": {**provenance(inputs, settings, space.out), "training": training},
        "plan": [report.row(step.to_json()) for step in small.plan],
        "zeros": zeros_on(
            find(target.name),
            small,
            {
                "baseline": target.files(space.inner / stages.lowered(target.suffix)),
                "compressed": target.files(space.out / f"model{target.suffix}"),
            },
        ),
        "seconds": {stage: round(seconds, 2) for stage, seconds in space.seconds.items()},
        "notes": [*notes, *([uncounted(left_out)] if left_out else [])],
        "uncounted": [{"op": row.op, "module": row.module or row.node} for row in left_out],
        "include": settings["include"],
        "exclude": settings["exclude"],
        "settings": settings,
        "usage": usage(space.out, small, target.name),
        **more,
        **measured,
    }
    return {**content, "headline": report.headline(content)}


def _cut_short(solution: Solution, recovery: Recovery, measured: Mapping[str, Any], clock: Clock) -> list[str]:
    """Says what the time limit cut short, whether the budget may be missed for that reason, and how to go on."""
    parts = []
    if solution.short_of_time:
        widths = sum(not candidate.numbers for candidate in solution.measured)  # each width is measured in float, too
        parts.append(f"of the widths only {widths} were measured")
    if solution.unseen:
        parts.append(f"{solution.unseen} options were not weighed, so that a better plan may have been missed")
    if recovery.short_of_time:
        made = f"shortened to {recovery.steps:,} of {recovery.wanted:,} steps" if recovery.steps else "left out"
        parts.append(f"training was {made}")
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


def _possible(asked: CompressRequest, solution: Solution, measured: Mapping[str, Any]) -> list[str]:
    """Says what binds, and for each limit but that of the metric how far the best of the measured candidates came."""
    found = _binds(asked.budget, solution, measured["baseline"])
    timed = [one for one in solution.measured if one.latency is not None and one.latency_ms is not None]
    if asked.budget.latency and timed:
        fastest = min(timed, key=lambda one: one.latency or 0.0)
        took = f"{fastest.latency:.2f}× the latency of the original ({fastest.latency_ms:.3g} ms)"
        found.append(f"The fastest candidate measured took {took}.")
    if asked.budget.size and solution.measured:
        smallest = min(one.size_bytes for one in solution.measured)
        share = smallest / measured["baseline"]["size_bytes"]
        found.append(f"The smallest candidate measured had {share:.2f}× the size of the original ({smallest:,} bytes).")
    for name in asked.budget.limits():
        amounts = (
            [one.counted[name] for one in solution.measured if name in one.counted] if LIMITED[name].counted else []
        )
        if amounts:
            share = min(amounts) / READ[name](measured["baseline"])
            least = LIMITED[name].shown.format(min(amounts))
            found.append(
                f"At the least, {LIMITED[name].title} of a candidate was {share:.2f}× the original's ({least})."
            )
    return found


def _binds(budget: Budget, solution: Solution, baseline: Mapping[str, Any]) -> list[str]:
    """Says which limit the candidate that was taken misses the furthest, and by how much."""
    before = compared_with(budget, solution.taken, baseline)
    used = {name: share for name, share in budget.used(before, solution.taken.costs).items() if share < math.inf}
    if not used:
        return []
    name = max(used, key=lambda one: used[one])
    limit, quantity, reached = budget.limits()[name], LIMITED[name], solution.taken.costs[name]
    amount = quantity.shown.format(limit.of(before[name] or 0.0))
    much = used[name] - 1
    over = f"{much:.{0 if much > 0.1 else 1}%} more"
    if much <= 0:
        over = f"less than {1 - Problem.allowed(name):.0%} below, which a finished model may pass"
    return [f"What binds is {quantity.title}: {quantity.shown.format(reached)} where {amount} is allowed, {over}."]


def _short_training(asked: CompressRequest, recovery: Recovery, measured: Mapping[str, Any]) -> list[str]:
    """Says how many steps there were, where these were few and the metric fell further than it may."""
    before, after = measured["baseline"]["metric"], measured["compressed"]["metric"]
    limit = asked.budget.drop_limit(before)
    if limit is None or recovery.short_of_time or not 0 < recovery.steps < FEW_STEPS:
        return []
    agreement = measured["parity"]["agreement_with_original"]
    fall = 1 - agreement if before is None and agreement is not None else None
    fall = before - after if before is not None and after is not None else fall
    if fall is None or fall <= limit + SAME:
        return []
    steps = f"{recovery.steps:,} step{'' if recovery.steps == 1 else 's'}"
    return [f"Training had only {steps}: with more epochs (--epochs) the fall is likely to be smaller."]


def _notes(
    asked: CompressRequest, solution: Solution, recovery: Recovery, measured: Mapping[str, Any], clock: Clock
) -> list[str]:
    """Returns what a reader must know, the most important first."""
    notes = []
    if measured["missed"]:
        short = _short_training(asked, recovery, measured)
        notes.append(" ".join([f"The budget was not met: {'; '.join(measured['missed'])}.", *short]))
    if not solution.taken.meets:
        nearest = f"No candidate kept the budget of {asked.budget}; the one that came nearest was taken."
        notes.append(" ".join([nearest, *_possible(asked, solution, measured)]))
    notes += _cut_short(solution, recovery, measured, clock)
    if not solution.complete:
        notes.append("Measuring candidates was interrupted; the same command goes on with it.")
    notes += recovery.notes
    notes += _reservations(asked, measured)
    if solution.taken.meets and not solution.plan:
        notes.append("Float is already the fastest within your budget: nothing was pruned or quantised.")
    if "quantize" in asked.techniques and not find(asked.deployment.target).has_integers:
        notes.append(f"Nothing was quantised: {asked.deployment.target} computes nothing in integers.")
    if (late := -seconds_until(clock.end)) > 0:
        notes.append(
            f"The limit of {clock.minutes:g} min was passed by {late:.0f} s, to measure and verify this result."
        )
    return notes


def _reservations(asked: CompressRequest, measured: Mapping[str, Any]) -> list[str]:
    """Says what speaks against trusting the metric, and the networks that were given."""
    notes = []
    if measured["baseline"]["metric"] is None:
        notes += _stands_in(measured["parity"])
        if not asked.trained:
            notes.append(
                "No weights were given: unless the model's factory reads its own, they are random, and the model's answers "
                "mean nothing."
            )
    notes += map(perhaps_random, asked.untrained_teachers)
    notes += measured["warnings"]
    if asked.data.split is not None and asked.data.split.held_out:
        notes.append(told(asked.data.split))
    return notes
