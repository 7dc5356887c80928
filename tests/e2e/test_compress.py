"""What a user does: compress a network of their own on their own photos, use the files, come back after a stop."""

import hashlib
import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import onnx
import pytest
import torch
from command_line import COMPRESS, environment

import penjing as pj
from made_time import Time
from penjing import load
from penjing.data import load as load_data
from penjing.distillation import signals
from penjing.errors import PenjingError
from penjing.models import load_model
from penjing.pruning.technique import Pruning
from penjing.quantization.technique import Quantization
from penjing.run.request import settled
from penjing.targets import Peaks
from penjing.training.checkpoint import progress_of

FILES = {"model.onnx", "model.penjing", "preprocess.json", "classes.txt", "run.py", "plan.json"} | {
    "report.json",
    "report.html",
}


def weights(folder):
    return load(folder / "model.penjing").tensors()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def report(folder):
    return json.loads((folder / "report.json").read_text())


def run_delivered(folder, data):
    """Runs run.py where neither torch nor penjing can be imported; returns the accuracy that it prints."""
    blocked = (
        "import sys; sys.modules['torch'] = sys.modules['penjing'] = None; sys.argv = sys.argv[1:]; import runpy; "
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked + "runpy.run_path(sys.argv[0], run_name='__main__')", folder / "run.py", data],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[1])


# The main job


def test_a_run_says_what_it_does_and_writes_everything(finished, home):
    out, err = (home / "out.txt").read_text(), (home / "err.txt").read_text()
    assert {path.name for path in finished.iterdir()} == FILES | {".penjing", "validation.csv"}
    assert out.startswith("This will take about ")
    told = out.splitlines()[1].partition(" to out/: ")[2].partition(", and .penjing/")[0]
    assert set(told.split(", ")) == FILES | {"validation.csv"}
    assert report(finished)["headline"] in out and "The budget was met (size 0.35x, drop 0.4)" in out
    assert err == ""
    assert list((finished / ".penjing" / "candidates").iterdir()) == []


def test_the_report_states_what_was_asked_and_done(finished):
    proof = report(finished)
    assert proof["met"] and proof["budget"] == {"size": "0.35x", "drop": 0.4} and proof["notes"] == []
    assert proof["compressed"]["size_bytes"] == (finished / "model.onnx").stat().st_size
    assert proof["compressed"]["size_bytes"] <= 0.35 * proof["baseline"]["size_bytes"]
    assert {step["technique"] for step in proof["plan"]} == {"prune", "quantize"}
    assert {"capture", "profile", "choose", "prune", "recover", "quantise", "lower", "verify"} <= proof[
        "seconds"
    ].keys()
    assert proof["provenance"]["command"].startswith("penjing compress net.py:small --data folder:photos --size 0.35x")
    assert all(proof[side]["metric"] is not None for side in ("baseline", "compressed"))


def test_inputs_are_given_as_sha256_hashes(finished, home):
    inputs = report(finished)["provenance"]["inputs"]
    assert inputs["model_source_file"] == hashlib.sha256((home / "net.py").read_bytes()).hexdigest()
    identity = report(finished)["settings"]["data"]
    assert inputs["data_identity"] == hashlib.sha256(identity.encode()).hexdigest()
    assert inputs.keys() == {"model_source_file", "data_identity", "captured_model"}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in inputs.values())
    page = (finished / "report.html").read_text()
    assert all(value in page for value in inputs.values()) and "Inputs (SHA-256)" in page


def test_the_delivered_script_needs_neither_torch_nor_penjing_and_gives_the_reported_accuracy(finished, home):
    assert run_delivered(finished, home / "photos") == pytest.approx(report(finished)["compressed"]["metric"], abs=5e-5)


def test_verify_agrees(finished, penjing):
    ran = penjing("verify", finished, "--data", "folder:photos", "--json")
    assert ran.code == 0 and (ran.json()["met"], ran.json()["agrees"]) == (True, True)
    ran = penjing("verify", finished, "--data", "folder:photos")
    assert ran.code == 0 and "The file does what its report says." in ran.out


def test_the_folder_of_a_run_tells_its_data_and_how_images_become_inputs(copied, penjing):
    assert penjing("verify", copied).code == 0
    proof = copied / "report.json"
    proof.write_text(proof.read_text().replace('"data_source": "folder:photos"', '"data_source": "mine.py:data"'))
    ran = penjing("verify", copied)
    assert ran.code == 2 and "isn't started on the word of a file: give --data mine.py:data" in ran.err
    content = json.loads(proof.read_text())
    del content["data_source"]
    proof.write_text(json.dumps(content))
    ran = penjing("verify", copied)
    assert ran.code == 2 and "Say which data to take, such as --data folder:photos" in ran.err
    assert penjing("recover", copied, "--epochs", 0).code == 2
    (copied / "preprocess.json").write_text("{")
    ran = penjing("verify", copied, "--data", "folder:photos")
    assert ran.code == 2 and "preprocess.json' doesn't say how images become inputs" in ran.err


