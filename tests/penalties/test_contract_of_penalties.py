"""What holds of every penalty."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.penalties import find, penalties


class Net(nn.Module):
    """A residual branch with norms, and a recurrent layer, whose weights both make and read one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.branch, self.branch_norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.recurrent = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + torch.relu(self.branch_norm(self.branch(x)))
        return self.head(self.recurrent(x.mean(3).transpose(1, 2))[0][:, -1])


@pytest.fixture(scope="module")
def captured() -> Graph:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for norm in (net.norm, net.branch_norm):
            norm.weight.copy_(torch.randn(6))
    return capture(net, torch.randn(2, 3, 8, 8))


@pytest.fixture
def graph(captured: Graph) -> Graph:
    """In float64, so that slopes can be told from rounding."""
    return copy.deepcopy(captured).double()


def gradients(graph: Graph, value: Tensor) -> dict[str, Tensor]:
    named = dict(graph.named_parameters())
    slopes = torch.autograd.grad(value, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, slopes, strict=True))


@pytest.mark.parametrize("name", penalties)
def test_a_penalty_says_what_it_is_and_who_described_it(name: str) -> None:
    entry = penalties[name]
    assert entry.name == name and entry.source and entry.summary and entry.needs == {"training"} and entry.weight > 0


@pytest.mark.parametrize("name", penalties)
def test_a_penalty_is_a_scalar_and_leaves_the_graph_alone(graph: Graph, name: str) -> None:
    before = {key: tensor.clone() for key, tensor in graph.state_dict().items()}
    value = find(name).of(graph)
    assert value().shape == () and value().item() > 0 and value().item() == value().item()
    value().backward()
    assert all(torch.equal(tensor, before[key]) for key, tensor in graph.state_dict().items())


@pytest.mark.parametrize("name", penalties)
def test_the_gradient_is_the_slope_of_the_value(graph: Graph, name: str) -> None:
    value = find(name).of(graph)
    slopes = gradients(graph, value())
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = {key: torch.randn(slope.shape, generator=generator).double() for key, slope in slopes.items()}
        step = 1e-6
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                for key, parameter in graph.named_parameters():
                    parameter += sign * step * direction[key]
                moved.append(value().item())
                for key, parameter in graph.named_parameters():
                    parameter -= sign * step * direction[key]
        expected = sum(float((slopes[key] * direction[key]).sum()) for key in slopes)
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", penalties)
def test_steps_against_the_gradient_lower_it(graph: Graph, name: str) -> None:
    value = find(name).of(graph)
    seen = [value().item()]
    for _ in range(20):
        slopes = gradients(graph, value())
        with torch.no_grad():
            for key, parameter in graph.named_parameters():
                parameter -= 1e-3 * slopes[key]
        seen.append(value().item())
    assert all(later < earlier for earlier, later in pairwise(seen))


@pytest.mark.parametrize("name", penalties)
def test_weights_of_zero_have_a_finite_gradient(graph: Graph, name: str) -> None:
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    value = find(name).of(graph)()
    assert torch.isfinite(value)
    assert all(not slope.any() for slope in gradients(graph, value).values())


@pytest.mark.parametrize("name", penalties)
def test_weights_that_are_no_numbers_give_no_number(graph: Graph, name: str) -> None:
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.fill_(torch.nan)
    assert not torch.isfinite(find(name).of(graph)())


@pytest.mark.parametrize("name", penalties)
def test_a_penalty_follows_the_weights_to_another_type(captured: Graph, name: str) -> None:
    graph = copy.deepcopy(captured)
    value = find(name).of(graph)
    single = value()
    graph.double()
    assert single.dtype == torch.float32 and value().dtype == torch.float64
    assert single.item() == pytest.approx(value().item(), rel=1e-5)


@pytest.mark.parametrize("name", penalties)
def test_a_plain_module_is_refused_with_what_to_pass(name: str) -> None:
    with pytest.raises(PenjingError, match=rf"penalty='{name}'.*penjing\.capture"):
        find(name).of(Net())


class Bare(nn.Module):
    """No layer, no channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


@pytest.mark.parametrize("name", penalties)
def test_a_graph_with_nothing_to_shape_is_refused(name: str) -> None:
    with pytest.raises(PenjingError, match=f"penalty='{name}' shapes"):
        find(name).of(capture(Bare(), torch.randn(2, 3)))
