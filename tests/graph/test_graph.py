import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import Option, Place, capture, load


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.head2 = nn.Linear(6, 4)
        self.head2.weight = self.head.weight

    def forward(self, x):
        y = F.relu(self.norm(self.conv(x)), inplace=True).mean((2, 3))
        return self.head(y) + self.head2(y * 2)


@pytest.fixture(scope="module")
def captured():
    torch.manual_seed(0)
    model = Small()
    return model, capture(model, torch.randn(2, 3, 8, 8))


@pytest.fixture
def pair(captured):
    return copy.deepcopy(captured[0]), copy.deepcopy(captured[1])


def train(model, steps=3, context=None):
    torch.manual_seed(1)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    losses = []
    for _ in range(steps):
        x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
        optimizer.zero_grad()
        if context is None:
            loss = F.cross_entropy(model(x), y)
        else:
            with context:
                loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_same_state(a, b, tolerance=1e-6):
    """Running counts of batches are not part of what a graph computes."""
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        if "num_batches_tracked" not in name:
            assert torch.allclose(a[name], b[name], atol=tolerance), name


def test_three_training_steps_end_as_those_of_the_model(pair):
    model, graph = pair
    assert train(graph) == pytest.approx(train(model), abs=1e-6)
    assert_same_state(graph, model)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(graph.eval()(x), model.eval()(x), atol=1e-6)


def test_training_under_autocast_ends_as_that_of_the_model(pair):
    model, graph = pair
    context = torch.autocast("cpu", torch.bfloat16)
    assert train(graph, context=context) == pytest.approx(train(model, context=context), abs=1e-2)
    assert_same_state(graph, model, 1e-2)


def test_tied_parameters_stay_tied_through_training(pair):
    _, graph = pair
    train(graph)
    assert graph.tensor("head.weight") is graph.tensor("head2.weight")
    assert len(list(graph.parameters())) == 6


@pytest.mark.parametrize("how", ["deepcopy", "file", "double"])
def test_tied_parameters_stay_tied_through_copies(pair, how, tmp_path):
    _, graph = pair
    if how == "deepcopy":
        graph = copy.deepcopy(graph)
    elif how == "file":
        graph.save(tmp_path / "m.penjing")
        graph = load(tmp_path / "m.penjing")
    else:
        graph = graph.double()
    assert graph.tensor("head.weight") is graph.tensor("head2.weight")
    assert graph.ties() == {"head2.weight": "head.weight"}


def test_a_deep_copy_shares_nothing(pair):
    _, graph = pair
    graph.masks["head.weight"] = torch.ones(4, 6, dtype=torch.bool)
    graph.plan += [Option(Place("group", "conv"), "prune", {"keep": 3})]
    other = copy.deepcopy(graph)
    x = torch.randn(2, 3, 8, 8)
    before = graph(x)
    train(other)
    other.masks["head.weight"].zero_()
    other.plan += [Option(Place("group", "conv"), "prune", {"keep": 2})]
    assert torch.equal(graph(x), before) and graph.masks["head.weight"].all() and len(graph.plan) == 1
    assert other.training and not graph.training


def test_a_copy_of_a_training_graph_still_follows_the_mode(pair):
    _, graph = pair
    other = copy.deepcopy(graph.train())
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(other(x), graph(x))
    other.eval(), graph.eval()
    assert torch.equal(other(x), graph(x))


