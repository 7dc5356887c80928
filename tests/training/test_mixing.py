"""Trainings on augmented batches: labels, teachers, and going on after a stop."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_fakes import Batches, Net, data, same_weights

from penjing.data import Data
from penjing.distillation import Comparison, Seen, Signal, counted_positions, signals
from penjing.errors import PenjingError
from penjing.tasks import Classification, Unlabelled
from penjing.training import recover
from penjing.training.label_smoothing import smoothed
from penjing.training.mixing import AugmentedTask, Augmenter, MixedTargets, counted, guided

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}
ALL: dict[str, Any] = {
    "augment": ("mixup:1", "cutmix", "erasing"),
    "label_smoothing": 0.1,
    "ema": 0.9,
    "layer_decay": 0.7,
}
BATCH = next(iter(Batches()))


def mixed(seed: int = 0) -> tuple[Tensor, MixedTargets]:
    """Returns a batch behind mixup."""
    batch = Augmenter(["mixup:1"], Classification(), seed)(BATCH, 0, 0)
    return batch.inputs[0], batch.targets


def test_the_loss_of_mixed_labels_is_the_cross_entropy_of_their_mixed_probabilities() -> None:
    inputs, targets = mixed()
    outputs = Net().eval()(inputs)
    probabilities = targets.share * F.one_hot(targets.own, 4) + (1 - targets.share) * F.one_hot(targets.partners, 4)
    assert 0.05 < targets.share < 0.95
    torch.testing.assert_close(
        AugmentedTask(Classification()).loss(outputs, targets), F.cross_entropy(outputs, probabilities.float())
    )


def test_plain_batches_and_everything_else_are_the_task_s_own() -> None:
    task, outputs = Classification(4), Net().eval()(BATCH[0])
    wrapped = AugmentedTask(task)
    assert wrapped.split(BATCH)[1] is BATCH[1]
    assert torch.equal(wrapped.loss(outputs, BATCH[1]), task.loss(outputs, BATCH[1]))
    assert (wrapped.labelled, wrapped.answers, wrapped.classes) == (True, "classes", 4)


def test_each_batch_of_each_epoch_is_mixed_in_a_way_of_its_own_that_depends_on_the_seed() -> None:
    def share(seed: int, epoch: int, index: int) -> float:
        made: float = Augmenter(["mixup:1"], Classification(), seed)(BATCH, epoch, index).targets.share
        return made

    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)]
    assert len({share(*key) for key in keys}) == len(keys)
    assert [share(*key) for key in keys] == [share(*key) for key in keys]


def test_of_several_that_mix_one_is_drawn_for_each_batch() -> None:
    augment = Augmenter(["mixup:1", "cutmix"], Classification(), 0)
    batch, pasted = (BATCH[0], torch.arange(len(BATCH[0]))), 0  # labels that name their sample
    for index in range(40):
        made = augment(batch, 0, index)
        share, partners = made.targets.share, made.targets.partners
        whole = share * batch[0] + (1 - share) * batch[0][partners]
        pasted += not torch.allclose(made.inputs[0], whole, atol=1e-5)
    assert 10 < pasted < 30


def test_teacher_and_student_see_the_same_mixed_inputs() -> None:
    class Watched(Net):
        def __init__(self, seed: int, seen: list[Tensor]) -> None:
            super().__init__(seed)
            self.__dict__["seen"] = seen

        def __deepcopy__(self, memo: Any) -> "Watched":
            copied = Watched(1, self.__dict__["seen"])
            copied.load_state_dict(self.state_dict())
            return copied

        def forward(self, x: Tensor) -> Tensor:
            self.__dict__["seen"].append(x)
            return super().forward(x)

    student, teacher = list[Tensor](), list[Tensor]()
    how: dict[str, Any] = {"augment": "mixup:1", "reestimate_norms": False, **PLAIN}
    recover(Watched(2, student), data(), Watched(1, teacher), 1, **how)
    assert all(torch.equal(one, other) for one, other in zip(student[-10:], teacher[-10:], strict=True))
    original = torch.cat([x for x, _ in Batches()])
    assert not any((each[0] == original).flatten(1).all(1).any() for each in student[-10:])


def test_a_teacher_without_labels_sees_mixed_inputs_too() -> None:
    unlabelled = data(calibration=Batches(labelled=False), labelled=False)
    plain, mixing = Net(2), Net(2)
    recover(plain, unlabelled, Net(1), 1, **PLAIN)
    recover(mixing, unlabelled, Net(1), 1, augment=["mixup:1"], **PLAIN)
    assert not same_weights(plain, mixing)


class Labels(Signal):
    """The mean label, if there are any."""

    def forward(self, seen: Comparison) -> Tensor:
        labels = torch.full((1,), -7.0) if seen.targets is None else seen.targets.float()
        return labels.mean() + 0 * seen.student.outputs.sum()


def test_a_signal_that_needs_labels_counts_both_by_their_shares_and_others_see_none() -> None:
    targets = MixedTargets(torch.tensor([1, 3]), torch.tensor([5, 5]), 0.25)
    seen = Comparison(Seen(torch.ones(2, 4)), Seen(torch.ones(2, 4)), targets=targets)  # type: ignore[arg-type]
    assert float(guided(Labels(), seen, by_labels=True)) == 0.25 * 2 + 0.75 * 5
    assert float(guided(Labels(), seen, by_labels=False)) == -7
    assert float(guided(Labels(), replace(seen, targets=torch.tensor([4])), by_labels=False)) == 4


@pytest.mark.parametrize("name", [name for name in signals if "labels" in signals[name].needs])
def test_signals_of_labels_train_with_mixed_ones(name: str) -> None:
    told: list[Any] = []
    recover(Net(2), data(), Net(1), 1, signal=name, augment="mixup", report=told.append, **PLAIN)
    assert told[-1]["losses"].keys() == {"task", "guidance"}


def test_positions_count_that_count_in_both_labels() -> None:
    ignoring, whole = torch.tensor([1, -100, 2]), torch.tensor([1, 2, 3])
    other = torch.tensor([-100, 1, 1])
    assert counted(MixedTargets(ignoring, other, 0.5)).tolist() == [False, False, True]
    assert counted(MixedTargets(whole, other, 0.5)).tolist() == [False, True, True]
    assert counted(MixedTargets(ignoring, whole, 0.5)).tolist() == [True, False, True]
    assert counted(MixedTargets(whole, whole, 0.5)) is None
    assert torch.equal(counted(ignoring), counted_positions(ignoring))


class Vectors:
    """Values of whole samples, with a loss of their own and targets in a dictionary."""

    labelled = True
    metric_name = "R²"

    def split(self, batch: Any) -> Any:
        return (batch[0],), {"values": batch[1]}

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        return F.mse_loss(outputs, targets["values"])

    def metric(self) -> Any:
        raise NotImplementedError("training needs none")


def test_mixup_works_with_inputs_of_any_shape_and_values_of_whole_samples() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    train = [(rows, rows @ torch.ones(4, 2)) for rows in x.split(16)]
    net, told = nn.Linear(4, 2), list[Any]()
    recover(net, Data(train, None, None, Vectors()), epochs=30, augment="mixup:1", report=told.append, **PLAIN)
    torch.testing.assert_close(net.weight.detach(), torch.ones(2, 4), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(4, 8, 8, dtype=torch.int64), r"labels of whole samples.*\(4, 8, 8\) torch.int64: leave it out"),
        (torch.zeros(4, 5, dtype=torch.int64), r"\(4, 5\) torch.int64"),
        (torch.zeros(4, 1, 8), r"\(4, 1, 8\) torch.float32"),
        (torch.zeros(3), r"\(3,\) torch.float32"),
        ({"boxes": torch.zeros(4, 4), "names": ["a"] * 4}, "str"),
        ([], "gives none"),
    ],
)
def test_labels_of_anything_but_whole_samples_are_refused_before_the_first_step(
    targets: Any, words: str, tmp_path: Path
) -> None:
    class Task(Vectors):
        def split(self, batch: Any) -> Any:
            return batch

    train = [((torch.zeros(4, 3, 8, 8),), targets)]
    with pytest.raises(PenjingError, match=words):
        recover(
            Net(), Data(train, None, None, Task()), epochs=1, augment="cutmix", checkpoint=tmp_path / "run.pt", **PLAIN
        )  # fmt: skip
    assert not (tmp_path / "run.pt").exists(), "nothing was begun"


def test_erasing_leaves_labels_of_any_kind_alone() -> None:
    class Dense(Vectors):
        def split(self, batch: Any) -> Any:
            return batch

        def loss(self, outputs: Tensor, targets: Any) -> Tensor:
            assert targets.shape == (4, 8, 8)
            return F.cross_entropy(outputs, targets)

    train = [((torch.randn(4, 3, 8, 8),), torch.zeros(4, 8, 8, dtype=torch.int64))] * 2
    recover(nn.Conv2d(3, 2, 1), Data(train, None, None, Dense()), epochs=1, augment="erasing", **PLAIN)


def test_smoothed_labels_are_pytorch_s() -> None:
    outputs, labels = torch.randn(16, 4), BATCH[1]
    task = Classification(4)
    torch.testing.assert_close(
        smoothed(task, 0.2).loss(outputs, labels),
        0.8 * F.cross_entropy(outputs, labels) - 0.2 * outputs.log_softmax(1).mean(),
    )
    assert task.label_smoothing == 0 and smoothed(task, 0.0) is task
    by_task, by_argument = (
        recover(Net(), replace(data(), task=Classification(label_smoothing=own)), epochs=1, **PLAIN, **more)
        for own, more in ((0.2, {}), (0.0, {"label_smoothing": 0.2}))
    )
    assert same_weights(by_task, by_argument) and not same_weights(by_task, recover(Net(), data(), epochs=1, **PLAIN))


class Smooth(Unlabelled):
    """A task that says how far it smooths labels, and has none."""

    label_smoothing = 0.0


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Vectors(), "the task Vectors has no labels that are classes"),
        (Unlabelled(), "the task Unlabelled has no labels"),
        (Smooth(), "the task Smooth has no labels"),
        (Classification(label_smoothing=0.1), r"label_smoothing=0\.1 already"),
    ],
)
def test_labels_that_can_not_be_smoothed_are_told(task: Any, words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        smoothed(task, 0.2)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"augment": "mixap"}, "Did you mean 'mixup'"),
        ({"augment": 3}, "augment=3"),
        ({"augment": ("mixup", 3)}, "augment="),
        ({"label_smoothing": 1}, "label_smoothing=1"),
        ({"reestimate_norms": "always"}, "reestimate_norms="),
    ],
)
def test_choices_that_make_no_sense_are_refused(choice: dict[str, Any], words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        recover(Net(), data(), epochs=1, **choice, **PLAIN)


def stops_at(share: float) -> Any:
    def callback(graph: nn.Module, done: float) -> None:
        if done >= share:
            raise KeyboardInterrupt

    return callback


def test_with_everything_on_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    how: dict[str, Any] = {"epochs": 2, "signal": "dkd", "balance": "auto", **ALL, **PLAIN, "channels_last": True}
    whole = recover(Net(2), data(), Net(1), **how)
    file, net = tmp_path / "run.pt", Net(2)
    for share in (0.2, 0.45, 0.8):
        with pytest.raises(KeyboardInterrupt):
            recover(net, data(), Net(1), checkpoint=file, save_every=0, callbacks=[stops_at(share)], **how)
        net = Net(2)
    assert same_weights(recover(net, data(), Net(1), checkpoint=file, **how), whole)


@pytest.mark.parametrize(
    "changed", [{"augment": ("mixup:1",)}, {"ema": 0.99}, {"layer_decay": 1.0}, {"label_smoothing": 0}]
)
def test_a_run_with_other_choices_is_another_run(tmp_path: Path, changed: dict[str, Any]) -> None:
    how: dict[str, Any] = {"epochs": 1, "checkpoint": tmp_path / "run.pt", **ALL, **PLAIN}
    recover(Net(), data(), **how)
    with pytest.raises(PenjingError, match=f"other settings .*{next(iter(changed))} was"):
        recover(Net(), data(), **how | changed)
