"""Every public verb refuses what an argument can't be, at once, naming the argument, what was given, and what is allowed."""

import copy
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import penjing as pj
from penjing.checks import PATTERNS, SEED, Unfit, among, checked, either, mapping, number, optional, several, whole
from penjing.targets import open_artifact, profile, session, write_runner

HUGE = 10**400  # more than a float can hold; Python doesn't write numbers of ten times as many digits


class Strange:
    """No argument of anything."""


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 4, generator=generator), torch.arange(4) % 3) for _ in range(count)]


def data_of(**changes):
    given = {"train": batches(), "calibration": batches(), "validation": batches()} | changes
    return pj.Data(**given, task=pj.tasks.Classification(3))


@pytest.fixture(scope="module")
def lowered(graph, tmp_path_factory):
    return pj.lower(graph, path=tmp_path_factory.mktemp("lowered") / "m.onnx")


@pytest.fixture
def verbs(graph, lowered, tmp_path, monkeypatch):
    """By name, each verb with arguments that are right."""
    monkeypatch.chdir(tmp_path)
    module, x = nn.Linear(4, 3), torch.randn(2, 4)
    quiet = {"progress": False}
    return {
        "capture": (pj.capture, {"model": module, "example_inputs": x}),
        "channels": (pj.channels, {"graph": graph}),
        "prune": (pj.prune, {"graph": graph, "amount": 0.5}),
        "quantize": (pj.quantize, {"graph": graph, "data": data_of()}),
        "recover": (pj.recover, {"graph": copy.deepcopy(graph), "data": data_of(), "epochs": 1, **quiet}),
        "lower": (pj.lower, {"graph": graph, "path": tmp_path / "m.onnx"}),
        "measure": (pj.measure, {"artifact": lowered}),
        "write_into": (graph.write_into, {"model": copy.deepcopy(module)}),
        "profile": (profile, {"artifact": lowered}),
        "session": (session, {"artifact": lowered}),
        "open": (open_artifact, {"path": lowered.path}),
        "runner": (write_runner, {"directory": tmp_path}),
        "load": (pj.load, {"path": "m.penjing"}),
        "save": (graph.save, {"path": tmp_path / "m.penjing"}),
        "compress": (pj.compress, {"model": graph, "data": data_of(), "out": tmp_path / "out", "dry_run": True}),
        "budget": (pj.Budget, {}),
        "data": (pj.Data, {"train": None, "calibration": None, "validation": None, "task": pj.tasks.Unlabelled()}),
        "digits": (pj.data.digits, {}),
        "folder": (pj.data.image_folder, {"path": "photos"}),
        "data.load": (pj.data.load, {"spec": "digits"}),
        "classification": (pj.tasks.Classification, {}),
        "evaluate": (pj.tasks.evaluate, {"run": graph, "loader": batches(), "task": pj.tasks.Classification(3)}),
        "evaluate unlabelled": (
            pj.tasks.evaluate,
            {"run": graph, "loader": batches(), "task": pj.tasks.Unlabelled()},
        ),
        "build": (pj.zoo.build, {"name": "lenet5"}),
        "resnet20": (pj.zoo.resnet20, {}),
    }


NO_WHOLE = (-1, 1.5, math.nan, True, "3", HUGE, 2**64, Strange())
NO_COUNT = (0, *NO_WHOLE)
NO_NUMBER = (math.nan, math.inf, "0.1", True, HUGE, Strange())
NO_TEXT = (5, 1.5, None, ["int8", 3], Strange())
NO_PATTERNS = (5, [5], None, {"a": 1}, Strange())
NO_PATH = (5, "", "a\0b", None, Strange())
NO_FUNCTION = (5, "print", Strange())
ON_META = nn.Linear(4, 3, device="meta")
SCRIPT = torch.jit.script(nn.Linear(4, 3))

