"""A folder that is carried to a device measures there; its result is read where it was made, and nothing else is."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from penjing.cli import profiling  # noqa: F401  adds the command
from penjing.cli.app import app
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import import_kit, lower, machine_facts, write_kit
from penjing.targets.bench import _measuring


def wrong():
    """Returns outputs, as a result holds them, that no model gave."""
    return _measuring._packed([np.full((2, 8, 6, 6), 1e3, np.float32)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(2, 3, 8, 8))
    kit = write_kit(folder / "kit", lower(graph, path=folder / "model.onnx"), graph.cost(), name="tiny", batch=2)
    # In another process that must find nothing of Penjing's.
    without = "import runpy, sys; sys.modules['penjing'] = None; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", without + "runpy.run_path(sys.argv[0], run_name='__main__')", kit / "measure.pyz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ms, the median of" in done.stdout
    return kit


def test_the_result_holds_times_memory_layers_and_the_machine(measured):
    found = import_kit(measured / "result.json")
    assert (found.name, found.target, found.measurement.batch) == ("tiny", "onnxruntime", 2)
    assert found.measurement.latency_ms.runs >= 200 and found.measurement.model_memory_bytes is not None
    assert found.machine == machine_facts()
    assert sum(node.macs for node in found.nodes) >= 2 * found.cost.macs  # the runtime may pad channels
    assert "0" in {node.module for node in found.nodes}


def penjing(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_the_command_line_shows_it(measured):
    shown = penjing("profile", "--import", measured / "result.json")
    assert shown.exit_code == 0 and "tiny by onnxruntime" in " ".join(shown.output.split())
    record = json.loads(penjing("profile", "--import", measured / "result.json", "--json").output)
    assert record["layers"]["0"]["latency_ms"] > 0
    for more in (["zoo:lenet5"], ["--target", "openvino"]):
        both = penjing("profile", *more, "--import", "result.json")
        assert "leave MODEL, --export-kit, --target" in str(both.exception)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux alone")
def test_where_memory_can_not_be_measured_the_reason_is_told(tmp_path, monkeypatch):
    program = tmp_path / "fails.py"
    program.write_text("raise SystemExit('there is no room')")
    monkeypatch.setattr(sys, "argv", [str(program)])
    with pytest.raises(SystemExit, match="memory of 'model' failed: there is no room"):
        _measuring._fresh(tmp_path, "model")


def test_a_result_of_another_file_is_refused(measured, tmp_path):
    answer = json.loads((measured / "result.json").read_text())
    answer["files"]["model"] = "0" * 64
    other = tmp_path / "result.json"
    other.write_text(json.dumps(answer))
    with pytest.raises(PenjingError, match=r"put the device's result\.json into the folder"):
        import_kit(other)
    for file in measured.iterdir():
        if file.name != "result.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(PenjingError, match="was measured of another file"):
        import_kit(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer.pop("times"), "isn't the result of a measurement"),
        (lambda answer: answer["times"].clear(), "holds no times of the model"),
        (lambda answer: answer["profiles"].update(model={"nodes": 3}), "can't be read"),
        (lambda answer: answer["machine"].update(cores="many"), "isn't the result of a measurement"),
        (lambda answer: answer["times"].update(model=[]), "holds no times of the model"),
        (lambda answer: answer["times"].update(model=[-1.0]), "times that aren't positive"),
        (lambda answer: answer["outputs"].clear(), "outputs of 'model' that were sent can't be read"),
        (lambda answer: answer["outputs"].update(model=wrong()), "is another than here, beyond what roundings explain"),
    ],
)
def test_a_damaged_result_is_refused(measured, tmp_path, change, message):
    for file in measured.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    answer = json.loads((tmp_path / "result.json").read_text())
    change(answer)
    (tmp_path / "result.json").write_text(json.dumps(answer))
    with pytest.raises(PenjingError, match=message):
        import_kit(tmp_path / "result.json")


def test_a_folder_that_holds_something_is_left_alone(measured, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    graph = capture(nn.Linear(3, 2), torch.randn(2, 3))
    with pytest.raises(PenjingError, match="isn't empty"):
        write_kit(tmp_path, lower(graph, path=tmp_path.parent / "other.onnx"), graph.cost())
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_kit_that_names_a_file_elsewhere_is_refused(measured, tmp_path):
    for file in measured.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kit = json.loads((tmp_path / "kit.json").read_text())
    (tmp_path / "kit.json").write_text(json.dumps(kit | {"main_file": "../secret.onnx"}))
    with pytest.raises(PenjingError, match="names a file outside its folder"):
        import_kit(tmp_path / "result.json")


def test_the_command_line_writes_it_and_says_what_to_do(tmp_path):
    shown = penjing("profile", "zoo:lenet5", "--export-kit", tmp_path / "kit")
    assert shown.exit_code == 0
    assert "python3 measure.pyz" in " ".join(shown.output.split())
    assert {"measure.pyz", "request.json", "kit.json", "README.txt", "0.onnx", "0.inputs.npz"} == {
        file.name for file in (tmp_path / "kit").iterdir()
    }


def test_the_command_line_tells_in_json_what_it_wrote(tmp_path):
    folder = tmp_path / "kit"
    shown = penjing("profile", "zoo:lenet5", "--export-kit", folder, "--batch", "2", "--json")
    assert shown.exit_code == 0 and (folder / "measure.pyz").is_file()
    told = {"kit": str(folder), "name": "lenet5", "target": "onnxruntime", "threads": 1, "batch": 2}
    assert json.loads(shown.stdout) == told