def test_a_metric_on_other_data_and_a_budget_that_is_met_never_stand_together(copied, penjing, home, tmp_path):
    other = tmp_path / "photos"
    shutil.copytree(home / "photos", other)
    classes = sorted(path.name for path in (other / "val").iterdir())
    (other / "val" / classes[0]).rename(other / "val" / "x")
    (other / "val" / classes[1]).rename(other / "val" / classes[0])  # labels that are all wrong for two classes
    (other / "val" / "x").rename(other / "val" / classes[1])
    ran = penjing("verify", copied, "--data", f"folder:{other}")
    assert ran.code == 3 and "these aren't the data of the run" in ran.out and "The budget is met" not in ran.out, (
        ran.text
    )


def test_verify_notices_another_file(copied, penjing):
    shutil.copy(copied / ".penjing" / "original.onnx", copied / "model.onnx")
    ran = penjing("verify", copied, "--data", "folder:photos", "--json")
    assert ran.code == 3 and not ran.json()["agrees"]


def test_a_damaged_report_is_refused(penjing, copied):
    for content in ("{", "[]", json.dumps({"schema": 1})):
        (copied / "report.json").write_text(content)
        for arguments in (["report", copied], ["verify", copied, "--data", "folder:photos"]):
            ran = penjing(*arguments)
            assert ran.code == 2 and "report.json" in ran.err, (content, ran.text)


def test_a_damaged_model_file_is_refused_by_verify(penjing, copied):
    (copied / "model.onnx").write_bytes((copied / "model.onnx").read_bytes()[:500])
    ran = penjing("verify", copied, "--data", "folder:photos")
    assert ran.code == 2 and "model.onnx" in ran.err, ran.text


def test_a_finished_run_can_be_run_again(copied, penjing):
    before = weights(copied)
    ran = penjing(*COMPRESS, "--out", copied)
    assert ran.code == 0 and "epoch" not in ran.out, ran.text
    assert same(weights(copied), before) and report(copied)["met"]


def test_report_as_json(copied, penjing):
    ran = penjing("report", copied, "--json")
    assert ran.code == 0 and ran.json()["out"] == str(copied / "report.html")
    assert ran.json()["report"] == report(copied)


def test_report_builds_the_page_again(copied, penjing):
    before = (copied / "report.html").read_text()
    (copied / "report.html").unlink()
    ran = penjing("report", copied)
    assert ran.code == 0 and str(copied / "report.html") in ran.out
    assert (copied / "report.html").read_text() == before


# The plan


def assert_the_plan_gives_the_pruned_graph(folder):
    original = load(folder / ".penjing" / "original.penjing")
    data = settled(None, pj.data.load("folder:photos"))[1]
    small = pj.apply(original, folder / "plan.json", data)
    pruned = load(folder / ".penjing" / "pruned.penjing")
    assert same(small.tensors(), pruned.tensors()) and small.program.code == pruned.program.code
    assert small.plan == pruned.plan and small.cost().params < original.cost().params


def test_the_plan_alone_gives_the_weights_before_recovery_bit_for_bit(finished, home, monkeypatch):
    monkeypatch.chdir(home)
    assert_the_plan_gives_the_pruned_graph(finished)


# Coming back


def until_trained(process, folder):
    """Waits until the checkpoint holds some steps; there is one before the first."""
    while progress_of(folder / ".penjing" / "recover.checkpoint") == 0:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_during_recovery_the_same_command_ends_with_the_same_weights(before_recovery, finished, start, penjing):
    command = (*COMPRESS, "--out", before_recovery)
    process = start(*command)
    until_trained(process, before_recovery)
    process.kill()
    process.communicate()
    assert not (before_recovery / ".penjing" / "recovered.penjing").exists(), "it was killed too late to show anything"
    assert not (before_recovery / "model.onnx").exists()
    ran = penjing(*command)
    assert ran.code == 0 and "Going on with" in ran.out, ran.text
    assert "epoch 60:" in ran.out and "epoch 1:" not in ran.out
    assert same(weights(before_recovery), weights(finished))
    assert_the_plan_gives_the_pruned_graph(before_recovery)


def test_ctrl_c_during_recovery_finishes_with_the_weights_so_far_and_the_same_command_goes_on(
    before_recovery, finished, start, penjing
):
    command = (*COMPRESS, "--out", before_recovery)
    process = start(*command)
    until_trained(process, before_recovery)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode in (0, 3) and "Traceback" not in err, out + err
    assert "of the training; finishing with the weights so far" in out
    assert {path.name for path in before_recovery.iterdir()} >= FILES
    assert any("Training was interrupted at" in note for note in report(before_recovery)["notes"])
    assert not same(weights(before_recovery), weights(finished))
    ran = penjing(*command)
    assert ran.code == 0 and "Going on with" in ran.out, ran.text
    assert same(weights(before_recovery), weights(finished)) and report(before_recovery)["notes"] == []


