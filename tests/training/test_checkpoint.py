import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_fakes import Batches, Net, data, same_weights

from penjing.errors import PenjingError
from penjing.training import Interrupted, recover
from penjing.training.checkpoint import discard_damaged, epochs_of, progress_of, steps_of

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}

# Imports everything once, then trains in processes of its own: undisturbed in one folder, and in another folder killed three
# times, as only the system can be: behind a step, in the middle of writing a checkpoint, and in the middle of a forward pass.
# Every step is saved before the next begins.
SCRIPT = """
import os, random, signal, sys, torch
from penjing.training import recover
from training_fakes import Net, data
torch.set_num_threads(1)

def killing(function, count):
    def counted(*given, **named):
        nonlocal count
        count -= 1
        if count == 0:
            if function is torch.save:  # half of the file is there
                with open(given[1], "wb") as file:
                    file.write(bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return counted

def run(folder, kind, count):
    net, callbacks = Net(1), []
    if kind == "step":
        callbacks = [killing(lambda graph, share: None, count)]
    elif kind == "forward":
        net.forward = killing(net.forward, count)
    elif kind == "save":
        torch.save = killing(torch.save, count)
    recover(net, data(), Net(2), 4, lr=0.1, precision="bfloat16", channels_last=True, progress=False,
            checkpoint=folder + "/run.pt", save_every=0.0, callbacks=callbacks)
    torch.save(net.state_dict(), folder + "/end.pt")

def in_a_process(*how):
    child = os.fork()
    if child == 0:
        run(*how)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

whole, killed = sys.argv[1:]
assert in_a_process(whole, "never", 0) == 0
draw = random.Random(0)
for kind in ("step", "save", "forward"):
    assert in_a_process(killed, kind, draw.randint(5, 12)) == -signal.SIGKILL, kind
    print(kind, torch.load(killed + "/run.pt", weights_only=True)["standing"]["step"], flush=True)
assert in_a_process(killed, "never", 0) == 0
"""


def test_a_run_killed_at_three_moments_ends_with_the_same_weights_to_the_last_bit(tmp_path: Path) -> None:
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, folders)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    steps = [int(line.split()[1]) for line in done.stdout.decode().splitlines()]
    assert len(steps) == 3 and 0 < steps[0] < steps[1] < steps[2] < 40, "it was killed three times on its way"
    one, other = (torch.load(folder / "end.pt", weights_only=True) for folder in folders)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "raised", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")]
)
def test_a_full_disk_leaves_the_last_checkpoint_good(
    tmp_path: Path, raised: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recover(Net(), data(), epochs=3, **PLAIN)
    path, saves, save = tmp_path / "run.pt", [0], torch.save

    def full(content: Any, file: Path) -> None:
        saves[0] += 1
        if saves[0] == 3:  # the first is written before any step, the second behind the first epoch
            file.write_bytes(b"half of it")
            raise raised
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        PenjingError, match=f"checkpoint {re.escape(str(path))} can't be written: {re.escape(str(raised))}"
    ):
        recover(Net(), data(), epochs=3, checkpoint=path, **PLAIN)
    assert steps_of(path) == (10, 30) and list(tmp_path.iterdir()) == [path], "nothing half-written is left"
    assert same_weights(recover(Net(), data(), epochs=3, checkpoint=path, **PLAIN), whole)


def interrupt_at(share: float) -> Any:
    def callback(graph: nn.Module, done: float) -> None:
        if done >= share:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


