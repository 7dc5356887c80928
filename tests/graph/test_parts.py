"""Capturing a part of a model whose whole can't be captured, and putting the result back."""

import importlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import penjing as pj


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        high = self.stem(x)
        return {"high": high, "low": self.down(high)}


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.boxes = nn.ModuleList([nn.Conv2d(16, 4, 1), nn.Conv2d(32, 4, 1)])

    def forward(self, features: list[Tensor]) -> Tensor:
        found = [box(f).flatten(2) for box, f in zip(self.boxes, features, strict=True)]
        return torch.cat(found, 2)


class Detector(nn.Module):
    """Its last lines depend on the data, as a detector's do."""

    def __init__(self, sums: bool = False) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = Head()
        self.sums = sums

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        features = self.backbone(torch.stack(images))
        sizes = [f.shape[-2:] for f in features.values()]
        assert len(sizes) == 2
        boxes = self.head(list(features.values()))
        if self.sums:
            boxes = boxes + features["low"].sum() * 0
        return [one[:, one[0] > 0] for one in boxes] if boxes.max() > 0 else []


IMAGES = [torch.randn(3, 8, 8), torch.randn(3, 8, 8)]


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector()


def test_a_model_that_cannot_be_captured_names_its_largest_part_that_can(detector: Detector) -> None:
    with pytest.raises(pj.PenjingError, match=r"part='backbone'") as error:
        pj.capture(detector, [IMAGES])
    assert "test_parts.py" in str(error.value)
    assert "% of the parameters" in str(error.value)


class Chain(nn.Module):
    """Layers of given widths, of which those at `choosing` choose by their data what they compute."""

    def __init__(self, *widths: int, heavy: int, choosing: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths))
        self.heavy = nn.Parameter(torch.randn(widths[-1], heavy))
        self.choosing = choosing

    def forward(self, x: Tensor) -> Tensor:
        for position, layer in enumerate(self.layers):
            x = layer(x)
            if position in self.choosing and x.sum() > 1e9:
                return x
        return x @ self.heavy


@pytest.mark.parametrize(
    ("model", "offered"),
    [
        (Chain(4, 50, 5, 2, heavy=1, choosing=(1,)), "part='layers.1'"),
        (Chain(4, 40, 20, 2, heavy=2000, choosing=(0, 1)), None),
        (Chain(4, 50, 50, 50, 2, heavy=2000, choosing=(0, 3)), r"part=\['layers.1', 'layers.2'\]"),
    ],
    ids=["one", "none", "several"],
)
def test_only_parts_that_hold_much_of_the_model_are_offered(model: Chain, offered: str | None) -> None:
    with pytest.raises(pj.PenjingError) as error:
        pj.capture(model, torch.randn(3, 4))
    assert "torch.where" in str(error.value)
    assert bool(re.search(offered, str(error.value))) if offered else "part=" not in str(error.value)


