"""The solver that takes one option after another, with made-up latencies, and against the exact solution."""

import importlib
import json
import math
import re

import pytest
from made_up_latency import SEARCH, MadeUpTable, images

import penjing as pj
from penjing.data import Data
from penjing.evidence.memory import remembering
from penjing.planning.assignment import DAMAGE, assign
from penjing.planning.damage import LossIncrease
from penjing.planning.joint_costs import UNKNOWN
from penjing.planning.journal import key_of
from penjing.planning.solvers import _greedy
from penjing.report import words

GREEDY = {"solver": "greedy"}


def damage(solution) -> float:
    return sum(option.found["damage"] for option in solution.taken.structure)


@pytest.mark.parametrize("share", [0.8, 0.6, 0.45])
def test_a_plan_keeps_its_budget_and_tighter_ones_do_more_damage(made_up, share):
    found = made_up.solved(pj.Budget(latency=f"{share}x"), **GREEDY)
    assert found.taken.meets and 0.7 * share < found.taken.latency <= share
    looser = made_up.solved(pj.Budget(latency=f"{share + 0.15:g}x"), **GREEDY)
    assert damage(looser) < damage(found)


@pytest.mark.parametrize(
    "limits", [{"size": "0.5x"}, {"macs": "0.5x"}, {"latency": "0.7x", "size": "0.5x", "macs": "0.6x"}]
)
def test_other_limits_are_kept_too(made_up, limits):
    assert made_up.solve(pj.Budget(**limits), **GREEDY).taken.meets


def test_without_limits_nothing_is_removed(made_up):
    assert made_up.solve(pj.Budget(), **GREEDY).taken.structure == ()


def test_the_same_problem_gives_the_same_plan(made_up):
    fresh = Data(images(1), images(1)[:2], images(2), pj.tasks.Classification(4))
    first = made_up.solved(pj.Budget(latency="0.5x"), **GREEDY)
    second = made_up.solve(
        pj.Budget(latency="0.5x"), data=remembering(fresh), **GREEDY
    )  # by damages that it measures anew
    assert first.plan.to_json() == second.plan.to_json()


def test_the_damage_of_a_plan_is_the_measured_one_of_all_its_options_together(made_up):
    found = made_up.solve(pj.Budget(latency="0.75x"), ("prune", "factorize"), **GREEDY)
    small = pj.apply(made_up.graph, found.plan, made_up.data)
    increase = LossIncrease(made_up.graph, made_up.data)
    assert damage(found) == pytest.approx(increase.loss(small) - increase.original, rel=1e-3)


def test_each_step_is_told_and_every_option_says_in_which_it_was_taken(made_up):
    lines: list[str] = []
    found = made_up.solve(pj.Budget(latency="0.5x"), say=lines.append, **GREEDY)
    told = {
        int(match[1]): float(match[2]) for line in lines if (match := re.search(r"^Step (\d+): .* by (\S+) more", line))
    }
    assert list(told) == list(range(1, len(told) + 1)) and len(told) > 1
    assert {option.found["step"] for option in found.taken.structure} <= set(told)
    taken = max(option.found["step"] for option in found.taken.structure)
    assert damage(found) == pytest.approx(sum(told[step] for step in range(1, taken + 1)), rel=1e-3)
    for option in found.taken.structure:
        step = option.found["step"]
        assert f"as step {step}, on top of those before, before training, it adds" in words(
            json.loads(json.dumps(option.to_json()))
        )


def test_each_step_takes_the_least_damage_for_what_it_saves_of_those_that_were_tried(made_up, monkeypatch):
    chosen = []
    take = _greedy._Path._take

    def noted(path, now, move, more, tried):
        rest = [one for one in path._moves(now) if (one.place, now.taken[one.place], one.option) in path._learnt]
        chosen.append((more / move.saved, [path._estimate(now, one) / one.saved for one in rest], tried))
        take(path, now, move, more, tried)

    monkeypatch.setattr(_greedy._Path, "_take", noted)
    made_up.solve(pj.Budget(latency="0.5x"), **GREEDY)
    for ratio, known, tried in chosen:
        assert 1 <= tried <= _greedy.TRIED
        assert sum(other < ratio for other in known) == 0 or tried == _greedy.TRIED
    assert chosen[0][0] == min(chosen[0][1])


def test_near_chance_level_options_are_taken_by_what_they_do_alone(made_up, monkeypatch):
    monkeypatch.setattr(
        LossIncrease, "tells", lambda self, damage: not damage
    )  # nothing tells anything but the whole network
    carried_out, lines = [], []
    together = LossIncrease.together
    monkeypatch.setattr(
        LossIncrease, "together", lambda self, *given: carried_out.append(given) or together(self, *given)
    )
    found = made_up.solve(pj.Budget(latency="0.5x"), say=lines.append, **GREEDY)
    steps = [line for line in lines if line.startswith("Step ")]
    assert len(carried_out) <= _greedy.TRIED and found.taken.meets
    assert "options tried" in steps[0] and all("by what it does alone" in step for step in steps[1:]) and len(steps) > 1


