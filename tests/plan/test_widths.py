from functools import partial

import pytest
import torch
from torch import nn

from penjing.graph import capture
from penjing.plan import widths as widths_of

widths = partial(widths_of, multiples=(16, 8))


@pytest.fixture(scope="module")
def graph():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 24, 3), nn.ReLU(), nn.Conv2d(24, 6, 3), nn.Flatten(), nn.Linear(24, 2)
    )  # fmt: skip
    return capture(model, torch.randn(2, 3, 8, 8))


def test_the_original_comes_first_and_parameters_fall(graph):
    found = widths(graph)
    assert (found[0].amount, found[0].round_to, found[0].kept, found[0].params) == (0.0, None, (64, 24, 6), 1.0)
    shares = [width.params for width in found]
    assert shares == sorted(shares, reverse=True) and 0 < shares[-1] < 0.3


def test_all_widths_differ(graph):
    kept = [width.kept for width in widths(graph)]
    assert len(set(kept)) == len(kept) > 5


def test_groups_keep_multiples_of_the_step_and_small_ones_stay_whole(graph):
    for width in widths(graph)[1:]:
        assert width.round_to in (8, 16)
        assert all(
            keep % width.round_to == 0 or keep == units for keep, units in zip(width.kept, (64, 24, 6), strict=True)
        )
        assert width.kept[2] == 6


def test_excluded_channels_are_no_part_of_a_width(graph):
    assert {len(width.kept) for width in widths(graph, exclude=["0"])} == {2}
    assert all(width.kept[0] <= 64 and len(width.kept) == 1 for width in widths(graph, include=["0"]))


def test_a_model_of_which_nothing_can_go_has_only_its_own_width():
    graph = capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8))
    assert [width.kept for width in widths(graph)] == [()]


def test_groups_keep_their_least_number_of_channels(graph):
    kept = {width.kept for width in widths(graph, min_channels=20)}
    assert (64, 24, 6) in kept and all(a >= 24 and b == 24 and c == 6 for a, b, c in kept) and len(kept) > 2


def test_the_multiples_are_those_that_are_asked_for(graph):
    found = widths_of(graph, multiples=(10,))[1:]
    assert {width.round_to for width in found} == {10}
    assert all(width.kept[0] % 10 == 0 and width.kept[1] in (10, 20, 24) for width in found)
