"""The page of a sweep: intervals, what is beaten, links to each run, and how `compare` finds the runs."""

import json

import pytest
from scipy.stats import binomtest
from test_compare import run
from test_page import Page

from penjing import report
from penjing.errors import PenjingError
from penjing.report._front import _charts, wilson


@pytest.fixture
def front(tmp_path):
    """Three runs of a sweep, the second of which the first beats."""
    for name, changes in {
        "0.5x": {"metric": 0.975, "ms": 0.4},
        "0.4x": {"metric": 0.970, "ms": 0.5, "met": False},
        "0.3x": {"metric": 0.960, "ms": 0.3},
    }.items():
        run(tmp_path / name, metric_samples=1000, **changes)
    return tmp_path


def test_intervals_of_a_share_are_those_of_wilson():
    for right, samples in ((90, 100), (0, 20), (997, 1000)):
        oracle = binomtest(right, samples).proportion_ci(method="wilson")
        assert wilson(right / samples, samples) == pytest.approx((oracle.low, oracle.high), abs=1e-4)


def test_the_page_draws_latency_and_size_and_leads_to_each_report(front):
    found = report.write_front(front, "latency", ["0.5x", "0.4x", "0.3x"])
    page = Page((front / "index.html").read_text())
    assert "3 limits on the latency" in page.text["result"] and "by 1" in page.text["table"]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links.count("0.3x/report.html") == 3  # in both charts and in the table
    assert sum(tag == "circle" for tag, _ in page.tags) == 6
    assert [row.beaten_by for row in found.rows] == [None, 1, None]


def test_points_have_intervals_around_them_and_tell_by_which_they_are_beaten(front):
    found = report.write_front(front, "latency", ["0.5x", "0.4x", "0.3x"])
    charts = _charts(found, {row.number: report.read(row.name) for row in found.rows})
    assert set(charts) == {"latency", "size"}
    for point in charts["latency"].points:
        assert point.y_range[1] < point.y < point.y_range[0]  # downwards, as pictures count
    assert "beaten by 1" in charts["size"].points[1].said and not charts["size"].points[1].taken


def test_the_folder_of_a_sweep_stands_for_its_runs(front):
    report.note_runs(front, "latency", ["0.5x", "0.4x"])
    assert report.runs_of(front) == [front / "0.5x", front / "0.4x"]
    assert report.runs_of(front / "0.3x") == [front / "0.3x"]


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", "", "a/b"])
def test_a_record_that_names_something_outside_of_its_folder_is_refused(front, name):
    (front / "sweep.json").write_text(json.dumps({"limit": "latency", "runs": ["0.5x", name]}))
    with pytest.raises(PenjingError, match="isn't the name of a folder beside it"):
        report.runs_of(front)


def test_a_damaged_record_is_named(front):
    (front / "sweep.json").write_text("{")
    with pytest.raises(PenjingError, match="is no record of a sweep"):
        report.runs_of(front)
