"""Damages within a plan."""

import numpy as np

from penjing.graph import Option, Place
from penjing.planning.assignment import DAMAGE, Assignment, Joint, assign
from penjing.planning.damage.in_context import in_context
from penjing.planning.joint_costs import Choice


def places(branches, groups=()):
    """Places that may go as branches, and groups with two narrower widths each, some of which lie inside of branches."""
    found = {}
    for name in branches:
        place = Place("branch", name)
        found[f"branch {name}"] = Choice(place, (None, Option(place, "prune", {"keep": 0}, 1, 0)))
    for name, inside in groups:
        place = Place("group", name)
        options = tuple(Option(place, "prune", {"keep": keep}, 4, keep) for keep in (3, 2))
        found[f"group {name}"] = Choice(place, (None, *options), inside)
    return found


def problem(choices, damages, ms):
    implied = []
    for name, choice in choices.items():
        if choice.inside:
            pair = (name, choice.gone), (f"branch {choice.inside}", 1)
            implied += [pair, pair[::-1]]
    joints = [Joint((name,), {DAMAGE: values}) for name, values in damages.items()]
    joints += [Joint((name,), {"ms": np.array(values)}) for name, values in ms.items()]
    return Assignment({name: one.count for name, one in choices.items()}, joints, implied)


def test_of_two_branches_that_stand_in_for_each_other_one_goes():
    choices = places("abc")
    damages = {"branch a": np.array([0, 0.1]), "branch b": np.array([0, 0.1]), "branch c": np.array([0, 0.3])}
    ms = dict.fromkeys(choices, (1.0, 0.0))

    def increase(taken):  # a and b alone hardly matter, and together they do
        a, b, c = (taken[f"branch {name}"] for name in "abc")
        return 0.1 * a + 0.1 * b + 0.3 * c + 2.0 * a * b

    first = assign(problem(choices, damages, ms), {"ms": 1.0})
    assert first.taken == {"branch a": 1, "branch b": 1, "branch c": 0}
    nearer = in_context(choices, problem(choices, damages, ms), first.taken, damages, increase)
    assert nearer["branch a"][1] == np.float64(0.1) * 20  # it would gain 2.1, and a damage grows by 20 times at most
    again = assign(problem(choices, nearer, ms), {"ms": 1.0})
    assert again.taken["branch c"] == 1 and increase(again.taken) < increase(first.taken)


def test_where_damages_are_sums_nothing_changes():
    choices = places("ab", [("g", "a"), ("h", "")])
    damages = {
        "branch a": np.array([0, 0.5]), "branch b": np.array([0, 0.2]), "group g": np.array([0, 0.1, 0.3, 0.0]),
        "group h": np.array([0, 0.05, 0.2]),
    }  # fmt: skip

    def increase(taken):
        return sum(float(damages[name][at]) for name, at in taken.items())

    taken = {"branch a": 0, "branch b": 1, "group g": 1, "group h": 0}
    found = in_context(choices, problem(choices, damages, {}), taken, damages, increase)
    for name, values in damages.items():
        np.testing.assert_allclose(found[name], values)


def test_what_goes_with_a_branch_is_followed_and_hopeless_places_are_not_tried():
    choices = places("ab", [("g", "a")])
    damages = {"branch a": np.array([0, 0.1]), "branch b": np.array([0, 9.0]), "group g": np.array([0, 0.1, 0.3, 0.0])}
    tried = []

    def increase(taken):
        tried.append(dict(taken))
        return 0.4 * taken["branch a"]

    taken = {"branch a": 1, "branch b": 0, "group g": 3}
    found = in_context(choices, problem(choices, damages, {}), taken, damages, increase)
    assert tried == [taken, {"branch a": 0, "branch b": 0, "group g": 0}]
    np.testing.assert_allclose(found["branch a"], [0, 0.4])
    np.testing.assert_allclose(found["group g"], damages["group g"])


def test_what_is_unknown_stays_so_and_options_that_seem_free_keep_their_order():
    choices = places("a", [("g", "")])
    damages = {"branch a": np.array([0, 0.5]), "group g": np.array([0, 1e-9, np.inf])}
    found = in_context(
        choices,
        problem(choices, damages, {}),
        {"branch a": 1, "group g": 0},
        damages,
        lambda taken: 0.3 * taken["branch a"],
    )
    assert np.isinf(found["group g"][2]) and 0 < found["group g"][1] < 1e-3