class Reads(nn.Module):
    """Reads the values of its tensors in a way of its own."""

    def __init__(self, function: Callable[["Reads", Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.GRU(8, 8, batch_first=True), function
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


LENGTHS = torch.tensor([5, 3])


def _packed(model: Reads, x: Tensor) -> Tensor:
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(model.layer(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (lambda model, x: model.encoder(x, mask=nn.Transformer.generate_square_subsequent_mask(5)), "is_causal"),
        (
            lambda model, x: model.layer(x)[0][:, : max(x.sum((1, 2)).abs().long() % 4 + 1).item()],
            "keep the padded length",
        ),
        (_packed, "Packed sequences.*padded"),
        (lambda model, x: model.layer(x)[0][:, x.sum((0, 2)).topk(2).indices.tolist()], r"not x\[:, indices.tolist"),
        (lambda model, x: model.layer(x)[0] if x.sum() > 0 else x, r"torch\.where"),
    ],
    ids=["mask", "longest", "packed", "list", "branch"],
)
def test_a_refusal_says_what_helps(
    function: Callable[[Reads, Tensor], Tensor], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    capturing = importlib.import_module("penjing.graph.capture.capture")
    monkeypatch.setattr(capturing, "largest_capturable", lambda *_: [])  # tested above, and slow
    with pytest.raises(pj.PenjingError, match=advice):
        pj.capture(Reads(function), torch.randn(2, 5, 8))


def test_a_part_keeps_the_names_of_the_whole_and_goes_back_into_it(detector: Detector) -> None:
    graph = pj.capture(detector, [IMAGES], part="backbone")
    assert set(graph.state_dict()) == {f"backbone.{name}" for name in detector.backbone.state_dict()}
    assert graph.batch is None
    modules = {n.meta["module"] for n in graph.program.graph.nodes if n.op == "call_function"}
    assert modules == {"backbone.stem.0", "backbone.stem.1", "backbone.down.0", "backbone.down.1"}
    expected = detector.backbone(torch.stack(IMAGES))
    torch.testing.assert_close(graph(torch.stack(IMAGES)), expected)
    with torch.no_grad():
        graph.get_parameter("backbone.stem.0.weight").mul_(2)
    graph.write_into(detector)
    torch.testing.assert_close(detector.backbone.stem[0].weight, graph.get_parameter("backbone.stem.0.weight"))


def test_several_parts_are_pruned_as_one(detector: Detector) -> None:
    graph = pj.capture(detector, [IMAGES], part=["backbone", "head"])
    torch.testing.assert_close(
        graph(torch.stack(IMAGES))[0], detector.head([*detector.backbone(torch.stack(IMAGES)).values()])
    )
    small = pj.prune(graph, 0.5)
    small.write_into(detector)
    assert detector.backbone.stem[0].out_channels == 8
    assert detector.head.boxes[1].in_channels == 16
    assert isinstance(detector(IMAGES), list)
    torch.testing.assert_close(
        small(torch.stack(IMAGES))[0], detector.head([*detector.backbone(torch.stack(IMAGES)).values()])
    )


def test_what_the_rest_of_the_model_uses_of_a_part_stays() -> None:
    graph = pj.capture(Detector(sums=True), [IMAGES], part=["backbone", "head"])
    high, low = pj.channels(graph).groups, [p for p in pj.channels(graph).pinned if p.op == "output"]
    assert [group.name for group in high] == ["backbone.stem.0"]
    assert "backbone.down.0.weight" in {pin.tensor for pin in low}


def test_a_wrapper_captures_what_it_calls(detector: Detector) -> None:
    class Tensors(nn.Module):
        def __init__(self, model: Detector) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inner.head(list(self.inner.backbone(x).values()))

    wrapper = Tensors(detector)
    graph = pj.capture(detector, torch.stack(IMAGES), part=wrapper)
    assert set(graph.state_dict()) == set(detector.state_dict())
    small = pj.prune(graph, 0.5)
    with pytest.raises(pj.PenjingError, match="pass the wrapper"):
        small.write_into(detector)
    small.write_into(detector, part=wrapper)
    assert detector.backbone.down[0].in_channels == 8
    torch.testing.assert_close(wrapper(torch.stack(IMAGES)), small(torch.stack(IMAGES)))


def test_a_loaded_part_goes_back_where_it_is_told_to(detector: Detector, tmp_path: Path) -> None:
    graph = pj.capture(detector, [IMAGES], part="head")
    graph.save(tmp_path / "head.penjing")
    loaded = pj.load(tmp_path / "head.penjing")
    with torch.no_grad():
        loaded.get_parameter("head.boxes.0.weight").zero_()
    loaded.write_into(detector, part="head")
    assert not detector.head.boxes[0].weight.any()


def test_several_parts_know_where_they_go_back_after_loading(detector: Detector, tmp_path: Path) -> None:
    graph = pj.capture(detector, [IMAGES], part=["backbone", "head"])
    pj.prune(graph, 0.5).save(tmp_path / "parts.penjing")
    loaded = pj.load(tmp_path / "parts.penjing")
    assert loaded.part == graph.part
    before = sum(parameter.numel() for parameter in detector.parameters())
    loaded.write_into(detector)
    assert sum(parameter.numel() for parameter in detector.parameters()) < before
    assert len(detector(IMAGES)) == len(IMAGES)


def test_a_part_of_another_model_is_refused(detector: Detector, tmp_path: Path) -> None:
    pj.capture(detector, [IMAGES], part="head").save(tmp_path / "head.penjing")
    with pytest.raises(pj.PenjingError, match="'head'"):
        pj.load(tmp_path / "head.penjing").write_into(nn.Linear(2, 2))


def test_bad_parts_are_named(detector: Detector) -> None:
    with pytest.raises(pj.PenjingError, match="Did you mean 'backbone'"):
        pj.capture(detector, [IMAGES], part="backbon")
    with pytest.raises(pj.PenjingError, match="inside 'backbone'"):
        pj.capture(detector, [IMAGES], part=["backbone", "backbone.stem"])
    with pytest.raises(pj.PenjingError, match="holds none of the model's parameters"):
        pj.capture(detector, torch.stack(IMAGES), part=nn.Conv2d(3, 4, 1))
    detector.register_module("spare", nn.Linear(2, 2))
    with pytest.raises(pj.PenjingError, match="never calls its module 'spare'"):
        pj.capture(detector, [IMAGES], part="spare")
    with pytest.raises(pj.PenjingError, match="names no module"):
        pj.capture(detector, [IMAGES], part=[])
    graph = pj.capture(detector, [IMAGES], part="head")
    with pytest.raises(pj.PenjingError, match="takes one module path"):
        graph.write_into(detector, part=["backbone", "head"])  # type: ignore[arg-type]


def test_what_is_written_over_between_two_parts_comes_from_outside() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            y += 1
            return self.two(y)  # type: ignore[no-any-return]

    model, x = Shifted(), torch.randn(2, 3, 8, 8)
    graph = pj.capture(model, x, part=["one", "two"])
    assert len(graph.inputs) == 2
    torch.testing.assert_close(graph(x, model.one(x) + 1)[1], model(x))
