"""What holds for every solver that plans for compress."""

import importlib

import pytest
from made_up_latency import MEASURING

import penjing as pj
from penjing.planning.solvers import solvers

NAMES = sorted(name for name, entry in solvers.items() if entry.in_compress)
NEEDED = {"amc": "stable_baselines3", "evolution": "optuna", "tpe": "optuna"}
BUDGET = pj.Budget(latency="0.5x")


@pytest.fixture(params=NAMES)
def solver(request, monkeypatch):
    if (package := NEEDED.get(request.param)) is not None:
        pytest.importorskip(
            package, reason=f"the solver '{request.param}' needs {package}: pip install 'penjing[search]'"
        )
    monkeypatch.setattr("penjing.planning.solvers._exploring.EVALUATIONS", 24)
    return request.param


def test_a_solver_keeps_the_budget_by_a_plan_that_was_measured(made_up, solver):
    found = made_up.solve(BUDGET, solver=solver)
    assert found.taken.meets and found.taken in found.measured and found.taken.latency <= 0.5
    assert found.taken.structure


def test_the_same_seed_gives_the_same_plan(made_up, solver):
    first, second = (made_up.solve(BUDGET, solver=solver, seed=3).plan.to_json() for _ in range(2))
    assert first == second


def test_a_solver_that_was_interrupted_goes_on_to_the_plan_that_it_would_have_come_to(
    made_up, solver, monkeypatch, tmp_path
):
    whole = made_up.solve(BUDGET, solver=solver)
    measuring = importlib.import_module(MEASURING)
    measure, calls = measuring.measure_together, []

    def interrupted(*given, **more):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "measure_together", interrupted)
        cut = made_up.solve(BUDGET, solver=solver, journal=tmp_path / "run" / "candidates.json")
    assert not cut.complete
    again = made_up.solve(BUDGET, solver=solver, journal=tmp_path / "run" / "candidates.json")
    assert again.complete and again.plan.to_json() == whole.plan.to_json()
