"""Layers that go back until the metric holds: as few as suffice, the best bargains first."""

from dataclasses import replace

import pytest
from blobs import learnt

import penjing as pj
from penjing.errors import PenjingError
from penjing.planning import Deployment, Held, Problem, find_solver, grids_of
from penjing.planning.solvers import _hold_metric as hold_metric
from penjing.quantization import FLOAT
from penjing.report import words
from penjing.tasks import evaluate
from penjing.techniques import Scope, find


@pytest.fixture(scope="module")
def learned():
    return learnt()


def test_the_metric_holds_with_some_layers_back_and_the_plan_says_which_and_why(learned):
    graph, data = learned
    told: list[str] = []
    float_metric = evaluate(graph, data.validation, data.task)
    plain = pj.quantize(graph, data, weights="int2", corrections=())
    assert evaluate(plain, data.validation, data.task) < float_metric - 0.05
    held = pj.quantize(graph, data, weights="int2", corrections=(), drop=0.02, log=told.append)
    assert evaluate(held, data.validation, data.task) >= float_metric - 0.02
    back = {place: grid for place, grid in grids_of(held).items() if grid != "int2"}
    assert 0 < len(back) < 4
    for place in back:
        (record,) = [step for step in held.plan if step.place.path == place]
        assert "back from int2" in words(record.to_json()) and " ms, " in words(record.to_json())
    assert told[0].startswith("Quantised, the metric is") and " ms became " in told[-1]


def test_nothing_goes_back_where_the_metric_holds(learned):
    graph, data = learned
    held, plain = pj.quantize(graph, data, drop="50%"), pj.quantize(graph, data)
    assert held.plan == plain.plan


@pytest.mark.parametrize("most", [1, 2, 3, 7, 20])
def test_the_fewest_is_found_wherever_it_lies(most):
    for wanted in range(1, most + 1):
        asked = []

        def holds(count, wanted=wanted, asked=asked):
            asked.append(count)
            return count >= wanted

        assert hold_metric._fewest(most, holds) == wanted
        assert len(asked) == len(set(asked)) <= 2 * most.bit_length() + 1
    assert hold_metric._fewest(most, lambda count: False) is None


class Costs:
    """Made-up costs: 8 bits are free in time, floating point is slow in "slow"."""

    def ms(self, place, grid):
        return 1.0 if grid != FLOAT else {"slow": 9.0}.get(place, 1.5)

    def bytes(self, place, grid):
        return {"int4": 50.0, "int8": 100.0, FLOAT: 400.0}[grid]


def steps(place, grid, noise, worth):
    grids = [name for name in ("int4", "int8", FLOAT) if name >= grid or name == FLOAT]
    return hold_metric._steps(place, grids, noise, Costs(), True, worth)


def test_each_step_of_a_layer_is_a_worse_bargain_than_the_one_before():
    worth = lambda step: hold_metric._worth(step, {"ms": 20.0, "bytes": 1000.0})  # noqa: E731
    two = steps("quick", "int4", {"int4": 0.1, "int8": 0.01}, worth)
    assert [(step.before, step.after) for step in two] == [("int4", "int8"), ("int8", FLOAT)]
    assert worth(two[0]) > worth(two[1])
    one = steps("quick", "int4", {"int4": 0.1, "int8": 0.0999}, worth)  # 8 bits hardly help: straight to floating point
    assert [(step.before, step.after, step.noise) for step in one] == [("int4", FLOAT, 0.1)]
    slow, quick = (steps(place, "int8", {"int8": 0.01}, worth)[0] for place in ("slow", "quick"))
    assert slow.noise == quick.noise and worth(quick) > worth(slow)


def test_a_metric_that_never_holds_is_told(learned, tmp_path):
    graph, data = learned
    problem = Problem(
        graph, data, None, pj.Budget(), Deployment(), {"quantize": find("quantize", {"weights": ("int8", FLOAT)})}, Scope(),
        tmp_path,
    )  # fmt: skip
    with pytest.raises(PenjingError, match=r"needs a metric to hold: quantize\(…, drop=…\)"):
        find_solver("hold_metric")(problem)
    with pytest.raises(PenjingError, match=r"holds with no layer in few bits: it was 0\.5 at best"):
        find_solver("hold_metric")(replace(problem, held=Held(lambda made: 0.5, 0.9)))


def test_what_was_given_a_grid_stays_there(learned):
    graph, data = learned
    held = pj.quantize(graph, data, weights="int2", per_layer={"6": "int3"}, simulate=True, drop=0.04)
    assert grids_of(held)["6"] == "int3"
