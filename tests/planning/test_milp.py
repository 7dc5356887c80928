"""The solver that chooses width by width and branch by branch, with made-up latencies, and once on a runtime."""

import importlib
import json
import time
from types import SimpleNamespace

import pytest
import torch
from made_up_latency import SEARCH, MadeUpTable, images, work
from residual import Block
from torch import nn

import penjing as pj
from networks.kinds import kinds
from penjing.capabilities import find as capabilities
from penjing.data import Data
from penjing.graph import Option, Place
from penjing.planning import Problem, by_level, corrected, find_solver, write_journal
from penjing.planning.candidates import gains_by_mixing
from penjing.planning.damage import LossIncrease
from penjing.planning.journal import key_of
from penjing.planning.latency import kernels_of
from penjing.pruning.technique import Pruning
from penjing.report import words
from penjing.targets import lower
from penjing.techniques import Scope, find


def damage(solution) -> float:
    return sum(option.found["damage"] for option in solution.taken.structure)


def test_without_limits_nothing_is_removed(made_up):
    assert made_up.solve(pj.Budget()).taken.structure == ()


@pytest.mark.parametrize("share", [0.8, 0.6, 0.45])
def test_a_plan_keeps_its_budget_nearly_uses_it_up_and_tighter_ones_do_more_damage(made_up, share):
    found = made_up.solved(pj.Budget(latency=f"{share}x"))
    assert found.taken.meets and 0.75 * share < found.taken.latency <= share
    looser = made_up.solved(pj.Budget(latency=f"{share + 0.15:g}x"))
    assert damage(looser) < damage(found)


def test_kernels_that_promise_too_much_are_corrected_by_what_plans_took(made_up):
    plain = made_up.solved(pj.Budget(latency="0.6x"))
    slow = made_up.solve(pj.Budget(latency="0.6x"), factor=1.2)
    assert slow.taken.meets and slow.taken.latency <= 0.6
    assert damage(slow) > damage(plain)


def test_sizes_are_kept_too_and_the_plan_tells_what_each_option_costs(made_up):
    found = made_up.solve(pj.Budget(size="0.5x"))
    for option in found.taken.structure:
        told = words(json.loads(json.dumps(option.to_json())))
        assert f"adds {option.found['damage']:.2g} to the loss" in told
    assert found.taken.meets and found.taken.size_bytes <= 0.5 * 4 * made_up.graph.cost().params


def test_it_tells_at_each_place_what_the_plan_takes_and_a_rival(made_up):
    found = made_up.solved(pj.Budget(latency="0.5x"))
    taken = {one.place: one.taken for one in found.places}
    for option in found.taken.structure:
        assert taken[option.place].option.after == option.after
        # What goes with the rival is counted with it, such as the groups inside of a branch.
        assert option.found["damage"] <= taken[option.place].damage <= damage(found) + 1e-12
    assert all(one.rival is not None and one.rival != one.taken for one in found.places)


def test_it_beats_equal_widths_at_the_same_latency_in_expected_damage(made_up):
    budget = pj.Budget(latency="0.5x")
    ours = made_up.solved(budget)
    technique, increase = find("prune", {"criterion": "l2"}), LossIncrease(made_up.graph, made_up.data)
    levels = {}
    for option in technique.propose(made_up.graph, made_up.data, capabilities("onnxruntime"), Scope()):
        levels.setdefault((option.setting["amount"], option.setting["round_to"]), []).append(option)
    for options in levels.values():
        thin = technique.apply(made_up.graph, options, made_up.data)
        share = sum(map(work, kernels_of(thin, 1).values())) / sum(map(work, kernels_of(made_up.graph, 1).values()))
        if share <= ours.taken.latency:
            assert increase.of(technique, list(ours.taken.structure)) <= increase.of(technique, options)


def test_the_same_problem_gives_the_same_plan(made_up):
    first, second = (made_up.solve(pj.Budget(latency="0.5x"), ("prune", "quantize")) for _ in range(2))
    assert first.plan.to_json() == second.plan.to_json()


def test_where_no_plan_keeps_the_budget_it_is_the_fastest_that_was_measured(made_up):
    found = made_up.solve(pj.Budget(latency="0.01x"))
    assert not found.taken.meets
    assert found.taken.latency == min(one.latency for one in found.measured)


def test_integers_are_taken_where_they_do_less_damage(made_up):
    found = made_up.solve(pj.Budget(latency="0.2x"), ("prune", "quantize"))
    assert found.taken.meets and found.taken.integer


def test_layers_are_replaced_where_that_is_the_lesser_damage(made_up):
    alone = made_up.solved(pj.Budget(latency="0.5x"))
    both = made_up.solved(pj.Budget(latency="0.5x"), ("prune", "factorize"))
    assert damage(both) <= damage(alone) * (1 + 1e-9)
    small = pj.apply(made_up.graph, both.plan, made_up.data)
    assert small.cost().macs == both.taken.counted["macs"]


