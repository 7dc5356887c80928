"""Several results in one table and one chart: what is shown, what is beaten, and what can't be compared."""

from pathlib import Path
from typing import Any

import pytest
import report_samples
from test_page import Page

from penjing import report
from penjing.cli.finished import compare_command
from penjing.errors import PenjingError
from penjing.report._compare import chart
from penjing.report._headline import title


def run(
    folder: Path,
    *,
    data: str = "digits 123",
    metric: float = 0.97,
    ms: float = 0.4,
    size: int = 140_000,
    **changes: Any,
):
    """Writes a run's report into a folder; returns the folder."""
    after = report_samples.side(metric, ms, size, 118_214, 17_730_112)
    made = report_samples.report(compressed=after, settings={"data": data}, **changes)
    made["ratios"] |= {"latency": 0.842 / ms, "size": 1_103_420 / size}
    report.write(made, folder)
    return folder


@pytest.fixture
def three(tmp_path):
    return [
        run(tmp_path / "good", metric=0.975, ms=0.4),
        run(tmp_path / "worse", metric=0.970, ms=0.5, met=False),
        run(tmp_path / "small", metric=0.960, ms=0.4, size=90_000, data="digits 456"),
    ]


def test_the_table_holds_each_run_and_tells_which_is_beaten(three):
    found = report.compare(three)
    assert [row.beaten_by for row in found.rows] == [None, 1, None]
    assert found.data == "digits" and found.metric == "Accuracy"
    good, worse, _ = found.texts()
    assert (good["latency"], good["Accuracy"]) == ("0.400 ms, 2.1× faster", "97.5 % (−0.3)")
    assert worse["budget"] == "missed" and worse["beaten"] == "by 1"


def test_on_a_narrow_terminal_nothing_is_cut(tmp_path, monkeypatch, capsys):
    long = tmp_path / "a-run-with-a-long-name"
    folders = [run(long, metric=0.975), run(tmp_path / "other")]
    monkeypatch.setenv("COLUMNS", "80")
    compare_command(folders, tmp_path / "page.html")
    printed = capsys.readouterr().out
    assert "…" not in printed and printed.startswith("All on ONNX Runtime")
    assert max(map(len, printed.splitlines()[:-1])) <= 80 and "budget" in printed


def test_an_equal_result_is_beaten_by_none(tmp_path):
    found = report.compare([run(tmp_path / "a"), run(tmp_path / "b")])
    assert [row.beaten_by for row in found.rows] == [None, None]


def test_a_result_in_another_place_is_not_beaten(tmp_path):
    phone = {"name": "litert", "version": "2", "device": "phone", "threads": 1, "batch": 1}
    found = report.compare([run(tmp_path / "here"), run(tmp_path / "there", ms=5.0, target=phone)])
    assert [row.beaten_by for row in found.rows] == [None, None]


def test_the_chart_puts_the_faster_to_the_left_and_the_better_above(three):
    drawn = chart(report.compare(three))
    good, worse, small = drawn.points
    assert good.x == small.x < worse.x and good.y < worse.y < small.y
    assert (good.met, worse.met) == (True, False) and (good.taken, worse.taken) == (True, False)


def test_the_page_shows_all_of_it_and_loads_nothing(three, tmp_path):
    html = report.write_comparison(report.compare(three), tmp_path / "page.html").read_text()
    page = Page(html)
    assert "3 results side by side" in page.text["result"] and "by 1" in page.text["table"]
    assert not [attrs for _, attrs in page.tags if "src" in attrs or "href" in attrs]
    assert sum(tag == "circle" for tag, _ in page.tags) == 3


def test_without_labels_there_is_no_chart_and_no_metric(tmp_path):
    runs = [run(tmp_path / name, metric=None) for name in "ab"]
    found = report.compare(runs)
    assert chart(found) is None and found.texts()[0]["Accuracy"] == "not measured"
    Page(report.write_comparison(found, tmp_path / "page.html").read_text())


def test_of_runs_without_data_the_page_says_that_the_better_one_cannot_be_told(tmp_path):
    found = report.compare([run(tmp_path / name, metric=None, data="none") for name in "ab"])
    assert found.data == "no data" and [row.beaten_by for row in found.rows] == [None, None]
    page = Page(report.write_comparison(found, tmp_path / "page.html").read_text())
    assert "which of them answers better can't be told" in page.text["result"]


def test_a_metric_without_the_name_of_its_data_is_refused(tmp_path):
    runs = [run(tmp_path / "a"), run(tmp_path / "b", data="none")]
    with pytest.raises(PenjingError, match=r"b can't be compared: its report has a metric, but doesn't name the data"):
        report.compare(runs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "none", "metric": None}, "data of digits and of no data"),
        ({"data": "cifar10 9"}, "data of digits and of cifar10"),
        ({"metric_name": "macro F1"}, "metric of Accuracy and of macro F1"),
        ({"metric_samples": 10}, "number of samples of None and of 10"),
    ],
)
def test_runs_that_were_judged_otherwise_are_both_named(tmp_path, changes, message):
    runs = [run(tmp_path / "a"), run(tmp_path / "b", **changes)]
    with pytest.raises(PenjingError, match=rf"a and .*b can't be compared: {message}"):
        report.compare(runs)


def test_runs_on_other_samples_of_the_same_data_are_told_apart(tmp_path):
    runs = [run(tmp_path / "a"), run(tmp_path / "b")]
    for folder in runs:
        (folder / "validation.csv").write_text(f"name,label\n{folder.name}.png,1\n")
    with pytest.raises(PenjingError, match=r"validation\.csv tells of other samples"):
        report.compare(runs)


def test_each_run_is_checked_against_every_other_one(tmp_path):
    first, *others = (run(tmp_path / name) for name in "abc")
    for folder in others:
        (folder / "validation.csv").write_text(f"name,label\n{folder.name}.png,1\n")
    with pytest.raises(PenjingError, match=r"b and .*c can't be compared: validation\.csv tells of other samples"):
        report.compare([first, *others])


def test_one_run_alone_one_twice_and_none_are_refused(tmp_path):
    one = run(tmp_path / "a")
    with pytest.raises(PenjingError, match="two or more folders"):
        report.compare([one])
    with pytest.raises(PenjingError, match="named twice"):
        report.compare([one, one])
    with pytest.raises(PenjingError, match=r"There is no report\.json"):
        report.compare([one, tmp_path / "nothing"])


def test_a_runtime_on_another_device_is_called_by_both():
    assert title({"name": "ssh://pi@board:22/onnxruntime?python=/p"}) == "ONNX Runtime on pi@board:22"
    assert title({"name": "adb:///litert"}) == "LiteRT on a device"


def test_of_an_error_the_lower_is_better_and_its_sign_is_not_shown(tmp_path):
    wrong = {"metric_name": "mean absolute error", "lower_is_better": True}
    folders = [run(tmp_path / name, metric=metric, **wrong) for name, metric in (("good", -0.2), ("worse", -0.3))]
    found = report.compare(folders)
    assert [row.beaten_by for row in found.rows] == [None, 1]
    assert found.texts()[0]["Mean absolute error"].startswith("0.200 (")
    good, worse = chart(found).points
    assert good.y < worse.y and all(not tick.text.startswith("-") for tick in chart(found).up)
