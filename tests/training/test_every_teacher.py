"""Training under every teacher that is registered, and under several."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from training_fakes import Batches, Net, data, same_weights

from made_time import Time
from penjing.data import Data
from penjing.distillation import Confidence, CrossModal, Ema, Mean, Stored, teachers
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.training import born_again, recover
from penjing.training.checkpoint import steps_of

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}
ANSWERING = [name for name, entry in teachers.items() if entry.gives == "answers"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))


class Views(Batches):
    """Images as two inputs, the second of which tells more of the class."""

    def __iter__(self) -> Iterator[Any]:
        for x, y in super().__iter__():
            yield (x + 4 * torch.sin(100 * x), x), y


def of(name: str) -> tuple[Any, Data]:
    """Returns a teacher and the data to learn from."""
    nets = [Net(seed) for seed in range(1, {"none": 1, "one": 2, "several": 3}[teachers[name].networks])]
    return teachers[name].function(*nets), data(Views() if name == "cross_modal" else None)


@pytest.mark.parametrize("name", ANSWERING)
def test_a_stopped_training_ends_as_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {**PLAIN, "save_every": 0}

    def trained(net: Net, where: str, *stops: Any) -> Net:
        teacher, given = of(name)
        if name == "stored":  # each run has a file of its own
            teacher = Stored(Net(1), tmp_path / f"{where}.safetensors")
        return recover(net, given, teacher, 3, checkpoint=tmp_path / where, callbacks=stops, **how)

    def kill(graph: nn.Module, share: float) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    whole = trained(Net(), "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(Net(), "parts", kill)
    assert 0 < steps_of(tmp_path / "parts")[0] < 30
    assert same_weights(trained(Net(), "parts"), whole)
    assert not same_weights(whole, recover(Net(), of(name)[1] if name != "cross_modal" else data(), None, 3, **PLAIN))


def test_several_networks_are_a_mean_and_one_is_itself() -> None:
    one, other = Net(1), Net(2)
    alone, listed, several, mean, confident = (
        recover(Net(), data(), teacher, 1, **PLAIN)
        for teacher in (one, [one], [one, other], Mean(one, other), Confidence(one, other))
    )
    assert same_weights(alone, listed) and same_weights(several, mean)
    assert not same_weights(alone, several) and not same_weights(mean, confident)


def test_a_checkpoint_is_refused_whose_teachers_were_others(tmp_path: Path) -> None:
    how = {**PLAIN, "checkpoint": tmp_path / "run"}
    recover(Net(), data(), [Net(1), Net(2)], 1, **how)
    recover(Net(), data(), Mean(Net(1), Net(2)), 1, **how)
    for teacher in ([Net(1), Net(3)], Net(1), Confidence(Net(1), Net(2)), Ema()):
        with pytest.raises(PenjingError, match="teacher was 'Mean"):
            recover(Net(), data(), teacher, 1, **how)


@pytest.mark.parametrize("signal", ["hints", "gradient_sharing"])
@pytest.mark.parametrize("kind", ["several", "stored"])
def test_signals_that_look_inside_say_that_there_is_no_one_network(kind: str, signal: str) -> None:
    teacher = [Net(1), Net(2)] if kind == "several" else Stored(Net(1))
    steps: list[float] = []
    with pytest.raises(
        PenjingError, match=rf"'{signal}' looks inside.*(several networks|outputs alone).*'soft_labels'"
    ):
        recover(Net(), data(), teacher, 1, signal=signal, callbacks=[lambda graph, share: steps.append(share)], **PLAIN)
    assert not steps


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_a_signal_looks_into_the_student_s_own_average(captured: bool) -> None:
    net: Any = Net(2).eval()
    net = capture(net, torch.randn(2, 3, 8, 8)) if captured else net
    told: list[Any] = []
    recover(net, data(), Ema(decay=0.5), 2, signal="blocks", taps="conv", report=told.append, **PLAIN)
    assert 0 < told[-1]["losses"]["guidance"] < told[0]["losses"]["task"]


def test_the_average_is_of_the_weights_after_each_step() -> None:
    teacher, seen = Ema(decay=0.7), list[Any]()
    begun: list[Ema] = []

    class Watched(Ema):
        def follow(self, student: nn.Module) -> None:
            super().follow(student)
            begun[:] = [self]

    seen.append(Net().linear.weight.detach().clone())
    recover(
        Net(), data(), Watched(decay=0.7), 1,
        callbacks=[lambda graph, share: seen.append(graph.linear.weight.detach().clone())], **PLAIN,
    )  # fmt: skip
    expected = seen[0]
    for step, weight in enumerate(seen[1:], start=1):
        share = min(1 - 1 / (step + 1), 0.7)
        expected = share * expected + (1 - share) * weight
    assert len(seen) == 11
    torch.testing.assert_close(dict(begun[0].network.named_parameters())["linear.weight"].data, expected)
    assert teacher.steps == 0 and not teacher.networks


def test_teacher_and_student_learn_from_different_inputs_of_one_sample() -> None:
    told: list[Any] = []
    views = data(Views())
    recover(Net(2), views, CrossModal(Net(1)), 3, distill_weight=1.0, report=told.append, **PLAIN)
    assert told[-1]["losses"]["guidance"] < told[0]["losses"]["guidance"]
    with pytest.raises(PenjingError, match=r"has 1 input, and the \w+ is to be given"):
        recover(Net(2), data(), CrossModal(Net(1)), 1, **PLAIN)
    with pytest.raises(PenjingError, match="depend on different inputs"):
        recover(Net(2), views, CrossModal(Net(1)), 1, signal="gradients", **PLAIN)


class Counted(Net):
    """Counts how often it runs, over all its copies."""

    runs: ClassVar[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.runs.append(len(x))
        return super().forward(x)


def test_stored_answers_are_computed_once_over_all_epochs_and_runs(tmp_path: Path) -> None:
    path, first, second = tmp_path / "answers.safetensors", Net(), Net()
    Counted.runs.clear()
    recover(first, data(), Stored(Counted(1), path), 3, **PLAIN)
    assert sum(Counted.runs) == 160, "each of the samples once, since the batches of later epochs hold the same"
    Counted.runs.clear()
    recover(second, data(), Stored(Counted(1), path), 3, **PLAIN)
    assert sum(Counted.runs) == 16, "one batch, which tells the form of the outputs"
    assert same_weights(first, second)


def test_a_training_without_a_checkpoint_keeps_its_answers_too(tmp_path: Path) -> None:
    def stops(graph: nn.Module, share: float) -> None:
        if share > 0.6:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        recover(Net(), data(), Stored(Net(1), tmp_path / "answers.safetensors"), 2, callbacks=[stops], **PLAIN)
    assert (tmp_path / "answers.safetensors").exists()


def test_answers_are_written_no_more_often_than_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = Time(), list[float]()
    monkeypatch.setattr("penjing.training.run.time", clock)
    save = Stored.save

    def counted(teacher: Stored) -> None:
        written.append(clock.monotonic())
        save(teacher)

    monkeypatch.setattr(Stored, "save", counted)
    recover(
        Net(), data(), Stored(Net(1), tmp_path / "answers.safetensors"), 1, save_every=30.0,
        callbacks=[lambda graph, share: clock.sleep(10)], **PLAIN,
    )  # fmt: skip
    assert [round(now - written[0]) for now in written] == [0, 40, 80, 100]


def test_a_damaged_file_of_answers_is_told_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "answers.safetensors"
    path.write_bytes(b"nothing of the kind")
    lines: list[str] = []
    recover(Net(), data(), Stored(Net(1), path), 1, log=lines.append, **PLAIN)
    assert any(str(path) in line and "answers anew" in line for line in lines) and path.stat().st_size > 5000


class Other(Net):
    """Answers with one class more."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(super().forward(x), (0, 1))