def test_a_chain_whose_kernels_could_not_be_measured_is_not_taken_for_free(made_up, monkeypatch):
    own = kernels_of(made_up.graph, 1).values()
    shapes = {(kernel.op, kernel.weight[2:]) for kernel in own if kernel.weight}

    class Refusing(MadeUpTable):
        def knows(self, kernel):
            return not kernel.weight or (kernel.op, kernel.weight[2:]) in shapes  # no 1×1 convolution

    monkeypatch.setattr(importlib.import_module(SEARCH), "LatencyTable", Refusing)
    found = made_up.solve(pj.Budget(latency="0.5x"), ("prune", "factorize"))
    assert found.taken.meets
    assert not any(option.technique == "factorize" for one in found.measured for option in one.structure)


def test_a_technique_that_chooses_at_values_is_sent_to_another_solver(made_up, monkeypatch):
    value = Option(Place("value", "relu"), "prune", {"keep": 1}, None, None)
    monkeypatch.setattr(Pruning, "choices", lambda *_: [value])
    with pytest.raises(pj.PenjingError, match="proposes one at the value 'relu'"):
        made_up.solve(pj.Budget(latency="0.5x"))


@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_ctrl_c_goes_on_with_the_best_so_far(made_up, monkeypatch, solver):
    search = importlib.import_module(SEARCH)
    measure, calls = search.measure_level, []

    def counted(*given, **more):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*given, **more)

    monkeypatch.setattr(search, "measure_level", counted)
    found = made_up.solve(pj.Budget(latency="0.5x"), factor=1.2, solver=solver)
    assert not found.complete and len(calls) == 3 and found.taken in found.measured


def test_a_deadline_ends_the_search_with_the_nearest_plan_and_the_solution_says_so(made_up):
    found = made_up.solve(pj.Budget(latency="0.5x"), factor=1.5, longest=1e6, deadline=time.monotonic() + 1e5)
    assert found.short_of_time and not found.taken.meets and len({key_of(one.structure) for one in found.measured}) == 2
    assert made_up.solve(pj.Budget(latency="0.5x"), factor=1.5).taken.meets


@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_blocks_become_one_convolution_where_that_does_less_damage_than_going(made_up, solver):
    budget = pj.Budget(latency="0.6x")
    alone, both = (made_up.solve(budget, techniques, solver=solver) for techniques in (("prune",), ("prune", "merge")))
    assert both.taken.meets and both.taken.damage <= alone.taken.damage
    merged = [one for one in both.plan if one.technique == "merge"]
    assert merged and {one.place.kind for one in merged} == {"weight"}
    small = pj.apply(
        made_up.graph, both.plan.having(one for one in both.plan if one.technique != "quantize"), made_up.data
    )
    assert small.cost().macs < made_up.graph.cost().macs
    assert all("convolution for 2" in words(option.to_json()) for option in merged)


@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_options_that_there_was_no_time_to_weigh_are_told_and_not_taken(made_up, monkeypatch, solver):
    search, weighed, told = importlib.import_module(SEARCH), [], []

    class Slow(search.LossIncrease):
        def of(self, technique, options):
            weighed.append(options[0])
            return super().of(technique, options)

    monkeypatch.setattr(search, "LossIncrease", Slow)
    monkeypatch.setattr(Problem, "left", property(lambda problem: 1e5 if len(weighed) < 3 else 0.0))
    found = made_up.solve(pj.Budget(latency="0.5x"), factor=1.2, solver=solver, longest=-1.0, say=told.append)
    (line,) = [one for one in told if "no time to weigh" in one]
    assert f"weigh {found.unseen} of" in line and found.unseen > 0
    places = {one.place for one in weighed}
    assert all(option.place in places for one in found.measured for option in one.structure)


def test_what_was_measured_before_a_kill_is_not_measured_again(made_up, monkeypatch, tmp_path):
    search = importlib.import_module(SEARCH)
    first = made_up.solve(pj.Budget(latency="0.5x"), journal=tmp_path / "journal.json")
    monkeypatch.setattr(search, "measure_level", lambda *_, **__: pytest.fail("it was measured before"))
    again = made_up.solve(pj.Budget(latency="0.5x"), journal=tmp_path / "journal.json")
    assert again.taken == first.taken


