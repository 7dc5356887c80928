"""What a user asked for: what of it tells runs apart, what is filled in, and what is refused before anything is written."""

import copy
import importlib.util
import json
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from penjing import capabilities
from penjing.budget import Budget
from penjing.data import Data
from penjing.distillation import Mean, One
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.planning import Deployment
from penjing.planning.solvers import solvers
from penjing.run.request import CALIBRATION_BATCHES, CompressRequest, hash_of, settled
from penjing.tasks import Classification, Unlabelled
from penjing.techniques import Scope
from penjing.training import TrainingSettings


class Net(nn.Module):
    """Two linear layers, of which the first makes 32 channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 32), nn.Linear(32, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return capture(Net(), torch.randn(2, 4))


def batches(count=2, labelled=True):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 6, 4, generator=generator)
    return [(x, x[:, :3].argmax(1)) if labelled else (x,) for x in inputs]


DATA = Data(batches(), batches(), batches(), Classification(3), "points")


VALUES = {"deployment": Deployment, "scope": Scope, "training": TrainingSettings}  # what the request holds as values


def asked(**changes):
    """A request with these values of arguments that `compress` has, and of further settings of the training."""
    parts = {
        name: kind(**{field.name: changes.pop(field.name) for field in fields(kind) if field.name in changes})
        for name, kind in VALUES.items()
    }
    return CompressRequest(**{"data": DATA, "criterion": "l2"} | parts | changes)


# Settings

OTHERS = {
    "data": replace(DATA, validation=batches(3)),
    "target": "torch",
    "budget": Budget(size="0.5x"),
    "include": ("first",),
    "exclude": ("second",),
    "keep_channels": ("first",),
    "keep_float": ("second",),
    "epochs": 6,
    "criterion": "l1",
    "techniques": ("factorize", "quantize"),
    "grid": "int4",
    "solver": "another",
    "lr": 0.1,
    "optimizer": "adamw",
    "momentum": 0.8,
    "weight_decay": 0.0,
    "warmup": 0.1,
    "clip_norm": None,
    "temperature": 2.0,
    "distill_weight": 0.5,
    "taps": "first",
    "precision": "float32",
    "channels_last": True,
    "threads": 2,
    "batch": 2,
    "seed": 1,
    "units": "heads",
    "min_channels": 2,
    "trained": False,
    "signal": "values",
    "balance": "auto",
    "schedule": "staged",
    "penalty": "orthogonal",
    "penalty_weight": 0.5,
    "layer_decay": 0.8,
    "ema": 0.9,
    "reestimate_norms": True,
    "augment": ("mixup",),
    "label_smoothing": 0.1,
    "stop_at": 0.5,
    "keep": "best",
    "teacher": One(nn.Linear(4, 3)),
}
BESIDE = {"penalty_weight": {"penalty": "orthogonal"}}  # what an argument means nothing without
# Another value is the same run.
SAME = {"max_minutes": 3.0, "trackers": ("tensorboard",), "report": print, "untrained_teachers": ("net.py:make",)}


def test_every_argument_is_tried_here():
    names = {field.name for kind in (CompressRequest, *VALUES.values()) for field in fields(kind)}
    assert {*OTHERS, *SAME} == names - set(VALUES)


@pytest.fixture
def another(monkeypatch):
    """One more solver, named "another"."""
    monkeypatch.setattr(solvers, "_entries", dict(solvers))

    @solvers.register(source="made for this test")
    def another(problem):
        """Chooses nothing."""


def test_a_solver_whose_package_is_missing_is_refused_before_anything_is_done(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    with pytest.raises(PenjingError, match=r"'tpe' needs a package .* optuna: pip install 'penjing\[search\]'"):
        asked(solver="tpe")


@pytest.mark.usefixtures("another")
@pytest.mark.parametrize("name", OTHERS)
def test_another_value_of_any_argument_is_another_run(graph, name):
    beside = BESIDE.get(name, {})
    usual, other = asked(**beside).settings(graph), asked(**beside, **{name: OTHERS[name]}).settings(graph)
    assert {key for key in usual if usual[key] != other[key]} == {name}


@pytest.mark.parametrize("name", SAME)
def test_another_time_limit_and_other_trackers_are_the_same_run(graph, name):
    assert asked(**{name: SAME[name]}).settings(graph) == asked().settings(graph)


def test_another_model_is_another_run(graph):
    other = copy.deepcopy(graph)
    with torch.no_grad():
        other.tensor("first.bias")[0] += 1e-6
    usual = asked().settings(graph)
    assert usual["model"] == asked().settings(copy.deepcopy(graph))["model"] != asked().settings(other)["model"]


def test_settings_are_plain_json(graph):
    settings = asked(budget=Budget(latency="0.5x", drop=0.01), include=("first",)).settings(graph)
    assert json.loads(json.dumps(settings)) == settings


class Other(Net):
    """The same tensors in another function."""

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def test_the_same_tensors_under_other_names_or_in_other_ops_are_another_model(graph):
    torch.manual_seed(0)
    net = Net()
    renamed = nn.Sequential(net.first, nn.ReLU(), net.second)
    other = Other()
    other.load_state_dict(net.state_dict())
    hashes = [hash_of(capture(model, torch.randn(2, 4))) for model in (net, renamed, other)]
    assert hashes[0] == hash_of(graph) and len(set(hashes)) == 3


def test_a_function_that_shows_no_sample_is_refused_before_anything_is_measured(graph):
    asked(data=replace(DATA, show=lambda sample: f"{float(sample[0]):.1f}")).check(graph)
    with pytest.raises(PenjingError, match=r"data\.show must give a text"):
        asked(data=replace(DATA, show=lambda sample: 3)).check(graph)


# What follows from the arguments


def test_the_main_file_s_suffix_comes_first():
    assert asked().suffix == ".onnx" == asked().suffixes[0]


def test_techniques_work_where_the_user_allows_and_by_the_criterion_that_was_asked_for(graph):
    request = asked(include=("first",), exclude=("second",), units="features", min_channels=2, criterion="l1", seed=3)
    assert request.scope == Scope(("first",), ("second",), "features", 2)
    techniques = request.proposing()
    assert list(techniques) == ["prune", "quantize"]
    options = list(techniques["prune"].propose(graph, DATA, capabilities.find("onnxruntime"), request.scope))
    assert options and {(o.setting["criterion"], o.setting["seed"]) for o in options} == {("l1", 3)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": "onxruntime"}, "Did you mean 'onnxruntime'"),
        ({"precision": "float16"}, "Unknown precision 'float16'"),
        ({"signal": "soft_label"}, "Did you mean 'soft_labels'"),
        ({"signal": "dkd", "data": Data(None, batches(labelled=False), None, Unlabelled())}, "'dkd' needs labels"),
        ({"balance": "autos"}, "Did you mean 'auto'"),
        ({"schedule": "stage"}, "Did you mean 'staged'"),
        ({"solver": "widest_that_fit"}, "Unknown solver 'widest_that_fit'.*Did you mean 'widest_that_fits'"),
        ({"solver": "least_noise"}, r"'least_noise' chooses the bits .* quantize\(…\) .* 'widest_that_fits'"),
        ({"epochs": -1}, "epochs=-1"),
        ({"channels_last": "never"}, "channels_last='never'"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(changes, says):
    with pytest.raises(PenjingError, match=says):
        asked(**changes)


# What is filled in


@pytest.mark.parametrize(
    ("data", "criterion"),
    [
        (Data(batches(), None, batches(), Classification(3)), "taylor"),
        (Data(batches(), None, None, Classification(3)), "taylor"),
        (Data(None, batches(), batches(), Classification(3)), "l2"),
        (Data(batches(labelled=False), None, None, Unlabelled()), "l2"),
    ],
)
def test_channels_are_ranked_by_gradients_where_there_is_labelled_training_data(data, criterion):
    assert settled(None, data)[0] == criterion


def test_a_criterion_that_was_named_stays_where_the_data_has_what_it_needs():
    assert settled("l1", DATA)[0] == "l1"
    assert settled("fisher", replace(DATA, train=None))[0] == "fisher", "labelled calibration data will do"


@pytest.mark.parametrize(
    "data",
    [Data(batches(labelled=False), None, None, Unlabelled()), Data(None, None, batches(), Classification(3))],
)
def test_a_criterion_that_needs_labels_is_refused_without_labelled_data_to_rank_on(data):
    with pytest.raises(PenjingError, match="The criterion 'taylor' needs labelled data, and custom has none; 'l2'"):
        settled("taylor", data)


def test_calibration_data_of_the_user_s_own_stays():
    own = batches(1)
    assert settled(None, replace(DATA, calibration=own))[1].calibration is own


def test_without_calibration_data_the_first_validation_batches_serve_or_else_those_of_training():
    many, few = batches(CALIBRATION_BATCHES + 3), batches(2)
    found = settled(None, Data(few, None, many, Classification(3)))[1]
    assert found.calibration == many[:CALIBRATION_BATCHES] and found.validation is many and found.train is few
    assert settled(None, Data(few, None, None, Classification(3)))[1].calibration == few


def test_data_without_any_part_is_refused():
    with pytest.raises(PenjingError, match="The data is empty: give at least one of train, calibration and validation"):
        settled(None, Data(None, None, None, Classification(3)))


# Whether model, data and choices fit together


def test_what_fits_together_passes_and_leaves_the_model_as_it_was(graph):
    before = {name: tensor.clone() for name, tensor in graph.tensors().items()}
    asked(criterion="taylor").check(graph)
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.tensors().items()) and not graph.plan


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher": One(nn.Linear(4, 5))}, r"\(6, 3\).*its teacher of .*\(6, 5\)"),
        ({"teacher": One(nn.Linear(5, 3))}, "The teacher can't take a batch"),
        ({"teacher": Mean(nn.Linear(4, 3), nn.Linear(4, 5))}, "The teachers disagree"),
        ({"teacher": Mean(Net(), Net()), "signal": "hints"}, "'hints' looks inside .* several networks"),
        ({"teacher": One(nn.Linear(4, 3)), "signal": "hints"}, "blocks"),
        ({"signal": "transformer"}, "sequences"),
    ],
)
def test_a_teacher_that_can_not_teach_the_model_is_told_before_anything_is_measured(graph, changes, says):
    with pytest.raises(PenjingError, match=says):
        asked(**changes).check(graph)
    asked(**changes, epochs=0).check(graph)


@pytest.mark.parametrize(
    "changes", [{}, {"signal": "dkd"}, {"data": Data(None, batches(labelled=False), None, Unlabelled())}]
)
def test_a_teacher_that_can_teach_the_model_passes(graph, changes):
    asked(teacher=Mean(nn.Linear(4, 3), nn.Linear(4, 3)), **changes).check(graph)


class Drawing:
    """A loader that draws from PyTorch's generator, as one that shuffles does."""

    def __iter__(self):
        torch.rand(3)
        return iter(batches())