def test_kernels_that_promise_too_much_are_corrected_and_further_steps_are_taken(made_up):
    plain = made_up.solved(pj.Budget(latency="0.6x"), **GREEDY)
    slow = made_up.solve(pj.Budget(latency="0.6x"), factor=1.2, **GREEDY)
    assert slow.taken.meets and slow.taken.latency <= 0.6
    assert damage(slow) > damage(plain)


def test_steps_are_taken_back_where_the_network_is_faster_than_its_kernels_promised(made_up):
    plain = made_up.solved(pj.Budget(latency="0.5x"), **GREEDY)
    fast = made_up.solve(pj.Budget(latency="0.5x"), factor=0.8, **GREEDY)
    assert fast.taken.meets and len(fast.measured) > 2
    assert damage(fast) < damage(plain)


def test_where_no_plan_keeps_the_budget_it_is_the_nearest_that_was_measured(made_up):
    found = made_up.solve(pj.Budget(latency="0.01x"), **GREEDY)
    assert not found.taken.meets and found.complete
    assert found.taken.latency == min(one.latency for one in found.measured) < 0.3


def test_a_deadline_ends_the_steps_and_the_solution_says_so(made_up, monkeypatch):
    found = made_up.solve(pj.Budget(latency="0.1x"), deadline=0.0, **GREEDY)
    assert found.short_of_time and not found.taken.meets


def test_what_was_measured_before_a_kill_is_not_measured_again(made_up, monkeypatch, tmp_path):
    search = importlib.import_module(SEARCH)
    first = made_up.solve(pj.Budget(latency="0.5x"), journal=tmp_path / "journal.json", **GREEDY)
    monkeypatch.setattr(search, "measure_level", lambda *_, **__: pytest.fail("it was measured before"))
    monkeypatch.setattr(LossIncrease, "loss", loss_of_the_original_only())
    again = made_up.solve(pj.Budget(latency="0.5x"), journal=tmp_path / "journal.json", **GREEDY)
    assert again.taken == first.taken


def loss_of_the_original_only():
    loss = LossIncrease.loss

    def once(self, graph):
        assert graph is self._graph, "its damage was measured before"
        return loss(self, graph)

    return once


def test_the_sum_of_damages_is_not_below_the_exact_optimum_and_the_distance_is_told(made_up, monkeypatch):
    seen, lines = {}, []
    tell = _greedy._tell_distance

    def noted(problem, program, point):
        sums = program.assignment
        assert sums.allows(point.taken)
        costs = {name: sums.total(name, point.taken) * (1 + 1e-6) for name in ("ms", UNKNOWN)}
        seen["own"] = sums.total(DAMAGE, point.taken)
        seen["exact"] = assign(sums, costs, gap=0.0).totals[DAMAGE]
        tell(problem, program, point)

    monkeypatch.setattr(_greedy, "_tell_distance", noted)
    made_up.solve(pj.Budget(latency="0.4x"), say=lines.append, **GREEDY)
    assert seen["own"] >= seen["exact"] * (1 - 1e-6)
    told = next(
        match for line in lines if (match := re.search(r"sum up to (\S+): (\S+)% more than the (\S+) of", line))
    )
    assert float(told[1]) == pytest.approx(seen["own"], rel=1e-3)
    assert float(told[2]) == pytest.approx(100 * (seen["own"] / seen["exact"] - 1), abs=0.1)


def test_a_chain_whose_kernels_could_not_be_measured_is_not_taken_for_free(made_up, monkeypatch):
    class Refusing(MadeUpTable):
        def knows(self, kernel):
            return not kernel.weight or kernel.weight[2:] == (3, 3)  # no 1×1 convolution

    monkeypatch.setattr(importlib.import_module(SEARCH), "LatencyTable", Refusing)
    found = made_up.solve(pj.Budget(latency="0.5x"), ("prune", "factorize"), **GREEDY)
    assert found.taken.meets
    assert not any(option.technique == "factorize" for one in found.measured for option in one.structure)


def test_a_branch_takes_the_widths_and_chains_inside_of_it_along(made_up, monkeypatch):
    monkeypatch.setattr(_greedy, "TRIED", 1)  # more steps, sooner
    found = made_up.solve(pj.Budget(latency="0.01x"), ("prune", "factorize"), **GREEDY)
    removed = [option.place.path for option in found.taken.structure if option.place.kind == "branch"]
    assert removed
    gone = {path.partition(".")[0] for path in removed}  # the blocks' names
    for option in found.taken.structure:
        assert option.place.kind == "branch" or option.place.path.partition(".")[0] not in gone
    assert len({key_of([option]) for option in found.taken.structure}) == len(found.taken.structure)
    assert math.isfinite(damage(found))


@pytest.mark.parametrize(
    ("limit", "share"), [("largest_tensor", 0.6), ("peak_memory", 0.7), ("layers", 0.6), ("energy", 0.5)]
)
def test_what_is_counted_in_a_graph_keeps_its_limit(made_up, limit, share):
    found = made_up.solve(pj.Budget(**{limit: f"{share}x"}), solver="greedy")
    assert found.taken.meets and found.taken.counted[limit] <= share * made_up.graph.cost().by_limit[limit]
