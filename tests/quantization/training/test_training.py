"""Quantised graphs in training: what is learned, and that the stored form at the end computes the same."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penjing as pj
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import capture, load
from penjing.quantization import quantize
from penjing.quantization.training import QuantizedTraining, bits_at, methods
from penjing.quantization.training._twins import (
    MOMENTUM,
    quantize_by_clip,
    quantize_by_moving_range,
    quantize_by_range,
    quantize_by_rule,
    quantize_by_sign,
    quantize_by_step,
)
from penjing.quantization.training._weights import Integers
from penjing.report import words
from penjing.tasks import Classification, Unlabelled
from penjing.training import recover


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Three convolutions with norms and a head; one gain of a norm is negative, one zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        for norm in (self.bn1, self.bn2):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.weight.data[0], norm.weight.data[1] = -0.8, 0.0
        self.head.weight.data *= 10

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.head((F.relu6(self.bn2(self.conv2(x))) + x).mean((2, 3)))


def batches(count: int = 4, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, size, 2, 6, 6, generator=generator)
    return [(x, x.abs().mean((2, 3)).argmax(1)) for x in images]


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    net = Net()
    for norm in (net.bn1, net.bn2):
        norm.momentum = None  # the average of all batches
    for x, _ in batches():
        net(x)
    for norm in (net.bn1, net.bn2):
        norm.momentum = 0.1
    return capture(net.eval(), torch.randn(2, 2, 6, 6))


@pytest.fixture(scope="module")
def data():
    return Data(batches(), batches(), batches(), Classification(4))


def _step(training: QuantizedTraining, progress: float = 0.5) -> None:
    """One step of plain gradient descent on something that depends on everything."""
    training.graph.train()
    out = training.graph(batches()[0][0])
    (out.square().mean() + (training.penalty(training.graph, progress) or 0)).backward()
    with torch.no_grad():
        for parameter in training.graph.parameters():
            parameter -= 0.02 * parameter.grad
            parameter.grad = None
    training(training.graph, progress)
    training.graph.eval()


# Gradients


def _paper(v: Tensor, s: Tensor, negative: int, positive: int, count: float) -> Tensor:
    """The pseudo-code of LSQ's appendix, for symmetric integers."""
    g = 1.0 / (count * positive) ** 0.5
    s = s * g + (s - s * g).detach()
    v = (v / s).clamp(-negative, positive)
    return (v + (v.round() - v).detach()) * s


@pytest.mark.parametrize(("low", "high"), [(-2, 1), (-7, 7), (0, 15)])
def test_values_and_gradients_of_a_learned_step_are_those_of_the_papers_pseudo_code(low, high):
    values, upstream = torch.randn(200, requires_grad=True), torch.randn(200)
    step = torch.tensor([0.31], requires_grad=True)
    expected = _paper(values, step, -low, high, 200)
    wanted = torch.autograd.grad((expected * upstream).sum(), [values, step])
    made = quantize_by_step(values, step, 0, low, high)
    found = torch.autograd.grad((made * upstream).sum(), [values, step])
    assert torch.allclose(made, expected, atol=1e-6)
    assert torch.allclose(found[0], wanted[0]) and torch.allclose(found[1], wanted[1], rtol=1e-4)


def test_each_row_has_the_step_and_the_gradient_that_it_has_alone():
    values, upstream = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    steps, zeros = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, 1, 3])
    steps.requires_grad_()
    made = quantize_by_step(values, steps, zeros, 0, 3)
    (together,) = torch.autograd.grad((made * upstream).sum(), steps)
    for row in range(3):
        step = steps[row : row + 1].detach().requires_grad_()
        alone = quantize_by_step(values[row], step, int(zeros[row]), 0, 3)
        (gradient,) = torch.autograd.grad((alone * upstream[row]).sum(), step)
        assert torch.equal(alone, made[row]) and torch.allclose(gradient, together[row : row + 1])


def test_the_gradient_of_a_step_beyond_the_ends_is_the_finite_difference():
    """Where values are clipped, nothing is rounded: the function is differentiable, and its slope is the end."""
    values, step, small = torch.tensor([9.0, -9.0, 7.0]), torch.tensor([0.5], requires_grad=True), 1e-2
    made = quantize_by_step(values, step, 0, -2, 1)
    (gradient,) = torch.autograd.grad(made.sum(), step)
    moved = quantize_by_step(values, step.detach() + small, 0, -2, 1)
    factor = 1 / (3 * 1) ** 0.5
    assert gradient.item() == pytest.approx(float((moved - made.detach()).sum() / small) * factor, rel=1e-3)


