import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = """
import sys, torch
from accelerate import PartialState
from training_fakes import Net, data
from penjing.distillation import balances
from penjing.training import recover
torch.set_num_threads(1)
epochs, made = [], []

class Followed(balances["auto"].function):
    "The automatic balance, kept so that it can be looked at."
    def __init__(self):
        super().__init__()
        made.append(self)

balances.register(source="this test", name="followed")(Followed)
net = recover(Net(), data(), Net(1), 2, precision="float32", channels_last=False, report=epochs.append,
              checkpoint=sys.argv[1] + "/run.pt", **HOW)
rank = PartialState().process_index
torch.save({"net": net.state_dict(), "reports": len(epochs), "beside": made[0].state_dict() if made else {}},
           f"{sys.argv[1]}/{rank}.pt")
"""


def in_two_processes(folder: Path, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains a network in two processes, and returns what each of them ends with."""
    script = folder / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nHOW = {how!r}\n{SCRIPT}")
    # On CPUs `accelerate launch` needs MPI; PyTorch's own launcher sets the same variables.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(folder)], check=True, env=environment)
    one, other = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    return one, other


@pytest.mark.parametrize(
    "how",
    [
        {},
        {
            "signal": "hints",
            "taps": "conv",
            "schedule": "staged",
            "balance": "followed",
            "ema": 0.9,
            "augment": "mixup",
        },
    ],
    ids=["outputs", "inside"],
)
def test_two_processes_train_one_model_and_share_the_batches(tmp_path: Path, how: dict[str, Any]) -> None:
    one, other = in_two_processes(tmp_path, **how)
    alike = ["weight", "bias", *(["running"] if "ema" in how else [])]  # statistics were computed anew, of all batches
    parameters = [name for name in one["net"] if any(part in name for part in alike)]
    assert all(torch.equal(one["net"][name], other["net"][name]) for name in parameters)
    assert (one["reports"], other["reports"]) == (2, 0)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["standing"]["step"] == 10
    assert bool(one["beside"]) == bool(how), "the balance remembers the losses of both processes"
    assert all(torch.equal(value, other["beside"][name]) for name, value in one["beside"].items())
