"""`penjing export`: a graph's file for a target, in a folder like that of a run, with the original's for comparison."""

import json

import pytest
import torch

import penjing as pj
from penjing.targets import open_artifact, run

PHOTOS = ("--data", "folder:photos")


@pytest.fixture(scope="module")
def quantised(shell, tmp_path_factory):
    """The folder of a run that quantised the user's network."""
    out = tmp_path_factory.mktemp("run") / "quantised"
    ran = shell("quantize", "net.py:small", *PHOTOS, "--out", out)
    assert ran.code == 0, ran.text
    return out


def test_a_finished_run_gets_a_file_for_another_target(penjing, quick, quantised, tmp_path):
    pytest.importorskip("openvino")
    ran = penjing("export", quantised, "--target", "openvino", "--out", tmp_path / "out")
    assert ran.code == 0, ran.text
    proof = json.loads((tmp_path / "out" / "report.json").read_text())
    assert proof["target"]["name"] == "openvino" and proof["integer_macs"] > 0.9
    assert proof["ratios"]["size"] > 1, "compared with the original of the run"
    for name in ("preprocess.json", "classes.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (quantised / name).read_bytes()
    assert {"model.xml", "model.bin", "run.py", "report.html"} <= {file.name for file in (tmp_path / "out").iterdir()}
    assert proof["baseline"]["metric"] is not None and proof["data_source"] == "folder:photos"  # the run's own
    verified = penjing("verify", tmp_path / "out", *PHOTOS)
    assert "The file is the one of the report" in verified.out or verified.code == 0, verified.text


def test_a_saved_graph_gets_its_file_and_is_judged_beside_an_original(penjing, quick, quantised, tmp_path):
    saved = tmp_path / "mine.penjing"
    pj.load(quantised / "model.penjing").save(saved)
    command = ("export", saved, *PHOTOS, "--original", quantised / ".penjing" / "original.penjing")
    ran = penjing(*command, "--out", tmp_path / "out")
    assert ran.code == 0, ran.text
    proof = json.loads((tmp_path / "out" / "report.json").read_text())
    assert proof["baseline"]["metric"] == 1.0 and proof["compressed"]["metric"] is not None
    assert proof["model"] == "mine"
    x = torch.randn(4, 3, 24, 24)
    given = run(open_artifact(tmp_path / "out" / "model.onnx"), x)
    with torch.no_grad():
        assert torch.allclose(given, pj.load(saved)(x), atol=0.1)


def test_a_model_without_an_original_stands_beside_itself(penjing, quick, tmp_path):
    ran = penjing("export", "net.py:small", *PHOTOS, "--out", tmp_path / "out")
    assert ran.code == 0, ran.text
    proof = json.loads((tmp_path / "out" / "report.json").read_text())
    assert proof["ratios"]["size"] == 1 and proof["plan"] == []


def test_weights_in_16_bits_halve_the_file_and_the_graph_stays(penjing, quick, tmp_path):
    ran = penjing("export", "net.py:small", *PHOTOS, "--float16", "--out", tmp_path / "out")
    assert ran.code == 0, ran.text
    proof = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 1.4 < proof["ratios"]["size"] < 2 and proof["compressed"]["metric"] == 1.0
    assert 0 < proof["parity"]["max_abs_error"] < 0.05
    original = pj.load(tmp_path / "out" / ".penjing" / "original.penjing").tensors()
    tensors = pj.load(tmp_path / "out" / "model.penjing").tensors()
    assert all(torch.equal(value, original[name]) for name, value in tensors.items())


def test_a_run_whose_data_are_gone_is_exported_without_a_metric_and_that_is_said(penjing, quick, quantised, tmp_path):
    run = with_data_from(quantised, "folder:nowhere", tmp_path / "run")
    ran = penjing("export", run, "--out", tmp_path / "out")
    assert ran.code == 0 and "are gone (folder:nowhere), so the metric isn't measured" in ran.out, ran.text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["baseline"]["metric"] is None


def test_a_run_whose_data_are_damaged_is_refused(penjing, quantised, tmp_path):
    (tmp_path / "photos" / "train" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "train" / "red" / "0.png").write_bytes(b"no image")
    run = with_data_from(quantised, f"folder:{tmp_path / 'photos'}", tmp_path / "run")
    ran = penjing("export", run, "--out", tmp_path / "out")
    assert ran.code == 2 and "The data of the run can't be read: " in ran.err and "--data" in ran.err, ran.text
    assert not (tmp_path / "out").exists()


def with_data_from(finished, source, run):
    """Copies what export needs of a run into another folder, as if its data had come from elsewhere."""
    run.mkdir()
    for name in ("model.penjing", ".penjing/original.penjing", "report.json", "preprocess.json"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes((finished / name).read_bytes())
    proof = run / "report.json"
    proof.write_text(proof.read_text().replace('"data_source": "folder:photos"', f'"data_source": "{source}"'))
    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{run}", "--out", "{run}"), "is the folder of the run itself: name another one by --out"),
        (("{run}", "--weights", "w.safetensors", "--out", "{out}"), "which holds its weights; leave --weights out"),
        (("photos", "--out", "{out}"), "There is no model.penjing in photos"),
        (("{run}", "--target", "openvimo", "--out", "{out}"), "Did you mean 'openvino'"),
        (("{run}", "--target", "torch", "--float16", "--out", "{out}"), "hold float weights in 32 bits alone"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(penjing, quantised, tmp_path, arguments, message):
    ran = penjing("export", *(one.format(run=quantised, out=tmp_path / "out") for one in arguments))
    assert ran.code == 2 and message in ran.err and not (tmp_path / "out").exists()


def test_a_run_whose_original_is_gone_asks_for_it(penjing, quantised, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.penjing").write_bytes((quantised / "model.penjing").read_bytes())
    ran = penjing("export", tmp_path / "run", "--out", tmp_path / "out")
    assert ran.code == 2 and "name it by --original" in ran.err
