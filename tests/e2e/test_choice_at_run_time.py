"""Networks that choose their own cost, made on the command line: several widths, and exits."""

import json

import pytest
import torch

import penjing as pj
from penjing.run.lock import locked

ON_PHOTOS = ("net.py:small", "--data", "folder:photos", "--lr", "0.01")


def test_slim_writes_the_network_and_a_file_for_each_width(penjing, tmp_path):
    out = tmp_path / "slim"
    ran = penjing("slim", *ON_PHOTOS, "--widths", "0.5,1", "--epochs", "1", "--out", out)
    assert ran.code == 0, ran.text
    slim = pj.Slimmable.load(out)
    assert slim.widths == (0.5, 1.0)
    x = torch.randn(3, 3, 24, 24)
    for place, name in enumerate(("width-0.5.onnx", "width-1.onnx")):
        with torch.no_grad():
            expected = slim(x, width=place)
        torch.testing.assert_close(
            pj.targets.run(pj.targets.open_artifact(out / name), x), expected, atol=1e-4, rtol=1e-4
        )
        assert f"MACs, {(out / name).stat().st_size:,} bytes, accuracy" in ran.out


def test_exits_writes_the_network_its_stages_and_the_script(penjing, tmp_path):
    out = tmp_path / "exits"
    ran = penjing("exits", *ON_PHOTOS, "--at", "stem", "--drop", "60 points", "--epochs", "2", "--out", out)
    assert ran.code == 0, ran.text
    assert {path.name for path in out.iterdir()} >= {
        "stage-1.onnx",
        "stage-2.onnx",
        "run.py",
        "stages.json",
        "preprocess.json",
    }
    exits = pj.Exits.load(out)
    assert json.loads((out / "stages.json").read_text())["threshold"] == exits.threshold is not None
    assert "Exits behind" in ran.out and "samples, which left at" in ran.out


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("slim", ("--widths", "half"), "--widths half: give shares separated by commas"),
        ("slim", ("--widths", "0.5,1.5"), "shares of the channels, above 0 and at most 1"),
        ("slim", ("--criterion", "l3"), "Unknown criterion 'l3'"),
        ("exits", ("--at", "head"), "stands behind the last layer"),
        ("exits", ("--target", "onnx"), "Unknown target 'onnx'"),
        ("exits", ("--drop", "none"), "drop=none is no budget"),
    ],
)
def test_bad_input_is_told_in_a_line(command, more, says, penjing, tmp_path):
    ran = penjing(command, *ON_PHOTOS, *more, "--out", tmp_path / "out")
    assert ran.code == 2 and says in ran.text and "Traceback" not in ran.text


@pytest.mark.parametrize(
    ("command", "other", "made"), [("slim", "exits", "exits.json"), ("exits", "slim", "slimmable.json")]
)
def test_a_folder_of_another_command_or_in_use_is_refused(command, other, made, penjing, tmp_path):
    for name, file, says in (
        ("other", made, f"holds what penjing {other} made"),
        ("run", ".penjing/run.json", "holds a run"),
        ("foreign", "notes.txt", f"holds nothing of penjing {command}"),
    ):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        ran = penjing(command, *ON_PHOTOS, "--out", tmp_path / name)
        assert ran.code == 2 and says in ran.text and "Traceback" not in ran.text
    with locked(tmp_path / "busy" / ".penjing", tmp_path / "busy"):
        ran = penjing(command, *ON_PHOTOS, "--out", tmp_path / "busy")
    assert ran.code == 2 and "is in use by another Penjing command" in ran.text
