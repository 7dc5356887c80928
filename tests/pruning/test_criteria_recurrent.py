"""Hidden units of recurrent layers: scores against loops over the steps, written out."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from networks.bi_lstm import BiLSTMClassifier
from networks.recurrent import Recurrent
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import capture, channels
from penjing.pruning import criteria, prune
from penjing.tasks import Classification

HIDDEN = 6


class Steps(nn.Module):
    """A recurrent layer whose outputs are all read, and its final state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        width = HIDDEN * (2 if layer.bidirectional else 1)
        self.head, self.last = nn.Linear(width, 3), nn.Linear(HIDDEN, 3)

    def forward(self, x, gate=None):
        outputs, states = self.layer(x)
        final = (states[0] if isinstance(states, tuple) else states)[-1]
        if gate is not None:  # on all that comes out of the layer
            outputs, final = outputs * gate.repeat(outputs.shape[-1] // HIDDEN), final * gate
        return self.head(outputs.mean(1)) + self.last(final)


@cache
def made(layer, **options):
    torch.manual_seed(0)
    model = Steps(layer(4, HIDDEN, batch_first=True, **options)).eval()
    batches = [(torch.randn(4, 5, 4), torch.randint(3, (4,))) for _ in range(2)]
    return model, capture(model, torch.randn(2, 5, 4)), Data(batches, batches, None, Classification(3))


def score(graph, criterion, data):
    found = channels(graph)
    (group,) = found.groups
    assert group.name == "layer" and group.units == HIDDEN
    return criteria[criterion].function(Evidence(graph, found.groups, data, 16, 0, channels=found))[0]


def step(kind, x, read, state, layer):
    """The next state of one layer, from the state as its weights read it and the state as it is."""
    inner = F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    outer = F.linear(read, layer.weight_hh_l0, layer.bias_hh_l0)
    if kind is nn.RNN:
        return torch.tanh(inner + outer), state
    if kind is nn.GRU:
        (r, z, n), (hr, hz, hn) = inner.chunk(3, -1), outer.chunk(3, -1)
        z = torch.sigmoid(z + hz)
        return (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * state, state
    i, f, g, o = (inner + outer).chunk(4, -1)
    cell = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def unrolled(kind, model, x, gate):
    """The model with a gate on each hidden state wherever weights read it."""
    hidden = cell = torch.zeros(len(x), HIDDEN)
    outputs = []
    for time in range(x.shape[1]):
        hidden, cell = step(kind, x[:, time], hidden * gate, cell if kind is nn.LSTM else hidden, model.layer)
        outputs.append(hidden)
    return model.head(torch.stack(outputs, 1).mean(1) * gate) + model.last(hidden * gate)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_loop_over_steps_is_the_layer(kind):
    model, graph, data = made(kind)
    x = data.train[0][0]
    torch.testing.assert_close(unrolled(kind, model, x, torch.ones(HIDDEN)), graph(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("criterion", ["taylor", "taylor2"])
def test_taylor_is_by_a_gate_on_the_state_wherever_it_is_read(criterion, kind):
    model, graph, data = made(kind)
    expected = torch.zeros(HIDDEN)
    for x, y in data.train:

        def loss(gate, x=x, y=y):
            return F.cross_entropy(unrolled(kind, model, x, gate), y)

        ones = torch.ones(HIDDEN)
        change = torch.autograd.functional.jacobian(loss, ones)
        if criterion == "taylor2":
            # w (H w) by weights is (∂²L/∂g²) by gates where each weight is multiplied by one gate
            change = change - torch.autograd.functional.hessian(loss, ones).sum(1) / 2
        expected += change**2 / 2
    torch.testing.assert_close(score(graph, criterion, data), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_fisher_is_by_a_gate_on_all_that_comes_out_of_the_layer(kind, both):
    model, graph, data = made(kind, bidirectional=both)
    expected = torch.zeros(HIDDEN)
    for x, y in ((x[None], y[None]) for batch in data.train for x, y in zip(*batch, strict=True)):
        gate = torch.ones(HIDDEN, requires_grad=True)
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x, gate), y), gate)
        expected += slope**2 / 2 / 8
    torch.testing.assert_close(score(graph, "fisher", data), expected, rtol=1e-3, atol=1e-9)


def test_activations_are_those_of_the_sequence_of_hidden_states():
    model, graph, data = made(nn.GRU, bidirectional=True)
    with torch.no_grad():
        outputs = model.layer(torch.cat([x for x, _ in data.calibration]))[0]
    expected = outputs.abs().unflatten(2, (2, HIDDEN)).mean((0, 1, 2))
    torch.testing.assert_close(score(graph, "activation_mean", data), expected)


def test_apoz_counts_zeros_behind_a_recurrent_relu_and_needs_them():
    model, graph, data = made(nn.RNN, nonlinearity="relu")
    with torch.no_grad():
        outputs = model.layer(torch.cat([x for x, _ in data.calibration]))[0]
    torch.testing.assert_close(score(graph, "apoz", data), (outputs != 0).float().mean((0, 1)))
    _, graph, data = made(nn.LSTM)
    with pytest.raises(PenjingError, match=r"apoz needs activations that can be zero, .* those of layer never are"):
        score(graph, "apoz", data)


# What works on networks with embeddings around the layers. By the layers that they can't score, as their papers don't:
CAN_NOT = {
    "adversarial": "moves inputs a little, and those of this model are whole numbers",
    "apoz": "needs activations that can be zero",
    "bn_scale": "needs a norm with a scale",
    "lasso": "No convolution or linear layer reads the channels of embed",
    "thinet": "No convolution or linear layer reads the channels of embed",
    "obs": "needs layers that are a product with their inputs",
}


@pytest.fixture(scope="module", params=["bidirectional LSTM", "GRU, steps first"])
def network(request):
    torch.manual_seed(1)
    lstm = request.param == "bidirectional LSTM"
    model, words, classes = (BiLSTMClassifier(), 40, 5) if lstm else (Recurrent(nn.GRU(6, 8, 2)), 12, 3)
    batches = [(torch.randint(words, (4, 7)), torch.randint(classes, (4,)))]
    return capture(model.eval(), batches[0][0][:2]), Data(batches, batches, None, Classification(classes))


@pytest.mark.parametrize("criterion", criteria)
def test_every_criterion_scores_recurrent_networks_or_says_what_it_can_not(criterion, network):
    graph, data = network
    if criterion in CAN_NOT:
        with pytest.raises(PenjingError, match=CAN_NOT[criterion]):
            prune(graph, 0.5, criterion=criterion, data=data)
        return
    small = prune(graph, 0.5, criterion=criterion, data=data)
    hidden = next(step for step in small.plan if step.place.path in ("lstm", "layer"))
    assert hidden.after == hidden.before / 2
    assert small(data.train[0][0]).isfinite().all()


@pytest.mark.parametrize("criterion", ["lasso", "thinet"])
def test_reconstruction_takes_hidden_units_where_a_linear_layer_reads_them(criterion):
    _, graph, data = made(nn.LSTM)
    assert prune(graph, 0.5, criterion=criterion, data=data).tensor("layer.weight_hh_l0").shape == (12, 3)