def test_checking_leaves_the_user_s_random_numbers_alone(graph):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    asked(data=replace(DATA, train=Drawing(), validation=Drawing())).check(graph)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"include": ("third",)}, "third"),
        ({"exclude": ("third",)}, "third"),
        ({"data": replace(DATA, train=[])}, r"data\.train of 'points' holds no batches"),
        ({"data": replace(DATA, task=Classification(5))}, "5"),
        (
            {"data": replace(DATA, validation=[(torch.randn(6, 5), torch.zeros(6, dtype=torch.long))])},
            "outputs don't fit|takes|shape",
        ),
        ({"criterion": "bn_scale"}, "bn_scale"),
        ({"signal": "transformer"}, r"No sequences .* could be paired"),
    ],
)
def test_what_does_not_fit_together_is_told(graph, changes, says):
    with pytest.raises(PenjingError, match=says):
        asked(**changes).check(graph)


def test_a_criterion_that_fails_on_the_user_s_loss_names_both(graph):
    class Broken(Classification):
        def loss(self, outputs, targets):
            raise RuntimeError("no such loss")

    with pytest.raises(
        PenjingError, match=r"The criterion 'taylor' fails on this model and the data points: .*no such"
    ):
        asked(criterion="taylor", data=replace(DATA, task=Broken(3))).check(graph)


