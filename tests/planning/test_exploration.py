"""Searches that propose whole choices, on made-up costs: what they find, how they go on, and whose trials they refuse."""

import importlib.util

import numpy as np
import pytest
from choices import every
from made_up_costs import OPTIONS, limits_of, made_up_costs

import penjing as pj
from penjing.planning.assignment import Assignment, Joint, assign
from penjing.planning.exploration import Exploration
from penjing.planning.solvers import solvers

NEEDED = {"amc": "stable_baselines3", "evolution": "optuna", "tpe": "optuna"}
STORED = ["evolution", "tpe"]
WHOLE = dict.fromkeys(OPTIONS, 0)


def explorer(name):
    if (package := NEEDED.get(name)) is not None:
        pytest.importorskip(package, reason=f"the solver '{name}' needs {package}: pip install 'penjing[search]'")
    return solvers[name].explore


EXPLORERS = sorted(name for name, entry in solvers.items() if entry.explore is not None)


def asked(seed=0, share=0.6, **more):
    problem = made_up_costs(seed)
    return Exploration(problem, limits_of(problem, share), **{"evaluations": 12, "starts": (WHOLE,), **more})


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_search_comes_near_the_exact_solution_of_a_small_problem_and_keeps_the_limits(name):
    explore = explorer(name)
    for seed in range(3):
        one = asked(seed)
        best = explore(one).best()
        exact = assign(one.problem, one.limits).totals["damage"]
        assert best.excess == 0 and one.problem.total("ms", best.taken) <= one.limits["ms"]
        assert exact - 1e-9 <= best.damage <= 1.15 * exact


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_search_evaluates_no_more_choices_than_it_may_and_each_once(name):
    calls = []
    one = asked(damage=lambda taken: calls.append(tuple(taken.values())) or sum(taken.values()))
    found = explorer(name)(one)
    assert len(calls) == len(set(calls)) == len(found.all) <= 12


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_same_seed_evaluates_the_same_choices(name):
    explore = explorer(name)
    assert list(explore(asked()).all) == list(explore(asked()).all)


@pytest.mark.parametrize("name", EXPLORERS)
def test_where_nothing_but_a_limit_of_0_is_asked_for_it_is_kept(name):
    problem = made_up_costs(0)
    forbidden = Joint((next(iter(OPTIONS)),), {"too large": np.eye(1, next(iter(OPTIONS.values())))[0]})
    limited = Assignment(problem.options, [*problem.joints, forbidden], problem.implied)
    best = explorer(name)(Exploration(limited, {"too large": 0.0}, evaluations=12, starts=(WHOLE,))).best()
    assert limited.total("too large", best.taken) == 0


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_search_whose_time_is_over_returns_what_it_began_with(name):
    found = explorer(name)(asked(over=lambda: True))
    assert len(found.all) == 1


@pytest.mark.parametrize("name", STORED)
def test_a_search_that_was_killed_goes_on_from_its_trials_as_if_nothing_had_happened(name, tmp_path):
    explore, calls = explorer(name), []

    def damage(taken):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(taken)
        return made_up_costs(0).total("damage", taken)

    with pytest.raises(KeyboardInterrupt):
        explore(asked(damage=damage, storage=tmp_path / "search.sqlite"))
    calls.clear()
    again = explore(asked(damage=damage_again(calls), storage=tmp_path / "search.sqlite"))
    assert list(again.all) == list(explore(asked()).all)
    assert len(calls) == len(again.all) - 4


def damage_again(calls):
    return lambda taken: calls.append(taken) or made_up_costs(0).total("damage", taken)


@pytest.mark.parametrize("name", STORED)
def test_the_trials_of_another_problem_are_refused_by_name(name, tmp_path):
    explore, storage = explorer(name), tmp_path / "search.sqlite"
    explore(asked(evaluations=3, storage=storage, network="resnet20"))
    other = Exploration(
        Assignment({"a": 2}, [Joint(("a",), {"damage": [0.0, 1.0], "ms": [2.0, 1.0]})]), {"ms": 1.0}, evaluations=3,
        network="resnet56", storage=storage,
    )  # fmt: skip
    with pytest.raises(pj.PenjingError, match=r"search.sqlite holds the trials of another problem.*resnet20.*resnet56"):
        explore(other)


@pytest.mark.parametrize("name", STORED)
def test_a_file_that_is_no_storage_is_refused(name, tmp_path):
    explore, storage = explorer(name), tmp_path / "search.sqlite"
    storage.write_bytes(b"not a database, but longer than a header of one " * 40)
    with pytest.raises(pj.PenjingError, match="can't be read as Optuna's storage"):
        explore(asked(storage=storage))


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_solver_whose_library_is_missing_says_what_to_type(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one, *more: None if one == NEEDED[name] else find(one, *more)
    )
    with pytest.raises(pj.PenjingError, match=rf"'{name}' needs .*{NEEDED[name]}: pip install 'penjing\[search\]'"):
        solvers[name].function(None)


def test_a_choice_that_numbers_name_keeps_what_goes_with_what():
    one = asked()
    for taken in every(one.problem):
        assert one.chosen({place: one.number(place, option) for place, option in taken.items()}) == taken
