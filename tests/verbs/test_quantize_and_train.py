"""Quantising with what the verb adds to the technique: training, limits on size and on the metric's fall, and a proof."""

import copy
from dataclasses import replace
from functools import wraps

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import penjing as pj
from penjing.capabilities import find
from penjing.errors import PenjingError
from penjing.planning import grids_of
from penjing.quantization import QuantizedTraining
from penjing.quantization import quantize as quantize_once
from penjing.tasks import evaluate
from penjing.training import Interrupted
from penjing.verbs import _quantize as module
from planning.blobs import points

PLAIN = {"precision": "float32", "channels_last": False}
TRAINED = {"epochs": 1, "lr": 0.02, "progress": False, "training": PLAIN}


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8)), torch.randn(2, 12))


@pytest.fixture(scope="module")
def data():
    return pj.Data(points(1, 192), points(1, 64), points(2, 64), pj.tasks.Classification(8))


def state(graph):
    return {name: value.clone() for name, value in graph.tensors().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def equal(one, other):
    """Whether two graphs compute the same by the same ops, and tell the same of it."""
    return same(state(one), state(other)) and one.program.code == other.program.code and one.plan == other.plan


# Alone, and with training


def test_without_limits_and_epochs_it_is_quantisation_alone(graph, data):
    assert equal(pj.quantize(graph, data), quantize_once(graph, data))
    choices = {"weights": "int4", "per_layer": {"2": "int8"}, "rounding": "stochastic", "corrections": (), "seed": 3}
    assert equal(pj.quantize(graph, data, **choices), quantize_once(graph, data, **choices))


def test_weights_alone_need_no_data(graph):
    small = pj.quantize(graph, activations=None, weights="int4")
    assert equal(small, quantize_once(graph, activations=None, weights="int4"))


def test_with_epochs_the_roundings_are_trained_in_place(graph, data):
    small = pj.quantize(graph, data, weights="int4", teacher=graph, **TRAINED)
    training = QuantizedTraining(graph, data, weights="int4")
    pj.recover(
        training.graph, data, graph, 1, lr=0.02, progress=False, callbacks=[training], penalty=training.penalty, **PLAIN
    )
    assert equal(small, training.finish())


def test_the_graph_and_the_teacher_given_stay_as_they_were(graph, data):
    teacher = copy.deepcopy(graph)
    before = state(graph)
    pj.quantize(graph, data, weights="int4", teacher=teacher, **TRAINED)
    pj.quantize(graph, data, weights=("int4", "float32"), budget=pj.Budget(size="0.5x"), drop="50%", simulate=True)
    assert same(state(graph), before) and same(state(teacher), before) and not graph.plan


def test_equal_seeds_give_equal_weights_and_others_do_not(graph, data):
    inputs, labels = (torch.cat(part) for part in zip(*data.train, strict=True))
    shuffled = replace(data, train=DataLoader(TensorDataset(inputs, labels), 64, shuffle=True))
    first, again, other = (pj.quantize(graph, shuffled, weights="int2", seed=seed, **TRAINED) for seed in (3, 3, 4))
    assert equal(first, again) and not same(state(first), state(other))


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(graph, data, tmp_path, monkeypatch):
    options = TRAINED | {"weights": "int4", "epochs": 2}
    whole, recover = pj.quantize(graph, data, **options), module.recover
    options["checkpoint"] = tmp_path / "run.pt"

    @wraps(recover)
    def stopped(*given, callbacks, **how):
        def stop(_, share):
            if share > 0.6:
                raise Interrupted(share)

        return recover(*given, callbacks=[*callbacks, stop], **how)

    with monkeypatch.context() as patch:
        patch.setattr(module, "recover", stopped)
        with pytest.raises(Interrupted):
            pj.quantize(graph, data, **options)
    lines = []
    again = pj.quantize(graph, data, log=lines.append, **options)
    assert equal(again, whole) and lines[0].startswith("Going on with") and "50%" in lines[0]


def test_more_arguments_of_the_training_are_passed_on(graph, data, monkeypatch):
    seen, recover = [], module.recover

    @wraps(recover)
    def seeing(*given, **how):
        seen.append(how)
        return recover(*given, **how)

    monkeypatch.setattr(module, "recover", seeing)
    pj.quantize(graph, data, **TRAINED | {"training": {**PLAIN, "optimizer": "adamw", "warmup": 0.2}})
    (how,) = seen
    assert (how["optimizer"], how["warmup"], how["epochs"], how["lr"]) == ("adamw", 0.2, 1, 0.02)


@pytest.mark.parametrize(
    ("name", "nearest"), [("optimiser", "optimizer"), ("epochs", None), ("teacher", None), ("callbacks", None)]
)
def test_what_is_no_further_argument_of_the_training_is_refused(graph, data, name, nearest):
    with pytest.raises(PenjingError, match=rf"Unknown argument in training= '{name}'") as told:
        pj.quantize(graph, data, **TRAINED | {"training": {name: 1}})
    assert nearest is None or f"Did you mean '{nearest}'" in str(told.value)


# Limits


def test_grids_that_were_chosen_under_a_budget_are_those_that_are_trained(graph, data):
    # Both layers in 2 bits take 480 of 2720 bytes. There is room for the smaller one in 8 bits, which takes 192 more.
    choices = {"weights": ("int2", "int8"), "budget": pj.Budget(size="0.25x"), "simulate": True, "activations": None}
    chosen, trained = pj.quantize(graph, data, **choices), pj.quantize(graph, data, **choices, **TRAINED)
    assert grids_of(trained) == grids_of(chosen) == {"0": "int2", "2": "int8"}
    assert not same(state(trained), state(chosen))


def test_layers_that_a_budget_leaves_in_floating_point_are_trained_there_and_grains_stay(graph, data):
    # In floating point the graph takes 2720 bytes. In 8 bits layer 0 saves 1148 and layer 2 saves 764: one is enough.
    choices = {"weights": ("int8/tensor", "float32"), "budget": pj.Budget(size="0.7x"), "simulate": True}
    chosen, trained = pj.quantize(graph, data, **choices), pj.quantize(graph, data, **choices, **TRAINED)
    settings = [
        {step.place.path: step.setting.get("grain") for step in made.plan if step.after == "int8"}
        for made in (chosen, trained)
    ]
    assert settings[0] == settings[1] == {"0": "tensor"}


def test_of_calibration_data_that_are_needed_again_what_was_seen_is_remembered(graph, data, monkeypatch):
    class Counted(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    with torch.no_grad():
        own_answers = [(x, graph(x).argmax(1)) for x, _ in data.validation]  # which any rounding makes worse

    def passes():
        calibration = Counted(data.calibration)
        given = pj.Data(None, calibration, own_answers, data.task)
        small = pj.quantize(graph, given, weights="int2", simulate=True, drop=0.0)
        assert set(grids_of(small).values()) != {"int2"}, "layers went back"
        return calibration.passes

    remembered = passes()
    monkeypatch.setattr(module, "remembering", lambda data: data)
    assert remembered < passes()


@pytest.mark.parametrize(
    ("places", "order"),
    [
        (["block", "block.inner", "other"], ["block.inner", "block", "other"]),
        (["a.b", "a.b.c.d", "a", "a.b.c"], ["a.b.c.d", "a.b.c", "a.b", "a"]),
    ],
)
def test_a_place_within_another_comes_before_it_since_the_first_pattern_that_fits_wins(places, order):
    assert list(module._inner_first(dict.fromkeys(places, "int8"))) == order


def test_a_drop_may_stand_in_the_budget_or_by_itself(graph, data):
    one, other = (
        pj.quantize(graph, data, weights="int2", simulate=True, **limit)
        for limit in ({"drop": 0.01}, {"budget": pj.Budget(drop=0.01)})
    )
    assert equal(one, other)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"drop": -0.1}, "is no budget"),
        ({"drop": 0.1, "budget": pj.Budget(drop=0.2)}, "say the same thing"),
        ({"drop": 0.1, "epochs": 1}, "sends layers back after training"),
        ({"rounding": "adaround", "epochs": 1}, "leave out rounding="),
        ({"corrections": ("bias_correction",), "epochs": 1}, "leave out rounding= and corrections="),
        ({"epochs": 0}, r"epochs=0 is no training: pass the passes over data\.train, at least 1"),
        ({"teacher": torch.nn.Linear(1, 1)}, "teacher= is for a training: pass epochs=…"),
        ({"stages": (4,)}, "stages= is for a training"),
        ({"lr": 0.1}, "lr= is for a training"),
        ({"checkpoint": "run.pt"}, "checkpoint= is for a training"),
        ({"training": {"warmup": 0.1}}, "training= is for a training"),
        ({"method": "ste"}, "method= is for a training"),
        ({"weights": ("int4", "int8")}, r"pass budget=penjing.Budget\(size=…\)"),
        ({"weights": ("int4", "int8"), "budget": pj.Budget(drop=0.1)}, r"pass budget=penjing.Budget\(size=…\)"),
        ({"weights": "int8", "budget": pj.Budget(size="0.2x")}, "needs grids to choose from"),
        ({"weights": ("int4",), "budget": pj.Budget(size="0.2x")}, "leaves no choice"),
    ],
)
def test_arguments_that_do_not_go_together_are_told(graph, data, options, says):
    with pytest.raises(PenjingError, match=says):
        pj.quantize(graph, data, **options)