@pytest.mark.parametrize("share", [0.25, 0.5])  # in the middle and at the end of an epoch
@pytest.mark.parametrize("same_object", [True, False])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, share: float, same_object: bool) -> None:
    expected: list[dict[str, Any]] = []
    whole = recover(Net(), data(), epochs=2, report=expected.append, **PLAIN)
    net, path = Net(), tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        recover(net, data(), epochs=2, checkpoint=path, callbacks=[interrupt_at(share)], **PLAIN)
    if not same_object:
        net = Net()
    lines: list[str] = []
    epochs: list[dict[str, Any]] = []
    recover(net, data(), epochs=2, checkpoint=path, log=lines.append, report=epochs.append, **PLAIN)
    assert same_weights(net, whole)
    assert f"{share:.0%}" in lines[0]
    assert [(e["epoch"], e["loss"]) for e in epochs] == [(e["epoch"], e["loss"]) for e in expected[-len(epochs) :]]
    kept = [(one.number, one.step, one.loss, one.metric) for one in epochs_of(path)]
    assert kept == [(e["epoch"], e["step"], e["loss"], e["metric"]) for e in expected]


def test_a_finished_run_is_loaded_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    first = recover(Net(), data(), epochs=2, checkpoint=path, **PLAIN)
    epochs: list[dict[str, Any]] = []
    again = recover(Net(), data(), epochs=2, checkpoint=path, report=epochs.append, **PLAIN)
    assert same_weights(first, again) and not epochs and not again.training


def test_masks_that_changed_on_the_way_come_back(tmp_path: Path) -> None:
    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.masks = {"conv.weight": torch.ones(8, 3, 3, 3, dtype=torch.bool)}

        def apply_masks(self) -> None:
            self.conv.weight.data.mul_(self.masks["conv.weight"])

    def prune(graph: Any, share: float) -> None:
        graph.masks["conv.weight"][0] = False

    path = tmp_path / "run.pt"
    recover(Masked(), data(), epochs=1, checkpoint=path, callbacks=[prune], **PLAIN)
    again = recover(Masked(), data(), epochs=1, checkpoint=path, **PLAIN)
    assert not again.masks["conv.weight"][0].any() and again.masks["conv.weight"][1:].all()