def test_a_folder_in_use_is_refused_and_free_again_after_a_kill(before_recovery, start, penjing):
    command = (*COMPRESS[:-1], "100000", "--out", before_recovery)
    (before_recovery / ".penjing" / "run.json").unlink()  # these are other epochs
    process = start(*command)
    try:
        until_trained(process, before_recovery)
        ran = penjing(*command)
        assert ran.code == 2 and f"is in use by another Penjing command (process {process.pid})" in ran.err, ran.text
        assert "Traceback" not in ran.err
    finally:
        process.kill()
        process.communicate()
    assert penjing(*command, "--dry-run").code == 0
    ran = penjing(*command[:-3], "60", "--out", before_recovery, "--max-minutes", "0.1")
    assert ran.code == 2 and "holds another run" in ran.err, "the lock is free, its file is no obstacle"


def test_ctrl_c_while_candidates_are_measured_goes_on_with_the_best_so_far(penjing, quick, monkeypatch, tmp_path):
    search = importlib.import_module("penjing.planning.search")
    measure, calls, stop_at = search.measure_level, [], 2

    def counted(*arguments, **more):
        calls.append(arguments)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return measure(*arguments, **more)

    monkeypatch.setattr(search, "measure_level", counted)
    out = tmp_path / "out"
    command = ("compress", "net.py:small", "--data", "folder:photos", "--size", "0.3x", "--epochs", 1, "--out", out)
    ran = penjing(*command)
    assert "going on with the best of the 2 candidates measured so far" in ran.out and ran.code == 3, ran.text
    assert "Still to come: writing and verifying the file (" in ran.out, "the best so far has all its channels"
    assert {path.name for path in out.iterdir()} >= FILES
    assert any("Measuring candidates was interrupted" in note for note in report(out)["notes"])
    assert not any(step["technique"] == "prune" for step in report(out)["plan"])
    ran = penjing(*command, "--dry-run")
    assert "Finished already in" in ran.out and "choose" not in ran.out.partition("Finished already in")[2]
    ran = penjing(*command)
    assert len([given for given in calls if not given[1]]) == 1, "the plan that was measured isn't measured again"
    assert ran.code == (0 if report(out)["met"] else 3) and "epoch 1:" in ran.out, ran.text
    assert any(step["technique"] == "prune" for step in report(out)["plan"])
    assert not any("interrupted" in note for note in report(out)["notes"])
    assert "Going on with the run that was begun in" in ran.out


@pytest.mark.parametrize(
    ("file", "content", "stage"),
    [
        ("choice.json", '{"taken": {}, "measured": [], "complete": true}', "choose"),
        ("original.onnx", "x", "profile"),
        ("recovered.penjing", "x", "recover"),
    ],  # tests/test_stages_of_compress.py damages each of them
)
def test_a_damaged_file_of_a_stage_is_told_and_the_stage_done_again(
    file, content, stage, copied, finished, penjing, monkeypatch
):
    monkeypatch.setattr(importlib.import_module("penjing.run.verification"), "RUNS", 20)
    (copied / ".penjing" / "finished.json").unlink()
    (copied / ".penjing" / file).write_text(content)
    ran = penjing(*COMPRESS, "--out", copied)
    assert ran.code == 0 and f"is damaged, so '{stage}' is done again" in ran.out, ran.text
    assert same(weights(copied), weights(finished))


def test_a_damaged_result_is_made_again(copied, finished, penjing, quick):
    (copied / "model.onnx").write_text("x")
    ran = penjing(*COMPRESS, "--out", copied)
    assert ran.code == 0 and "A file of the finished run is damaged, so it is made again" in ran.out, ran.text
    assert (copied / "model.onnx").read_bytes() == (finished / "model.onnx").read_bytes()


def test_ctrl_c_elsewhere_says_how_to_go_on(penjing, quick, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("penjing.compress"), "find_solver", interrupted)
        ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--out", tmp_path / "out")
    assert ran.code == 130 and "Stopped. Run again, demo, compress and recover continue where they were." in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("stage", ["prune", "quantize"])
