"""What a user does: compress a network of their own on their own photos, use the files, come back after a stop."""

import importlib
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_line import COMPRESS, environment

from penjing import load

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
    assert out.startswith("This will take about ") and "to out/." in out.splitlines()[0]
    assert report(finished)["headline"] in out and "The budget was met (size 0.35x, drop 0.5)" in out
    assert err == ""
    assert list((finished / ".penjing" / "candidates").iterdir()) == []


def test_the_report_states_what_was_asked_and_done(finished):
    proof = report(finished)
    assert proof["met"] and proof["budget"] == {"size": "0.35x", "drop": 0.5} and proof["notes"] == []
    assert proof["compressed"]["size_bytes"] == (finished / "model.onnx").stat().st_size
    assert proof["compressed"]["size_bytes"] <= 0.35 * proof["baseline"]["size_bytes"]
    assert {step["technique"] for step in proof["plan"]} == {"prune", "quantize"}
    assert {"capture", "profile", "choose", "prune", "recover", "quantise", "lower", "verify"} <= proof[
        "seconds"
    ].keys()
    assert proof["provenance"]["command"].startswith("penjing compress net.py:small --data folder:photos --size 0.35x")
    assert all(proof[side]["metric"] is not None for side in ("baseline", "compressed"))


def test_the_delivered_script_needs_neither_torch_nor_penjing_and_gives_the_reported_accuracy(finished, home):
    assert run_delivered(finished, home / "photos") == pytest.approx(report(finished)["compressed"]["metric"], abs=5e-5)


def test_verify_agrees(finished, penjing):
    ran = penjing("verify", finished, "--data", "folder:photos", "--json")
    assert ran.code == 0 and (ran.json()["met"], ran.json()["agrees"]) == (True, True)
    ran = penjing("verify", finished, "--data", "folder:photos")
    assert ran.code == 0 and "The file does what its report says." in ran.out


def test_verify_notices_another_file(copied, penjing):
    shutil.copy(copied / ".penjing" / "original.onnx", copied / "model.onnx")
    ran = penjing("verify", copied, "--data", "folder:photos", "--json")
    assert ran.code == 3 and not ran.json()["agrees"]


def test_a_finished_run_can_be_run_again(copied, penjing):
    before = weights(copied)
    ran = penjing(*COMPRESS, "--out", copied)
    assert ran.code == 0 and "epoch" not in ran.out, ran.text
    assert same(weights(copied), before) and report(copied)["met"]


def test_report_builds_the_page_again(copied, penjing):
    before = (copied / "report.html").read_text()
    (copied / "report.html").unlink()
    ran = penjing("report", copied)
    assert ran.code == 0 and str(copied / "report.html") in ran.out
    assert (copied / "report.html").read_text() == before


# Coming back


def until(process, path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)


def test_killed_during_recovery_the_same_command_ends_with_the_same_weights(before_recovery, finished, start, penjing):
    command = (*COMPRESS, "--out", before_recovery)
    process = start(*command)
    until(process, before_recovery / ".penjing" / "recover.checkpoint")
    process.kill()
    process.communicate()
    assert not (before_recovery / ".penjing" / "recovered.penjing").exists(), "it was killed too late to show anything"
    assert not (before_recovery / "model.onnx").exists()
    ran = penjing(*command)
    assert ran.code == 0 and "Going on with" in ran.out, ran.text
    assert "epoch 60:" in ran.out and "epoch 1:" not in ran.out
    assert same(weights(before_recovery), weights(finished))


def test_ctrl_c_during_recovery_finishes_with_the_weights_so_far_and_the_same_command_goes_on(
    before_recovery, finished, start, penjing
):
    command = (*COMPRESS, "--out", before_recovery)
    process = start(*command)
    until(process, before_recovery / ".penjing" / "recover.checkpoint")
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


def test_ctrl_c_elsewhere_says_how_to_go_on(penjing, quick, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("penjing.compress"), "choose", interrupted)
        ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--out", tmp_path / "out")
    assert ran.code == 130 and "Stopped. Given again, demo, compress and recover continue where they were." in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("stage", ["prune", "quantize", "verify"])
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

    module = importlib.import_module("penjing.compress")
    command = (*COMPRESS, "--out", copied)
    with monkeypatch.context() as patch:
        patch.setattr(module, stage, killed)
        with pytest.raises(Killed):
            penjing(*command)
    monkeypatch.setattr(importlib.import_module("penjing.verification"), "RUNS", 20)
    ran = penjing(*command)
    assert ran.code == 0, ran.text
    assert same(weights(copied), weights(finished)) and report(copied)["met"]


# Options


