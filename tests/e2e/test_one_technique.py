"""One technique alone on the command line: prune, factorize, quantize, into a folder like that of a whole run."""

import json

import pytest
import torch

import penjing as pj
from penjing.targets import open_artifact, run

ON_PHOTOS = ("net.py:small", "--data", "folder:photos")
COMMANDS = {
    "prune": ("--amount", "0.5"),
    "factorize": ("--ranks", "speedup:2", "--exclude", "stem*"),
    "quantize": (),
}


@pytest.fixture
def made(penjing, quick, tmp_path):
    """Runs one of the commands on the user's network and photos; returns its folder and what it said."""

    def call(name, *more):
        out = tmp_path / name
        ran = penjing(name, *ON_PHOTOS, *(more or COMMANDS[name]), "--out", out)
        assert ran.code in (0, 3), ran.text
        return out, ran

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_holds_the_files_for_the_device_the_graph_the_plan_and_the_proof(made, name):
    out, ran = made(name)
    proof = json.loads((out / "report.json").read_text())
    small, plan = pj.load(out / "model.penjing"), json.loads((out / "plan.json").read_text())
    assert {path.name for path in out.iterdir()} >= {"model.onnx", "run.py", "preprocess.json", "report.html"}
    assert {step["technique"] for step in proof["plan"]} == {name} == {step["technique"] for step in plan["options"]}
    assert proof["compressed"]["params"] == small.cost().params < proof["baseline"]["params"]
    assert proof["compressed"]["size_bytes"] == (out / "model.onnx").stat().st_size < proof["baseline"]["size_bytes"]
    assert proof["budget"] == {} and proof["baseline"]["metric"] == 1.0 and proof["compressed"]["metric"] is not None
    assert proof["headline"] in ran.out and "The budget was met" not in ran.out


def test_the_file_computes_what_the_graph_does(made):
    out, _ = made("factorize")
    x = torch.randn(4, 3, 24, 24)
    given = run(open_artifact(out / "model.onnx"), x)
    with torch.no_grad():
        expected = pj.load(out / "model.penjing")(x)
    assert torch.allclose(given, expected, atol=1e-4)


def test_the_plan_makes_the_same_graph_again(made, home, monkeypatch):
    out, _ = made("factorize")
    monkeypatch.chdir(home)
    again = pj.apply(pj.load(out / ".penjing/original.penjing"), out / "plan.json", pj.data.load("folder:photos"))
    tensors = pj.load(out / "model.penjing").tensors()
    assert all(torch.equal(value, tensors[name]) for name, value in again.tensors().items())


def test_layers_that_stay_whole_are_named_with_the_reason(made):
    _, ran = made("factorize", "--ranks", "4", "--method", "spatial")
    assert "Left whole: head (it has no kernel that could be decomposed so)" in ran.out, ran.text


def test_single_layers_are_rounded_and_the_others_stay_in_floating_point(made):
    out, _ = made("quantize", "--include", "body*")
    plan = json.loads((out / "report.json").read_text())["plan"]
    assert {step["place"] for step in plan if step["after"] == "int8"} == {"body.0"}
    assert {(s["place"], s["found"]["reason"]) for s in plan if s["after"] != "int8"} == {
        ("stem.0", "asked"),
        ("head", "asked"),
    }


@pytest.mark.parametrize(("name", "option"), [("prune", "--keep-channels"), ("quantize", "--keep-float")])
def test_what_stays_has_the_name_that_it_has_in_compress_too(made, name, option):
    out, _ = made(name, *COMMANDS[name], option, "body*")
    plan = json.loads((out / "report.json").read_text())["plan"]
    assert not any(step["place"].startswith("body") for step in plan if step["before"] != step["after"])


VALUES = """
import torch
import penjing as pj


def data():
    images = torch.randn(64, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    batches = [(images, images.mean((2, 3)))]
    return pj.Data(batches, batches, batches, pj.tasks.Regression("mae"), "values")
"""


