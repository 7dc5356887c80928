import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = """
import os, sys, torch
from accelerate import PartialState
from training_fakes import Net, data
from penjing.distillation import balances
from penjing.training import recover
torch.set_num_threads(1)
made = []

class Followed(balances["auto"].function):
    "The automatic balance, kept so that it can be looked at."
    def __init__(self):
        super().__init__()
        made.append(self)

balances.register(source="this test", name="followed")(Followed)
for case, how in CASES.items():
    epochs = []
    made.clear()
    folder = os.path.join(sys.argv[1], case)
    net = recover(Net(), data(), Net(1), 2, precision="float32", channels_last=False, report=epochs.append,
                  checkpoint=folder + "/run.pt", **how)
    torch.save({"net": net.state_dict(), "reports": len(epochs), "beside": made[0].state_dict() if made else {}},
               f"{folder}/{PartialState().process_index}.pt")
"""

CASES: dict[str, dict[str, Any]] = {
    "outputs": {},
    "inside": {
        "signal": "hints",
        "taps": "conv",
        "schedule": "staged",
        "balance": "followed",
        "ema": 0.9,
        "augment": "mixup",
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each case, in which each of two processes that trained a network left what it ended with."""
    folder = tmp_path_factory.mktemp("processes")
    for case in CASES:
        (folder / case).mkdir()
    script = folder / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nCASES = {CASES!r}\n{SCRIPT}")
    # On CPUs `accelerate launch` needs MPI; PyTorch's own launcher sets the same variables.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(folder)], check=True, env=environment)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_one_model_and_share_the_batches(folder: Path, case: str) -> None:
    one, other = (torch.load(folder / case / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    # Statistics are alike where they were computed anew, of all batches.
    alike = ["weight", "bias", *(["running"] if "ema" in CASES[case] else [])]
    parameters = [name for name in one["net"] if any(part in name for part in alike)]
    assert all(torch.equal(one["net"][name], other["net"][name]) for name in parameters)
    assert (one["reports"], other["reports"]) == (2, 0)
    assert torch.load(folder / case / "run.pt", weights_only=True)["standing"]["step"] == 10
    assert bool(one["beside"]) == bool(CASES[case]), "the balance remembers the losses of both processes"
    assert all(torch.equal(value, other["beside"][name]) for name, value in one["beside"].items())
