"""Does what docs/howto/add-a-target.md says, with the code that stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import penjing as pj
from penjing import capabilities
from penjing.errors import PenjingError
from penjing.targets import available, check_parity, import_kit, open_artifact, run, targets, write_kit, write_runner
from planning.blobs import learnt

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "add-a-target.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The folder as the page writes it, imported; afterwards its target is no longer there."""
    folder = tmp_path / "numpy_target"
    folder.mkdir()
    (folder / "on_device.py").write_text(BLOCKS[0][1])
    (folder / "__init__.py").write_text(BLOCKS[1][1] + BLOCKS[2][1])
    (folder / "runner.py.j2").write_text(BLOCKS[3][1])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("numpy_target", "numpy_target.on_device"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(targets, "_entries", dict(targets._entries))
    known = dict(capabilities.TARGETS)
    yield tmp_path
    capabilities.TARGETS.clear()
    capabilities.TARGETS.update(known)
    for name in ("numpy_target", "numpy_target.on_device"):
        sys.modules.pop(name, None)


def test_the_page_s_target_is_used_as_it_says(registered, capsys):
    torch.manual_seed(0)
    exec(BLOCKS[4][1], names := {})
    assert capsys.readouterr().out == BLOCKS[5][1]
    graph, artifact = pj.prune(names["graph"], 0.5), names["artifact"]
    assert check_parity(artifact, graph).max_abs_error < 1e-5
    assert open_artifact("model.npz", "numpy") == artifact
    found = pj.measure(artifact, runs=3, seconds=0.1)
    assert found.runtime == f"numpy {np.__version__}" and found.peak_memory_bytes > found.model_memory_bytes
    assert "numpy" in {row.name for row in available() if row.usable}


def test_a_kit_measures_it_elsewhere(registered):
    torch.manual_seed(0)
    exec(BLOCKS[4][1], names := {})
    kit = write_kit("kit", names["artifact"], names["graph"].cost())
    done = subprocess.run([sys.executable, kit / "measure.pyz"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = import_kit(kit / "result.json")
    assert found.target == "numpy" and found.measurement.latency_ms.median > 0
    assert [node.macs > 0 for node in found.nodes] == [True, False, True]


def test_a_plan_is_made_for_it(registered):
    exec("import numpy_target")
    graph, data = learnt()
    plan = pj.plan(graph, data, target="numpy", budget=pj.Budget(size="0.5x"))
    assert {option.technique for option in plan.options} == {"prune"}


def test_what_it_lacks_and_what_is_no_such_file_is_refused_as_by_any_target(registered):
    exec("import numpy_target")
    with pytest.raises(PenjingError, match=r"numpy has no 'aten\.tanh\.default', at .*onnxruntime"):
        pj.lower(pj.capture(nn.Tanh(), torch.randn(2, 64)), "numpy", "model.npz")
    Path("model.npz").write_bytes(b"no model")
    with pytest.raises(PenjingError, match="numpy can't load"):
        open_artifact("model.npz", "numpy")


def test_the_script_runs_without_penjing(registered):
    torch.manual_seed(0)
    exec(BLOCKS[4][1], names := {})
    x = np.random.default_rng(0).standard_normal((40, 64), np.float32)
    np.savez("examples.npz", x=x, y=run(names["artifact"], x).argmax(1).numpy())
    Path("preprocess.json").write_text(json.dumps(None))
    script = write_runner(".", "numpy")
    start = "import sys; sys.modules['penjing'] = None; sys.argv = sys.argv[1:]; import runpy; "
    command = [sys.executable, "-c", start + "runpy.run_path(sys.argv[0], run_name='__main__')", script, "examples.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["accuracy 1.0000 (40 inputs)"], done.stderr
