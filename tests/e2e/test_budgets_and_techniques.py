"""Budgets of every kind, and single techniques, on the command line of a whole run."""

import json

import pytest

RUN = ("compress", "net.py:small", "--data", "folder:photos", "--epochs", "1")


@pytest.fixture
def ran(penjing, quick, tmp_path):
    """Runs `compress` with these options; returns what it did and its report."""

    def call(*options):
        done = penjing(*RUN, *options, "--out", tmp_path / "out")
        return done, json.loads((tmp_path / "out" / "report.json").read_text())

    return call


@pytest.mark.parametrize(
    ("technique", "option"),
    [
        ("quantize", ("--quantize-only",)),
        ("prune", ("--prune-only",)),
        ("quantize", ("--techniques", "quantize")),
        ("prune", ("--techniques", "prune")),
    ],
)
def test_one_technique_is_all_that_is_used(ran, technique, option):
    done, report = ran(*option, "--size", "0.6x")
    assert {step["technique"] for step in report["plan"]} == {technique} and report["settings"]["techniques"] == [
        technique
    ]
    assert done.code == (0 if report["met"] else 3), done.text
    assert report["compressed"]["size_bytes"] <= 0.6 * report["baseline"]["size_bytes"]


def test_limits_on_what_is_counted_are_kept_and_shown(ran):
    done, report = ran("--macs", "0.5x", "--peak-memory", "64KB", "--largest-tensor", "0.9x", "--layers", "3")
    before, after = report["baseline"], report["compressed"]
    assert after["macs"] <= 0.5 * before["macs"] and after["peak_activation_bytes"] <= 64_000
    assert after["largest_tensor_bytes"] <= 0.9 * before["largest_tensor_bytes"] and after["layers"] <= 3
    assert report["budget"] == {"macs": "0.5x", "peak_memory": "64KB", "largest_tensor": "0.9x", "layers": "3"}
    assert not [line for line in report["missed"] if "metric" not in line and "answer" not in line], done.text


def test_a_limit_on_the_energy_is_kept_and_shown(ran, tmp_path):
    done, report = ran("--energy", "0.5x")
    before, after = report["baseline"], report["compressed"]
    assert 0 < after["energy_estimated_mj"] <= 0.5 * before["energy_estimated_mj"], done.text
    assert before["energy_mj"]["source"] == after["energy_mj"]["source"] and report["ratios"]["energy"] > 1
    assert "Energy of a sample, estimated" in (tmp_path / "out" / "report.html").read_text()


def test_a_budget_that_no_plan_can_meet_says_what_binds_and_keeps_the_nearest_file(ran, tmp_path):
    done, report = ran("--layers", "2", "--macs", "0.9x")
    assert done.code == 3 and not report["met"] and (tmp_path / "out" / "model.onnx").is_file()
    assert report["missed"][0] == "the number of layers that multiply is 3 where 2 are allowed (2)"
    assert "What binds is the number of layers that multiply: 3 where 2 is allowed, 50% more." in done.out
    assert "At the least, the number of layers that multiply of a candidate was 1.00× the original's (3)." in done.out


def test_a_whole_run_judges_changed_images_where_it_is_asked_to(ran, tmp_path):
    done, report = ran("--quantize-only", "--robustness")
    unchanged, *rows = report["robustness"]["rows"]
    assert unchanged["before"] == report["baseline"]["metric"] and unchanged["after"] == report["compressed"]["metric"]
    assert len({row["corruption"] for row in rows}) > 3 and all(0 <= row["after"] <= 1 for row in rows)
    assert "noise" in done.text.lower() and 'id="robustness"' in (tmp_path / "out" / "report.html").read_text()
