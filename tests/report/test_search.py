"""What the page tells of the search for the plan: what was measured, and what came second at each place."""

import itertools
import re
from pathlib import Path

import pytest
import report_samples
from test_page import page

from penjing import report
from penjing.errors import PenjingError
from penjing.report._search import chart, search, sizes


def test_each_measured_plan_is_a_row_with_what_binds(tmp_path: Path) -> None:
    made = report_samples.searched()
    said = page(made, tmp_path).said("search")
    assert "The 6 plans that were measured, in order" in said
    assert "272 k parameters, nothing removed, integers 0.810× 1.09 MB 0 missed latency: 162 % of its limit" in said
    assert len([one for one in search(made).steps if one.taken]) == 1
    assert said.count("taken") >= 2  # the row's mark and the chart's legend


def test_each_place_tells_what_was_taken_and_its_rival(tmp_path: Path) -> None:
    said = page(report_samples.searched(), tmp_path).said("search")
    assert (
        "layer1.0 branch goes loss +0.0300 · 0.0 % of the time · 0 B as it was loss 0 · 4.0 % of the time · 9.34 kB"
        in said
    )
    assert "24 of 32 channels loss +4.0 × 10⁻⁴ · 3.1 % of the time · 20.5 kB goes with layer2.0 loss +0.0400" in said
    assert "tucker2, rank 16×24 loss +0.0120" in said
    assert re.search(r"as it was loss 0 · 6\.0 % of the time · 73\.7 kB none", said)


@pytest.mark.parametrize(("places", "plans", "opened"), [(12, 12, [True, True]), (13, 13, [False, False])])
def test_long_tables_are_folded(places: int, plans: int, opened: list[bool], tmp_path: Path) -> None:
    shown = page(report_samples.searched(places, plans), tmp_path)
    tables = [found for tag, found in shown.tags if tag == "details" and found.get("class") != "places"]
    assert ["open" in found for found in tables] == opened


def test_the_chart_puts_faster_plans_to_the_left_and_harmful_ones_up() -> None:
    made = report_samples.searched()
    drawn = chart(made)
    rows = made["candidates"]
    assert [point.number for point in drawn.points] == list(range(1, 1 + len(rows)))
    drawn_rows = list(zip(drawn.points, rows, strict=True))
    for (one, row), (other, its) in itertools.pairwise(drawn_rows):
        assert (one.x < other.x) == (row["latency"] < its["latency"])
        assert (one.y > other.y) == (row["damage"] < its["damage"])
    for point, row in drawn_rows:
        assert drawn.left <= point.x <= drawn.right and drawn.top <= point.y <= drawn.bottom
        assert (point.x <= drawn.allowed.at) == (row["latency"] <= 0.5)
    assert drawn.allowed.text == "budget 0.5×"


def test_a_limit_in_milliseconds_stands_where_it_is_over_the_original() -> None:
    made = report_samples.searched()
    half = chart(made).allowed.at
    made["budget"] = {"latency": f"{0.5 * made['baseline']['latency_ms']['median']}ms"}
    assert chart(made).allowed.at == pytest.approx(half)
    made["budget"] = {"size": "0.5x"}
    assert chart(made).allowed is None


@pytest.mark.parametrize(("lacking", "charts"), [("damage", 1), ("latency", 0)])
def test_a_chart_is_drawn_of_what_was_measured(lacking: str, charts: int, tmp_path: Path) -> None:
    made = report_samples.searched()
    for one in made["candidates"]:
        one[lacking] = None
    html = report.write(made, tmp_path).read_text(encoding="utf-8")
    assert html.count('class="chart"') == charts and 'id="search"' in html
    assert ("Latency and size of each plan" in html) == (lacking == "damage")
    assert ("Expected loss" in html) == (lacking == "latency")


def test_candidates_of_earlier_versions_are_shown(tmp_path: Path) -> None:
    made = report_samples.searched(places=0)
    for one in made["candidates"]:
        for name in ("damage", "used", "binds", "taken"):
            del one[name]
    assert "118 k parameters, prune, floating point" in page(made, tmp_path).said("search")


def test_a_search_of_one_plan_is_no_search(tmp_path: Path) -> None:
    made = report_samples.searched(places=0)
    made["candidates"] = made["candidates"][:1]
    assert search(made) is None


def test_names_are_no_markup(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script>{{ 7*7 }}\"'&\u202e"
    made = report_samples.searched()
    for row in made["places"]:
        row["place"] = row["kind"] = hostile
        for option in (row["taken"], row["rival"] or {}):
            option |= {"technique": hostile, "before": hostile, "after": hostile, "setting": {hostile: hostile}}
    made["places"][0]["taken"]["goes_with"] = hostile
    for one in made["candidates"]:
        one |= {"techniques": [hostile], "binds": hostile, "used": {hostile: 0.5}}
    shown = page(made, tmp_path)
    assert [tag for tag, _ in shown.tags].count("script") == 1
    assert hostile in shown.text["search"]


@pytest.mark.parametrize("latency", [-1.0, 0.0, 5e-324, 1.0, 1e99])
@pytest.mark.parametrize("damage", [-1.0, 0.0, 5e-324, 1.0, 1e99])
@pytest.mark.parametrize("median", [0.0, 5e-324, 1.0])
def test_a_report_with_absurd_numbers_is_shown(latency: float, damage: float, median: float) -> None:
    made = report_samples.searched(places=0)
    made["baseline"]["latency_ms"] = {**made["baseline"]["latency_ms"], "median": median}
    made["budget"] = {"latency": "3ms"}
    for one in made["candidates"]:
        one |= {"latency": latency, "damage": damage}
    shown = search(made)
    assert shown is not None and (shown.chart is not None) == (latency >= 1 and damage >= 1)
    if shown.chart is not None:
        assert all(0 <= tick.at <= shown.chart.width for tick in (*shown.chart.across, *shown.chart.up))


@pytest.mark.parametrize(
    ("part", "key", "wrong"),
    [("candidates", "damage", "much"), ("candidates", "used", {"latency": "all"}), ("places", "taken", None)],
)
def test_a_report_with_a_broken_search_is_refused(part: str, key: str, wrong: object, tmp_path: Path) -> None:
    made = report_samples.searched()
    made[part][1][key] = wrong
    with pytest.raises(PenjingError, match=rf"{part}\[1\]\.{key}"):
        report.write(made, tmp_path)


def test_numbers_in_the_chart_do_not_run_into_one_another_and_the_taken_plan_has_its_own() -> None:
    made = report_samples.searched(plans=60)
    drawn = chart(made)
    assert any(point.taken for point in drawn.numbered) and 2 < len(drawn.numbered) < len(drawn.points)
    for one, other in itertools.combinations(drawn.numbered, 2):
        assert abs(one.x - other.x) > 12 or abs(one.y - other.y) > 9


def test_plans_are_drawn_by_latency_and_size_with_both_limits() -> None:
    made = report_samples.searched()
    made["budget"] = {"latency": "0.5x", "size": "0.5x"}
    drawn, rows = sizes(made), made["candidates"]
    assert drawn.allowed.text == "budget 0.5×" and drawn.allowed_up.text.startswith("budget ")
    most = 0.5 * made["baseline"]["size_bytes"]
    for point, row in zip(drawn.points, rows, strict=True):
        assert (point.y >= drawn.allowed_up.at) == (row["size_bytes"] <= most)
        assert "parameters" in point.said and "the latency" in point.said
    made["budget"] = {"size": "1kB"}
    assert sizes(made).allowed is None and sizes(made).allowed_up.text == "budget 1.00 kB"
    made["candidates"] = rows[:1]
    assert sizes(made) is None
