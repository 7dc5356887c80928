"""One convolution in the place of several: the best on data, and a graph like any other."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import find as capabilities
from penjing.errors import PenjingError
from penjing.evidence.memory import remembering
from penjing.graph import Option
from penjing.merging import fitting, runs
from penjing.planning import techniques
from penjing.report import words
from penjing.targets import session
from penjing.techniques import Scope
from planning.residual import Block

CAN = capabilities("onnxruntime")


def images(seed: int, count: int = 64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 8, 8, generator=generator)
    return list(zip(x.split(12), (x.mean((1, 2, 3)) > 0).long().split(12), strict=True))


@pytest.fixture
def data():
    return pj.Data(images(1), images(1), images(2), pj.tasks.Classification(2))


def captured(*layers: nn.Module) -> pj.Graph:
    torch.manual_seed(0)
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it were trained
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    return pj.capture(network.eval(), torch.randn(2, 3, 8, 8))


def options_of(graph: pj.Graph) -> list[Option]:
    return list(techniques["merge"].function().choices(graph, None, CAN, Scope()))


def test_without_activations_it_is_exact(data):
    graph = captured(nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(24, 6, 3, 2), nn.Flatten(), nn.LazyLinear(2))
    (option,) = options_of(graph)
    small = techniques["merge"].function().apply(graph, [option], data)
    x = torch.randn(4, 3, 8, 8)
    assert torch.allclose(small(x), graph(x), atol=2e-3) and small.plan[0].found["error"] < 1e-5
    assert sum(row.macs > 0 for row in small.cost().rows) == 2 and small.cost().macs < graph.cost().macs


def test_no_convolution_of_the_kernel_does_better_on_the_data(data):
    graph = captured(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.Flatten(), nn.LazyLinear(2)
    )
    option = options_of(graph)[-1]
    small = techniques["merge"].function().apply(graph, [option], data)
    conv = next(node.name for node in small.program.graph.nodes if "conv" in node.name)
    x = torch.cat([x for x, _ in data.calibration])
    wanted = graph.with_outputs(["conv2d_1"])(x)[1]["conv2d_1"].detach()
    weight, bias = small.tensor("2.weight").detach().clone(), small.tensor("2.bias").detach().clone()
    assert torch.allclose(
        small.with_outputs([conv])(x)[1][conv], nn.functional.conv2d(x, weight, bias, padding=1), atol=1e-5
    )
    weight.requires_grad_(), bias.requires_grad_()
    error = (nn.functional.conv2d(x, weight, bias, padding=1) - wanted).square().mean()
    variance = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().mean()
    assert float(error / variance) == pytest.approx(small.plan[0].found["error"], rel=0.02)
    slopes = torch.autograd.grad(error, [weight, bias])
    assert max(float(one.abs().max()) for one in slopes) < 1e-3, "the least of the squares, but for the ridge"


def test_the_merged_graph_trains_rounds_saves_and_is_lowered(data, tmp_path):
    graph = captured(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 16), nn.AdaptiveAvgPool2d(1),
                     nn.Flatten(), nn.Linear(8, 2))  # fmt: skip
    option = options_of(graph)[-1]
    small = techniques["merge"].function().apply(graph, [option], data)
    assert "3.conv1.weight" not in small.tensors() and "3.bn1.weight" not in small.tensors()
    pj.recover(small, data, epochs=1, lr=0.01, precision="float32", channels_last=False, progress=False)
    small.save(tmp_path / "small.penjing")
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(pj.load(tmp_path / "small.penjing")(x), small.eval()(x))
    whole = pj.quantize(small, data)
    file = pj.lower(whole, path=tmp_path / "model.onnx")
    assert torch.allclose(session(file)(x), whole(x), atol=0.1)


def test_a_plan_that_merges_is_carried_out_again_bit_for_bit(data, tmp_path):
    graph = captured(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 16), nn.AdaptiveAvgPool2d(1),
                     nn.Flatten(), nn.Linear(8, 2))  # fmt: skip
    small = techniques["merge"].function().apply(graph, options_of(graph)[-1:], data)
    small.plan.having(small.plan).write(tmp_path / "plan.json")
    again = pj.apply(graph, tmp_path / "plan.json", data)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(again(x), small(x)) and words(again.plan[0].to_json()).startswith("one 3×3 convolution for 2")


def test_what_makes_no_sense_is_refused_and_nothing_is_applied(data):
    graph = captured(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.LazyLinear(2)
    )
    option = options_of(graph)[-1]
    technique = techniques["merge"].function()
    with pytest.raises(PenjingError, match="pass the data"):
        technique.apply(graph, [option], None)
    other = replace(option, place=replace(option.place, path="nothing"))
    with pytest.raises(PenjingError, match=r"'nothing', which .* hasn't; the nearest is '2'"):
        technique.apply(graph, [other], data)
    for layers, says in (([], "no layer and it"), (["4"], "4 and it")):
        with pytest.raises(PenjingError, match=says):
            technique.apply(graph, [replace(option, setting={**option.setting, "layers": layers})], data)
    for kernel in ([2, 2], [7, 7], [3], [0, 1]):
        with pytest.raises(PenjingError, match="doesn't fit; the layers see 5×5 positions"):
            technique.apply(graph, [replace(option, setting={**option.setting, "kernel": kernel})], data)
    with pytest.raises(PenjingError, match="kernels"):
        technique.apply(graph, [replace(option, setting={**option.setting, "kernels": [3, 3]})], data)


def test_memory_does_not_grow_with_the_batch_and_a_sample_of_windows_serves(monkeypatch):
    graph = captured(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.Flatten(), nn.LazyLinear(2)
    )
    run, kernel = runs(graph)[0], (3, 3)
    monkeypatch.setattr(fitting, "AT_ONCE", 27 * 100)
    widths = []
    at = fitting._Sums._at

    def counted(self, x, y, places):
        widths.append(len(places))
        return at(self, x, y, places)

    monkeypatch.setattr(fitting._Sums, "_at", counted)
    some, every = (fitting._Sums(run, kernel) for _ in range(2))
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = graph.with_outputs([run.nodes[-1]])(x)[1][run.nodes[-1]].detach()
    some.add(x, y)
    assert max(widths) <= 100 and sum(widths) == 32 * 27, "of 4,096 windows"
    for part in range(0, 64, 8):
        every.add(x[part : part + 8], y[part : part + 8])
    errors = []
    for sums in (some, every):
        found = sums.solved()
        errors.append(float((nn.functional.conv2d(x, found["weight"], found["bias"], padding=1) - y).square().mean()))
    assert errors[1] <= errors[0] <= 1.05 * errors[1]


def test_a_run_outside_of_the_scope_is_not_looked_at(data):
    graph = captured(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2),
                     nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(),
                     nn.LazyLinear(2))  # fmt: skip
    with torch.no_grad():
        graph.tensor("6.weight")[0] = float("inf")
    technique, remembered = techniques["merge"].function(), remembering(data)
    inside = list(technique.choices(graph, None, CAN, Scope(exclude=("6",))))
    assert {one.place.path for one in inside} == {"2"}
    assert technique.apply(graph, inside[-1:], remembered).plan[0].found["error"] < 1
    outside = [one for one in technique.choices(graph, None, CAN, Scope()) if one.place.path == "6"]
    with pytest.raises(PenjingError, match="6 reads or makes values that aren't finite"):
        technique.apply(graph, outside[-1:], data)
