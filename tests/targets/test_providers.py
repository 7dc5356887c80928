"""ONNX Runtime's other providers by name: which there are, and that none of them silently means the CPU."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.planning import Deployment
from penjing.planning.latency import LatencyTable, kernels_of
from penjing.targets import Availability, available, find_target, lower, profile, session, targets, write_runner
from penjing.targets.onnxruntime import _providers
from penjing.targets.onnxruntime._provider_session import ProviderSession, memory
from penjing.targets.onnxruntime._provider_session import profile as profile_by
from penjing.targets.onnxruntime._providers import PROVIDERS, Provider

WHOLE = Provider("cpu", "CPUExecutionProvider", "the CPU", "cpu", "", whole=True)  # as if it wanted fixed sizes
FREE = Provider("cpu", "CPUExecutionProvider", "the CPU", "cpu", "", whole=False)
CUDA = PROVIDERS[0]


@pytest.fixture
def listed(monkeypatch):
    """Lets the runtime seem to have some providers."""
    return lambda *names: monkeypatch.setattr(_providers, "_asked", lambda: (names, ""))


def test_each_provider_is_listed_with_what_to_type_where_it_is_not_there(listed):
    listed("CPUExecutionProvider", "QNNExecutionProvider")
    rows = {row.name: row for row in available()}
    assert rows["onnxruntime:qnn"] == Availability("onnxruntime:qnn", True, ort.__version__, "")
    install = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    note = f"To get CUDAExecutionProvider: {install}."
    assert rows["onnxruntime:cuda"] == Availability("onnxruntime:cuda", False, ort.__version__, note)
    assert {f"onnxruntime:{key}" for key in ("cpu", "cuda", "tensorrt", "coreml", "qnn")} < rows.keys()


def test_a_provider_that_is_not_there_is_refused_with_those_that_are(listed):
    listed("CPUExecutionProvider", "AzureExecutionProvider")
    there = "has the providers AzureExecutionProvider, CPUExecutionProvider"
    with pytest.raises(
        PenjingError, match=rf"'onnxruntime:tensorrt' can't be used here: .*{there}\. .*onnxruntime-gpu"
    ):
        find_target("onnxruntime:tensorrt")
    with pytest.raises(PenjingError, match="macOS"):
        find_target("onnxruntime:coreml")


def test_a_misspelt_provider_is_told_with_the_nearest_name():
    with pytest.raises(PenjingError, match="Did you mean 'onnxruntime:cuda'"):
        find_target("onnxruntime:cuuda")


def test_the_list_is_that_of_the_runtime():
    assert "CPUExecutionProvider" in _providers.present()
    assert set(ort.get_available_providers()) <= set(_providers.present())


def test_another_build_of_the_runtime_will_do(monkeypatch):
    entry = targets["onnxruntime"]
    assert "onnxruntime-gpu" in entry.builds["onnxruntime"]
    versions = {"onnxruntime-gpu": "9.9", "onnx": "1", "onnx-ir": "1", "onnxscript": "1"}
    monkeypatch.setattr("penjing.targets._registry._version", versions.get)
    (row,) = [row for row in available() if row.name == "onnxruntime"]
    assert row == Availability("onnxruntime", True, "9.9", "")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_that_falls_back_to_the_cpu_is_refused(listed, plain, tmp_path):
    artifact = lower(plain, "onnxruntime", tmp_path / "model.onnx")
    with pytest.raises(PenjingError, match=r"on the CPU instead of by 'onnxruntime:cuda': .*driver or libraries"):
        ProviderSession(artifact, 1, CUDA)
    listed("CPUExecutionProvider", CUDA.name)
    with pytest.raises(PenjingError, match="on the CPU instead of by 'onnxruntime:cuda'"):
        lower(plain, "onnxruntime:cuda", tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_a_session_whose_provider_takes_no_op_is_refused(plain, tmp_path):
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no AzureExecutionProvider, which takes no ordinary op")
    idle = Provider("azure", "AzureExecutionProvider", "a cloud", "cloud", "", whole=False)
    with pytest.raises(PenjingError, match="AzureExecutionProvider takes none of the model's ops"):
        ProviderSession(lower(plain, "onnxruntime", tmp_path / "model.onnx"), 1, idle)


def test_a_session_that_tells_of_no_assignment_is_refused_except_on_the_cpu(plain, tmp_path, monkeypatch):
    artifact = lower(plain, "onnxruntime", tmp_path / "model.onnx")
    monkeypatch.setattr(ort.InferenceSession, "get_provider_graph_assignment_info", lambda session: [])
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda session: [CUDA.name, FREE.name])
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(
            PenjingError,
            match="'onnxruntime:cuda': the session doesn't tell which of the model's ops CUDAExecutionProvider takes",
        ),
    ):
        ProviderSession(artifact, 1, CUDA)
    ProviderSession(artifact, 1, FREE)


@pytest.mark.parametrize("provider", [FREE, WHOLE], ids=["free", "whole"])
def test_a_provider_gives_the_outputs_the_times_and_the_memory_of_its_file(provider, plain, tmp_path):
    artifact = lower(plain, "onnxruntime", tmp_path / "model.onnx")
    run = ProviderSession(artifact, 1, provider).run
    for batch in (1, 3, 8, 2, 5, 1):
        x = torch.randn(batch, 3, 12, 12)
        expected = [value.numpy() for value in session(artifact)(x).values()]
        for actual, value in zip(run({artifact.inputs[0].name: x.numpy()}), expected, strict=True):
            np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-6)
    inputs = {artifact.inputs[0].name: np.zeros((1, 3, 12, 12), np.float32)}
    rows = [row for row in profile_by(artifact, 1, inputs, 3, provider) if row.macs]
    assert [(row.module, row.macs) for row in rows] == [(row.module, row.macs) for row in profile(artifact) if row.macs]
    if sys.platform == "linux":
        peak, own = memory(artifact, 1, inputs, provider)
        assert peak > own > 0


def test_no_table_is_made_where_a_provider_tells_nothing_of_layers(monkeypatch, tmp_path):
    torch.manual_seed(0)
    graph = pj.capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8))
    module = sys.modules["penjing.planning.latency.side_by_side"]
    monkeypatch.setattr(module, "profile", lambda *_: [])
    table = LatencyTable(tmp_path / "table.db", Deployment())
    with pytest.raises(PenjingError, match=r"onnxruntime tells nothing of single layers.*widest_that_fits"):
        table.measure(kernels_of(graph).values())


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.key)
def test_the_script_of_a_provider_is_clean_and_names_it(provider, listed, tmp_path):
    pytest.importorskip("ruff")
    listed("CPUExecutionProvider", provider.name)
    script = write_runner(tmp_path, provider.target)
    assert f'PROVIDER = "{provider.name}"' in script.read_text()
    settings = ["--config", str(Path(__file__).parents[2] / "pyproject.toml"), str(script)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_integer_network_runs_by_a_provider_of_another_package(plain, tmp_path):
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn, whose library simulates an NPU, isn't installed")
    small = pj.quantize(plain, [plain.example_inputs(16)], target="onnxruntime:qnn")
    artifact = lower(small, "onnxruntime:qnn", tmp_path / "model.onnx")
    x = plain.example_inputs(4, seed=1)
    expected, actual = plain(*x), partial(session(artifact))(*x)
    assert (actual["logits"] - expected["logits"]).abs().max() < 0.1
    assert not any(row.module for row in profile(artifact) if row.op.startswith("QNN"))


def test_a_runtime_that_cannot_be_asked_says_why(monkeypatch):
    monkeypatch.setattr(_providers, "_ASK", "raise OSError('libfoo.so is missing') # {plugins}")
    asked = _providers._asked.__wrapped__()
    assert asked == ((), "OSError: libfoo.so is missing")
    monkeypatch.setattr(_providers, "_asked", lambda: asked)
    with pytest.raises(PenjingError, match=r"can't be asked for its providers: OSError: libfoo\.so is missing"):
        _providers.check_present(_providers.PROVIDERS[0])
