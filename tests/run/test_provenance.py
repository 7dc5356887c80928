"""Where a result comes from, as its report tells it."""

import hashlib
import os
import sys
from importlib.metadata import version

import pytest
import torch

from penjing.run.provenance import environment, provenance
from penjing.targets import processor

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