def test_an_activations_step_counts_the_features_of_one_sample():
    values, step = torch.rand(6, 10), torch.tensor([0.1], requires_grad=True)
    (batch,) = torch.autograd.grad(quantize_by_step(values, step, 0, 0, 3, True).sum(), step)
    (tensor,) = torch.autograd.grad(quantize_by_step(values, step, 0, 0, 3, False).sum(), step)
    assert batch.item() == pytest.approx(tensor.item() * 6**0.5, rel=1e-5)


def test_the_step_of_signs_learns_from_the_signed_sum_of_gradients():
    values = torch.tensor([[0.3, -2.0, 0.0, 1.0]], requires_grad=True)
    step, upstream = torch.tensor([0.5], requires_grad=True), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    made = quantize_by_sign(values, step)
    assert made.tolist() == [[0.5, -0.5, 0.5, 0.5]]
    to_values, to_step = torch.autograd.grad((made * upstream).sum(), [values, step])
    assert torch.equal(to_values, upstream) and to_step.item() == pytest.approx((1 - 2 + 3 + 4) / 2)


def test_pact_clips_as_the_paper_does_and_its_bound_learns_from_what_is_above():
    values = torch.tensor([-1.0, 0.2, 0.9, 1.0, 5.0], requires_grad=True)
    bound, upstream = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    made = quantize_by_clip(values, bound, 10**6)
    papers = 0.5 * (values.abs() - (values - bound).abs() + bound)
    assert torch.allclose(made, papers, atol=1e-5)
    to_values, to_bound = torch.autograd.grad((made * upstream).sum(), [values, bound])
    assert to_values.tolist() == [0, 2, 3, 0, 0] and to_bound.item() == 9
    assert quantize_by_clip(values, bound, 2).tolist() == [0, 0, 1, 1, 1]


def test_rounding_by_rule_is_that_of_ternary_weight_networks_and_lets_the_gradient_through():
    weight = torch.randn(4, 12, requires_grad=True)
    made = quantize_by_rule(weight, "ternary", "tensor")
    kept = weight.abs() > 0.7 * weight.abs().mean()
    scale = weight.abs()[kept].mean()
    assert torch.allclose(made, weight.sign() * kept * scale)
    upstream = torch.randn(4, 12)
    assert torch.equal(torch.autograd.grad((made * upstream).sum(), weight)[0], upstream)


def test_a_moving_range_is_the_exponential_average_of_extremes():
    own, other = torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 4.0])
    seen = [torch.randn(50) * 3 for _ in range(5)]
    expected = torch.tensor([-1.0, 1.0])
    for values in seen:
        made = quantize_by_moving_range(values, own, [own, other], 0, 255)
        expected = MOMENTUM * expected + (1 - MOMENTUM) * torch.stack([values.min(), values.max()])
    assert torch.allclose(own, expected) and torch.equal(other, torch.tensor([0.0, 4.0]))
    assert torch.equal(made, quantize_by_range(seen[-1], own, [own, other], 0, 255))
    assert made.max() <= 4.0 + 4 / 255  # the range that is shared


# Progressive bits


def test_bits_fall_in_equal_shares_of_the_training():
    assert [bits_at(p, 2, (8, 4)) for p in (0, 0.33, 1 / 3, 0.66, 2 / 3, 1)] == [8, 8, 4, 4, 2, 2]
    assert [bits_at(p, 4, (8, 4)) for p in (0, 0.49, 0.5, 1)] == [8, 8, 4, 4]
    assert bits_at(0, 8, (8, 4)) == 8 and bits_at(0, 2, ()) == 2


def test_stages_change_the_levels_of_weights_in_training_and_survive_a_stop(graph, data):
    def levels(training):
        with torch.no_grad():
            name = next(n.args[1].name for n in training.graph.program.graph.nodes if n.name.startswith("conv2d"))
            _, taps = training.graph.with_outputs([name])(batches()[0][0])
        return max(len(row.unique()) for row in taps[name].flatten(1))

    make = dict(weights="ternary", per_layer={"head": "int8"}, stages=(8, 4))
    training = QuantizedTraining(graph, data, **make)
    assert levels(training) > 15
    with pytest.raises(PenjingError, match="earlier stage"):
        training.finish()
    _step(training, 0.4)
    assert 3 < levels(training) <= 15
    resumed = QuantizedTraining(graph, data, **make)
    resumed.graph.load_state_dict(training.graph.state_dict())
    resumed.load_state_dict(training.state_dict())
    x = batches()[1][0]
    with torch.no_grad():
        assert torch.equal(resumed.graph(x), training.graph(x))
    _step(training, 1.0)
    assert levels(training) == 3
    with torch.no_grad():
        assert torch.allclose(training.finish()(x), training.graph(x), atol=1e-5)
    with pytest.raises(PenjingError, match="This state is of the training"):
        QuantizedTraining(graph, data, weights="ternary").load_state_dict(training.state_dict())


