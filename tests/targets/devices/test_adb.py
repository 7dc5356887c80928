"""Devices behind adb, whose place a program takes that keeps to its protocol."""

import os
import sys
from pathlib import Path

import fake_adb
import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.files import cache_folder
from penjing.graph import capture
from penjing.targets import find_target, lower, measure, profile
from penjing.targets.devices._adb import Adb
from penjing.targets.devices._address import Address
from penjing.targets.devices._connection import Unreachable
from penjing.targets.devices._leftovers import folder_on
from penjing.targets.devices._target import on_device


@pytest.fixture
def phone(tmp_path, monkeypatch):
    program, folder = tmp_path / "bin" / "adb", tmp_path / "phone"
    program.parent.mkdir()
    folder.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(fake_adb.__file__)}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADB", str(folder))
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    on_device.cache_clear()
    yield folder
    on_device.cache_clear()


@pytest.fixture
def adb(phone):
    return Adb(Address.parse(f"adb://fake-1/onnxruntime?python={sys.executable}"))


@pytest.fixture(params=["Android 7", "Android 6"])
def version(request, monkeypatch):
    if request.param == "Android 6":
        monkeypatch.setenv("FAKE_ADB_OLD", "1")


def test_a_command_tells_its_code_and_its_error_in_all_versions(adb, version):
    assert adb.run("exit 0", 5.0)[0] == 0
    code, _, error = adb.run("echo no room >&2; exit 3", 5.0)
    assert (code, error) == (3, "no room")


def test_an_error_of_a_command_is_not_taken_for_one_of_adb(adb, version):
    code, _, error = adb.run("echo error: the model is damaged >&2; exit 1", 5.0)
    assert (code, error) == (1, "error: the model is damaged")


def test_a_file_comes_byte_by_byte_and_a_missing_one_is_told(adb, phone):
    content = bytes(range(256)) + b"\r\n\npenjing-ended:1\n"
    (phone / "result").write_bytes(content)
    assert adb.fetch("/data/local/tmp/result") == content
    with pytest.raises(Unreachable, match=r"/data/local/tmp/none can't be copied from adb://fake-1: .*No such file"):
        adb.fetch("/data/local/tmp/none")


def test_a_connection_that_is_lost_within_a_command_is_told(adb, monkeypatch, tmp_path):
    (tmp_path / "bin" / "adb").write_text("#!/bin/sh\necho half of the out\n")
    for act in (lambda: adb.run("true", 5.0), lambda: adb.fetch("/data/local/tmp/result")):
        with pytest.raises(Unreachable, match="adb://fake-1 can't be reached by adb: the connection was lost"):
            act()


def test_a_model_is_measured_and_profiled_and_nothing_stays(phone, version, tmp_path):
    address = f"adb://fake-1/onnxruntime?python={sys.executable}"
    graph = capture(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), torch.randn(2, 8))
    file = lower(graph, address, tmp_path / "model.onnx")
    found = measure(file, runs=20, seconds=1)
    assert found.latency_ms.median > 0 and found.peak_memory_bytes and found.runtime.startswith("onnxruntime 1")
    assert sum(node.macs for node in profile(file)) == 32
    assert list(phone.iterdir()) == []


def test_a_device_that_adb_does_not_know_is_told(phone):
    with pytest.raises(
        PenjingError, match=r"adb://other can't be reached by adb: adb: device 'other' not found\. `adb devices`"
    ):
        find_target("adb://other/onnxruntime")


def test_a_missing_interpreter_is_told(phone):
    with pytest.raises(PenjingError, match=r"There is no Python at '/no/python3': put \?python="):
        find_target("adb://fake-1/onnxruntime?python=/no/python3")


def test_without_adb_the_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PenjingError, match="reached by the program 'adb', which isn't installed here"):
        find_target("adb:///onnxruntime")


def test_a_folder_whose_making_was_not_answered_is_removed_at_the_next_contact(adb, phone, monkeypatch):
    answered = Adb.run

    def lost(self, command, seconds):
        answered(self, command, seconds)
        raise Unreachable("the connection was lost")

    monkeypatch.setattr(Adb, "run", lost)
    with pytest.raises(Unreachable), folder_on("adb://fake-1", adb):
        pass
    assert len(list(phone.iterdir())) == 1
    monkeypatch.setattr(Adb, "run", answered)
    with folder_on("adb://fake-1", adb):
        assert len(list(phone.iterdir())) == 1, "only the new one"
    assert list(phone.iterdir()) == [] and not [one for one in cache_folder().rglob("*") if one.is_file()]
