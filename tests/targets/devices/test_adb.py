"""Devices behind adb, whose place a program takes that keeps to its protocol."""

import os
import sys
from pathlib import Path

import fake_adb
import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import find_target, lower, measure, profile
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


def test_a_model_is_measured_and_profiled_and_nothing_stays(phone, tmp_path):
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