def test_stopped_at_any_other_stage_the_same_command_ends_the_same_way(stage, copied, finished, penjing, monkeypatch):
    for path in copied.iterdir():
        if path.name != ".penjing":
            path.unlink()
    if stage == "prune":
        for name in ("pruned.penjing", "recovered.penjing", "recover.checkpoint"):
            (copied / ".penjing" / name).unlink()

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    command = (*COMPRESS, "--out", copied)
    place = {
        "prune": (Pruning, "apply"),
        "quantize": (Quantization, "apply"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*place[stage], killed)
        with pytest.raises(Killed):
            penjing(*command)
    monkeypatch.setattr(importlib.import_module("penjing.run.verification"), "RUNS", 20)
    ran = penjing(*command)
    assert ran.code == 0, ran.text
    assert same(weights(copied), weights(finished)) and report(copied)["met"]


def test_an_out_of_another_run_is_refused(finished, penjing):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    command = ("compress", "net.py:small", "--data", "folder:photos", "--out", finished)
    changed = ("--size", "0.35x", "--drop", "0.4", "--epochs", "60", "--seed", "1")
    for options, parts in ((changed, ("seed was 0 and is 1)", "Give another folder")), (("--dry-run",), ())):
        ran = penjing(*command, *options)
        assert ran.code == 2 and ran.err.startswith("Error: ") and "Traceback" not in ran.text
        assert all(part in ran.err for part in ("holds another run", *parts)), ran.text
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


# Options


def test_a_dry_run_writes_nothing(penjing, home, tmp_path):
    arguments = ("compress", "net.py:small", "--data", "folder:photos", "--dry-run", "--out", tmp_path / "new")
    ran = penjing(*arguments)
    assert ran.code == 0 and "This will take about" in ran.out and f"MB to {tmp_path}/new/: model.onnx," in ran.out
    assert "60 images of 3 classes to train on, 30 images of 3 classes to judge on." in ran.out
    ran = penjing(*arguments, "--json")
    assert ran.code == 0 and ran.json()["out"] == str(tmp_path / "new") and ran.json()["minutes_choose"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_an_interrupted_run_tells_what_is_finished(before_recovery, copied, penjing):
    (before_recovery / ".penjing" / "finished.json").unlink()
    before = sorted(before_recovery.rglob("*"))
    ran = penjing(*COMPRESS, "--out", before_recovery, "--dry-run", "--json")
    assert ran.code == 0 and ran.json()["finished"] == ["capture", "profile", "choose", "prune"], ran.text
    assert ran.json()["minutes_choose"] == 0 and ran.json()["minutes_train"] > 0
    assert set(ran.json()["files"]) == FILES | {"validation.csv"}
    ran = penjing(*COMPRESS, "--out", before_recovery, "--dry-run")
    assert "(nothing to measure candidates, a few seconds to train" in ran.out
    assert f"Finished already in {before_recovery}: capture, profile, choose, prune." in ran.out
    assert sorted(before_recovery.rglob("*")) == before


def test_a_dry_run_of_a_finished_run_says_so(copied, penjing):
    ran = penjing(*COMPRESS, "--out", copied, "--dry-run")
    assert ran.code == 0 and "Nothing is left to do" in ran.out and "MB" not in ran.out


def test_json_on_standard_output_is_the_report(penjing, chosen, tmp_path):
    ran = penjing(
        "compress", "net.py:small", "--data", "folder:photos", "--json", "--out", tmp_path / "out", "--epochs", 1
    )
    assert ran.code == 0 and ran.json() == report(tmp_path / "out")
    assert "This will take about" in ran.err


def test_a_budget_that_can_not_be_met_keeps_the_best_and_says_how_far_it_came(penjing, quick, tmp_path):
    ran = penjing(
        "compress", "net.py:small", "--data", "folder:photos", "--size", "0.01x", "--latency", "1us", "--epochs", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 3 and "Traceback" not in ran.text, ran.text
    proof = report(tmp_path / "out")
    assert not proof["met"] and {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    size, allowed = proof["compressed"]["size_bytes"], int(0.01 * proof["baseline"]["size_bytes"])
    assert f"size is {size:,} bytes where {allowed:,} are allowed (0.01x)" in ran.out
    assert "where 0.001 ms are allowed (1us)" in ran.out and "The budget was not met" in ran.out
    assert (
        size == min(candidate["size_bytes"] for candidate in proof["candidates"])
        or size < 0.4 * proof["baseline"]["size_bytes"]
    )


def test_what_is_made_of_a_network_without_weights_is_no_success(penjing, chosen, tmp_path):
    out = tmp_path / "out"
    ran = penjing("compress", "net.py:plain", "--data", "folder:photos", "--epochs", 0, "--out", out)
    proof = report(out)
    assert ran.code == 3 and not proof["met"] and "same accuracy" not in ran.out, ran.text
    assert "Warning: the original is" in ran.out and "than always giving the same answer (accuracy 0." in ran.out
    assert "no weights were given" in proof["missed"][0] and any(proof["missed"][0] in note for note in proof["notes"])
    page = (out / "report.html").read_text()
    assert "with nothing to lose" in page and "than always giving the same answer" in page


@pytest.mark.parametrize("drop", ["0", "100%"])
def test_without_labels_and_epochs_agreement_stands_in_for_the_metric(penjing, chosen, tmp_path, drop):
    out = tmp_path / "out"
    ran = penjing("compress", "net.py:small", "--data", "folder:flat", "--drop", drop, "--epochs", 0, "--out", out)
    proof = report(out)
    unchanged = proof["parity"]["agreement_with_original"]
    assert proof["baseline"]["metric"] is None and proof["compressed"]["metric"] is None
    assert 0 <= unchanged < 1, "half of a network should answer differently"
    collapsed = "what came out is no better than always giving the same answer" in ran.out
    assert (ran.code == 0) == (drop == "100%" and not collapsed) and ran.code in (0, 3), ran.text
    told = f"the share of answers that differ from the original's is {1 - unchanged:.4f} where 0.0 is allowed"
    assert (told in ran.out) == (drop == "0")
    assert "agreement with the original stands in for the metric: top-1, which is" in ran.out
    assert "No weights were given" in ran.out
    assert not (out / "classes.txt").exists()


def test_unlabelled_images_train_by_the_original_alone(penjing, chosen, tmp_path):
    ran = penjing("compress", "net.py:small", "--data", "folder:flat", "--epochs", 2, "--out", tmp_path / "out")
    assert ran.code == 0 and "epoch 2: loss" in ran.out, ran.text


def test_excluded_layers_stay_as_they_were(penjing, chosen, tmp_path):
    out = tmp_path / "out"
    penjing("compress", "net.py:small", "--data", "folder:photos", "--exclude", "body*", "--epochs", 1, "--out", out)
    assert weights(out)["body.0.weight"].shape[:2] == (32, 8)
    changed = [step["place"] for step in report(out)["plan"] if step["before"] != step["after"]]
    assert changed and not any(place.startswith("body") for place in changed)


def test_kept_channels_may_be_rounded_and_a_layer_kept_in_float_may_be_pruned(penjing, chosen, tmp_path):
    run = ("compress", "net.py:small", "--data", "folder:photos", "--epochs", 1, "--out", tmp_path)
    ran = penjing(*run, "--keep-channels", "stem*", "--keep-float", "body*")
    assert ran.code in (0, 3), ran.text
    proof, file = report(tmp_path), onnx.load(tmp_path / "model.onnx").graph
    integers = {one.name: tuple(one.dims) for one in file.initializer if one.data_type == onnx.TensorProto.INT8}
    floats = {tuple(one.dims) for one in file.initializer if one.data_type == onnx.TensorProto.FLOAT}
    assert (16, 3, 3, 3) in integers.values(), integers  # the stem's channels are whole, and its weights integers
    assert (16, 16, 3, 3) in floats and (
        16,
        16,
        3,
        3,
    ) not in integers.values()  # the body's are half as many, and float
    assert {step["place"] for step in proof["plan"] if step["technique"] == "prune"} == {"body.0"}
    assert proof["settings"]["keep_float"] == ["body*"] and "Not quantised" in (tmp_path / "report.html").read_text()


def test_a_kept_module_that_is_not_there_is_refused_with_the_nearest_name(penjing, tmp_path):
    for option in ("--keep-channels", "--keep-float"):
        ran = penjing("compress", "net.py:small", "--data", "folder:photos", option, "boddy", "--out", tmp_path / "out")
        assert ran.code == 2 and "'boddy'" in ran.err and "Did you mean 'body'" in ran.err, ran.text


def test_a_module_given_to_keep_is_told_what_was_meant(penjing, tmp_path):
    ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--keep", "body", "--out", tmp_path / "out")
    assert ran.code == 2 and "kept from pruning by --keep-channels, and from quantisation by --keep-float" in ran.err


def test_equal_seeds_give_equal_weights_and_others_do_not(penjing, chosen, tmp_path):
    def train(name, seed):
        ran = penjing(
            "compress",
            "net.py:small",
            "--data",
            "folder:photos",
            "--epochs",
            2,
            "--seed",
            seed,
            "--out",
            tmp_path / name,
        )
        assert ran.code in (0, 3), ran.text
        return weights(tmp_path / name)

    first, again, other = train("a", 7), train("b", 7), train("c", 8)
    assert same(first, again) and not same(first, other)


def test_max_minutes_counts_from_the_beginning_of_the_command(penjing, monkeypatch, tmp_path):
    seen = {}

    def compress(graph, **given):
        seen.update(given)
        raise PenjingError("that is all")

    monkeypatch.setattr(importlib.import_module("penjing.compress"), "compress", compress)
    monkeypatch.setattr(importlib.import_module("penjing.cli.app"), "time", Time(5.0))
    ran = penjing(*COMPRESS, "--max-minutes", "0.6", "--out", tmp_path / "out")
    assert ran.code == 2 and "that is all" in ran.err, ran.text
    assert (seen["began"], seen["max_minutes"]) == (5.0, 0.6)


def test_where_there_is_no_time_at_all_the_result_is_verified_and_more_time_goes_on(penjing, chosen, tmp_path):
    out = tmp_path / "out"
    command = ("compress", "net.py:small", "--data", "folder:photos", "--epochs", 2, "--out", out)
    ran = penjing(*command, "--max-minutes", "0.001")
    assert ran.code in (0, 3), ran.text
    proof = report(out)
    assert proof["compressed"]["metric"] is not None and proof["compressed"]["latency_ms"]["runs"] >= 3
    assert any("The limit of 0.001 min was passed by" in note for note in proof["notes"])
    assert any("The deadline has passed: no training" in note for note in proof["notes"])
    assert any("cut this run short: training was left out" in note for note in proof["notes"])
    ran = penjing(*command, "--max-minutes", "0.001")
    assert "holds this run, finished" in ran.out and "epoch" not in ran.out
    ran = penjing(*command)
    assert ran.code in (0, 3) and "There is more time than before" in ran.out and "epoch 2:" in ran.out, ran.text
    assert not any("short" in note for note in report(out)["notes"])


def test_how_training_steps_are_computed_is_reported_and_can_be_named(penjing, chosen, finished, tmp_path):
    assert report(finished)["provenance"]["training"] in (
        {"precision": precision, "channels_last": layout}
        for precision in ("float32", "bfloat16")
        for layout in (True, False)
    )
    command = ("compress", "net.py:small", "--data", "folder:photos", "--epochs", 1, "--precision", "bfloat16")
    ran = penjing(*command, "--channels-last", "--out", tmp_path / "out")
    assert ran.code == 0, ran.text
    proof = report(tmp_path / "out")
    assert proof["provenance"]["training"] == {"precision": "bfloat16", "channels_last": True}
    assert "bfloat16, channels last" in (tmp_path / "out" / "report.html").read_text()


def test_one_thing_needs_no_budget_and_float_may_be_the_answer(penjing, quick, monkeypatch, tmp_path):
    monkeypatch.setattr("penjing.quantization.technique.Quantization.propose", lambda *_: iter(()))
    ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--out", tmp_path / "out")
    assert ran.code == 0 and "Float is already the fastest within your budget" in ran.out
    assert report(tmp_path / "out")["integer_macs"] == 0


# The other commands


def test_recover_takes_the_folder_of_a_run_and_its_data(copied, penjing):
    ran = penjing("recover", copied, "--epochs", 1)
    assert ran.code == 0 and (copied / "model-recovered.penjing").is_file(), ran.text


def test_recover_trains_the_compressed_graph_further(copied, penjing, tmp_path):
    target = tmp_path / "better.penjing"
    teacher = copied / ".penjing" / "original.penjing"
    ran = penjing(
        "recover", copied / "model.penjing", "--data", "folder:photos", "--teacher", teacher, "--epochs", 2, "--out", target
    )  # fmt: skip
    assert ran.code == 0 and "epoch 2: loss" in ran.out and "accuracy: " in ran.out, ran.text
    again = penjing(
        "recover", copied / "model.penjing", "--data", "folder:photos", "--teacher", teacher, "--epochs", 2, "--json",
        "--teacher", teacher, "--join", "confidence",
        "--precision", "float32", "--out", target,
    )  # fmt: skip
    told = again.json()
    assert (told["out"], told["finished"], told["metric"]["name"]) == (str(target), True, "accuracy"), again.text
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2] and told["epochs"][0]["precision"] == "float32"
    after, before = load(target).tensors(), weights(copied)
    assert after.keys() == before.keys() and not same(after, before)
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


BATCHED = (
    "--ema", 0.99, "--keep-norms", "--layer-decay", 0.8, "--augment", "mixup:0.4", "--augment", "erasing",
    "--label-smoothing", 0.1, "--penalty", "subspace:0.5", "--penalty-weight", 0.2,
    "--stop-at", 0.9, "--keep", "best", "--tracker", "tensorboard:logs",
)  # fmt: skip


@pytest.mark.parametrize("command", ["recover", "compress"])
def test_choices_of_weights_and_batches_reach_the_training(copied, penjing, monkeypatch, tmp_path, command):
    given = {}

    def told(*_, **choices):
        given.update(choices)
        raise PenjingError("This is enough.")

    model = copied / "model.penjing" if command == "recover" else "net.py:small"
    monkeypatch.setattr(importlib.import_module("penjing.training"), "recover", told)
    monkeypatch.setattr(importlib.import_module("penjing.compress"), "compress", told)
    ran = penjing(command, model, "--data", "folder:photos", "--out", tmp_path / "out.penjing", *BATCHED)
    assert ran.code == 2 and "This is enough." in ran.err
    assert {name: given[name] for name in ("ema", "layer_decay", "label_smoothing", "reestimate_norms")} == {
        "ema": 0.99, "layer_decay": 0.8, "label_smoothing": 0.1, "reestimate_norms": False,
    }  # fmt: skip
    assert (given["penalty"], given["penalty_weight"]) == ("subspace:0.5", 0.2)
    assert list(given["augment"]) == ["mixup:0.4", "erasing"] and list(given["trackers"]) == ["tensorboard:logs"]
    assert (given["stop_at"], given["keep"]) == (0.9, "best")


@pytest.fixture
def saved(home, monkeypatch, tmp_path):
    """A graph of the user's network, saved."""
    monkeypatch.chdir(home)
    load_model("net.py:small", data=load_data("folder:photos")).graph().save(tmp_path / "m.penjing")
    return tmp_path / "m.penjing"


@pytest.mark.parametrize("worse", [True, False])
def test_recover_says_that_the_result_is_worse_than_the_start_and_writes_it_all_the_same(
    saved, penjing, monkeypatch, worse
):
    def trained(graph, *_, **__):
        for parameter in graph.parameters():
            parameter.data *= not worse

    monkeypatch.setattr("penjing.training.recover", trained)
    ran = penjing("recover", saved, "--data", "folder:photos")
    assert ran.code == 0 and (saved.parent / "m-recovered.penjing").is_file(), ran.text
    assert ("Warning: the result is worse than the start" in ran.out) == worse
    assert f"{saved} still holds: try a smaller --lr" in ran.out or not worse


@pytest.mark.parametrize("command", ["recover", "compress"])
def test_a_teacher_whose_factory_was_given_no_weights_is_warned_of_by_name(saved, penjing, monkeypatch, command):
    monkeypatch.setattr("penjing.training.recover", lambda *_, **__: None)
    model = (saved,) if command == "recover" else ("net.py:small", "--dry-run")
    options = (*model, "--data", "folder:photos", "--out", saved.parent / "out", "--teacher")
    ran = penjing(command, *options, "net.py:plain")
    assert ran.code == 0, ran.text
    assert "Warning: The teacher net.py:plain was given no weights: unless its factory reads its own" in ran.out
    ran = penjing(command, *options, saved)
    assert ran.code == 0 and "was given no weights" not in ran.out, ran.text


def test_recover_interrupted_keeps_the_weights_and_goes_on(copied, penjing, monkeypatch, tmp_path):
    from penjing.training import Interrupted

    def stops(*_, **__):
        raise Interrupted(0.4)

    with monkeypatch.context() as patch:
        patch.setattr("penjing.training.recover", stops)
        ran = penjing("recover", copied / "model.penjing", "--data", "folder:photos", "--out", tmp_path / "m.penjing")
    assert ran.code == 130 and "Interrupted at 40%; the same command goes on" in ran.out
    assert (tmp_path / "m.penjing").exists() and "Stopped." not in ran.err


@pytest.fixture
def peaks(monkeypatch, tmp_path):
    """A made-up machine: measuring its peaks would take seconds."""
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    made_up = lambda target, threads, runtime: Peaks(runtime, threads, 1e11, 4e11, 3e10)  # noqa: E731
    monkeypatch.setattr("penjing.targets._peaks._measured", made_up)


def test_profile_shows_layers(penjing, copied, peaks):
    for model in (("net.py:small", "--data", "folder:photos"), (copied / "model.penjing",)):
        rows = penjing("profile", *model, "--json").json()
        assert {"stem.0", "body.0", "head"} <= rows.keys()
        assert rows["body.0"]["macs"] > 0 and rows["body.0"]["params"] > 0 and rows["body.0"]["bytes"] > 0
    ran = penjing("profile", "net.py:small", "--data", "folder:photos")
    assert ran.code == 0 and "stem.0" in ran.out and "MACs" in ran.out and "reached" in ran.out
    assert "in layers that reach less than 33% of the speed" in ran.out


def test_profile_shows_the_file_of_a_finished_run(penjing, copied, peaks):
    found = [penjing("profile", where, "--batch", 2, "--json").json() for where in (copied, copied / "model.onnx")]
    assert found[0].keys() == found[1].keys()
    graph = pj.load(copied / "model.penjing")
    for rows in found:
        assert sum(row["macs"] for row in rows.values()) == 2 * graph.cost().macs
        assert all(row["reached"] for row in rows.values() if row["latency_ms"])


def test_profile_of_a_finished_run_takes_its_threads_and_batch(penjing, copied, peaks):
    proof = copied / "report.json"
    proof.write_text(proof.read_text().replace('"threads": 1,', '"threads": 2,'))
    assert "2 thread(s), batch 1" in penjing("profile", copied).out
    assert "1 thread(s), batch 4" in penjing("profile", copied, "--threads", 1, "--batch", 4).out
    proof.write_text(proof.read_text().replace('"threads": 2,', '"threads": 100000,'))
    ran = penjing("profile", copied)
    assert ran.code == 2 and "threads" in ran.err and "100000" in ran.err.replace(",", ""), ran.text


@pytest.mark.parametrize("more", [("--weights", "w.safetensors"), ("--data", "folder:photos")])
def test_profile_of_a_finished_run_takes_no_weights_and_no_data(penjing, copied, more):
    ran = penjing("profile", copied, *more)
    assert ran.code == 2 and "neither --weights nor --data" in ran.err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "There is no model.penjing in {folder}"),
        ("model.onnx", "{folder}/model.onnx can't be read as an ONNX file"),
    ],
)
def test_profile_of_what_no_run_made_says_what_is_missing(penjing, tmp_path, name, told):
    (tmp_path / "model.onnx").write_bytes(b"x")
    ran = penjing("profile", tmp_path / name)
    assert ran.code == 2 and told.format(folder=tmp_path) in ran.err