def test_a_dry_run_writes_nothing(penjing, home, tmp_path):
    arguments = ("compress", "net.py:small", "--data", "folder:photos", "--dry-run", "--out", tmp_path / "new")
    ran = penjing(*arguments)
    assert ran.code == 0 and "This will take about" in ran.out and "MB to" in ran.out
    ran = penjing(*arguments, "--json")
    assert ran.code == 0 and ran.json()["out"] == str(tmp_path / "new") and ran.json()["minutes_choose"] > 0
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("drop", ["0", "1"])
def test_without_labels_and_epochs_agreement_stands_in_for_the_metric(penjing, chosen, tmp_path, drop):
    out = tmp_path / "out"
    ran = penjing("compress", "net.py:small", "--data", "folder:flat", "--drop", drop, "--epochs", 0, "--out", out)
    proof = report(out)
    unchanged = proof["parity"]["agreement_with_original"]
    assert proof["baseline"]["metric"] is None and proof["compressed"]["metric"] is None
    assert 0 <= unchanged < 1, "half of an untrained network should answer differently"
    assert ran.code == (0 if drop == "1" else 3), ran.text
    told = f"the share of answers that differ from the original's is {1 - unchanged:.4f} where 0.0 is allowed"
    assert (told in ran.out) == (drop == "0")
    assert not (out / "classes.txt").exists()


def test_unlabelled_images_train_by_the_original_alone(penjing, chosen, tmp_path):
    ran = penjing("compress", "net.py:small", "--data", "folder:flat", "--epochs", 2, "--out", tmp_path / "out")
    assert ran.code == 0 and "epoch 2: loss" in ran.out, ran.text


def test_excluded_layers_stay_as_they_were(penjing, chosen, tmp_path):
    out = tmp_path / "out"
    penjing("compress", "net.py:small", "--data", "folder:photos", "--exclude", "body*", "--epochs", 1, "--out", out)
    assert weights(out)["body.0.weight"].shape[:2] == (32, 8)
    places = [step["place"] for step in report(out)["plan"]]
    assert places and not any(place.startswith("body") for place in places)


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


def test_max_minutes_bounds_the_training(penjing, chosen, tmp_path):
    start = time.monotonic()
    ran = penjing(*COMPRESS[:-1], "100000", "--max-minutes", "0.2", "--out", tmp_path / "out")
    assert ran.code in (0, 3) and time.monotonic() - start < 60, ran.text
    assert report(tmp_path / "out")["notes"]


def test_one_thing_needs_no_budget_and_float_may_be_the_answer(penjing, quick, monkeypatch, tmp_path):
    choose = importlib.import_module("penjing.plan.choose")
    monkeypatch.setattr(choose, "_quantized", lambda *_: None)
    ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--out", tmp_path / "out")
    assert ran.code == 0 and "Float is already the fastest within your budget" in ran.out
    assert report(tmp_path / "out")["integer_macs"] == 0


# The other commands


def test_recover_trains_the_compressed_graph_further(copied, penjing, tmp_path):
    target = tmp_path / "better.penjing"
    teacher = copied / ".penjing" / "original.penjing"
    ran = penjing(
        "recover", copied / "model.penjing", "--data", "folder:photos", "--teacher", teacher, "--epochs", 2, "--out", target
    )  # fmt: skip
    assert ran.code == 0 and "epoch 2: loss" in ran.out and "accuracy: " in ran.out, ran.text
    after, before = load(target).tensors(), weights(copied)
    assert after.keys() == before.keys() and not same(after, before)
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


def test_recover_interrupted_keeps_the_weights_and_goes_on(copied, penjing, monkeypatch, tmp_path):
    from penjing.train import Interrupted

    def stops(*_, **__):
        raise Interrupted(0.4)

    with monkeypatch.context() as patch:
        patch.setattr("penjing.cli.compressing.recover", stops)
        ran = penjing("recover", copied / "model.penjing", "--data", "folder:photos", "--out", tmp_path / "m.penjing")
    assert ran.code == 130 and "Interrupted at 40%; the same command goes on" in ran.out
    assert (tmp_path / "m.penjing").exists() and "Stopped." not in ran.err


def test_profile_shows_layers(penjing, copied):
    for model in ("net.py:small", copied / "model.penjing"):
        rows = penjing("profile", model, "--data", "folder:photos", "--json").json()
        assert {"stem.0", "body.0", "head"} <= rows.keys()
        assert rows["body.0"]["macs"] > 0 and rows["body.0"]["params"] > 0
    ran = penjing("profile", "net.py:small", "--data", "folder:photos")
    assert ran.code == 0 and "stem.0" in ran.out and "MACs" in ran.out


def test_channels_shows_groups_and_what_pins_the_rest(penjing):
    ran = penjing("channels", "net.py:small", "--data", "folder:photos", "--json")
    found = ran.json()
    assert [(group["name"], group["units"]) for group in found["groups"]] == [("stem.0", 16), ("body.0", 32)]
    assert {"head.weight", "stem.0.weight"} <= {pin["tensor"] for pin in found["pinned"]}
    ran = penjing("channels", "net.py:small", "--data", "folder:photos")
    assert ran.code == 0 and "body.0" in ran.out


@pytest.mark.parametrize("family", ["criteria", "granularities", "allocations", "observers", "signals", "networks"])
def test_list_shows_every_family(penjing, family):
    entries = penjing("list", family, "--json").json()[family]
    assert entries and all(entry["name"] and entry["source"] and entry["summary"] for entry in entries)
    ran = penjing("list", family)
    assert ran.code == 0 and all(entry["name"] in ran.out for entry in entries)


def test_targets_shows_what_is_usable(penjing):
    found = {row["name"]: row for row in penjing("targets", "--json").json()}
    assert found["onnxruntime"]["usable"] and found["onnxruntime"]["version"]
    assert not found["openvino"]["usable"] and found["openvino"]["note"]
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