def test_where_the_finished_model_took_longer_a_faster_plan_is_chosen(made_up, tmp_path):
    journal, budget = tmp_path / "journal.json", pj.Budget(latency="0.6x")
    first = made_up.solve(budget, journal=journal)
    problem = made_up.problem(budget, journal=journal)
    write_journal(journal, by_level(corrected(first.measured, first.taken, 0.75, problem)).values())
    again = made_up.solve(budget, journal=journal)
    assert again.taken.meets and again.taken.expected <= 0.6
    assert again.taken.plan != first.taken.plan and again.taken.latency < 0.85 * first.taken.latency


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "litert", "executorch"])
def test_on_a_runtime_the_plan_that_is_returned_can_be_carried_out_and_is_the_one_that_was_measured(
    tmp_path, monkeypatch, target
):
    if not any(one.name == target and one.usable for one in pj.targets.available()):
        pytest.skip(f"{target} isn't installed.")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), Block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    graph = pj.capture(net.eval(), torch.randn(2, 3, 8, 8))
    data = Data(images(1), images(1)[:2], images(2), pj.tasks.Classification(4))
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("penjing.planning.candidates.SECONDS", 0.3)
    plan = pj.plan(
        graph,
        data,
        target=target,
        budget=pj.Budget(size="0.3x"),
        solver="milp",
        techniques={"prune": {"criterion": "l2"}, "quantize": {}},
    )
    small = pj.apply(graph, plan, data, stage="all")
    suffix = pj.targets.find_target(target).suffix
    sizes = [lower(one, target, tmp_path / f"{name}{suffix}").size_bytes for name, one in (("a", small), ("b", graph))]
    assert sizes[0] <= 0.3 * sizes[1]


COUNTED = {"largest_tensor": 0.6, "peak_memory": 0.7, "layers": 0.6, "macs": 0.5, "energy": 0.4}


@pytest.mark.parametrize(
    ("techniques", "limited"),
    [
        *((("prune",), (name,)) for name in COUNTED),
        (("prune", "quantize"), ("largest_tensor",)),
        (("prune", "quantize"), ("peak_memory",)),
        (("prune", "quantize"), ("layers", "macs")),
        (("prune", "quantize"), ("energy",)),
    ],
)
def test_what_is_counted_in_a_graph_keeps_its_limit(made_up, techniques, limited):
    found = made_up.solve(pj.Budget(**{name: f"{COUNTED[name]}x" for name in limited}), techniques)
    assert found.taken.meets
    counted = pj.apply(made_up.graph, found.plan, made_up.data, stage="all").cost().by_limit
    for name in limited:
        assert counted[name] <= COUNTED[name] * made_up.graph.cost().by_limit[name]
        assert found.taken.counted[name] == counted[name]


def test_several_limits_are_kept_together_and_the_one_that_binds_is_told(made_up):
    found = made_up.solve(pj.Budget(latency="0.7x", peak_memory="0.8x", size="0.6x"))
    assert found.taken.meets
    told = []
    found = made_up.solve(pj.Budget(latency="0.9x", layers="1"), say=told.append)
    assert not found.taken.meets
    assert any("no plan is expected to keep the layers; the least would be" in line for line in told)


def test_multiplications_are_kept_to_the_last_one(made_up):
    found = made_up.solve(pj.Budget(macs="0.5x"))
    assert found.taken.meets
    small = pj.apply(made_up.graph, found.plan, made_up.data)
    assert 0.35 * made_up.graph.cost().macs < small.cost().macs <= 0.5 * made_up.graph.cost().macs


@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_layers_can_be_replaced_where_nothing_changes_what_other_kernels_cost(made_up, solver):
    found = made_up.solve(pj.Budget(latency="0.85x"), ("factorize",), solver=solver)
    assert found.taken.meets and all(option.technique == "factorize" for option in found.taken.structure)


def test_mixtures_are_tried_for_plans_only_where_the_whole_network_gains_by_them():
    def candidate(expected, integer=True, left_alone=()):
        return SimpleNamespace(expected=expected, integer=integer, left_alone=left_alone)

    plain = [candidate(1.0, integer=False), candidate(0.5)]
    assert not gains_by_mixing(plain) and not gains_by_mixing([])
    assert gains_by_mixing([*plain, candidate(0.45, left_alone=("conv",))])
    assert not gains_by_mixing([*plain, candidate(0.495, left_alone=("conv",))]), "that isn't worth it"


@pytest.mark.parametrize(
    ("kind", "limit"), [*((kind, "latency") for kind in kinds()), ("ResNet", "peak_memory"), ("ViT", "macs")]
)
def test_networks_of_all_kinds_are_planned_and_the_plan_is_what_was_measured(made_up, kind, limit):
    torch.manual_seed(0)
    model, inputs = kinds()[kind]
    graph = pj.capture(model.eval(), inputs)
    data = pj.Data(None, [inputs, inputs], None, pj.tasks.Classification(4))
    problem = made_up.problem(
        pj.Budget(**{limit: "0.5x"}),
        graph=graph,
        data=data,
        original=made_up.lowered(graph, "onnxruntime", None),
    )
    found = find_solver("milp")(problem)
    small = pj.apply(graph, found.plan, data) if found.plan.options else graph
    assert small.cost().macs == found.taken.counted["macs"]
    assert small.cost().peak_activation_bytes == found.taken.counted["peak_memory"]
    if not found.taken.meets:  # then nothing that was measured comes nearer
        used = [problem.used(one)[limit] for one in found.measured]
        assert problem.used(found.taken)[limit] == min(used)
