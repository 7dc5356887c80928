"""What a prompt and a notebook show of the values that users get: a few lines, and tables whose text is escaped."""

import pytest
import report_samples
import torch
from torch import nn

import penjing as pj

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 2))
    return pj.capture(model.eval(), torch.randn(2, 3, 8, 8))


def test_data_tell_their_parts_in_a_few_lines():
    told = repr(pj.data.digits())
    assert len(told.splitlines()) == 3 and len(told) < 400
    assert "Data 'digits': train, 22 batches; calibration, 1 batch; validation, 2 batches" in told
    assert "10 classes: 0, 1, 2, 3, 4, …" in told and "images in colour" in told
    bare = repr(pj.Data(None, None, None, pj.tasks.Unlabelled()))
    assert bare == "Data 'custom': no loaders\n  Unlabelled()"


def test_a_result_is_its_headline_and_a_table(graph, tmp_path):
    made = pj.Result(graph, report_samples.report(headline="Twice as fast.", notes=[EVIL]), tmp_path)
    assert repr(made).splitlines()[0] == "Result: Twice as fast." and "The budget was met." in repr(made)
    assert len(repr(made).splitlines()) == 2
    page = made._repr_html_()
    assert '<td style="text-align:left">Size</td>' in page and "7.9× smaller" in page
    assert "&lt;script&gt;" in page and "<script>" not in page


def test_a_plan_is_a_count_and_a_table_of_its_options(graph):
    plan = pj.prune(graph, 0.5).plan
    assert repr(plan).startswith("Plan of 2 options") and "2 prune" in repr(plan)
    assert plan._repr_html_().count("<tr>") == 3 and repr(pj.Plan()) == "Plan of 0 options"
    strange = pj.Plan((pj.Option(pj.Place("weight", EVIL), "x", {"a": [1]}),))
    assert "<script>" not in strange._repr_html_()


def test_costs_and_channels_are_tables(graph):
    cost = graph.cost()
    assert repr(cost).startswith(f"Cost: {cost.params:,} parameters") and "\n" not in repr(cost)
    page = cost._repr_html_()
    assert page.count("<tr>") == 1 + 3 and "conv2d" in page and "linear" in page
    found = pj.channels(graph)
    assert found._repr_html_().count("<tr>") == 1 + len(found.groups) and "must stay" in found._repr_html_()
