"""Compressed for two runtimes, each gets what it runs: integers where it has kernels for them, and none where it hasn't."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from penjing.targets import available

COMPRESS = ("compress", "net.py:small", "--data", "folder:photos", "--size", "0.5x", "--epochs", "0")


def check_script(out: Path, without: tuple[str, ...]) -> None:
    """Classifies an image with the script beside the file, in a process that can't import these modules."""
    block = "".join(f"sys.modules['{name}'] = None; " for name in without)
    start = f"import runpy, sys; {block}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    image = next(Path("photos").rglob("*.png"))
    done = subprocess.run(
        [sys.executable, "-c", start, out / "run.py", image], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and str(image) in done.stdout, done.stderr


def test_onnxruntime_gets_integers_with_pairs_that_it_fuses(penjing, quick, tmp_path):
    ran = penjing(*COMPRESS, "--target", "onnxruntime", "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    ops = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "QuantizeLinear" in ops and "DequantizeLinear" in ops, ran.text
    assert report["integer_macs"] > 0.9 and not any("in integers" in note for note in report["notes"])
    assert "quantize" in {step["technique"] for step in report["plan"]}


def test_openvino_gets_its_own_files_in_integers_and_the_script_beside_them_runs_without_penjing(
    penjing, quick, tmp_path
):
    pytest.importorskip("openvino")
    # The description of so small a network takes more bytes than its weights, so the size can't fall far.
    small = ("--quantize-only", "--size", "0.9x")
    ran = penjing(*COMPRESS[:4], *small, "--epochs", "0", "--target", "openvino", "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["integer_macs"] > 0.9, ran.text
    assert report["compressed"]["size_bytes"] == sum(
        (tmp_path / f"model{end}").stat().st_size for end in (".xml", ".bin")
    )
    check_script(tmp_path, without=("penjing", "torch", "onnxruntime"))


def test_litert_gets_one_file_in_integers_and_the_script_beside_it_runs_with_the_runtime_alone(
    penjing, quick, tmp_path
):
    pytest.importorskip("ai_edge_litert")
    small = ("--quantize-only", "--size", "0.9x")  # the ops' description takes much of so small a file
    ran = penjing(*COMPRESS[:4], *small, "--epochs", "0", "--target", "litert", "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["integer_macs"] > 0.9, ran.text
    assert report["compressed"]["size_bytes"] == (tmp_path / "model.tflite").stat().st_size
    check_script(tmp_path, without=("penjing", "torch", "onnxruntime"))


def test_executorch_gets_one_file_in_integers_and_the_script_beside_it_runs_without_penjing(penjing, quick, tmp_path):
    pytest.importorskip("executorch")
    small = ("--quantize-only", "--size", "0.95x")  # how kernels belong to modules takes much of so small a file
    ran = penjing(*COMPRESS[:4], *small, "--epochs", "1", "--target", "executorch", "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["integer_macs"] > 0.9, ran.text
    assert report["compressed"]["size_bytes"] == (tmp_path / "model.pte").stat().st_size
    check_script(tmp_path, without=("penjing", "onnxruntime", "executorch.exir"))


def test_the_browser_gets_a_page_beside_its_file_and_the_script_runs_without_penjing(penjing, quick, tmp_path):
    (row,) = [row for row in available() if row.name == "onnxruntime-web"]
    if not row.usable:
        pytest.skip(row.note)
    small = ("--quantize-only", "--size", "0.9x")
    ran = penjing(*COMPRESS[:4], *small, "--epochs", "0", "--target", "onnxruntime-web", "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["integer_macs"] > 0.9, ran.text
    assert "in Node" in report["target"]["version"]
    assert base64.b64encode((tmp_path / "model.onnx").read_bytes()).decode() in (tmp_path / "index.html").read_text()
    check_script(tmp_path, without=("penjing", "torch", "onnxruntime"))


def test_torch_gets_floats_and_is_told_why(penjing, quick, tmp_path):
    ran = penjing(*COMPRESS, "--target", "torch", "--out", tmp_path)
    program = torch.export.load(tmp_path / "model.pt2")
    report = json.loads((tmp_path / "report.json").read_text())
    assert not [node for node in program.graph.nodes if "quantize" in str(node.target)], ran.text
    assert {step["technique"] for step in report["plan"]} == {"prune"} and report["integer_macs"] == 0
    assert "Nothing was quantised: torch computes nothing in integers." in report["notes"]
    assert "torch computes nothing in integers, so every candidate is in floating point." in ran.out


def test_an_unknown_target_is_refused_with_the_nearest_name(penjing, tmp_path):
    ran = penjing(*COMPRESS, "--target", "onxruntime", "--out", tmp_path / "out")
    assert ran.code == 2 and "Did you mean 'onnxruntime'" in ran.err and not (tmp_path / "out").exists()
