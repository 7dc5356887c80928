"""Pruning composed with training: budgets, rounds, and what comes back."""

import copy

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.pruning import prune as prune_once
from penjing.report import words
from penjing.verbs import _metric, _prune


class Net(nn.Module):
    """Two linear layers, of which the first makes 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(Net(), torch.randn(2, 6))


def batches(labelled=True):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(4, 8, 6, generator=generator)
    return [(x, x[:, :3].argmax(1)) if labelled else (x,) for x in inputs]


@pytest.fixture
def data():
    return pj.Data(batches(), batches(), batches(), pj.tasks.Classification(3))


TRAINED = {"epochs": 2, "lr": 0.05, "progress": False}


def state(graph):
    return {name: value.clone() for name, value in graph.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("granularity", ["filter", "element"])
def test_without_schedule_and_epochs_it_is_pruning_alone(graph, granularity):
    small = pj.prune(graph, 0.5, granularity=granularity)
    plain = prune_once(graph, 0.5, granularity=granularity)
    assert small.plan == plain.plan and same(state(small), state(plain))
    assert {words(step.to_json()) for step in small.plan} == {f"{granularity}, l2, uniform"}


def test_one_shot_with_epochs_prunes_and_then_trains(graph, data):
    small, plain = pj.prune(graph, 0.5, data=data, **TRAINED), prune_once(graph, 0.5)
    assert small.plan == plain.plan and state(small)["first.weight"].shape == (8, 6)
    pj.recover(plain, data, **TRAINED)
    assert same(state(small), state(plain))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schedule": "cubic"}, r"schedule='cubic' trains: pass epochs=…"),
        ({"schedule": "cubic", "epochs": 0}, r"at least 1 \(not 0\)"),
        ({"schedule": "cubic", "epochs": 1, "data": None}, r"schedule='cubic' trains: pass data=… with train="),
        ({"schedule": "rewind", "epochs": 1, "data": "untrained"}, r"pass data=… with train="),
        ({"schedule": "iterative", "epochs": 1}, r"schedule='iterative' trains until .* pass drop=…"),
        ({"schedule": "iterative:3", "epochs": 1, "drop": -1.0}, r"drop=-1\.0 is no budget"),
        ({"schedule": "iterative:3", "epochs": 1, "drop": 1}, r"fall by 100 points"),
        ({"schedule": "iterative", "epochs": 1, "drop": 0.1, "data": "unjudged"}, r"pass data=… with validation="),
        ({"schedule": "cubic", "epochs": 1, "drop": 0.1}, r"drop= is for schedule='iterative'"),
        ({"lr": 0.1}, r"lr= is for a training, and schedule='one_shot' has none without epochs=…"),
        ({"drop": 0.1}, r"drop= is for a training"),
        ({"drop": 0.1, "epochs": 1}, r"drop= is for schedule='iterative'; schedule='one_shot' measures nothing"),
        ({"epochs": 0}, r"schedule='one_shot' trains: pass epochs=…, .* at least 1 \(not 0\)"),
        ({"schedule": "cubics", "epochs": 1}, r"Unknown schedule 'cubics'\. Did you mean 'cubic'"),
        (
            {"schedule": "lasso_bn", "epochs": 1, "granularity": "element"},
            r"'lasso_bn' does not go with granularity='element'",
        ),
    ],
)
def test_a_budget_that_is_missing_or_makes_no_sense_is_named(graph, data, options, says):
    others = {
        "untrained": pj.Data(None, batches(), batches(), data.task),
        "unjudged": pj.Data(batches(), batches(), None, data.task),
    }
    given = {"data": data} | options
    given["data"] = others.get(given["data"], given["data"]) if isinstance(given["data"], str) else given["data"]
    with pytest.raises(PenjingError, match=says):
        pj.prune(graph, 0.5, **given)


def test_iterative_pruning_returns_the_last_state_that_kept_the_metric(graph, data, monkeypatch):
    metrics, seen = iter([0.9, 0.95, 0.89, 0.5, 0.99]), []  # of the original, and after each round

    def metric(one, original, data):
        seen.append(state(one))
        return next(metrics)

    for module in (_prune, _metric):
        monkeypatch.setattr(module, "metric_of", metric)
    lines = []
    sparse = pj.prune(
        graph, 0.75, granularity="element", schedule="iterative:4", data=data, drop=0.02, log=lines.append, **TRAINED
    )
    assert same(state(sparse), seen[2])  # after the second of four rounds
    assert {name: round(float(mask.float().mean()), 2) for name, mask in sparse.masks.items()} == {
        "first.weight": 0.5, "second.weight": 0.5,
    }  # fmt: skip
    assert [step.after for step in sparse.plan] == [48, 24]
    assert "Round 3 of 4: the metric is 0.5, the limit 0.88." in lines


@pytest.mark.parametrize("granularity", ["element", "filter"])
def test_where_the_first_round_costs_too_much_the_graph_comes_back_as_it_was(graph, data, monkeypatch, granularity):
    monkeypatch.setattr(_prune, "least", lambda *_: 0.9)
    monkeypatch.setattr(_prune, "metric_of", lambda *_: 0.1)
    same_graph = pj.prune(graph, 0.9, granularity=granularity, schedule="iterative", data=data, drop=0.0, **TRAINED)
    assert same(state(same_graph), state(graph)) and not same_graph.plan and same_graph.masks == {}


def test_iterative_pruning_goes_to_the_amount_where_the_metric_holds(graph, data):
    small = pj.prune(graph, 0.75, schedule="iterative:3", data=data, drop="100%", **TRAINED)
    assert state(small)["first.weight"].shape == (4, 6)


def test_without_labels_the_agreement_with_the_original_may_fall(graph):
    data = pj.Data(None, batches(False), batches(False), pj.tasks.Unlabelled())  # a teacher needs no more
    options = {"schedule": "iterative:6", "data": data, "teacher": graph, **TRAINED}
    lines = []
    small = pj.prune(graph, 0.95, drop=0.2, log=lines.append, **options)
    assert "Without labels, agreement with the graph given stands in for the metric: top-1." in lines
    agreement = pj.tasks.agreement(small, graph, data.validation, data.task)
    assert agreement >= 0.8
    assert 1 < state(small)["first.weight"].shape[0] < 16


@pytest.mark.parametrize("schedule", ["rewind:2", "splicing", "one_shot"])
def test_what_was_trained_already_is_taken_from_checkpoints(graph, data, tmp_path, schedule, monkeypatch):
    options = {"granularity": "element", "schedule": schedule, "data": data, **TRAINED}
    file = tmp_path / "run.pt"
    whole = pj.prune(graph, 0.5, **options)
    first = pj.prune(graph, 0.5, checkpoint=file, **options)
    count = 3 if schedule == "rewind:2" else 1
    names = [f"run-{i + 1}.pt" for i in range(3)] if count == 3 else ["run.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    (tmp_path / names[-1]).unlink()  # as if it had been stopped before the last training
    steps = []
    monkeypatch.setattr("torch.optim.SGD.step", _counted(steps))
    again = pj.prune(graph, 0.5, checkpoint=file, **options)
    assert len(steps) == 2 * 4
    assert same(state(whole), state(first)) and same(state(whole), state(again)) and again.plan == whole.plan


def _counted(steps):
    step = torch.optim.SGD.step

    def counted(self, *arguments, **options):
        steps.append(1)
        return step(self, *arguments, **options)

    return counted


def test_the_graph_and_the_teacher_given_stay_as_they_were(graph, data):
    teacher = copy.deepcopy(graph)
    before = state(graph)
    pj.prune(graph, 0.5, schedule="splicing", data=data, teacher=teacher, **TRAINED)
    assert same(state(graph), before) and same(state(teacher), before) and not graph.plan and graph.masks == {}