def test_state_dicts_fit_the_model_both_ways(pair):
    model, graph = pair
    train(model)
    graph.load_state_dict(model.state_dict())
    assert_same_state(graph, model)
    train(graph)
    model.load_state_dict(graph.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(graph.eval()(x), model.eval()(x), atol=1e-6)


def test_a_compiled_graph_gives_the_same_outputs_and_gradients(pair):
    _, graph = pair
    compiled = torch.compile(graph, backend="aot_eager")
    for batch in (2, 5):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.allclose(compiled(x), graph(x), atol=1e-6)
    compiled(x).sum().backward()
    assert graph.tensor("conv.weight").grad is not None


def test_a_graph_moves_to_another_dtype_and_memory_format(pair):
    model, graph = pair
    x = torch.randn(2, 3, 8, 8)
    expected = model.eval()(x)
    wide = copy.deepcopy(graph).double()
    assert torch.allclose(wide(x.double()).float(), expected, atol=1e-6)
    graph.to(memory_format=torch.channels_last)
    assert torch.allclose(graph(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-6)


def test_ops_that_make_tensors_follow_to_another_device():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x):
            return self.cell(x)[0] + torch.zeros(5, device=x.device)

    graph = capture(Recurrent(), torch.randn(2, 4, 3)).to("meta")
    devices = {node.kwargs["device"] for node in graph.program.graph.nodes if node.kwargs.get("device") is not None}
    assert devices == {torch.device("meta")}
    assert graph(torch.empty(3, 4, 3, device="meta")).device == torch.device("meta")
    assert graph.refresh()(torch.empty(3, 4, 3, device="meta")).shape == (3, 4, 5)


def test_the_zero_state_of_an_lstm_follows_the_dtype():
    graph = capture(nn.LSTM(3, 5, batch_first=True), torch.randn(2, 4, 3)).double()
    assert graph(torch.randn(3, 4, 3, dtype=torch.float64))[0].dtype == torch.float64


def test_a_graph_trains_under_distributed_data_parallel(pair, tmp_path):
    model, graph = pair
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(graph)
        train(parallel)
    finally:
        torch.distributed.destroy_process_group()
    train(model)
    assert_same_state(graph, model)


# Taps


def test_taps_give_inner_values_and_share_parameters(pair):
    _, graph = pair
    relu = next(n.name for n in graph.program.graph.nodes if n.target is torch.ops.aten.relu.default)
    tapped = graph.with_outputs([relu])
    x = torch.randn(2, 3, 8, 8)
    outputs, taps = tapped(x)
    assert torch.equal(outputs, graph(x)) and taps[relu].shape == (2, 6, 8, 8) and (taps[relu] >= 0).all()
    assert tapped.tensor("conv.weight") is graph.tensor("conv.weight")
    taps[relu].sum().backward()
    assert graph.tensor("conv.weight").grad is not None
    assert len(graph(x)) == 2  # the graph itself has no second output


def test_taps_see_what_the_graph_learns_later(pair):
    _, graph = pair
    relu = next(n.name for n in graph.program.graph.nodes if n.target is torch.ops.aten.relu.default)
    tapped = graph.with_outputs([relu])
    graph.double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(tapped(x)[0], graph(x))


def test_a_tap_of_an_unknown_node_suggests_the_nearest(pair):
    _, graph = pair
    with pytest.raises(PenjingError, match="Did you mean 'relu'"):
        graph.with_outputs(["rellu"])


def test_the_same_node_can_be_tapped_once_only(pair):
    _, graph = pair
    with pytest.raises(PenjingError, match="differ"):
        graph.with_outputs(["relu", "relu"])


# Masks


def test_masks_are_applied_and_saved_but_no_state(pair, tmp_path):
    _, graph = pair
    mask = torch.rand(6, 3, 3, 3) > 0.5
    graph.masks["conv.weight"] = mask
    graph.apply_masks()
    assert (graph.tensor("conv.weight")[~mask] == 0).all()
    assert not any("mask" in name for name in graph.state_dict())
    train(graph)
    assert (graph.tensor("conv.weight")[~mask] == 0).float().mean() < 1
    graph.apply_masks()
    assert (graph.tensor("conv.weight")[~mask] == 0).all() and (graph.tensor("conv.weight")[mask] != 0).all()
    graph.save(tmp_path / "m.penjing")
    assert torch.equal(load(tmp_path / "m.penjing").masks["conv.weight"], mask)


def test_masks_move_with_the_graph_and_stay_boolean(pair):
    _, graph = pair
    graph.masks["conv.weight"] = torch.rand(6, 3, 3, 3) > 0.5
    graph.double()
    assert graph.masks["conv.weight"].dtype == torch.bool
    graph.to("meta")
    assert graph.masks["conv.weight"].device == torch.device("meta")


# Looking at it


def test_example_inputs_are_repeatable_and_fit(pair):
    _, graph = pair
    (x,) = graph.example_inputs(batch=5, seed=3)
    assert x.shape == (5, 3, 8, 8) and torch.equal(x, graph.example_inputs(batch=5, seed=3)[0])
    assert graph(x).shape == (5, 4) and graph.input_names == ["x"]


def test_examples_of_token_inputs_stay_in_the_vocabulary():
    graph = capture(nn.Embedding(11, 4), torch.randint(3, 11, (2, 6)))
    (tokens,) = graph.example_inputs(batch=50)
    assert tokens.dtype == torch.int64 and tokens.min() >= 0 and tokens.max() < 11
    assert graph(tokens).shape == (50, 6, 4)


def test_an_example_call_is_nested_as_the_models():
    class Nested(nn.Module):
        def forward(self, pair, *, scale):
            return pair["a"] * scale + pair["b"]

    graph = capture(Nested(), ({"a": torch.randn(2, 3), "b": torch.randn(2, 3)},), kwargs={"scale": 2.0})
    args, kwargs = graph.example_call(batch=4)
    assert graph(*args, **kwargs).shape == (4, 3) and kwargs == {"scale": 2.0}


def test_an_edited_graph_forgets_the_tensors_that_nothing_reads(pair):
    _, graph = pair
    add = next(n for n in graph.program.graph.nodes if n.target is torch.ops.aten.add.Tensor)
    add.replace_all_uses_with(add.args[0])
    graph.refresh()
    assert "head2.bias" not in graph.state_dict() and "head.bias" in graph.state_dict()
    assert graph(torch.randn(2, 3, 8, 8)).shape == (2, 4)


def test_an_edit_that_does_not_fit_is_named_with_the_users_line(pair):
    _, graph = pair
    graph.set_tensor("conv.weight", nn.Parameter(torch.randn(6, 4, 3, 3)))
    with pytest.raises(PenjingError, match=r"conv2d.*test_graph\.py:\d+ y = F\.relu"):
        graph.refresh()


def test_the_names_of_absent_tensors_are_key_errors(pair):
    _, graph = pair
    with pytest.raises(KeyError):
        graph.tensor("conv.nothing")
    with pytest.raises(KeyError):
        graph.tensor("nothing.weight")