@pytest.mark.parametrize("judged", ["a list", "no validation"])
def test_a_drop_without_data_to_judge_on_is_refused(graph, data, judged):
    given = list(data.calibration) if judged == "a list" else pj.Data(None, data.calibration, None, data.task)
    with pytest.raises(PenjingError, match=r"drop=0\.1 holds the metric: pass a penjing.Data with validation="):
        pj.quantize(graph, given, drop=0.1)


def test_what_is_no_graph_no_budget_or_no_data_is_told(graph, data):
    batches = [x for x, _ in data.calibration]
    with pytest.raises(PenjingError, match=r"graph=<Linear>: it must be a captured graph, as penjing\.capture"):
        pj.quantize(torch.nn.Linear(12, 8), batches)
    with pytest.raises(PenjingError, match=r"budget='0\.3x': it must be a penjing\.Budget"):
        pj.quantize(graph, batches, budget="0.3x")
    with pytest.raises(PenjingError, match=r"list can't be trained on: with epochs=… pass a penjing\.Data"):
        pj.quantize(graph, batches, epochs=1, teacher=graph)
    with pytest.raises(
        PenjingError, match=r"^The calibration data holds NaN or infinity, in the input '[^']*' of batch 1\.$"
    ):
        pj.quantize(graph, [float("nan") * batches[0]])


