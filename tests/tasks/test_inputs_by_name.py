"""Batches that are dictionaries: a model that is called by keywords is calibrated, judged, trained, pruned and run on them."""

import re
from collections import UserDict

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.tasks import Classification, Unlabelled, agreement, evaluate

COUNT, SIZE = 24, 8


class Pair(nn.Module):
    """Two inputs by name, and an optional one between them that is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(SIZE, 16), nn.Linear(SIZE, 16), nn.Linear(16, 3)

    def forward(self, ids, mask=None, others=None, **rest):
        assert not rest
        hidden = self.first(ids) if mask is None else self.first(ids) * mask
        return {"logits": self.head(torch.relu(hidden) + torch.relu(self.second(others)))}


class Encoding(UserDict):
    """A mapping that is no dict, as tokenizers return it."""


def batches(kind=dict, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        ids, others = (torch.randn(COUNT, SIZE, generator=generator) for _ in range(2))
        labels = (ids[:, :3] + others[:, :3]).argmax(1)
        yield kind({"others": others, "ids": ids, "mask": None, "labels": labels})


@pytest.fixture(params=[dict, Encoding])
def data(request) -> pj.Data:
    made = list(batches(request.param))
    return pj.Data(train=made, calibration=made[:2], validation=list(batches(request.param, 1)), task=Classification(3))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Pair().eval()


@pytest.fixture
def graph(model) -> pj.Graph:
    given = next(batches())
    return pj.capture(model, {name: given[name][:4] for name in ("ids", "others")})


def plain() -> dict[str, torch.Tensor]:
    return {key: one for key, one in next(batches()).items() if key in ("ids", "others")}


def test_a_mapping_is_a_call_by_name(graph, model):
    given = plain()
    wanted = model(**given)["logits"]
    for one in (given, Encoding(given), dict(reversed(given.items())), {**given, "mask": None}):
        torch.testing.assert_close(graph(one)["logits"], wanted)


def test_a_model_whose_first_argument_is_a_mapping_gets_it_as_such():
    class Nested(nn.Module):
        def forward(self, batch):
            return batch["x"] + 2 * batch["y"]

    x, y = torch.randn(2, 3), torch.randn(2, 3)
    graph = pj.capture(Nested().eval(), ({"x": x, "y": y},))
    torch.testing.assert_close(graph({"x": x, "y": y}), x + 2 * y)


def test_module_graph_and_file_are_judged_alike(graph, model, data, tmp_path):
    file = pj.targets.session(pj.lower(graph, path=tmp_path / "m.onnx"))
    found = [evaluate(one, data.validation, data.task) for one in (model, graph, file)]
    assert found[0] == found[1] == found[2]
    without = [{key: one for key, one in batch.items() if key != "labels"} for batch in data.validation]
    assert agreement(model, file, without, Unlabelled()) == 1.0


def test_it_is_trained_under_a_plain_module_and_under_a_graph(graph, model, data, tmp_path):
    how = {"epochs": 2, "lr": 0.05, "precision": "float32", "channels_last": False, "progress": False, "seed": 0}
    ends = []
    for teacher in (model, pj.capture(model, plain()), pj.distillation.Stored(model, tmp_path / "answers.safetensors")):
        student = pj.prune(graph, 0.25, criterion="l2")
        before = evaluate(student, data.validation, data.task)
        pj.recover(student, data, teacher=teacher, signal="soft_labels", **how)
        ends.append(student.state_dict()["head.weight"])
        assert evaluate(student, data.validation, data.task) >= before
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_criteria_and_explanations_look_at_it(graph, data):
    small = pj.quantize(pj.prune(graph, 0.25, criterion="taylor", data=data), data)
    told = pj.explain(graph, small, data)
    assert told.samples == 3 * COUNT and told.before is not None


def test_compress_does_the_whole_job(model, data, tmp_path):
    result = pj.compress(
        model, plain(), data=data, budget=pj.Budget(size="0.9x"), epochs=1, out=tmp_path / "out", progress=False
    )
    assert result.report["ratios"]["size"] > 1.1 and (tmp_path / "out" / "model.onnx").exists()
    assert result.report["compressed"]["metric"] is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"others": None}, "Missing input 'others': the model was captured with ids, others."),
        (
            {"others": None, "other": torch.zeros(COUNT, SIZE)},
            "Missing input 'others': the model was captured with ids, others and not with 'other'; did you mean 'others'?",
        ),
        ({"token": torch.zeros(COUNT)}, "Unexpected input 'token': the model was captured with ids, others."),
        ({"others": torch.zeros(5, SIZE)}, "Inputs 'ids' and 'others' must have the same batch"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_with_what_is_wrong(graph, change, told):
    given = {name: one for name, one in {**plain(), **change}.items() if one is not None}
    with pytest.raises(PenjingError, match=re.escape(told)):
        graph(given)
    with pytest.raises(PenjingError, match=r"Calibration batch 2 doesn't fit"):
        pj.quantize(graph, [plain(), given])


def test_augmentations_that_go_by_order_are_refused(graph, data):
    with pytest.raises(PenjingError, match="these have names"):
        pj.recover(graph, data, epochs=1, augment=["mixup"], progress=False)


def test_a_mapping_of_other_things_is_no_batch():
    for task in (Classification(3), Unlabelled()):
        with pytest.raises(PenjingError, match=r"dict with the keys x"):
            task.split({"x": "text"})


@pytest.mark.parametrize("padding", [None, 0])
def test_padding_is_found_by_name(padding):
    ids = torch.tensor([[5, 6, 0], [7, 0, 0]])
    given = {"attention_mask": (ids != 0).long(), "input_ids": ids}
    for task in (pj.tasks.TokenClassification(2, padding=padding), pj.tasks.SequenceClassification(2, padding=padding)):
        inputs, _ = task.split((given, torch.zeros(2, 3 if "Token" in repr(task) else 0).long()[:, :3].squeeze(1)))
        assert torch.equal(task.counted(inputs), ids != 0)
    if padding is not None:
        assert torch.equal(Classification(2, padding=padding).counted((given,)), ids != 0)


def test_an_input_that_is_missing_in_the_middle_is_not_replaced_by_the_next_one():
    ids = torch.ones(2, 3, dtype=torch.long)
    names = ("input_ids", "token_type_ids", "attention_mask")
    task = pj.tasks.SequenceClassification(2, inputs=names)
    labels = torch.zeros(2, dtype=torch.long)
    with pytest.raises(PenjingError, match=r"lacks 'token_type_ids', and another input would be taken for it"):
        task.split({"input_ids": ids, "attention_mask": ids, "labels": labels})
    assert len(task.split({"input_ids": ids, "token_type_ids": ids, "labels": labels})[0]) == 2


def test_heads_share_inputs_by_name():
    task = pj.tasks.MultiTask({"a": Classification(3), "b": Classification(2)})
    labels = torch.zeros(COUNT, dtype=torch.long)
    inputs, targets = task.split((plain(), {"a": labels, "b": labels}))
    assert set(inputs[0]) == {"ids", "others"} and set(targets) == {"a", "b"}


def test_a_factory_without_examples_takes_those_of_the_data(data, tmp_path, monkeypatch):
    (tmp_path / "made.py").write_text(
        "from torch import nn\nimport torch\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.head = nn.Linear(8, 3)\n\n    def forward(self, ids, others):\n        return self.head(ids + others)\n"
    )
    from penjing.models import load_model

    monkeypatch.chdir(tmp_path)
    loaded = load_model("made.py:Net", data=data)
    assert set(loaded.example_inputs) == {"ids", "others"}
