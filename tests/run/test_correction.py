"""A finished model that is slower than its candidate: prices are corrected, and another candidate is chosen.

The device is a pretended one, on which a model takes as many milliseconds as it has parameters, and finished models longer.
"""

import importlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.budget import Budget
from penjing.graph import Option, Place, Plan
from penjing.planning import MeasuredPlan, Problem, by_level, corrected
from penjing.run import correction, stages
from penjing.run.correction import Miss, missed_latency, misses_of
from penjing.run.workspace import Workspace
from planning.blobs import points
from report.report_samples import report as sample

compress = importlib.import_module("penjing.compress")
MEASURING = "penjing.planning.candidates"


def plan(keep: int, grid: str = "float32") -> Plan:
    thin = Option(Place("group", "0"), "prune", {"keep": keep}, 32, keep)
    return Plan((thin, Option(Place("weight", "0"), "quantize", {}, "float32", grid)))


def candidate(keep: int, latency: float, grid: str = "float32", **more) -> MeasuredPlan:
    return MeasuredPlan(plan(keep, grid), 10 * keep, latency, 2 * latency, 1000, True, **more)


def problem(limit: str = "0.5x") -> Problem:
    return Problem(None, None, SimpleNamespace(size_bytes=4000), Budget(latency=limit), None, {}, None, None)


def measured(before: float, after: float, *more: str) -> dict:
    sides = {name: {"latency_ms": {"median": ms}} for name, ms in (("baseline", before), ("compressed", after))}
    return sides | {"ratios": {"latency": before / after}, "missed": ["latency is …", *more]}


# The prices


def test_the_finished_model_s_latency_corrects_all_candidates_with_such_numbers():
    wide, taken, plain = candidate(24, 0.6, "int8"), candidate(16, 0.4, "int8"), candidate(16, 0.45)
    found = corrected([wide, taken, plain], taken, 0.6, problem())
    assert [one.correction for one in found] == [pytest.approx(1.5), pytest.approx(1.5), 1.0]
    assert [one.expected for one in found] == [pytest.approx(0.9), pytest.approx(0.6), 0.45]
    assert [one.meets for one in found] == [False, False, True]
    assert [one.latency for one in found] == [0.6, 0.4, 0.45], "what was measured stays as it was measured"


def test_a_finished_model_in_floating_point_says_nothing_of_integers():
    taken, other = candidate(16, 0.4), candidate(16, 0.3, "int8")
    assert [one.correction for one in corrected([taken, other], taken, 0.6, problem())] == [pytest.approx(1.5), 1.0]


def test_correcting_the_same_candidates_twice_is_correcting_them_once():
    taken = candidate(16, 0.4, "int8", correction=1.1)
    once = corrected([taken], taken, 0.6, problem())
    assert corrected(once, once[0], 0.6, problem()) == once and once[0].expected == pytest.approx(0.6)


def test_candidates_are_gathered_by_what_was_removed():
    levels = by_level([candidate(32, 1.0), candidate(16, 0.5), candidate(16, 0.4, "int8")])
    assert [[one.latency for one in found] for found in levels.values()] == [[1.0], [0.5, 0.4]]


# Misses


def test_a_miss_of_latency_alone_is_one_and_its_numbers_are_shares_of_the_original():
    taken = candidate(16, 0.4, "int8")
    miss = missed_latency(Budget(latency="0.5x"), taken, measured(2.0, 1.2))
    assert (miss.expected, miss.reached, miss.allowed, miss.integer) == (0.4, pytest.approx(0.6), 0.5, True)
    assert "0.40× the latency were measured before training and 0.60× after it, where 0.50× are allowed" in str(miss)
    absolute = missed_latency(Budget(latency="1ms"), taken, measured(2.0, 1.2))
    assert absolute.allowed == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("budget", "taken", "found"),
    [
        (Budget(size="0.5x"), candidate(16, 0.4), measured(2.0, 1.2)),
        (Budget(latency="0.5x"), replace(candidate(16, 0.6), meets=False), measured(2.0, 1.2)),
        (Budget(latency="0.5x"), candidate(16, 0.4), measured(2.0, 1.2, "the metric's fall is …")),
        (Budget(latency="0.5x"), candidate(16, 0.4), measured(2.0, 0.9)),
        (Budget(latency="0.5x"), candidate(16, 0.4), {**measured(2.0, 0.9), "missed": []}),
    ],
    ids=["no limit", "nothing kept the budget", "accuracy missed too", "something else missed", "met"],
)
def test_nothing_else_is_a_miss_that_another_choice_could_mend(budget, taken, found):
    assert missed_latency(budget, taken, found) is None


# Whole runs


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(2, 12))


@pytest.fixture(scope="module")
def data():
    return pj.Data(points(1, 192), points(1, 64), points(2, 64), pj.tasks.Classification(8), "points")