# There and back


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("lsq", "uint2"), ("lsq", "int4/group:2"), ("lsq", "int4/tensor"), ("lsq", "ternary"), ("lsq", "binary"),
        ("ste", "int8"), ("ste", "power_of_two:4"), ("ste", "ternary/tensor"),
        ("pact", "binary"), ("lsq", "codebook:4"),
    ],
)  # fmt: skip
def test_the_stored_form_computes_what_the_training_did(graph, data, method, weights):
    choices = dict(weights=weights, activations="auto" if method == "ste" else "uint4", simulate=True)
    training = QuantizedTraining(graph, data, method=method, **choices)
    before = {name: value.clone() for name, value in training.graph.named_parameters()}
    _step(training)
    still = {name for name, value in training.graph.named_parameters() if torch.equal(value, before[name])}
    assert still <= {"conv2.bias"}  # a norm takes it out again
    x, small = batches()[1][0], training.finish()
    with torch.no_grad():
        assert torch.allclose(small(x), training.graph(x), atol=1e-5)
    plain = quantize(graph, data, corrections=(), **choices)
    assert [n.target for n in small.program.graph.nodes] == [n.target for n in plain.program.graph.nodes]
    assert {k: (v.shape, v.dtype, type(v)) for k, v in small.tensors().items()} == {
        k: (v.shape, v.dtype, type(v)) for k, v in plain.tensors().items()
    }
    assert f"trained ({method})" in words(small.plan[0].to_json())


def test_a_trained_graph_is_saved_and_loaded_like_any(graph, data, tmp_path):
    training = QuantizedTraining(graph, data, weights="ternary")
    _step(training)
    small, x = training.finish(), batches()[1][0]
    small.save(tmp_path / "m.penjing", compact=True)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "m.penjing")(x), small(x))


@pytest.mark.parametrize("method", methods)
def test_training_starts_from_about_what_rounding_after_training_gives(graph, data, method):
    training = QuantizedTraining(graph, data, method=method)
    x = batches()[1][0]
    with torch.no_grad():
        real, plain, mine = graph(x), quantize(graph, data, corrections=())(x), training.graph(x)
    assert (mine - real).norm() < 1.5 * (plain - real).norm() + 1e-3


def test_norms_stay_in_training_and_follow_the_batches(graph, data):
    training = QuantizedTraining(graph, data, weights="ternary")
    assert {"bn1.weight", "bn2.running_mean"} <= training.graph.tensors().keys()
    mean = training.graph.tensor("bn1.running_mean").clone()
    training.graph.train()(batches()[0][0])
    assert not torch.equal(training.graph.tensor("bn1.running_mean"), mean)
    assert not any("batch_norm" in str(node.target) for node in training.finish().program.graph.nodes)


def test_ranges_move_while_training_and_hold_in_evaluation(graph, data):
    training = QuantizedTraining(graph, data, method="ste")
    ranges = {name: value for name, value in training.graph.named_buffers() if name.endswith("_range")}
    before = {name: value.clone() for name, value in ranges.items()}
    training.graph.eval()(5 * batches()[0][0])
    assert ranges and all(torch.equal(value, before[name]) for name, value in ranges.items())
    training.graph.train()(5 * batches()[0][0])
    assert not any(torch.equal(value, before[name]) for name, value in ranges.items())


def test_multiplying_rows_mirrors_the_codes_of_negative_factors():
    codes, zero = torch.tensor([[0.0, 1, 2, 3], [0, 1, 2, 3]]), torch.tensor([1, 2])
    given = Integers(codes, torch.tensor([0.5, 0.25]), zero, 0, 3)
    factor = torch.tensor([-2.0, 3.0])
    times = given.times(factor)
    assert torch.allclose(times.real, given.real * factor[:, None])
    assert times.codes.min() >= 0 and times.codes.max() <= 3 and bool((times.scale > 0).all())


def test_a_scale_too_small_for_its_bias_grows_and_the_codes_are_rounded_anew():
    given = Integers(
        torch.tensor([[4.0, -7], [4, -7]]), torch.tensor([0.1, 0.1]), torch.zeros(2, dtype=torch.int64), -7, 7
    )
    grown = given.at_least(torch.tensor([0.2, 0.05]))
    assert grown.scale.tolist() == pytest.approx([0.2, 0.1])
    assert grown.codes.tolist() == [[2, -4], [4, -7]]  # −3.5 goes to the even one