TABLE = {
    "capture": {
        "model": (None, "net", ON_META, SCRIPT, nn.Sequential(nn.ReLU(), SCRIPT), Strange()),
        "kwargs": ([], "a", 3),
        "dynamic": ({"x": "01"}, {"x": (0.5,)}, {3: (0,)}, [0], 3),
        "part": (3, [3], ON_META),
    },
    "channels": {
        "graph": (None, nn.Linear(2, 2), "graph"),
        "include": NO_PATTERNS,
        "exclude": NO_PATTERNS,
        "units": NO_TEXT,
    },
    "prune": {
        "graph": (None, nn.Linear(2, 2)),
        "criterion": NO_TEXT,
        "granularity": NO_TEXT,
        "allocation": NO_TEXT,
        "schedule": NO_TEXT,
        "round_to": tuple(value for value in NO_COUNT if value is not None),
        "min_channels": NO_COUNT,
        "units": NO_TEXT,
        "data": (5, "digits", batches()),
        "include": NO_PATTERNS,
        "exclude": NO_PATTERNS,
        "batches": NO_COUNT,
        "seed": NO_WHOLE,
        "epochs": NO_WHOLE,
        "drop": (-0.1, "much", "150%", math.nan, math.inf, True, HUGE, [], Strange()),
        "teacher": (5, ON_META, [], [ON_META], Strange()),
        "lr": (0, -1, *NO_NUMBER),
        "checkpoint": (5, "", "\0"),
        "progress": (5, "never", None),
        "log": NO_FUNCTION,
    },
    "quantize": {
        "graph": (None, nn.Linear(2, 2)),
        "weights": NO_TEXT,
        "activations": (5, ["uint8"]),
        "observer": NO_TEXT,
        "grain": NO_TEXT,
        "rounding": NO_TEXT,
        "corrections": NO_TEXT,
        "per_layer": (5, "int8", {"a": 8}, ["int8"]),
        "include": NO_PATTERNS,
        "exclude": NO_PATTERNS,
        "in_float": NO_PATTERNS,
        "target": (5, None, Strange()),
        "placement": (5, None, Strange()),
        "simulate": (1, "yes", None),
        "seed": NO_WHOLE,
        "budget": ("0.5x", 5),
        "drop": (-0.1, "much", "150%", math.nan, math.inf, True, HUGE, [], Strange()),
        "epochs": NO_WHOLE,
        "method": NO_TEXT,
        "stages": (8, "84", (0,), (4.5,), (True,)),
        "teacher": (5, "net", ON_META, [], [ON_META]),
        "lr": (0, *NO_NUMBER),
        "checkpoint": (5, ""),
        "training": (5, "lr"),
        "log": NO_FUNCTION,
    },
    "recover": {
        "graph": (None, ON_META, "net"),
        "data": (None, 5, batches()),
        "teacher": (5, "net", ON_META, [], [ON_META]),
        "epochs": NO_WHOLE,
        "lr": (0, *NO_NUMBER),
        "momentum": (1, -0.1, *NO_NUMBER),
        "weight_decay": (-0.1, *NO_NUMBER),
        "warmup": (1, *NO_NUMBER),
        "clip_norm": (0, *NO_NUMBER),
        "temperature": (0, *NO_NUMBER),
        "distill_weight": (1.1, -0.1, *NO_NUMBER),
        "optimizer": NO_TEXT,
        "signal": NO_TEXT,
        "precision": NO_TEXT,
        "channels_last": (2, "yes", None),
        "seed": (2**32, *NO_WHOLE),
        "stop_at": NO_NUMBER,
        "keep": (5, None, "first"),
        "trackers": ("tensorboard", 5, [5]),
        "save_every": (-1, *NO_NUMBER),
        "deadline": NO_NUMBER,
        "callbacks": (5, [5], print),
        "report": NO_FUNCTION,
        "penalty": (*NO_FUNCTION, "", ["orthogonal"]),
        "penalty_weight": (0.1, -1, *NO_NUMBER),
    },
    "lower": {
        "graph": (None, nn.Linear(2, 2)),
        "target": NO_TEXT,
        "path": (5, "", "\0"),
        "weights": (16, None, "half"),
    },
    "measure": {
        "artifact": (None, "m.onnx", 5),
        "threads": (*NO_COUNT, 1025),
        "batch": (*NO_COUNT, 2**20),
        "runs": NO_COUNT,
        "seconds": (-1, *NO_NUMBER),
        "memory": (1, "no"),
    },
    "write_into": {"model": (None, "x", 5, nn.Linear, ON_META), "part": (5, [3])},
    "profile": {"artifact": (None, "m.onnx"), "threads": NO_COUNT, "batch": NO_COUNT},
    "session": {"artifact": (None,), "threads": (*NO_COUNT, 2**40)},
    "open": {"path": NO_PATH, "target": NO_TEXT},
    "runner": {"directory": NO_PATH, "target": NO_TEXT},
    "load": {"path": NO_PATH},
    "save": {"path": NO_PATH, "compact": (1, "yes")},
    "compress": {
        "model": (None, "zoo:lenet5", ON_META),
        "data": (None, "digits", 5),
        "target": NO_TEXT,
        "budget": ("0.5x", 5),
        "include": NO_PATTERNS,
        "exclude": NO_PATTERNS,
        "keep_channels": NO_PATTERNS,
        "keep_float": NO_PATTERNS,
        "units": NO_TEXT,
        "min_channels": NO_COUNT,
        "out": NO_PATH,
        "epochs": (10**30, 0.5, *NO_WHOLE),
        "grid": NO_TEXT,
        "solver": NO_TEXT,
        "criterion": (5, ["l2"]),
        "lr": (0, *NO_NUMBER),
        "penalty": (5, "", "lasso", ["orthogonal"]),
        "penalty_weight": (0.1, -1, *NO_NUMBER),
        "teacher": (5, "zoo:lenet5", ON_META, [], [ON_META]),
        "precision": NO_TEXT,
        "channels_last": (2, None),
        "threads": (2**40, *NO_COUNT),
        "batch": (1.5, 2**40, *NO_COUNT),
        "seed": (2**32, *NO_WHOLE),
        "stop_at": NO_NUMBER,
        "keep": (5, None, "first"),
        "trackers": ("tensorboard", 5, [5]),
        "max_minutes": (0, -1, *NO_NUMBER),
        "dry_run": (1, None),
        "progress": (1, None),
        "say": NO_FUNCTION,
        "inputs": ([], {"a": 5}),
    },
    "budget": {
        "latency": (5, True, "5", [], "-1ms", "1e999ms", Strange()),
        "size": (5, True, "5", [], "-1MB", Strange()),
        "drop": (-0.1, "150%", "100.1 %", math.nan, math.inf, True, [], Strange()),
    },
    "data": {
        "task": (None, "classification", pj.tasks.Classification),
        "name": (None, 5, ""),
        "train": (5, iter([])),
        "validation": (5, iter([])),
        "classes": (5, "ab", [5]),
        "preprocess": (5, {}),
        "fingerprint": (5, None),
    },
    "digits": {"batch_size": NO_COUNT, "channels": (2, 4, *NO_COUNT), "size": NO_COUNT, "seed": (2**32, *NO_WHOLE)},
    "folder": {
        "path": NO_PATH,
        "size": NO_COUNT,
        "batch_size": NO_COUNT,
        "resize": NO_COUNT,
        "channels": (2, *NO_COUNT),
        "mean": ("0.5", [0.5, "a"], *NO_NUMBER),
        "std": (0, [0.5, 0.0, 1.0], *NO_NUMBER),
        "flip": (1, None),
        "calibration": NO_COUNT,
        "num_workers": (10**6, *NO_WHOLE),
        "seed": NO_WHOLE,
    },
    "data.load": {"spec": NO_TEXT, "seed": NO_WHOLE},
    "classification": {"classes": NO_COUNT, "label_smoothing": (1, -0.1, *NO_NUMBER)},
    "evaluate": {"run": (None, 5, "net"), "loader": (None, 5), "task": (None, "accuracy"), "limit": NO_COUNT},
    "evaluate unlabelled": {"loader": (None, 5)},
    "build": {"name": NO_TEXT, "num_classes": NO_COUNT, "in_channels": NO_COUNT},
    "resnet20": {"num_classes": NO_COUNT, "in_channels": NO_COUNT},
}