def test_channels_shows_groups_and_what_pins_the_rest(penjing):
    ran = penjing("channels", "net.py:small", "--data", "folder:photos", "--json")
    found = ran.json()
    assert [(group["name"], group["units"]) for group in found["groups"]] == [("stem.0", 16), ("body.0", 32)]
    assert {"head.weight", "stem.0.weight"} <= {pin["tensor"] for pin in found["pinned"]}
    ran = penjing("channels", "net.py:small", "--data", "folder:photos")
    assert ran.code == 0 and "body.0" in ran.out


@pytest.mark.parametrize(
    "family",
    [
        "criteria",
        "granularities",
        "allocations",
        "schedules",
        "observers",
        "corrections",
        "methods",
        "signals",
        "balances",
        "distillation_schedules",
        "teachers",
        "penalties",
        "augmentations",
        "networks",
    ],
)
def test_list_shows_every_family(penjing, family):
    entries = penjing("list", family, "--json").json()[family]
    assert entries and all(entry["name"] and entry["source"] and entry["summary"] for entry in entries)
    ran = penjing("list", family)
    assert ran.code == 0 and all(entry["name"] in ran.out for entry in entries)


def test_list_finds_a_family_by_other_words_and_prints_whole_lines_for_programs(penjing):
    assert penjing("list", "quantisers").out == penjing("list", "grids").out
    lines = [line.split("\t") for line in penjing("list").out.splitlines()]
    assert {len(line) for line in lines} == {5} and {"criteria", "grids", "solvers"} <= {line[0] for line in lines}
    ran = penjing("list", "runtimes")
    assert ran.code == 2 and "penjing targets lists the runtimes" in ran.err


