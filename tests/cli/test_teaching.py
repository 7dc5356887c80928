"""What the options that name teachers mean."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from penjing import capture, zoo
from penjing.cli.teaching import load_teacher, without_weights
from penjing.data import Data
from penjing.distillation import Confidence, Mean, One, Teacher
from penjing.errors import PenjingError
from penjing.tasks import Classification

DATA = Data([(torch.zeros(2, 1, 28, 28), torch.zeros(2).long())], None, None, Classification(10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds two saved graphs, and the weights of two networks."""
    folder = tmp_path_factory.mktemp("teachers")
    for number in range(2):
        torch.manual_seed(number)
        capture(nn.Linear(3, 2), torch.randn(2, 3)).save(folder / f"{number}.penjing")
        save_file(zoo.lenet5().state_dict(), folder / f"{number}.safetensors")
    return folder


def bias(teacher: Teacher | None, number: int = 0) -> torch.Tensor:
    assert teacher is not None
    return list(teacher.networks[number].parameters())[-1].detach()


def drawn(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return nn.Linear(3, 2).bias.detach()


def test_one_model_is_the_teacher_and_several_are_joined(folder: Path) -> None:
    one, other = (str(folder / f"{number}.penjing") for number in range(2))
    assert load_teacher(None, None, DATA, "mean") is None and load_teacher([], [], DATA, "mean") is None
    assert isinstance(load_teacher([one], None, DATA, "confidence"), One)
    for join, kind in (("mean", Mean), ("confidence", Confidence)):
        teacher = load_teacher([one, other], None, DATA, join)
        assert isinstance(teacher, kind)
        assert torch.equal(bias(teacher, 0), drawn(0)) and torch.equal(bias(teacher, 1), drawn(1))


def test_weights_go_in_order_to_the_models_that_have_none(folder: Path) -> None:
    models = ["zoo:lenet5", str(folder / "0.penjing"), "zoo:lenet5"]
    weights = [folder / "1.safetensors", folder / "0.safetensors"]
    teacher = load_teacher(models, weights, DATA, "mean")
    assert torch.equal(bias(teacher, 1), drawn(0))
    for number, seed in ((0, 1), (2, 0)):
        torch.manual_seed(seed)
        nn.Linear(3, 2)
        assert torch.equal(bias(teacher, number), list(zoo.lenet5().parameters())[-1])


@pytest.mark.parametrize(
    ("models", "weights", "join", "words"),
    [
        (["0.penjing"], ["0.safetensors"], "mean", "given 1 times, and 0 of the teachers"),
        (["zoo:lenet5", "zoo:lenet5"], ["0.safetensors"], "mean", "given 1 times, and 2 of the teachers"),
        (["zoo:lenet5"], [], "mean", "zoo:lenet5 has random weights.*--teacher-weights"),
        (["0.penjing"], [], "means", "Did you mean 'mean'"),
        (["0.penjing"], [], "ema", "Unknown way to join teachers 'ema'"),
        (["2.penjing"], [], "mean", "2.penjing"),
        ([], ["0.safetensors"], "mean", "0 of the teachers"),
    ],
)
def test_teachers_that_can_not_be_loaded_are_told(
    folder: Path, models: list[str], weights: list[str], join: str, words: str
) -> None:
    named = [model if ":" in model else str(folder / model) for model in models]
    with pytest.raises(PenjingError, match=words):
        load_teacher(named, [folder / name for name in weights], DATA, join)


def test_only_teachers_from_factories_may_be_without_weights_and_only_where_none_were_given() -> None:
    models = ["net.py:make", "a.penjing", "nets:make", "b.pt2"]
    assert without_weights(models, None) == ["net.py:make", "nets:make"]
    assert without_weights(models, [Path("1.pt"), Path("2.pt")]) == without_weights(None, None) == []
