import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.graph.patterns import check_patterns, matches, module_paths


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("layer1", "layer1", True),
        ("layer1", "layer1.0.conv", True),
        ("layer1", "layer10.conv", False),
        ("layer1.*", "layer1.0.conv", True),
        ("*.conv", "layer1.0.conv", True),
        ("conv", "layer1.0.conv", False),
        ("layer?.0", "layer2.0.bn", True),
        ("LAYER1", "layer1", False),
    ],
)
def test_a_pattern_names_a_module_or_one_above_it(pattern, path, expected):
    assert matches(path, [pattern]) is expected
    assert matches(path, ["nothing", pattern]) is expected


def test_all_modules_have_a_path_and_those_without_tensors_too():
    net = nn.Sequential()
    net.body = nn.Sequential()
    net.body.linear, net.body.act = nn.Linear(4, 4), nn.ReLU()
    graph = capture(net, torch.zeros(2, 4))
    assert {"body", "body.linear", "body.act"} <= module_paths(graph) and "" not in module_paths(graph)
    check_patterns(graph, ["body", "body.*"])
    with pytest.raises(PenjingError, match=r"Unknown module pattern 'body\.linea'.*Did you mean 'body\.linear'"):
        check_patterns(graph, ["body", "body.linea"])