class Counting:
    """A callback that remembers how often it was called, and which run it belongs to."""

    def __init__(self, run: str = "first") -> None:
        self.run, self.calls = run, torch.zeros(1)

    def __call__(self, graph: nn.Module, share: float) -> None:
        self.calls += 1

    def state_dict(self) -> dict[str, Any]:
        return {"run": self.run, "calls": self.calls.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["run"] != self.run:
            raise PenjingError(f"It is the state of the {state['run']} run.")
        self.calls = state["calls"].clone()


def test_callbacks_that_remember_go_on_with_what_they_knew(tmp_path: Path) -> None:
    path, first, resumed = tmp_path / "run.pt", Counting(), Counting()
    with pytest.raises(Interrupted):
        recover(Net(), data(), epochs=2, checkpoint=path, callbacks=[first, interrupt_at(0.6)], **PLAIN)
    recover(Net(), data(), epochs=2, checkpoint=path, callbacks=[resumed], **PLAIN)
    assert (int(first.calls), int(resumed.calls)) == (12, 20)


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [([], "1 callbacks that have a state, not 0"), ([Counting("second")], "It is the state of the first run")],
)
def test_a_checkpoint_is_refused_whose_callbacks_were_others(tmp_path: Path, callbacks: list[Any], words: str) -> None:
    path = tmp_path / "run.pt"
    recover(Net(), data(), epochs=1, checkpoint=path, callbacks=[Counting()], **PLAIN)
    with pytest.raises(PenjingError, match=f"{words}.*Delete {path}"):
        recover(Net(), data(), epochs=1, checkpoint=path, callbacks=callbacks, **PLAIN)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lr": 0.2}, "lr was 0.1, is 0.2"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"teacher": Net(5)}, "teacher was None"),
        ({"data": dataclasses.replace(data(), fingerprint="abc")}, "data was 'custom [0-9a-f]+', is 'custom abc'"),
        ({"data": data(train=Batches(count=9))}, "batches was 10, is 9"),
        ({"graph": Net(3)}, "other weights"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    arguments = {"graph": Net(), "data": data(), "epochs": 1, "checkpoint": tmp_path / "run.pt", **PLAIN}
    recover(**arguments)
    with pytest.raises(PenjingError, match=words) as caught:
        recover(**arguments | {"graph": Net()} | changed)
    assert f"Delete {tmp_path / 'run.pt'}" in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04cos\nsystem\n(S'true'\ntR."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(PenjingError, match="isn't a training checkpoint"):
        recover(Net(), data(), epochs=1, checkpoint=path, **PLAIN)
    assert path.read_bytes() == content


def test_a_checkpoint_that_can_not_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PenjingError, match="can't be written"):
        recover(Net(), data(), epochs=1, checkpoint=tmp_path / "file" / "run.pt", **PLAIN)


def test_how_far_a_checkpoint_is_can_be_told(tmp_path: Any) -> None:
    path = tmp_path / "run.pt"
    assert progress_of(path) == 0

    def fail(graph: nn.Module, share: float) -> None:
        if share > 0.7:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        recover(Net(), data(), epochs=2, checkpoint=path, callbacks=[fail], **PLAIN)
    assert progress_of(path) == 0.5
    path.write_text("hello")
    assert progress_of(path) == 0


DAMAGES = (
    lambda whole: whole[: len(whole) // 2],
    lambda whole: b"",
    lambda whole: b"PK" * 9,
    lambda whole: whole[:200],
)


def test_a_damaged_checkpoint_is_told_and_removed_and_a_whole_one_stays(tmp_path: Path) -> None:
    path, said = tmp_path / "run.pt", list[str]()
    recover(Net(1), data(), Net(2), 1, checkpoint=path, **PLAIN)
    whole = path.read_bytes()
    discard_damaged(path, said.append)
    assert path.exists() and not said
    for damaged in [damage(whole) for damage in DAMAGES]:
        path.write_bytes(damaged)
        with pytest.raises(PenjingError, match="isn't a training checkpoint that can be read"):
            recover(Net(1), data(), Net(2), 1, checkpoint=path, **PLAIN)
        discard_damaged(path, said.append)
        assert not path.exists() and "is damaged, so the training starts anew" in said[-1]
    discard_damaged(path, said.append)
    assert len(said) == len(DAMAGES)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("format",), 2, "'checkpoint.format' must be 1, and is 2"),
        (("settings",), [], r"'checkpoint.settings' must be an object, and is \[\]"),
        (("standing",), None, "'checkpoint.standing' must be an object, and is null"),
        (("standing", "step"), True, "'checkpoint.standing.step' must be a whole number, and is True"),
        (("standing", "step"), torch.tensor(3), "'checkpoint.standing.step' is of the type Tensor"),
        (("standing", "step"), 10**400, "'checkpoint.standing.step' is a number of more than a hundred digits"),
        (("standing", "step"), 11, "it is at step 11 of 10"),
        (("standing", "loss"), float("nan"), "'checkpoint.standing.loss' is nan"),
        (("standing", "more"), 1, "'checkpoint.standing' has the unknown key 'more'"),
        (("standing", "variant", "precision"), None, "'checkpoint.standing.variant.precision' must be a string"),
        (("standing", "began_with"), ..., "'checkpoint.standing.began_with' is missing"),
        (("optimizer",), ..., "it has no 'optimizer'"),
        (("standing",), ..., "it has no 'standing'"),
        ((), torch.ones(2), "it holds a Tensor"),
    ],
)
def test_a_checkpoint_with_wrong_values_is_told_and_counts_as_none(tmp_path, path, value, said):
    file = tmp_path / "run.pt"
    recover(Net(), data(), epochs=1, checkpoint=file, **PLAIN)
    assert steps_of(file) == (10, 10)
    content = inner = torch.load(file, weights_only=True)
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    elif path:
        inner[path[-1]] = value
    torch.save(content if path else value, file)
    with pytest.raises(PenjingError, match=rf"isn't a training checkpoint that can be read \(.*{said}"):
        recover(Net(), data(), epochs=1, checkpoint=file, **PLAIN)
    assert steps_of(file) is None
    discard_damaged(file, lambda line: None)
    assert not file.exists()
