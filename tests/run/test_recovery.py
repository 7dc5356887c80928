"""The stage that trains: what it does under which request, what it keeps, and what it tells the report."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from penjing.data import Data
from penjing.distillation import One
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.run import recovery as module
from penjing.run import stages
from penjing.run.recovery import Recovery, recovered
from penjing.run.request import CompressRequest
from penjing.run.workspace import Workspace
from penjing.tasks import Classification, Unlabelled, agreement, evaluate
from penjing.training import Interrupted, TrainingSettings
from penjing.training.checkpoint import steps_of

TRAINING = TrainingSettings(
    2, 0.1, precision="float32", channels_last=False, layer_decay=0.9, ema=0.9, reestimate_norms=True, augment=("mixup",),
    label_smoothing=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))


@pytest.fixture
def small(original):
    return copy.deepcopy(original)


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path / "out", {"seed": 0})


def batches(labelled=True, count=4):
    inputs = torch.randn(count, 8, 4, generator=torch.Generator().manual_seed(1))
    return [(x, x[:, :3].argmax(1)) if labelled else (x,) for x in inputs]


DATA = Data(batches(), batches(), batches(), Classification(3))


def asked(epochs=2, minutes=None, data=DATA):
    training = TRAINING if data.task.labelled else replace(TRAINING, label_smoothing=0.0)
    return CompressRequest(data, "l2", training=replace(training, epochs=epochs), max_minutes=minutes)


def recovering(space, small, original, request=None, *, pruned=True, deadline=None, say=lambda line: None):
    request = asked() if request is None else request
    return recovered(space, request, small, original, pruned=pruned, deadline=deadline, progress=False, say=say)


def state(graph):
    return {name: tensor.clone() for name, tensor in graph.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def trained(monkeypatch, space):
    """Lets training add 1 to every weight; returns the arguments that it was called with, and may raise `stop`."""
    calls = SimpleNamespace(given=[], stop=None)

    def train(small, data, teacher, settings, options):
        calls.given.append((data, teacher, settings, options))
        with torch.no_grad():
            for parameter in small.parameters():
                parameter += 1
        for epoch in range(2):
            options.report({"epoch": epoch + 1, "loss": 0.5, "seconds": 1.0, "metric": None})
        if calls.stop is not None:
            raise calls.stop
        return small

    monkeypatch.setattr(module, "train", train)
    return calls


@pytest.fixture
def judged(monkeypatch):
    """Lets the graph be judged as told, before and after training."""

    def told(before, after):
        values = iter([before, after])
        monkeypatch.setattr(module, "_judged", lambda *_: next(values))

    told(0.5, 0.6)
    return told


# When nothing is trained


@pytest.mark.parametrize(
    ("pruned", "epochs", "note"),
    [
        (False, 2, "Not trained: nothing was removed."),
        (True, 0, "Not trained: no epochs were asked for."),
        (False, 0, "Not trained: nothing was removed."),
    ],
)
def test_what_need_not_be_trained_is_not_and_says_why(space, small, original, trained, pruned, epochs, note):
    before = state(small)
    made = recovering(space, small, original, asked(epochs), pruned=pruned)
    assert made == Recovery(small, (note,)) and made.finished and made.variant is None
    assert trained.given == [] and same(state(small), before)
    assert sorted(path.name for path in space.inner.iterdir()) == ["run.json"]


def test_behind_the_deadline_nothing_is_trained_or_judged(space, small, original, trained, monkeypatch):
    monkeypatch.setattr(module, "_judged", None)
    made = recovering(space, small, original, asked(minutes=1.0), deadline=0.0)
    assert made.notes == ("The deadline has passed: no training.",) and made.short_of_time and made.finished
    assert trained.given == [] and stages.outlived(space.held(), 2.0) == module.MADE


# Training


def test_training_is_asked_for_as_the_user_asked(space, small, original, trained, judged):
    made = recovering(space, small, original)
    ((data, teacher, settings, options),) = trained.given
    assert data is DATA and settings == TRAINING and teacher.networks == (original,)
    assert options.checkpoint == space.inner / stages.CHECKPOINT and options.deadline is None
    assert made.graph is small and made.finished


def test_another_teacher_takes_the_original_s_place(space, small, original, trained, judged):
    teacher = One(nn.Linear(4, 3))
    recovering(space, small, original, replace(asked(), teacher=teacher))
    assert trained.given[0][1] is teacher


def test_the_variant_of_the_steps_is_told_as_far_as_there_was_a_choice(space, small, original):
    assert recovering(space, small, original).variant == {"precision": "float32", "channels_last": False}


def test_where_every_step_was_done_before_a_kill_their_variant_is_told_all_the_same(space, small, original):
    pruned = copy.deepcopy(small)
    whole = recovering(space, small, original)
    said = []
    again = recovering(space, pruned, original, say=said.append)
    assert [line.split(" at ")[1] for line in said] == ["100% (float32, contiguous)."]
    assert again.variant == whole.variant and same(state(again.graph), state(whole.graph))


def test_where_no_step_was_made_there_is_no_variant(space, small, original, trained, judged):
    assert recovering(space, small, original).variant is None, "training left no checkpoint"


def test_each_epoch_is_told_to_the_user(space, small, original, trained, judged):
    said = []
    recovering(space, small, original, say=said.append)
    assert said == ["  epoch 1: loss 0.5000 (1 s)", "  epoch 2: loss 0.5000 (1 s)"]


@pytest.mark.parametrize("after", [0.5, 0.6])
def test_weights_that_are_no_worse_stay(space, small, original, trained, judged, after):
    judged(0.5, after)
    before = state(small)
    made = recovering(space, small, original)
    assert all(torch.equal(value, before[name] + 1) for name, value in state(made.graph).items()) and made.notes == ()


def test_weights_that_training_made_worse_are_put_back_to_the_last_bit_and_that_is_told(
    space, small, original, trained, judged
):
    judged(0.5, 0.4999)
    before = state(small)
    made = recovering(space, small, original)
    assert same(state(made.graph), before)
    (note,) = made.notes
    assert note.startswith(
        "Training made the network worse (0.5000 before, 0.4999 after, in PyTorch), so the weights before it"
    )


@pytest.mark.parametrize("data", [DATA, replace(DATA, validation=None)])
def test_with_labels_training_is_judged_by_the_metric(small, original, data):
    assert module._judged(small, original, asked(data=data)) == evaluate(small, batches(), DATA.task)


def test_without_labels_training_is_judged_by_the_agreement_with_the_original(original):
    torch.manual_seed(1)
    other = capture(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))
    unlabelled = Data(batches(False), batches(False), batches(False), Unlabelled())
    found = module._judged(other, original, asked(data=unlabelled))
    assert found == agreement(original, other, batches(False), unlabelled.task) < 1


@pytest.mark.parametrize("deadline", [None, float("inf")])
def test_what_training_tells_is_a_detail_and_no_note(space, small, original, monkeypatch, judged, deadline):
    def train(small, data, teacher, settings, options):
        options.log("Learning rate 0.1, by the loss after 5 steps each.")

    monkeypatch.setattr(module, "train", train)
    said = []
    made = recovering(space, small, original, asked(minutes=1.0), deadline=deadline, say=said.append)
    assert made.notes == () and made.details == tuple(said) and len(said) == 1


def test_the_steps_that_were_made_and_those_asked_for_are_counted(space, small, original):
    made = recovering(space, small, original)
    assert (made.steps, made.wanted) == (8, 8)


def test_ctrl_c_keeps_the_weights_so_far_and_is_no_lack_of_time(space, small, original, trained, judged):
    trained.stop, said, before = Interrupted(0.4), [], state(small)
    made = recovering(space, small, original, say=said.append)
    assert not made.finished and not made.short_of_time
    assert made.notes == ("Training was interrupted at 40%; the same command goes on with it.",)
    assert said[-1] == "Interrupted at 40% of the training; finishing with the weights so far."
    assert all(torch.equal(value, before[name] + 1) for name, value in state(made.graph).items())
    assert stages.outlived(space.held(), None) == ()


def test_a_training_that_diverges_says_which_rate_another_run_should_have(space, small, original):
    request = replace(asked(), training=replace(TRAINING, lr=1e30, augment=(), label_smoothing=0.0))
    with pytest.raises(
        PenjingError, match=r"training diverged\. Give a smaller rate, for example lr=2e\+29, and another"
    ):
        recovering(space, small, original, request)


def test_other_errors_are_passed_on(space, small, original, trained, judged):
    trained.stop = PenjingError("training diverged")
    with pytest.raises(PenjingError, match="diverged"):
        recovering(space, small, original)


# Coming back to it


class Killed(BaseException):
    pass


def killed_at(line):
    """Returns a `say` that ends everything when such a line is said."""

    def say(told):
        if line in told:
            raise Killed

    return say


def test_killed_between_two_epochs_it_goes_on_from_the_checkpoint_to_the_same_weights(space, small, original, tmp_path):
    whole = recovering(Workspace(tmp_path / "whole", {}), copy.deepcopy(small), original, asked(3)).graph
    with pytest.raises(Killed):
        recovering(space, copy.deepcopy(small), original, asked(3), say=killed_at("epoch 2"))
    # The second epoch is told before it is saved.
    assert steps_of(space.inner / stages.CHECKPOINT) == (4, 12)
    assert sorted(path.name for path in space.inner.iterdir()) == [stages.CHECKPOINT, "run.json"]
    said = []
    again = recovering(space, small, original, asked(3), say=said.append)
    assert [line.partition(":")[0].strip() for line in said[1:]] == ["epoch 2", "epoch 3"]
    assert said[0].startswith("Going on with") and same(state(again.graph), state(whole))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_checkpoint_is_told_and_training_starts_anew_to_the_same_weights(
    space, small, original, tmp_path, share
):
    whole = recovering(Workspace(tmp_path / "whole", {}), copy.deepcopy(small), original).graph
    content = (tmp_path / "whole" / ".penjing" / stages.CHECKPOINT).read_bytes()
    (space.inner / stages.CHECKPOINT).write_bytes(content[: int(share * len(content))])
    said = []
    again = recovering(space, small, original, say=said.append)
    assert "recover.checkpoint is damaged, so the training starts anew" in said[0]
    assert [line.partition(":")[0].strip() for line in said[1:]] == ["epoch 1", "epoch 2"]
    assert same(state(again.graph), state(whole))


# Its files


def test_a_recovery_is_read_as_it_was_written(small, tmp_path):
    made = Recovery(small, ("a note", "another"), {"precision": "float32"}, True, True, ("a detail",), 3, 8)
    made.save(tmp_path / stages.RECOVERED)
    found = Recovery.load(tmp_path / stages.RECOVERED)
    assert same(state(found.graph), state(small))
    assert replace(found, graph=small) == made


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"notes": []}', '{"notes": "none", "variant": null}'])
def test_what_does_not_tell_how_training_went_is_refused(small, tmp_path, content):
    Recovery(small).save(tmp_path / stages.RECOVERED)
    if content is None:
        (tmp_path / stages.TRAINING).unlink()
    else:
        (tmp_path / stages.TRAINING).write_text(content)
    with pytest.raises(PenjingError, match=r"recovered\.json"):
        Recovery.load(tmp_path / stages.RECOVERED)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_graph_that_is_cut_off_is_refused(small, tmp_path, share):
    Recovery(small).save(tmp_path / stages.RECOVERED)
    content = (tmp_path / stages.RECOVERED).read_bytes()
    (tmp_path / stages.RECOVERED).write_bytes(content[: int(share * len(content))])
    with pytest.raises(PenjingError, match=r"recovered\.penjing"):
        Recovery.load(tmp_path / stages.RECOVERED)


def test_killed_between_its_two_files_a_recovery_is_not_there(small, tmp_path, monkeypatch):
    def killed(graph, path):
        raise Killed

    monkeypatch.setattr(type(small), "save", killed)
    with pytest.raises(Killed):
        Recovery(small, ("a note",)).save(tmp_path / stages.RECOVERED)
    assert not (tmp_path / stages.RECOVERED).exists(), "the graph's file, by which the stage counts, comes last"
