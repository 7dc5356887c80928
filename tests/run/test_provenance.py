"""Where a result comes from, as its report tells it."""

import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from penjing.run import provenance as module
from penjing.run.provenance import environment, processor, provenance

SETTINGS = {"model": "a hash", "data": "digits 0123"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_inputs_are_the_files_the_captured_model_and_the_text_that_tells_the_data_apart(tmp_path):
    told = provenance({"weights_file": "of a file"}, SETTINGS, tmp_path)["inputs"]
    assert told == {
        "weights_file": "of a file",
        "captured_model": "a hash",
        "data_identity": sha256(b"digits 0123"),
    }


def test_data_whose_name_is_no_text_has_a_hash_too(tmp_path):
    name = os.fsdecode(b"photos-\xff")
    assert provenance({}, SETTINGS | {"data": name}, tmp_path)["inputs"]["data_identity"] == sha256(b"photos-\xff")


def test_outputs_are_the_files_of_the_model_and_no_others(tmp_path):
    for name in ("model.onnx", "model.penjing", "report.json", "run.py", "amodel.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    assert provenance({}, SETTINGS, tmp_path)["outputs"] == {
        name: sha256(name.encode()) for name in ("model.onnx", "model.penjing")
    }


def test_versions_and_machine_are_those_at_hand():
    told = environment()
    assert told["versions"]["torch"] == version("torch") and told["versions"]["penjing"] == version("penjing")
    assert told["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["machine"]["torch_threads"] == torch.get_num_threads()
    assert told["machine"]["cores"] == os.cpu_count() and told["machine"]["processor"] == processor()


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/usr/bin/penjing", "penjing compress 'my net.py:small' --drop 1%"),
        ("/lib/penjing/__main__.py", "penjing compress 'my net.py:small' --drop 1%"),
        ("penjing.exe", "penjing compress 'my net.py:small' --drop 1%"),
        ("/home/me/train.py", None),
        ("/lib/other/__main__.py", None),
        ("", None),
    ],
)
def test_the_command_is_told_as_it_can_be_typed_again_where_there_was_one(monkeypatch, program, command):
    monkeypatch.setattr(sys, "argv", [program, "compress", "my net.py:small", "--drop", "1%"])
    assert environment()["command"] == command


INFO = "processor\t: 0\nvendor_id\t: X\nmodel name\t: Fast: 3000 \nmodel name\t: Other\n"


def test_the_processor_has_the_name_that_the_system_gives_it(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(INFO)
    monkeypatch.setattr(module, "Path", lambda name: info if name == "/proc/cpuinfo" else Path(name))
    assert processor() == "Fast: 3000"


@pytest.mark.parametrize(("named", "kind", "told"), [("arm", "aarch64", "arm"), ("", "aarch64", "aarch64")])
@pytest.mark.parametrize("content", [None, "Hardware\t: board\n"])
def test_where_the_system_lists_no_name_its_kind_stands_for_it(monkeypatch, tmp_path, content, named, kind, told):
    info = tmp_path / "cpuinfo"
    if content is not None:
        info.write_text(content)
    monkeypatch.setattr(module, "Path", lambda name: info)
    monkeypatch.setattr("platform.processor", lambda: named)
    monkeypatch.setattr("platform.machine", lambda: kind)
    assert processor() == told
