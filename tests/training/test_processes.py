import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = """
import sys, torch
from accelerate import PartialState
from training_fakes import Net, data
from penjing.training import recover
torch.set_num_threads(1)
epochs = []
net = recover(Net(), data(), Net(1), 2, precision="float32", channels_last=False, report=epochs.append,
              checkpoint=sys.argv[1] + "/run.pt")
rank = PartialState().process_index
torch.save({"net": net.state_dict(), "reports": len(epochs)}, f"{sys.argv[1]}/{rank}.pt")
"""


def test_two_processes_train_one_model_and_share_the_batches(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{SCRIPT}")
    # On CPUs `accelerate launch` needs MPI; PyTorch's own launcher sets the same variables.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(tmp_path)], check=True, env=environment)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    parameters = [name for name in one["net"] if "running" not in name and "tracked" not in name]
    assert all(torch.equal(one["net"][name], other["net"][name]) for name in parameters)
    assert (one["reports"], other["reports"]) == (2, 0)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["standing"]["step"] == 10