@pytest.mark.parametrize(("verb", "argument"), [(verb, argument) for verb, rows in TABLE.items() for argument in rows])
def test_an_argument_that_can_not_be_is_refused_by_name(verbs, verb, argument, tmp_path):
    function, right = verbs[verb]
    for value in TABLE[verb][argument]:
        with pytest.raises(pj.PenjingError) as refused:
            function(**right | {argument: value})
        assert re.search(argument.removesuffix("s"), str(refused.value), re.IGNORECASE), f"{value!r}: {refused.value}"
        assert len(str(refused.value)) < 400
    assert list(Path(tmp_path).iterdir()) == []  # nothing was written


# What is wrong only when it is used


def failing(after):
    class Loader:
        def __len__(self):
            return 3

        def __iter__(self):
            yield from batches(after)
            raise OSError("the disk is gone")

    return Loader()


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    "use",
    [
        lambda graph, loader: pj.recover(copy.deepcopy(graph), data_of(train=loader), epochs=1, progress=False),
        lambda graph, loader: pj.quantize(graph, data_of(calibration=loader)),
        lambda graph, loader: pj.quantize(graph, loader),
        lambda graph, loader: pj.prune(graph, 0.5, criterion="taylor", data=data_of(train=loader)),
        lambda graph, loader: pj.tasks.evaluate(graph, loader, pj.tasks.Classification(3)),
        lambda graph, loader: pj.tasks.agreement(graph, graph, loader, pj.tasks.Classification(3)),
    ],
    ids=["recover", "quantize", "batches", "prune", "evaluate", "agreement"],
)
def test_a_loader_that_raises_is_told_with_its_batch_and_line(graph, use, after):
    with pytest.raises(pj.PenjingError) as told:
        use(graph, failing(after))
    assert f"asked for batch {after + 1}, raised OSError: the disk is gone (" in str(told.value)
    assert 'raise OSError("the disk is gone")' in str(told.value) and isinstance(told.value.__cause__, OSError)


