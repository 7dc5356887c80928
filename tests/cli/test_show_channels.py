"""What `penjing channels` prints, at the widths that terminals have."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.cli import _channels
from penjing.cli.screen import Screen
from penjing.graph import capture, channels
from penjing.graph.channels.channels import Group
from penjing.graph.channels.explain import Explanation, Saving, Stay, explain
from penjing.graph.cost import Row


def printed(found, width=90):
    console = Screen(width=width, record=True, file=io.StringIO())
    _channels.show("net", found, console)
    return console.export_text()


def explained(*savings, stays=()):
    return Explanation(tuple(savings), tuple(stays), 1000, 900, 250, 64_000, 16_000)


def saving(name, units=4, params=10, macs=1000, shrinks=("norm",)):
    return Saving(Group(name, (), np.arange(units), params), params, macs, shrinks)


@pytest.fixture(scope="module")
def resnet20():
    graph = capture(zoo.resnet20(), torch.randn(2, 3, 32, 32))
    return explain(graph, channels(graph))


@pytest.mark.parametrize("width", [80, 100])
def test_a_network_is_told_in_lines_that_fit(width, resnet20):
    text = printed(resnet20, width)
    assert all(len(line) <= width for line in text.splitlines())
    text = " ".join(text.split())
    assert "half of the channels would leave 25.2% of the 269,722 parameters and 25." in text
    assert "pinned: 3 inputs of conv1, 10 outputs of linear" in text
    assert "99.99% of its parameters can go, in 12 groups of channels" in text
    assert "3 inputs of conv1" in text and "the model's input x gives them" in text


def test_layers_that_differ_in_one_number_share_a_line():
    text = printed(explained(*(saving(f"blocks.{i}.mlp.fc1") for i in range(12)), saving("blocks.3.attn")))
    assert "blocks.{0-11}.mlp.fc1" in text and "12 × 4" in text and "blocks.3.attn" in text


def test_layers_that_differ_in_more_don_t():
    text = printed(explained(saving("a.0"), saving("a.1"), saving("b.1"), saving("a.5"), saving("a.2", units=5)))
    assert "a.{0,1,5}" in text and "b.1" in text and "a.2" in text


def test_groups_of_one_layer_share_a_line_with_their_spans():
    text = printed(explained(saving("split", 4, 10, 1000), saving("split", 2, 1200, 3_400_000, ("norm", "head"))))
    assert "6*" in text and "10–1.2k" in text and "1.0k–3.4M" in text and "2: norm, head" in text
    assert "* of several kinds" in text


def test_what_stays_for_one_cause_shares_a_line():
    stays = [
        Stay(f"l{i}.weight", 0, 5, f"5 outputs of l{i}", "sort: no rule", "aten.sort", "/x/net.py:7 y = sort(x)")
        for i in range(4)
    ]
    text = printed(explained(stays=stays))
    assert "5 outputs of l0, 5 outputs of l1, 2 more" in text and "net.py:7 y = sort(x)" in text and "/x/" not in text


def test_a_network_of_which_nothing_can_go_still_says_why():
    graph = capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8))
    text = printed(explain(graph, channels(graph)))
    assert "no channel can go; all 112 parameters stay; pinned: " in text and "the model's output shows them" in text


def test_the_record_is_plain_json(resnet20):
    record = json.loads(json.dumps(_channels.as_record(resnet20)))
    assert record["groups"][0]["name"] == "conv1" and record["groups"][0]["macs"] > 0
    assert record["parameters_at_half"] < record["removable_parameters"] < record["parameters"]
    assert {"tensor", "axis", "indices", "op", "source", "why", "what"} == record["pinned"][0].keys()


def test_ops_that_the_macs_leave_out_are_named():
    row = Row("fft", "mixer", "fft_rfft2", 0, 0, 0, 0, (1, 8), counted=False)
    text = printed(replace(explained(saving("stem")), uncounted=(row,)))
    assert "MACs leave out" in text and "fft_rfft2 in mixer" in text
    assert "leave out" not in printed(explained(saving("stem")))
    assert _channels.as_record(replace(explained(), uncounted=(row,)))["uncounted"] == [
        {"node": "fft", "module": "mixer", "op": "fft_rfft2"}
    ]
