"""Training with a penalty that is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_fakes import Batches, Net, data, same_weights

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.penalties import find, penalties
from penjing.training import recover

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.02}
WEIGHTS = {"nuclear_norm": 0.3, "subspace": 1.0, "group_lasso": 0.3, "bn_scale": 0.3, "orthogonal": 0.1}


def graph() -> Graph:
    return capture(Net(), torch.randn(2, 3, 8, 8))


def trained(**how: Any) -> Graph:
    return recover(graph(), data(), epochs=how.pop("epochs", 2), **PLAIN | how)


@pytest.fixture(scope="module")
def without() -> Graph:
    return trained()


@pytest.mark.parametrize("name", penalties)
def test_training_with_a_penalty_lowers_it(without: Graph, name: str) -> None:
    told: list[dict[str, Any]] = []
    shaped = trained(penalty=name, penalty_weight=WEIGHTS[name], report=told.append)
    value = [find(name).of(one)().item() for one in (graph(), without, shaped)]
    assert value[2] < 0.9 * min(value[0], value[1])
    assert told[1]["losses"]["penalty"] < told[0]["losses"]["penalty"]
    assert told[1]["losses"]["task"] < 1.2  # chance is log 4 = 1.39: the task was learned beside it


def test_a_named_penalty_is_what_a_function_of_that_value_is() -> None:
    ours = graph()
    value = find("orthogonal").of(ours)
    recover(ours, data(), epochs=2, penalty=lambda *_: 0.05 * value(), **PLAIN)
    assert same_weights(ours, trained(penalty="orthogonal", penalty_weight=0.05))


def test_a_penalty_has_its_own_weight_where_none_is_given(without: Graph) -> None:
    usual = trained(penalty="orthogonal")
    assert same_weights(usual, trained(penalty="orthogonal", penalty_weight=penalties["orthogonal"].weight))
    assert not same_weights(usual, without)


def test_a_run_with_another_penalty_is_another_run(tmp_path: Path) -> None:
    how = {"checkpoint": tmp_path / "run.pt", "epochs": 1}
    first = trained(penalty="subspace:0.5", **how)
    assert same_weights(first, trained(penalty="subspace:0.5", **how))
    for other in ({"penalty": "subspace"}, {"penalty": "subspace:0.5", "penalty_weight": 1.0}, {}):
        with pytest.raises(PenjingError, match=r"other settings .*penalty"):
            trained(**how, **other)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"penalty": "lasso"}, "Unknown penalty 'lasso'.*group_lasso"),
        ({"penalty_weight": 0.1}, "penalty_weight=0.1.*penalty= names"),
        ({"penalty": lambda *_: None, "penalty_weight": 0.1}, "penalty_weight=0.1.*a function of yours"),
        ({"penalty": "orthogonal", "penalty_weight": -1}, "penalty_weight=-1"),
    ],
)
def test_a_penalty_that_can_not_be_is_refused_before_any_step(how: dict[str, Any], words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        recover(graph(), data(train=Batches(count=1)), epochs=1, **PLAIN | how)


def test_a_plain_module_takes_functions_alone() -> None:
    with pytest.raises(PenjingError, match=r"penalty='bn_scale'.*Net.*capture"):
        recover(Net(), data(train=Batches(count=1)), epochs=1, penalty="bn_scale", **PLAIN)