@pytest.mark.parametrize("part", ["train", "calibration", "validation"])
def test_a_part_without_batches_is_refused_before_anything_is_written(graph, tmp_path, part):
    with pytest.raises(pj.PenjingError, match=rf"data\.{part} of 'custom' holds no batches"):
        pj.compress(graph, data=data_of(**{part: []}), out=tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "teacher", [nn.Linear(5, 3), nn.Conv2d(4, 3, 1), nn.LSTM(7, 3), torch.jit.script(nn.Linear(5, 3))]
)
def test_a_teacher_of_other_inputs_is_told(graph, teacher):
    with pytest.raises(pj.PenjingError, match=r"The teacher can't take a batch .*inputs of shape \(4, 4\).*raised"):
        pj.recover(copy.deepcopy(graph), data_of(), teacher=teacher, epochs=1, progress=False, precision="float32")


def test_a_teacher_of_other_outputs_is_told(graph):
    with pytest.raises(pj.PenjingError, match=r"outputs of shapes \[\(4, 3\)\], its teacher of \[\(4, 5\)\]"):
        pj.recover(copy.deepcopy(graph), data_of(), teacher=nn.Linear(4, 5), epochs=1, progress=False)


def test_a_script_module_may_teach(graph):
    taught = pj.recover(copy.deepcopy(graph), data_of(), teacher=SCRIPT, epochs=1, progress=False, precision="float32")
    assert not torch.equal(taught.tensor("0.weight"), graph.tensor("0.weight"))


def test_a_graph_that_was_moved_to_meta_is_refused_everywhere(graph, tmp_path):
    gone = copy.deepcopy(graph).to("meta")
    for verb in (
        lambda: pj.prune(gone, 0.5),
        lambda: pj.quantize(gone),
        lambda: pj.lower(gone),
        lambda: pj.channels(gone),
    ):
        with pytest.raises(pj.PenjingError, match="not on 'meta'"):
            verb()