def test_teachers_that_disagree_are_told_before_the_first_step() -> None:
    steps: list[float] = []
    with pytest.raises(PenjingError, match=r"disagree.*\(16, 4\).*teacher 2 of .*\(16, 5\)"):
        recover(
            Net(), data(), [Net(1), Other(2)], 1, callbacks=[lambda graph, share: steps.append(share)], **PLAIN
        )  # fmt: skip
    assert not steps


def test_each_generation_is_taught_by_the_one_before() -> None:
    found = born_again(Net(3), data(), 3, epochs=1, training=PLAIN)
    by_hand = [recover(Net(3), data(), None, 1, seed=0, **PLAIN)]
    for seed in (1, 2):
        by_hand.append(recover(Net(3), data(), by_hand[-1], 1, seed=seed, **PLAIN))
    assert all(same_weights(one, other) for one, other in zip(found.students, by_hand, strict=True))
    assert found.last is found.students[2]


def test_fresh_students_begin_as_they_are_made_and_the_first_may_have_a_teacher() -> None:
    made: list[int] = []

    def fresh(generation: int) -> Net:
        made.append(generation)
        return Net(generation + 5)

    found = born_again(fresh, data(), 2, teacher=Net(1), epochs=1, seed=7, training={**PLAIN, "signal": "dkd"})
    first = recover(Net(5), data(), Net(1), 1, seed=7, signal="dkd", **PLAIN)
    assert made == [0, 1] and same_weights(found.students[0], first)
    assert same_weights(found.last, recover(Net(6), data(), first, 1, seed=8, signal="dkd", **PLAIN))


