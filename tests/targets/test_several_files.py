"""A lowered model may be several files: each step treats them as one thing."""

import copy
import dataclasses
import importlib
import json

import pytest
import torch
from halves import SUFFIXES, halves

import penjing as pj
from penjing.capabilities import TARGETS
from penjing.errors import PenjingError
from penjing.files import is_temporary
from penjing.run import stages
from penjing.run.delivery import delivered_names
from penjing.run.recheck import recheck
from penjing.run.workspace import EarlierContent
from penjing.targets import check_parity, lower, measure, open_artifact, profile, session, targets


@pytest.fixture(autouse=True)
def target(monkeypatch):
    monkeypatch.setattr(targets, "_entries", dict(targets._entries))
    targets.register(source="this test", packages=("onnxruntime",))(halves)
    monkeypatch.setitem(TARGETS, "halves", dataclasses.replace(TARGETS["onnxruntime"], name="halves"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.head"


def test_all_files_are_written_and_count(path, plain):
    artifact = lower(plain, "halves", path)
    assert artifact.files == (path, path.with_suffix(".tail"))
    assert sorted(path.parent.iterdir()) == sorted(artifact.files)
    whole = lower(plain, "onnxruntime", path.parent / "whole.onnx").path.read_bytes()
    assert b"".join(file.read_bytes() for file in artifact.files) == whole
    assert artifact.size_bytes == len(whole)
    measured = measure(artifact, runs=3, seconds=0.1)
    assert measured.size_bytes == len(whole) and measured.peak_memory_bytes > 0
    assert [row.module for row in profile(artifact) if row.macs] == ["conv", "head"]
    assert check_parity(artifact, plain).max_abs_error < 1e-4
    assert open_artifact(path, "halves") == artifact


def test_a_name_without_the_targets_suffix_has_its_parts_beside_it(tmp_path):
    target = halves()
    assert target.files(tmp_path / "model.v2.head")[1] == tmp_path / "model.v2.tail"
    assert target.files(tmp_path / "model")[1] == tmp_path / "model.tail"


def test_a_missing_part_is_named(path, plain):
    lower(plain, "halves", path)
    path.with_suffix(".tail").unlink()
    with pytest.raises(PenjingError, match=r"no file .*model\.tail, without which .*model\.head can't be used"):
        open_artifact(path, "halves")


def test_what_fails_between_two_files_leaves_the_old_ones(path, plain):
    before = [file.read_bytes() for file in lower(plain, "halves", path).files]
    failing = copy.deepcopy(plain)
    failing.name = "fails between its files"
    with pytest.raises(PenjingError, match="no second half"):
        lower(failing, "halves", path)
    assert [path.with_suffix(suffix).read_bytes() for suffix in SUFFIXES] == before
    assert not any(is_temporary(file) for file in path.parent.iterdir())


def test_a_part_that_changed_is_loaded_again(path, plain):
    artifact = lower(plain, "halves", path)
    before = session(artifact)
    assert session(artifact) is before
    other = copy.deepcopy(plain)
    with torch.no_grad():
        other.get_parameter("head.bias").add_(1)
    lower(other, "halves", path)
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(session(artifact)(x)["logits"], before(x)["logits"] + 1)
    assert session(artifact) is not before


def test_a_stage_is_finished_only_with_all_of_them(tmp_path):
    held = EarlierContent(tmp_path, {})
    inner = held.path(".").resolve()
    inner.mkdir(parents=True)
    for name in ("original.penjing", "original.head", "baseline.json", "finished.json"):
        (inner / name).touch()
    for name in ("report.json", "report.html", "model.penjing", "model.head", "run.py", "plan.json"):
        (tmp_path / name).touch()
    assert stages.finished(held, SUFFIXES) == ("capture",) and not stages.is_finished(held, SUFFIXES)
    (inner / "original.tail").touch()
    assert stages.finished(held, SUFFIXES) == ("capture", "profile")
    (tmp_path / "model.tail").touch()
    assert stages.is_finished(held, SUFFIXES)


@pytest.fixture
def narrow(monkeypatch):
    """Measures briefly."""
    monkeypatch.setattr(importlib.import_module("penjing.planning.candidates"), "SECONDS", 0.1)
    monkeypatch.setattr(importlib.import_module("penjing.run.verification"), "RUNS", 5)


def blobs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 4
    inputs = torch.randn(64, 3, 12, 12, generator=generator)
    inputs[torch.arange(64), 0, 0, labels] += 50
    batches = [(inputs[i : i + 16], labels[i : i + 16]) for i in range(0, 64, 16)]
    return pj.Data(train=batches, calibration=batches, validation=batches, task=pj.tasks.Classification(4))


def test_a_run_measures_delivers_and_verifies_all_of_them(narrow, tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1600, 4)
    )
    data, out = blobs(), tmp_path / "out"
    result = pj.compress(
        model, torch.randn(2, 3, 12, 12), data=data, target="halves", out=out, epochs=0, progress=False,
        say=lambda line: None,
    )  # fmt: skip
    assert list((out / ".penjing" / "candidates").iterdir()) == []
    files = [out / f"model{suffix}" for suffix in SUFFIXES]
    assert {file.name for file in files} <= set(delivered_names(data, SUFFIXES))
    assert result.report["compressed"]["size_bytes"] == sum(file.stat().st_size for file in files)
    assert {file.name for file in files} <= result.report["provenance"]["outputs"].keys()
    assert recheck(out, data).same_file
    reported = json.loads((out / "report.json").read_text())
    reported["provenance"]["outputs"]["model.tail"] = "0" * 64
    (out / "report.json").write_text(json.dumps(reported))
    assert not recheck(out, data).same_file
    files[1].unlink()
    with pytest.raises(PenjingError, match=r"no file .*model\.tail"):
        recheck(out, data)
