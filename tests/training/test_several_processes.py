"""Does what docs/howto/several-processes-or-machines.md says, with the code and the commands that stand there."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.cli import main
from penjing.training.checkpoint import steps_of

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "several-processes-or-machines.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
PAIR, COMPARED = (code for language, code in BLOCKS if language == "python")
(COMMANDS,) = (code.strip().splitlines() for language, code in BLOCKS if language == "bash")

# The page's data, but for the second process, which is killed the first time that it takes its share of the sixth step of the
# second epoch.
DYING = """
import os, signal
from pathlib import Path
from dataclasses import replace
import pair

class Loader:
    def __init__(self, batches):
        self.batches, self.epoch = batches, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for index, batch in enumerate(self.batches):
            if os.environ["RANK"] == "1" and (self.epoch, index) == (1, 11) and not Path("killed").exists():
                Path("killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

def data():
    given = pair.data()
    return replace(given, train=Loader(given.train))
"""


def ran(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a line of a shell; programs are those beside this Python, whose settings are those of a new user."""
    words = shlex.split(command)
    own = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *arguments = words[len(own) :]
    where = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HOME": str(folder / "home")}
    # Other tests may start processes at the same time: 0 takes a free port.
    more = ["launch", "--main_process_port", "0", *arguments[1:]] if program == "accelerate" else arguments
    return subprocess.run(
        [program, *more], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"} | where | own, capture_output=True, text=True
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder once its commands have run, the last of them twice: in the first run a process was killed."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "pair.py").write_text(PAIR)
    (folder / "dying.py").write_text(DYING)
    script, alone, together = COMMANDS
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:  # what needs one process runs in this one, which saves the imports
        patch.chdir(folder)
        assert script == "python pair.py"
        exec(PAIR, {"__name__": "__main__"})
        patch.setattr(sys, "argv", shlex.split(alone))
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    torch.set_num_threads(threads)
    together = together.replace("pair.py:data", "dying.py:data")
    for name in ("killed", "resumed"):
        done = ran(folder, together)
        (folder / f"{name}.txt").write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}")
        if name == "killed":
            checkpoint = folder / "together.checkpoint"
            (folder / "steps.txt").write_text(str(steps_of(checkpoint)))
            assert not (folder / "together.penjing").exists()
    return folder


def test_a_process_that_dies_stops_the_run_with_a_clear_message_and_a_good_checkpoint(folder: Path) -> None:
    code, _, told = (folder / "killed.txt").read_text().partition("\n")
    assert code != "0" and "SIGKILL" in told  # the launcher names how the first one ended
    (said,) = re.findall(r"^Error: (.*)", told, re.MULTILINE)
    assert re.search(r"Another process of this training has ended|The launcher stopped this process", said)
    assert "together.checkpoint holds what was saved last: the same command goes on from there" in said
    assert (folder / "steps.txt").read_text() == "(10, 20)"


def test_the_same_command_goes_on_and_one_process_alone_speaks_and_writes(folder: Path) -> None:
    code, _, told = (folder / "resumed.txt").read_text().partition("\n")
    assert code == "0", told
    for line in (
        "2 processes train together",
        "Going on with together.checkpoint at 50%",
        "epoch 2: loss",
        "Written: ",
    ):
        assert told.count(line) == 1, told
    left = {path.name for path in folder.iterdir() if path.name.startswith((".", "together"))}
    assert left == {"together.penjing"}


def test_two_processes_end_with_the_model_of_one_process_with_the_same_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(f"import penjing as pj\n{COMPARED}", names)
    assert printed.getvalue() == next(code for language, code in BLOCKS if not language) == "True\n"
    start = names["pj"].load("student.penjing")
    pairs = zip(start.parameters(), names["alone"].parameters(), strict=True)
    assert max(float((one - other).detach().abs().max()) for one, other in pairs) > 0.01, (
        "the two must have learned something to agree on"
    )