@pytest.mark.parametrize("inputs", [5, "x", Strange(), {1, 2}, object])
def test_inputs_of_a_file_that_are_none_are_refused(lowered, inputs):
    with pytest.raises(pj.PenjingError, match=r"takes a tensor or an array, a sequence of them, or a mapping"):
        profile(lowered, inputs=inputs)


def test_an_argument_of_the_training_that_there_is_not_is_named(graph):
    with pytest.raises(pj.PenjingError, match=r"Unknown argument in training= 'momentun'\. Did you mean 'momentum'"):
        pj.quantize(graph, data_of(), epochs=1, training={"momentun": 0.9})
    with pytest.raises(pj.PenjingError, match=r"Unknown argument in training= 'epochs'"):
        pj.quantize(graph, data_of(), epochs=1, training={"epochs": 2})


# The rules


@checked(count=whole(1, 5), share=optional(number(0, below=1)), names=PATTERNS, seed=SEED)
def echo(count, share=None, *, names=(), seed=0):
    """Returns what it was given."""
    return count, share, names, seed


def test_what_fits_comes_through_as_plain_values():
    assert echo(np.int64(3), np.float32(0.5), names="a*", seed=np.uint8(7)) == (3, 0.5, ("a*",), 7)
    assert [type(value) for value in echo(np.int64(3), Fraction(1, 2))[:2]] == [int, float]
    assert echo(1, names=["a", "b"]) == (1, None, ("a", "b"), 0) and echo(1) == (1, None, (), 0)


def test_calls_that_python_itself_refuses_are_refused_as_ever():
    with pytest.raises(TypeError, match=r"echo\(\) missing 1 required positional argument: 'count'"):
        echo()
    with pytest.raises(TypeError, match=r"echo\(\) got an unexpected keyword argument 'cuont'"):
        echo(cuont=1)
    assert echo.__name__ == "echo" and echo.__doc__ == "Returns what it was given."


def test_an_argument_that_there_is_not_is_told_with_the_verb_that_was_called(lowered):
    for name in ("foo", "inputs", "artifacts"):
        with pytest.raises(TypeError, match=rf"^measure\(\) got an unexpected keyword argument '{name}'"):
            pj.measure(lowered, **{name: 1})


def test_a_rule_for_an_argument_that_there_is_not_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="no arguments"):
        checked(seed=SEED)(lambda count: count)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (whole(0, 3), (0, 3, np.int8(2)), (-1, 4, 1.0, True, np.True_, None, "1")),
        (
            number(0, most=1),
            (0, 1, 0.5, np.float64(0.1), Fraction(1, 3)),
            (-1e-9, 1.1, math.nan, math.inf, True, HUGE, 1j),
        ),
        (number(above=0, below=1), (0.5,), (0, 1)),
        (among("auto", True), ("auto", True), (False, 1, "a", None)),
        (several(whole(0, 3), "numbers"), ((), [1, 2], (3,)), ("12", {1: 2}, 3, [4])),
        (mapping(whole(0, 3), "a mapping"), ({}, {"a": 1}), ([], {1: 1}, {"a": 4})),
        (either(whole(0, 3), among("all")), (1, "all"), ("none", 4)),
        (optional(whole(0, 3)), (None, 1), ("", 4)),
    ],
)
def test_a_rule_takes_what_it_says(rule, right, wrong):
    for value in right:
        rule.read("it", value)
    for value in wrong:
        with pytest.raises(Unfit, match=rf"^it=.*: it must be {re.escape(rule.says)}\.$"):
            rule.read("it", value)


@pytest.mark.parametrize(
    "value",
    [HUGE, -HUGE, 10**5000, [10**5000], "x" * 1000, torch.zeros(1000), nn.Linear(9, 9), b"\xff" * 99, {"a": [1] * 99}],
    ids=range(9),
)
def test_an_error_repeats_no_value_at_length(value):
    with pytest.raises(Unfit) as refused:
        whole(0, 1).read("it", value)
    assert len(str(refused.value)) < 120 and "\n" not in str(refused.value)