def test_learned_steps_never_pass_the_bounds_of_a_clip(graph, data):
    training = QuantizedTraining(graph, data, weights="ternary", activations="uint4")
    with torch.no_grad():
        for name, parameter in training.graph.named_parameters():
            if name.startswith("quantizers"):
                parameter.mul_(100)
    training(training.graph, 0.5)
    nodes = training.finish().program.graph.nodes
    bounded = [n for n in nodes if "quantize_per_tensor" in str(n.target) and n.meta.get("within") == (0.0, 6.0)]
    assert bounded and all(torch.tensor(n.args[1]) * (n.args[4] - n.args[2]) <= 6 for n in bounded)
    with torch.no_grad():
        for parameter in training.graph.parameters():
            parameter.fill_(-1.0)
    training(training.graph, 0.6)
    scales = [p for name, p in training.graph.named_parameters() if name.endswith(("_scale", "_step"))]
    assert len(scales) == 8 and all(bool((scale > 0).all()) for scale in scales)


@pytest.mark.parametrize(
    ("weights", "activations", "learned"), [("int8", "uint8", 0), ("ternary", "uint8", 3), ("int4", "uint4", 8)]
)
def test_steps_are_learned_where_there_are_few_bits(graph, data, weights, activations, learned):
    training = QuantizedTraining(graph, data, weights=weights, activations=activations)
    steps = [name for name, _ in training.graph.named_parameters() if name.endswith(("_scale", "_step"))]
    assert len(steps) == learned


def test_pruned_weights_stay_zero_through_training(graph, data):
    sparse = copy.deepcopy(graph)
    sparse.masks["conv2.weight"] = torch.rand(sparse.tensor("conv2.weight").shape) > 0.5
    sparse.apply_masks()
    for weights in ("ternary", "uint2"):
        training = QuantizedTraining(sparse, data, weights=weights)
        _step(training)
        training.graph.apply_masks()
        small = training.finish()
        restored = next(n for n in small.program.graph.nodes if n.name == "conv2d_1").args[1]
        with torch.no_grad():
            _, taps = small.with_outputs([restored.name])(batches()[0][0])
        assert not taps[restored.name][~sparse.masks["conv2.weight"]].any()


# Training


def _divergence(graph, other):
    with torch.no_grad():
        pairs = [(other(x).log_softmax(1), graph(x).softmax(1)) for x, _ in batches()]
    return sum(float(F.kl_div(one, wanted, reduction="batchmean")) for one, wanted in pairs)


@pytest.mark.parametrize(("method", "weights"), [("lsq", "ternary"), ("ste", "binary")])
def test_training_undoes_most_of_what_rounding_costs(graph, method, weights):
    shown = Data([(x,) for x, _ in batches()], [(x,) for x, _ in batches()], None, Unlabelled())
    choices = dict(weights=weights, per_layer={"conv1": "int8", "head": "int8"})
    plain = quantize(graph, shown, corrections=(), **choices)
    small = pj.quantize(
        graph, shown, method=method, epochs=25, teacher=graph, lr=0.01, progress=False,
        training={"precision": "float32", "channels_last": False, "temperature": 1.0}, **choices,
    )  # fmt: skip
    assert _divergence(graph, small) < 0.4 * _divergence(graph, plain)


def test_a_training_that_was_stopped_goes_on_to_the_same_end(graph, data, tmp_path):
    class Stopped(Exception):
        pass

    def run(checkpoint, stop=2.0):
        training = QuantizedTraining(graph, data, method="lsq", weights="ternary", stages=(8, 4))

        def stopping(_, progress):
            if progress > stop:
                raise Stopped

        recover(
            training.graph, data, epochs=3, lr=0.01, progress=False, precision="float32", channels_last=False, save_every=0.0,
            checkpoint=checkpoint, callbacks=[training, stopping], penalty=training.penalty,
        )  # fmt: skip
        return training.finish()

    whole = run(None)
    with pytest.raises(Stopped):
        run(tmp_path / "c.pt", 0.6)  # in the stage of 4 bits
    again = run(tmp_path / "c.pt")
    assert all(torch.equal(value, again.tensor(name)) for name, value in whole.tensors().items())
    assert [node.args[1:] for node in whole.program.graph.nodes if "per_tensor" in str(node.target)] == [
        node.args[1:] for node in again.program.graph.nodes if "per_tensor" in str(node.target)
    ]


def test_a_misspelt_method_and_rising_stages_are_told(graph, data):
    with pytest.raises(PenjingError, match="Did you mean 'lsq'"):
        QuantizedTraining(graph, data, method="lqs")
    with pytest.raises(PenjingError, match="must fall"):
        QuantizedTraining(graph, data, stages=(4, 8))