def test_a_metric_that_fails_on_the_outputs_says_where_the_slip_may_be(graph):
    class Broken(Classification):
        def metric(self):
            raise ValueError("no such classes")

    with pytest.raises(
        PenjingError, match=r"outputs don't fit the data points and its task: no such classes\. Does the"
    ):
        asked(data=replace(DATA, task=Broken(3))).check(graph)


def test_an_augmentation_that_can_not_change_such_data_is_told_before_anything_is_measured(graph):
    with pytest.raises(PenjingError, match=r"augment='cutmix' changes inputs that are images"):
        asked(augment=("cutmix",)).check(graph)
    asked(augment=("cutmix",), epochs=0).check(graph)
    asked(augment=("mixup",)).check(graph)


def test_labels_that_can_not_be_smoothed_are_told(graph):
    with pytest.raises(PenjingError, match=r"label_smoothing=0\.1"):
        asked(label_smoothing=0.1, data=Data(None, batches(labelled=False), None, Unlabelled()))


def test_only_techniques_that_were_named_propose(graph):
    request = asked(techniques=("factorize", "quantize"))
    assert list(request.proposing()) == ["factorize", "quantize"]
    assert request.settings(graph)["techniques"] == ["factorize", "quantize"] != asked().settings(graph)["techniques"]
    with pytest.raises(PenjingError, match="factorize"):
        asked(techniques=("factorise",))
    with pytest.raises(PenjingError, match="names none"):
        asked(techniques=())
