import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.report import words


class Spectral(nn.Module):
    """Linear layers around an op that mixes features by an equation of its own, which no table knows."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 4)
        self.equation = nn.Parameter(torch.randn(6, 6) + 4 * torch.eye(6))

    def forward(self, x):
        return self.last(torch.linalg.solve(self.equation, self.first(x).relu().unsqueeze(-1)).squeeze(-1))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return capture(Spectral().eval(), torch.randn(4, 6))


def batches():
    return [torch.randn(16, 6) for _ in range(2)]


def test_the_plan_names_what_reads_parameters_and_stays_in_floating_point(graph):
    records = {record.place.path: (record.after, words(record.to_json())) for record in quantize(graph, batches()).plan}
    assert records.pop("linalg_solve") == ("float32", "nothing is known of linalg_solve, which reads parameters")
    assert {after for after, _ in records.values()} == {"int8"} and set(records) == {"first", "last"}


def test_an_integer_placement_does_not_pass_over_what_nothing_is_known_of(graph):
    with pytest.raises(PenjingError, match="'linalg_solve'"):
        quantize(graph, batches(), placement="integer")