def test_one_pattern_may_stand_alone(graph, data):
    small = pj.quantize(graph, data, exclude="2")
    assert grids_of(small) == grids_of(pj.quantize(graph, data, exclude=["2"])) and grids_of(small) != grids_of(
        pj.quantize(graph, data)
    )


# Targets


def test_an_unknown_target_is_told_before_anything_is_read(graph):
    def never():
        raise AssertionError("the data is read")
        yield

    for settings in ({}, {"weights": ("int4", "int8"), "budget": pj.Budget(size="0.5x")}):
        with pytest.raises(PenjingError, match="Did you mean 'torch'"):
            pj.quantize(graph, never(), target="torhc", **settings)


def test_without_integers_choosing_bits_is_refused_before_anything_is_measured(graph, data, monkeypatch):
    monkeypatch.setattr("penjing.quantization.technique.noise_of", None)
    with pytest.raises(PenjingError, match="torch computes nothing in integers"):
        pj.quantize(graph, data, target="torch", weights=("int4", "int8"), budget=pj.Budget(size="0.5x"))


def test_sizes_are_counted_for_a_target_of_one_s_own(graph, data):
    own = replace(find("onnxruntime"), name="a phone")
    chosen = pj.quantize(graph, data, target=own, weights=("int4", "int8"), budget=pj.Budget(size="0.3x"))
    assert set(grids_of(chosen).values()) == {"int4", "int8"}
    held = pj.quantize(graph, data, target=own, weights="int2", drop=0.01)
    assert evaluate(held, data.validation, data.task) >= evaluate(graph, data.validation, data.task) - 0.01
    with pytest.raises(PenjingError, match="a record of your own"):
        pj.quantize(graph, data, target=own, weights=("int4", "int8"), budget=pj.Budget(latency="0.5x"))


def test_bits_are_chosen_by_what_the_target_stores(graph, data):
    chosen = pj.quantize(
        graph, data, target="torch", activations=None, weights=("int4", "int8"), budget=pj.Budget(size="2x")
    )
    assert {step.after for step in chosen.plan} == {"int8"}, "4 bits take as much in such a file"
