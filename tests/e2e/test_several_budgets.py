"""A second budget, more epochs and another target from a finished run: nothing is typed twice, little is measured twice."""

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "several-budgets.md").read_text()


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_a_second_budget_takes_model_data_and_options_from_the_first_run(penjing, quick, finished, tmp_path):
    ran = penjing("compress", "--from", finished, "--size", "0.3x", "--out", tmp_path / "out")
    assert (
        "Traceback" not in ran.text and "Taken over: what its data told; the candidates that it measured" in ran.out
    ), ran.text
    first, second = report(finished), report(tmp_path / "out")
    assert second["budget"] == {"size": "0.3x", "drop": 0.4} and second["started_from"] == str(finished)
    changed = {name for name, value in first["settings"].items() if second["settings"][name] != value}
    assert changed == {"budget"}
    assert first["baseline"]["metric"] == second["baseline"]["metric"]
    preprocess = [json.loads((out / "preprocess.json").read_text()) for out in (finished, tmp_path / "out")]
    assert preprocess[0] == preprocess[1]


def test_options_on_the_line_win_and_none_lifts_a_limit(penjing, quick, finished, tmp_path):
    ran = penjing(
        "compress", "--from", finished, "--size", "none", "--macs", "0.9x", "--epochs", "0", "--seed", "3", "--quantize-only",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert "Traceback" not in ran.text, ran.text
    told = report(tmp_path / "out")
    assert told["budget"] == {"macs": "0.9x", "drop": 0.4}
    assert (told["settings"]["epochs"], told["settings"]["seed"]) == (0, 3)
    assert told["settings"]["techniques"] == ["quantize"]


def test_what_is_missing_or_contradicts_is_told(penjing, home, finished, tmp_path):
    for arguments, words in (
        ((), "Name a model and --data, or begin with an earlier run: --from OUT."),
        (("--from", finished, "--out", finished), "is the folder of the earlier run: name another one"),
        (("--from", finished, "--weights", "w.pt"), "--weights belong to a MODEL"),
        (("--from", tmp_path), "holds no run of compress"),
        (("--from", finished, "net.py:plain"), "isn't the one of the run"),
        (("--from", finished, "--latency", "soon"), "latency"),
    ):
        ran = penjing("compress", *arguments, *(() if "--out" in arguments else ("--out", tmp_path / "new")))
        assert ran.code == 2 and words in ran.err and "Traceback" not in ran.text, (arguments, ran.text)
    assert not (tmp_path / "new").exists()


def test_another_budget_in_the_same_folder_is_told_how_to_begin_with_it(penjing, finished):
    ran = penjing(
        "compress",
        "net.py:small",
        "--data",
        "folder:photos",
        "--size",
        "0.3x",
        "--drop",
        "0.4",
        "--epochs",
        60,
        "--out",
        "out",
    )
    assert ran.code == 2 and "size was 0.35x and is 0.3x" in ran.err and "--from out --out out-2" in ran.err, ran.text


SWEEP = next(line for line in re.findall(r"^penjing sweep .*$", PAGE, re.MULTILINE))


def test_the_sweep_of_the_page_makes_a_folder_for_each_limit_one_table_and_one_page(penjing, quick, home, tmp_path):
    arguments = shlex.split(SWEEP)[1:]
    del arguments[arguments.index("--weights") : arguments.index("--weights") + 2]  # the user's folder holds none
    arguments[arguments.index("--epochs") + 1] = "0"
    arguments[arguments.index("--out") + 1] = str(tmp_path / "front")
    limits = arguments[arguments.index("--budgets") + 1].split(",")
    ran = penjing(*arguments)
    assert ran.code in (0, 3) and "Traceback" not in ran.text and ran.out.count("Beginning with the run in") == 2, (
        ran.text
    )
    told = [report(tmp_path / "front" / limit) for limit in limits]
    assert [one["budget"]["size"] for one in told] == limits
    assert [one["started_from"] for one in told[1:]] == [str(tmp_path / "front" / limit) for limit in limits[:2]]
    for limit in limits:
        assert re.search(rf"│ {limit} +│", ran.out), ran.out
    assert "index.html" in ran.out and (tmp_path / "front" / "index.html").exists()
    again = penjing(*arguments, "--json")
    assert [one["out"] for one in json.loads(again.out)["runs"]] == [
        str(tmp_path / "front" / limit) for limit in limits
    ]
    compared = penjing("compare", tmp_path / "front", "--page", tmp_path / "page.html")
    assert compared.code == 0 and len(re.findall(r"front/0\.\d+x", compared.out)) == 3, compared.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budgets", "0.5x"), "two limits or more"),
        (("--budgets", "0.5x,0.5x"), "given twice"),
        (("--budgets", "0.5x,0.3x", "--latency", "1ms"), "leave one of them out"),
        (("--budgets", "0.5x,0.3x", "--limit", "speed"), "Unknown limit 'speed'"),
        (("--budgets", "0.5x,0.3x", "--solver", "best"), "Unknown solver 'best'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_anything_is_loaded(penjing, tmp_path, arguments, words):
    ran = penjing("sweep", "net.py:missing", "--data", "digits", *arguments, "--out", tmp_path / "front")
    assert ran.code == 2 and words in ran.err and "Traceback" not in ran.text, ran.text
    assert not (tmp_path / "front").exists()


@pytest.mark.parametrize("line", [line for line in re.findall(r"^penjing .*$", PAGE, re.MULTILINE) if "--from" in line])
def test_each_command_of_the_page_is_understood(penjing, quick, finished, tmp_path, monkeypatch, line):
    arguments = shlex.split(line)[1:]
    arguments[arguments.index("--out") + 1] = str(tmp_path / "out")
    ran = penjing(*arguments, "--dry-run")
    assert ran.code == 0 and "This will take" in ran.out, ran.text


def test_verify_adds_changed_images_to_the_report(penjing, quick, copied):
    ran = penjing("verify", copied, "--robustness", "--json")
    assert ran.code in (0, 3), ran.text
    rows = report(copied)["robustness"]["rows"]
    assert ran.json()["robustness"]["rows"] == rows and len(rows) == 16
    assert rows[0]["before"] == report(copied)["baseline"]["metric"]
    assert 'id="robustness"' in (copied / "report.html").read_text()
