"""The widths that pruning proposes to a planner."""

from dataclasses import replace
from itertools import groupby

import pytest
import torch
from torch import nn

from penjing import capabilities
from penjing.graph import capture
from penjing.pruning.technique import Pruning
from penjing.techniques import Scope

UNITS = {"0": 64, "2": 24, "4": 6}


@pytest.fixture(scope="module")
def graph():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 24, 3), nn.ReLU(), nn.Conv2d(24, 6, 3), nn.Flatten(), nn.Linear(24, 2)
    )  # fmt: skip
    return capture(model, torch.randn(2, 3, 8, 8))


def widths(graph, multiples=(16, 8), **scope):
    """Returns, for each width, the units that each group keeps, the multiple, and the parameters that go."""
    can = replace(capabilities.find("onnxruntime"), channel_multiples=multiples)
    proposed = Pruning().propose(graph, None, can, Scope(**scope))
    found = []
    for (_, step), options in groupby(proposed, lambda one: (one.setting["amount"], one.setting["round_to"])):
        some = list(options)
        kept = UNITS | {one.place.path: one.setting["keep"] for one in some}
        assert all(one.before == UNITS[one.place.path] and one.after == one.setting["keep"] for one in some)
        found.append((tuple(kept.values()), step, sum(one.found["saves_params"] for one in some)))
    return found


def test_parameters_fall_from_width_to_width(graph):
    saved = [gone for _, _, gone in widths(graph)]
    assert saved == sorted(saved) and saved[0] > 0
    assert saved[-1] > 0.7 * sum(parameter.numel() for parameter in graph.parameters())


def test_all_widths_differ_from_one_another_and_from_the_original(graph):
    kept = [kept for kept, _, _ in widths(graph)]
    assert len(set(kept)) == len(kept) > 5 and (64, 24, 6) not in kept


def test_groups_keep_multiples_of_the_step_and_small_ones_stay_whole(graph):
    for kept, step, _ in widths(graph):
        assert step in (8, 16) and kept[2] == 6
        assert all(keep % step == 0 or keep == units for keep, units in zip(kept, UNITS.values(), strict=True))


def test_the_multiples_are_those_of_the_target(graph):
    found = widths(graph, multiples=(10,))
    assert {step for _, step, _ in found} == {10}
    assert all(kept[0] % 10 == 0 and kept[1] in (10, 20, 24) for kept, _, _ in found)


def test_excluded_channels_are_no_part_of_a_width(graph):
    assert all(kept[0] == 64 for kept, _, _ in widths(graph, exclude=("0",)))
    assert all(kept[1:] == (24, 6) and kept[0] < 64 for kept, _, _ in widths(graph, include=("0",)))


def test_for_a_model_of_which_nothing_can_go_nothing_is_proposed():
    graph = capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8))
    assert widths(graph) == []


def test_groups_keep_their_least_number_of_channels(graph):
    kept = {kept for kept, _, _ in widths(graph, min_channels=20)}
    assert kept and all(a >= 24 and b == 24 and c == 6 for a, b, c in kept)