def test_an_ensemble_answers_with_the_mean_of_the_probabilities() -> None:
    found = born_again(Net(3), data(), 2, epochs=1, training=PLAIN)
    x = torch.randn(5, 3, 8, 8)
    probabilities = torch.stack([student(x).softmax(1) for student in found.students]).mean(0)
    torch.testing.assert_close(found.ensemble()(x).softmax(1), probabilities)
    values = dataclasses.replace(found, kind="values").ensemble()(x)
    torch.testing.assert_close(values, torch.stack([student(x) for student in found.students]).mean(0))


def test_stopped_generations_go_on_where_they_were(tmp_path: Path) -> None:
    def stops_in(generation: int) -> Any:
        calls: list[float] = []

        def stop(graph: nn.Module, share: float) -> None:
            calls.append(share)
            if len(calls) == 10 * generation + 5:
                raise KeyboardInterrupt

        return stop

    whole = born_again(Net(3), data(), 3, epochs=1, training=PLAIN)
    how: dict[str, Any] = {"epochs": 1, "folder": tmp_path / "runs"}
    with pytest.raises(KeyboardInterrupt):
        born_again(Net(3), data(), 3, training={**PLAIN, "save_every": 0, "callbacks": [stops_in(1)]}, **how)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [f"generation-{n}.checkpoint" for n in (0, 1)]
    steps: list[float] = []
    again = born_again(
        Net(3), data(), 3, training={**PLAIN, "callbacks": [lambda graph, share: steps.append(share)]}, **how
    )
    assert all(same_weights(one, other) for one, other in zip(whole.students, again.students, strict=True))
    assert len(steps) == 6 + 10, "what was done isn't done again"


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"generations": 0}, "generations=0"),
        ({"training": {"epoch": 3}}, "Unknown argument in training= 'epoch'"),
        ({"training": {"seed": 3}}, "Unknown argument in training= 'seed'"),
        ({"student": 5}, "student=5"),
        ({"student": lambda generation: generation}, "made an int for generation 0"),
    ],
)
def test_generations_that_can_not_be_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        born_again(**{"student": Net(), "data": data(), "epochs": 1, **choices})