def test_targets_shows_what_is_usable(penjing):
    found = {row["name"]: row for row in penjing("targets", "--json").json()}
    assert found["onnxruntime"]["usable"] and found["onnxruntime"]["version"]
    assert all(row["usable"] != bool(row["note"]) for row in found.values())
    assert "onnxruntime" in penjing("targets").out


def test_the_demo_trains_compresses_and_proves(penjing, chosen, monkeypatch, tmp_path):
    demo = importlib.import_module("penjing.demo")
    monkeypatch.setattr(demo, "NETWORK", "lenet5")
    monkeypatch.setattr(
        demo, "digits", lambda **options: importlib.import_module("penjing.data").digits(channels=1, size=28, **options)
    )
    monkeypatch.setattr(demo, "TRAIN_EPOCHS", 1)
    monkeypatch.setattr(demo, "RECOVER_EPOCHS", 1)
    ran = penjing("demo", "--out", tmp_path / "demo")
    assert ran.code in (0, 3) and "Trained: accuracy 0." in ran.out, ran.text
    assert FILES | {"examples.npz"} <= {path.name for path in (tmp_path / "demo").iterdir()}
    reported = report(tmp_path / "demo")["compressed"]["metric"]
    assert run_delivered(tmp_path / "demo", tmp_path / "demo" / "examples.npz") == pytest.approx(reported, abs=5e-5)


SIGNAL = '''
import penjing as pj
from penjing.distillation import Signal, signals, values


@signals.register(source="{name}")
class {name}(Signal):
    """The outputs' values."""

    def forward(self, seen):
        return values(seen.student.outputs, seen.teacher.outputs)


def data():
    return pj.data.load("folder:photos")
'''


def test_a_signal_is_known_that_stands_in_the_file_of_the_data(saved, penjing, monkeypatch):
    monkeypatch.setattr(signals, "_entries", dict(signals._entries))  # it stays unknown to other tests
    mine = saved.parent / "mine.py"
    mine.write_text(SIGNAL.format(name="of_the_user"))
    options = ("--data", f"{mine}:data", "--epochs", 1, "--out", saved.parent / "out.penjing", "--teacher", saved)
    ran = penjing("recover", saved, *options, "--signal", "of_the_user")
    assert ran.code == 0 and (saved.parent / "out.penjing").is_file(), ran.text
    ran = penjing("compress", "net.py:small", *options, "--dry-run", "--signal", "of_the_uzer")
    assert ran.code == 2 and "Did you mean 'of_the_user'?" in ran.err, ran.text