@pytest.fixture
def run(graph, data, tmp_path, monkeypatch):
    """Compresses on the device; `slower` says how many times longer the finished model of each round takes."""
    params, said, trained, compared = {}, [], [], []
    lower, recovered = compress.lower, compress.recovered

    def lowered(small, target, path):
        params[path.name] = small.cost().params
        return lower(small, target, path)

    def measure_together(files, **options):
        compared.append(set(files))
        of = {name: params["model.pt2" if name == "anchor" else file.path.name] for name, file in files.items()}
        return {name: SimpleNamespace(latency_ms=SimpleNamespace(undisturbed=float(ms))) for name, ms in of.items()}

    def run(slower, **options):
        rounds = iter(slower)

        def verify(pair, data, budget, **how):
            content, limit = sample(), budget.latency_limit()
            before, after = pair.original.cost().params, next(rounds) * pair.compressed.cost().params
            for side, value in (("baseline", before), ("compressed", after)):
                content[side] = content[side] | {"latency_ms": {"median": float(value), "p90": float(value), "runs": 9}}
            content["ratios"] = content["ratios"] | {"latency": before / after}
            missed = [] if after <= limit.of(before) else ["latency is too long"]
            keys = ("target", "baseline", "compressed", "ratios", "parity", "integer_macs", "layers")
            content["target"]["name"] = "torch"
            return {key: content[key] for key in keys} | {"missed": missed, "met": not missed, "warnings": []}

        def recovers(space, asked, small, *others, **more):
            trained.append(small.cost().params)
            return recovered(space, asked, small, *others, **more)

        measuring = importlib.import_module(MEASURING)
        for place, name, fake in (
            (measuring, "lower", lowered), (measuring, "measure_together", measure_together), (compress, "lower", lowered),
            (compress, "verify", verify), (compress, "recovered", recovers),
        ):  # fmt: skip
            monkeypatch.setattr(place, name, fake)
        trained.clear()
        said.clear()
        compared.clear()
        given = {
            "budget": Budget(latency="0.5x"),
            "epochs": 0,
            "target": "torch",
            "out": tmp_path / "out",
            "say": said.append,
        }
        return pj.compress(graph, data=data, progress=False, solver="widest_that_fits", **given | options)

    run.said, run.trained, run.compared, run.out = said, trained, compared, tmp_path / "out"
    run.full = graph.cost().params
    return run


def test_a_finished_model_that_is_slower_makes_it_choose_narrower_by_as_much(run):
    result = run([1.4, 1.0])
    first, second = (params / run.full for params in run.trained)
    assert result.met and first <= 0.95 * 0.5 < 1.4 * first, "the first kept the budget only as a candidate"
    assert 1.4 * second <= 0.95 * 0.5, "the second is expected to keep it with the margin"
    assert {"original", "0", "anchor"} in run.compared, "new candidates are compared with the finished model, too"
    (miss,) = misses_of(Workspace(run.out, result.report["settings"], run.said.append))
    assert (miss.expected, miss.reached) == (pytest.approx(first), pytest.approx(1.4 * first))
    assert any(str(miss) in note for note in result.report["notes"]) and any(str(miss) in line for line in run.said)
    rows = {row["params"]: row["correction"] for row in result.report["candidates"]}
    assert rows[run.trained[0]] == rows[run.trained[1]] == pytest.approx(1.4)


def test_it_ends_after_three_rounds_and_says_that_the_budget_was_missed(run):
    result = run([1.4, 2.2, 4.0])
    assert len(set(run.trained)) == 3 and not result.met
    assert len(misses_of(Workspace(run.out, result.report["settings"], run.said.append))) == 2
    assert any("The budget was not met" in note for note in result.report["notes"])


def test_killed_before_prices_are_corrected_the_same_call_ends_alike(run, monkeypatch):
    class Killed(BaseException):
        """Ends the run as `kill` does."""

    def kill(*given, **options):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(correction, "write_journal", kill)  # when the miss is written, and the prices aren't
        run([1.4])
    result = run([1.4, 1.4])
    assert result.met and len(run.trained) == 1, "the first round's training is read from its file"
    assert len(json.loads((run.out / ".penjing" / stages.MISSES).read_text())) == 1


def test_a_damaged_record_of_misses_or_a_damaged_file_costs_no_more_than_their_use(run, tmp_path):
    space = Workspace(tmp_path / "other", {}, print)
    space.inner.mkdir(parents=True, exist_ok=True)
    assert misses_of(space) == [] and correction.anchor_of(space, "torch") is None
    (space.inner / stages.MISSES).write_text("[{]")
    (space.inner / "missed.pt2").write_text("lowered")
    assert misses_of(space) == [] and correction.anchor_of(space, "torch") is None
    (space.inner / stages.MISSES).write_text(json.dumps([vars(Miss("thin", True, 0.4, 0.6, 0.5))]))
    assert correction.anchor_of(space, "torch") is None, "the file is no lowered model"


def test_where_time_is_short_it_says_so_and_more_time_goes_on_from_the_corrected_prices(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(correction, "seconds_until", lambda end: -1.0)
        result = run([1.4], max_minutes=100.0)
    assert not result.met and any("cut this run short" in note for note in result.report["notes"])
    first = run.trained[0]
    again = run([1.4], max_minutes=200.0)
    assert again.met and 1.4 * run.trained[0] <= 0.95 * 0.5 * run.full < 1.4 * first
