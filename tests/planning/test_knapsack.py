"""The exact choice of one option per place, against trying every choice."""

import itertools
import math
import random

import pytest

from penjing.planning import OverBudget, Priced, solve


def problem(seed, places=4, widths=3):
    draw = random.Random(seed)
    return {
        f"layer{place}": [
            Priced(f"int{2**bit}", draw.random() * 10.0 ** -(3 * bit), {"bytes": draw.randint(1, 50), "ms": draw.random()})
            for bit in range(1, widths + 1)
        ]
        for place in range(places)
    }  # fmt: skip


def total(choice, name):
    return math.fsum(option.costs[name] for option in choice)


def damage(choice):
    return math.fsum(option.damage for option in choice)


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_trying_every_choice_finds(seed):
    options = problem(seed)
    everything = list(itertools.product(*options.values()))
    sizes = sorted(total(choice, "bytes") for choice in everything)
    budgets = {"bytes": sizes[len(sizes) // 3], "ms": 2.0}
    kept = [c for c in everything if all(total(c, name) <= limit for name, limit in budgets.items())]
    found = list(solve(options, budgets).values())
    assert all(total(found, name) <= limit for name, limit in budgets.items())
    assert damage(found) == pytest.approx(min(map(damage, kept)), rel=1e-9)


def test_a_budget_of_exactly_the_least_is_kept_and_one_below_it_is_an_error():
    options = problem(5)
    least = sum(min(option.costs["bytes"] for option in some) for some in options.values())
    assert total(solve(options, {"bytes": least}).values(), "bytes") == least
    with pytest.raises(OverBudget, match=rf"the least possible: {least} bytes of {least - 1}"):
        solve(options, {"bytes": least - 1})


def test_budgets_that_can_be_kept_alone_but_not_together_are_an_error():
    options = {"a": [Priced("small", 0.0, {"bytes": 1, "ms": 9}), Priced("fast", 0.0, {"bytes": 9, "ms": 1})]}
    assert solve(options, {"bytes": 1})["a"].name == "small"
    with pytest.raises(OverBudget, match="together"):
        solve(options, {"bytes": 1, "ms": 1})


def test_large_budgets_are_kept_to_the_byte():
    many = {
        f"l{i}": [Priced("a", 1.0, {"bytes": 10**8 + i}), Priced("b", 0.0, {"bytes": 2 * 10**8 + 1})] for i in range(9)
    }
    limit = sum(10**8 + i for i in range(8)) + 2 * 10**8  # one byte too few for any "b"
    found = solve(many, {"bytes": limit})
    assert {option.name for option in found.values()} == {"a"}
    assert any(option.name == "b" for option in solve(many, {"bytes": limit + 1}).values())


def test_tiny_damages_beside_huge_ones_still_count():
    options = {
        "rough": [Priced("int2", 50.0, {"bytes": 1}), Priced("int8", 0.0, {"bytes": 4})],
        "fine": [Priced("int4", 2e-7, {"bytes": 2}), Priced("int8", 1e-7, {"bytes": 4})],
    }
    assert [option.name for option in solve(options, {"bytes": 8}).values()] == ["int8", "int8"]
    assert [option.name for option in solve(options, {"bytes": 7}).values()] == ["int8", "int4"]


def test_nothing_to_choose_is_nothing_chosen():
    assert solve({}, {"bytes": 1}) == {}