def test_values_are_judged_by_an_error_that_is_shown_without_its_sign(penjing, quick, tmp_path):
    (tmp_path / "values.py").write_text(VALUES)
    data = ("--data", f"{tmp_path / 'values.py'}:data")
    ran = penjing("quantize", "net.py:plain", *data, "--out", tmp_path / "out")
    assert ran.code in (0, 3) and "mean absolute error" in ran.out, ran.text
    proof = json.loads((tmp_path / "out" / "report.json").read_text())
    assert proof["lower_is_better"] and proof["compressed"]["metric"] < 0 and proof["changes"]["change"] is not None
    assert not any("One of 64" in note for note in proof["notes"]), "no value is right or wrong"
    ran = penjing("verify", tmp_path / "out", *data)
    assert "mean absolute error │ -" not in ran.out and "│ -" not in ran.out, ran.text


def test_verify_and_report_read_such_a_folder(made, penjing):
    out, _ = made("quantize")
    assert penjing("verify", out, "--data", "folder:photos").code == 0
    assert penjing("report", out).code == 0


def test_the_same_command_may_be_given_again_and_another_one_needs_another_folder(made, penjing):
    out, _ = made("factorize")
    before = (out / "plan.json").read_bytes()
    made("factorize")
    assert (out / "plan.json").read_bytes() == before
    ran = penjing("factorize", *ON_PHOTOS, "--ranks", "speedup:3", "--exclude", "stem*", "--out", out)
    assert ran.code == 2 and "ranks was speedup:2 and is speedup:3" in ran.err, ran.text


def test_without_data_only_time_and_sizes_are_measured_and_that_is_said(penjing, quick, tmp_path):
    ran = penjing("factorize", "zoo:lenet5", "--ranks", "speedup:2", "--out", tmp_path / "out", "--json")
    proof = ran.json()
    assert ran.code == 0 and proof["compressed"]["metric"] is None is proof["parity"]["agreement_with_original"]
    assert any("Without data nothing tells how good the answers still are" in note for note in proof["notes"])
    assert proof["compressed"]["macs"] < 0.6 * proof["baseline"]["macs"], "the first layer stays as it was"


def test_a_network_that_answers_all_inputs_alike_is_no_success(penjing, quick, tmp_path):
    ran = penjing("prune", *ON_PHOTOS, "--amount", "0.95", "--out", tmp_path / "out")
    assert ran.code == 3 and "Warning: what came out is no better than always giving the same answer" in ran.out, (
        ran.text
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("factorize", *ON_PHOTOS, "--method", "tukker2"), ("Did you mean 'tucker2'?",)),
        (("factorize", *ON_PHOTOS, "--ranks", "energi:0.9"), ("Did you mean 'energy'?",)),
        (("factorize", *ON_PHOTOS, "--ranks", "haed=4"), ("Unknown layer 'haed'", "Did you mean 'head'?")),
        (("factorize", *ON_PHOTOS, "--ranks", "0"), ("can't have the ranks 0", "the valid range is 1 to")),
        (("factorize", *ON_PHOTOS, "--form", "unfolded"), ("Did you mean 'unfold'?",)),
        (("factorize", *ON_PHOTOS, "--target", "onxruntime"), ("Did you mean 'onnxruntime'?",)),
        (("factorize", *ON_PHOTOS, "--exclude", "haed"), ("haed", "Did you mean 'head'?")),
        (("factorize", "zoo:lenet5", "--metric", "outputs"), ("--metric outputs looks at data: give --data",)),
        (("prune", *ON_PHOTOS, "--amount", "0.5", "--criterion", "tailor"), ("Did you mean 'taylor'?",)),
        (("prune", *ON_PHOTOS), ("amount is the share of units to remove",)),
        (("prune", *ON_PHOTOS, "--amount", "1"), ("amount is the share of units to remove, 0 ≤ amount < 1, not 1.0",)),
        (("prune", "zoo:lenet5", "--amount", "0.5", "--criterion", "taylor"), ("--criterion taylor looks at data",)),
        (("quantize", *ON_PHOTOS, "--grid", "int88"), ("'int88' must be 2 to 16",)),
        (("quantize", "zoo:lenet5"), ("give --data, or --activations none",)),
        (("quantize", *ON_PHOTOS, "--target", "torch"), ("torch computes nothing in integers",)),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_written(penjing, tmp_path, arguments, parts):
    ran = penjing(*arguments, "--out", tmp_path / "out")
    assert ran.code == 2 and ran.err.startswith("Error: ") and "Traceback" not in ran.text
    assert all(part in ran.err for part in parts), ran.err
    assert not (tmp_path / "out").exists()
