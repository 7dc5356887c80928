"""What the page shows, read back by an HTML parser."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_samples

from penjing import report
from penjing.errors import PenjingError
from penjing.report._headline import headline
from penjing.report._page import steps

VOID = {"input", "meta", "wbr", "path", "br", "link", "img"}
SECTIONS = ["result", "budget", "comparison", "layers", "plan", "time", "parity", "environment"]


class Page(HTMLParser):
    """Collects tags, attributes and the text of each section; fails on tags that don't nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.text: dict[str | None, str] = {}
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        kinds = [tag for tag, _ in self.open]
        section = next((name for tag, name in self.open if tag == "section"), None)
        if not {"script", "style"} & set(kinds):
            self.text[section] = self.text.get(section, "") + data

    def said(self, section: str) -> str:
        return " ".join(self.text[section].split())

    def having(self, **attributes: str) -> list[tuple[str, dict[str, str | None]]]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            (tag, found)
            for tag, found in self.tags
            if all(value in (found.get(key) or "").split() for key, value in wanted.items())
        ]


def page(made: dict[str, Any], directory: Path) -> Page:
    return Page(report.write(made, directory).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "sample", [report_samples.report, report_samples.large, report_samples.unlabelled, report_samples.bare]
)
def test_the_page_is_whole_and_asks_the_network_for_nothing(sample: Any, tmp_path: Path) -> None:
    shown = page(sample(), tmp_path)
    assert [found["id"] for tag, found in shown.tags if tag == "section"] == SECTIONS
    for tag, found in shown.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert not {"src", "href", "srcset", "action", "data", "background"} & found.keys()
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest", html)
    assert any("default-src 'none'" in (found.get("content") or "") for _, found in shown.tags)
    assert len(html) < 400_000


def test_changed_answers_are_told_by_class_and_sample_with_intervals(tmp_path: Path) -> None:
    shown = page(report_samples.changed(), tmp_path)
    assert [found["id"] for tag, found in shown.tags if tag == "section"] == [*SECTIONS[:3], "changes", *SECTIONS[3:]]
    said = shown.said("changes")
    assert "Accuracy changed by −0.8 points on 360 samples" in said and "between −2.5 and +0.9 points" in said
    assert "8 of 360 samples are answered differently: 5 that were right, 2 that are right now." in said
    assert (
        "A change of this size may well be chance." in said
        and "(expected calibration error) was 2.1 points and is 3.4" in said
    )
    assert said.count("beyond chance") == 1 and "0 beyond chance 36 97.0 % 94.0 % −3.0 (−11.0 to +5.0)" in said
    assert said.count("wrong now") == 5 and "before 7 (81.0 %) now 9 (67.0 %) true 7" in said
    assert [found["src"] for tag, found in shown.tags if tag == "img"] == [report_samples.PIXEL] * 8
    assert len(shown.having(class_="bad")) == 0, "a change within chance isn't marked as a loss"
    assert "(−2.5 to +0.9)" in shown.said("comparison") and shown.said("layers").count("31 dB") == 4


def test_an_error_is_shown_without_the_sign_and_a_rise_is_a_loss(tmp_path: Path) -> None:
    values = {"value": -0.02, "low": -0.03, "high": -0.01}
    told = {"samples": 50, "before": values, "after": values, "change": values}
    made = report_samples.report(
        metric_name="mean absolute error", lower_is_better=True, changes=told, budget={"drop": 0.01}, met=False
    )
    made["baseline"]["metric"], made["compressed"]["metric"] = -0.2, -0.22
    shown = page(made, tmp_path)
    assert "asked rise by at most 0.01 reached rose by 0.02" in shown.said("budget")
    made["budget"] = {"drop": "2%"}
    assert "asked rise by at most 0.004 (2% of the original's) reached rose by 0.02" in page(made, tmp_path).said(
        "budget"
    )
    assert "0.200 0.220 10 % more mean absolute error (+0.0100 to +0.0300)" in shown.said("comparison")
    assert "changed by +0.0200 on 50 samples" in shown.said("changes")
    assert "is between +0.0100 and +0.0300." in shown.said("changes") and "−" not in shown.said("changes")


def test_an_image_that_is_no_embedded_one_is_not_drawn_and_texts_are_texts(tmp_path: Path) -> None:
    made = report_samples.changed()
    bad = ["https://example.com/x.png", "data:image/svg+xml;base64,AAAA", PIXEL_AND_MORE, "javascript:alert(1)"]
    for one, image in zip(made["changes"]["shown"], bad, strict=False):
        one |= {"image": image, "text": "<b>words</b>"}
    shown = page(made, tmp_path)
    assert len([tag for tag, _ in shown.tags if tag == "img"]) == 4
    assert shown.said("changes").count("<b>words</b>") == 4


def test_many_classes_are_folded_and_a_task_without_classes_says_what_it_can(tmp_path: Path) -> None:
    html = report.write(report_samples.changed(classes=100), tmp_path).read_text()
    assert 'data-unfold="classes-table"' in html and "Show all 100 classes" in html
    made = report_samples.changed()
    values = {"value": -1.25, "low": -1.5, "high": -1.0}
    made["changes"] = {"samples": 50, "before": values, "after": values, "change": values, "missing": ["No classes."]}
    said = page(made, tmp_path).said("changes")
    assert "changed by −1.25 on 50 samples" in said and "No classes." in said


def test_a_report_that_tells_a_change_of_nothing_is_drawn_all_the_same(tmp_path: Path) -> None:
    made = report_samples.changed()
    made["changes"] |= {"before": None, "after": None}
    assert "changed by −0.8 points" in page(made, tmp_path).said("changes")


def test_settings_that_are_no_object_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PenjingError, match="'settings' must be an object or null"):
        report.write(report_samples.report(settings="none"), tmp_path)


PIXEL_AND_MORE = report_samples.PIXEL + '" onerror="alert(1)'


def test_zeros_are_shown_where_there_are_some_with_what_they_bring(tmp_path: Path) -> None:
    made = report_samples.sparse()
    shown = page(made, tmp_path)
    assert [found["id"] for tag, found in shown.tags if tag == "section"] == [*SECTIONS[:5], "zeros", *SECTIONS[5:]]
    said = shown.said("zeros")
    assert "536 of 272,474 weights (0.2 %) are zeros that pruning left." in said
    assert "320 make the file smaller; the others gain nothing here. It stores them all." in said
    assert "Compressed for sending, the file takes 880 kB, the original's 1.01 MB." in said
    assert "conv1 element 432 216 (50.0 %) nothing" in said and "fc not recorded 640 320 (50.0 %) smaller" in said
    made["zeros"] |= {"smaller": 0, "deflated_bytes": None}
    assert "None of them makes this file faster or smaller." in page(made, tmp_path).said("zeros")
    made["zeros"] |= {"zeros": 0}
    assert "zeros" not in page(made, tmp_path).text


def test_the_sections_say_what_was_measured(tmp_path: Path) -> None:
    shown = page(report_samples.report(notes=["A remark."]), tmp_path)
    assert "on ONNX Runtime, 1 thread, batch 1." in shown.said("result")
    assert "A remark." in shown.said("result")
    assert "The budget was met" in shown.said("budget")
    assert "asked at most 0.5× (0.421 ms) reached 0.43× (0.366 ms)" in shown.said("budget")
    assert "asked lose at most 1 point reached lost 0.37 points" in shown.said("budget")
    assert "0.842 ms (p90 0.943 ms)" in shown.said("comparison")
    assert "12.6 mJ (estimated)" in shown.said("comparison")
    assert len(shown.having(class_="whisker")) == 2
    assert "3.1 × 10⁻⁵" in shown.said("parity")
    assert "97.6 %" in shown.said("parity")
    assert "recover 1 min 15 s" in shown.said("time")
    assert "penjing compress zoo:resnet20 --data digits" in shown.said("environment")
    assert "torch 2.13.0" in shown.said("environment")


@pytest.mark.parametrize(
    ("samples", "said"), [(90, "Accuracy (90 samples)"), (1, "Accuracy (1 sample)"), (None, "Accuracy")]
)
def test_the_metric_says_on_how_many_samples_it_rests(samples: int | None, said: str, tmp_path: Path) -> None:
    made = report_samples.report(metric_samples=samples)
    assert f"<h3>{said}</h3>" in report.write(made, tmp_path).read_text(encoding="utf-8")


def test_stages_stand_in_the_order_in_which_they_ran(tmp_path: Path) -> None:
    said = page(report_samples.report(), tmp_path).said("time")
    order = [said.index(stage) for stage in ("capture", "choose", "recover", "quantise", "lower", "verify")]
    assert order == sorted(order)


def test_every_layer_of_a_large_model_has_its_row(tmp_path: Path) -> None:
    made = report_samples.large()
    shown = page(made, tmp_path)
    rows = [found for tag, found in shown.tags if tag == "li" and "data-order" in found]
    assert len(rows) == len(made["layers"]) >= 110
    integers = sum(bool(layer["after"] and layer["after"]["integer"]) for layer in made["layers"])
    assert len(shown.having(class_="is-integer")) == integers
    assert f"({integers} of 110 layers)" in shown.said("layers")
    assert sum("removed" in (found["class"] or "") for found in rows) == 27
    for layer in made["layers"]:
        assert layer["name"] in shown.said("layers")
    assert shown.having(**{"data-unfold": "layer-list"})


def test_bar_lengths_are_in_proportion_and_never_leave_the_track(tmp_path: Path) -> None:
    shown = page(report_samples.large(), tmp_path)
    for _, found in shown.having(class_="bar"):
        assert 0 < float((found["style"] or "").removeprefix("width:").removesuffix("%")) <= 100
    for _, found in shown.having(class_="whisker"):
        numbers = [float(number) for number in re.findall(r"[\d.]+", found["style"] or "")]
        assert 0 < sum(numbers) <= 100.01
    size = [found["style"] for _, found in shown.having(class_="bar")][2:4]
    assert size == ["width:100.0%", f"width:{100 * 431_020 / 3_451_200:.2f}%"]


def test_slow_calls_make_no_slivers_of_the_bars(tmp_path: Path) -> None:
    made = report_samples.report()
    made["baseline"]["latency_ms"] |= {"median": 1.0, "p90": 50.0}
    made["compressed"]["latency_ms"] |= {"median": 0.5, "p90": 0.6}
    shown = page(made, tmp_path)
    latency = [found["style"] for _, found in shown.having(class_="bar")][:2]
    assert latency == ["width:66.67%", "width:33.33%"]
    assert [found["style"] for _, found in shown.having(class_="cut")] == ["left:66.67%;width:33.33%"]
    assert len(shown.having(class_="whisker")) == 2 and "(p90 50.0 ms)" in shown.said("comparison")


def test_places_at_which_the_same_was_done_share_a_row(tmp_path: Path) -> None:
    step = {"technique": "quantize", "kind": "weight", "setting": {}, "found": {}, "before": "float32", "after": "int8"}
    plan = [step | {"place": name} for name in ("a", "b", "d")]
    plan.insert(2, step | {"place": "c", "after": "int4"})
    rows = steps(plan)
    assert [row["places"] for row in rows] == [["a", "b", "d"], ["c"]]
    assert [row["after"] for row in rows] == ["int8", "int4"]
    shown = page(report_samples.report(plan=plan), tmp_path)
    assert "3 places" in shown.said("plan") and all(f"{name}" in shown.said("plan") for name in "abcd")


def test_the_interval_of_the_speed_up_stands_beside_the_bars(tmp_path: Path) -> None:
    made = report_samples.report()
    made["ratios"] |= {"latency": 2.3, "latency_interval": [2.2, 2.41]}
    assert "2.3× faster (2.20–\u20602.41×)" in page(made, tmp_path).said("comparison")
    made["ratios"] |= {"latency": 0.5, "latency_interval": [0.4, 0.625]}
    assert "2.0× slower (1.60–\u20602.50×)" in page(made, tmp_path).said("comparison")


def test_a_speed_up_whose_interval_holds_1_is_no_gain(tmp_path: Path) -> None:
    made = report_samples.report()
    made["ratios"] |= {"latency": 1.2, "latency_interval": [0.95, 1.4]}
    assert headline(made).startswith("Same speed, ")
    assert "same (0.950–\u20601.40×)" in page(made, tmp_path).said("comparison")


def test_a_missed_budget_shows_which_item_was_missed(tmp_path: Path) -> None:
    shown = page(report_samples.large(), tmp_path)
    assert "The budget was not met" in shown.said("budget")
    states = [
        found["class"] for tag, found in shown.tags if tag == "li" and found.get("class") in ("yes", "no", "unknown")
    ]
    assert states == ["no", "no", "yes"]


@pytest.mark.parametrize(
    ("budget", "state", "said"),
    [
        ({"latency": "5ms"}, "yes", "at most 5.00 ms"),
        ({"latency": "100 us"}, "no", "at most 0.100 ms"),
        ({"size": "0.1MiB"}, "no", "at most 105 kB"),
        ({"size": "200kB"}, "yes", "at most 200 kB"),
        ({"macs": "0.44x"}, "yes", "reached 0.43×"),
        ({"params": "0.4338x"}, "no", "reached 0.434×"),
        ({"peak_memory": "64KiB"}, "no", "at most 65.5 kB reached 70.0 kB"),
        ({"peak_memory": "0.5x"}, "yes", "reached 0.50× (70.0 kB)"),
        ({"largest_tensor": "0.5x"}, "no", "reached 0.60× (30.0 kB)"),
        ({"layers": 20}, "yes", "at most 20 reached 19"),
        ({"energy": "0.5x"}, "yes", "reached 0.40× (0.200 mJ)"),
        ({"energy": "150uJ"}, "no", "at most 0.150 mJ reached 0.200 mJ"),
        ({"memory": "50MB"}, "yes", "reached 48.2 MB"),
        ({"latency": "soon"}, "unknown", "asked soon"),
        ({"beauty": 3}, "unknown", "not checked here"),
        ({"drop": 0.0037}, "yes", "lost 0.37 points"),
        ({"drop": 0.003}, "no", "lose at most 0.3 points"),
        ({"drop": "2%"}, "yes", "points (2% of the original's)"),
    ],
)
def test_each_kind_of_budget_is_compared(budget: dict[str, Any], state: str, said: str, tmp_path: Path) -> None:
    report = report_samples.report(budget=budget)
    report["baseline"] |= {"peak_activation_bytes": 140_000, "largest_tensor_bytes": 50_000, "layers": 22}
    report["baseline"]["energy_estimated_mj"], report["compressed"]["energy_estimated_mj"] = 0.5, 0.2
    report["compressed"] |= {"peak_activation_bytes": 70_000, "largest_tensor_bytes": 30_000, "layers": 19}
    shown = page(report, tmp_path)
    assert [found["class"] for tag, found in shown.tags if found.get("class") in ("yes", "no", "unknown")] == [state]
    assert said in shown.said("budget")


def test_without_labels_the_changed_answers_stand_in_for_the_drop(tmp_path: Path) -> None:
    shown = page(report_samples.unlabelled(), tmp_path)
    assert "at most 1 % of answers changed reached 1.8 % changed" in shown.said("budget")
    assert "Float is already the fastest within your budget" in shown.said("result")
    assert "MACs are shown instead" in shown.said("layers")


def test_what_the_drop_is_measured_by_is_named_where_labels_lack(tmp_path: Path) -> None:
    sample = report_samples.unlabelled()
    sample["budget"], sample["parity"]["agreement_measure"] = {"drop": "60%"}, "R²"
    shown = page(sample, tmp_path)
    assert "at most 60 % of the outputs' variance (R²) lost reached 1.8 % lost" in shown.said("budget")


@pytest.mark.parametrize("change", [{"learned": False}, {"compressed": None}])
def test_no_drop_counts_as_kept_that_could_not_be_measured(change: dict[str, Any], tmp_path: Path) -> None:
    sample = report_samples.report(budget={"drop": 0.01}, met=False)
    if "learned" in change:
        sample |= change
    else:
        sample["compressed"]["metric"] = None
    shown = page(sample, tmp_path)
    assert not [found for tag, found in shown.tags if found.get("class") == "yes"]


def test_null_is_never_drawn_and_always_said(tmp_path: Path) -> None:
    shown = page(report_samples.bare(), tmp_path)
    assert not shown.having(class_="bar")
    assert shown.said("comparison").count("not measured") == 7
    assert "Layers: not measured." in shown.said("layers")
    assert shown.said("parity").count("not measured") == 3
    assert "No budget was set" in shown.said("budget")


def test_what_comes_from_the_user_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    made = report_samples.report(model=evil, notes=[evil], headline=evil, exclude=[evil], metric_name=evil)
    made["target"] |= {"name": evil, "version": evil, "device": evil}
    made["budget"] = {evil: evil, "latency": evil}
    made["provenance"] = {"command": evil, "inputs": {evil: evil}, "versions": {evil: evil}, "machine": {evil: evil}}
    made["plan"] = [{"place": evil, "technique": evil, "setting": {evil: evil}, "before": evil, "after": [evil]}]
    made["seconds"] = {evil: 1.0}
    made["layers"][0] |= {"name": evil, "op": evil}
    made["changes"] = report_samples.changed()["changes"] | {"missing": [evil]}
    made["changes"]["classes"][0]["name"] = evil
    for one in made["changes"]["shown"]:
        one |= dict.fromkeys(("kind", "before", "after", "label", "file", "text", "image"), evil)
    made["layers"][0]["before"]["shape"] = [evil]
    shown = page(made, tmp_path)
    assert [tag for tag, _ in shown.tags].count("script") == 1
    assert not any(tag == "img" or "onerror" in found for tag, found in shown.tags)
    for section in ("result", "budget", "changes", "layers", "plan", "time", "environment"):
        assert "<script>alert('x')</script>" in shown.said(section)
        assert "{{ 7 * 7 }}" in shown.said(section)


def test_a_layer_that_appears_and_one_without_any_name_are_shown(tmp_path: Path) -> None:
    made = report_samples.report()
    made["layers"][0]["before"] = None
    made["layers"][1]["name"] = ""
    said = page(made, tmp_path).said("layers")
    assert "new" in said
    assert "(model)" in said


def test_ops_that_the_macs_leave_out_are_named_beside_the_integer_share(tmp_path: Path) -> None:
    made = report_samples.report(uncounted=[{"op": "fft_rfft2", "module": "mixer"}])
    assert "fft_rfft2 in mixer" in page(made, tmp_path).said("parity")
    assert "Not among the MACs" not in page(report_samples.report(), tmp_path).said("parity")


def test_a_layer_whose_macs_are_not_counted_shows_no_number_of_them(tmp_path: Path) -> None:
    side = {"latency_ms": None, "params": 7, "macs": 0, "counted": False}
    made = report_samples.report(layers=[{"name": "mixer", "op": "fft_rfft2", "before": side, "after": side}])
    assert page(made, tmp_path).said("layers").endswith("mixer fft_rfft2 not measured not measured 7 7")


def test_how_both_networks_do_on_changed_images_is_a_table(tmp_path: Path) -> None:
    sample = report_samples.report()
    rows = [("none", 0, 0.9, 0.89), ("jpeg_compression", 1, 0.8, 0.7), ("jpeg_compression", 5, 0.6, 0.4)]
    keys = ("corruption", "severity", "before", "after")
    sample["robustness"] = {"samples": 1000, "rows": [dict(zip(keys, row, strict=True)) for row in rows]}
    said = page(sample, tmp_path).said("robustness")
    assert "JPEG 80.0 % → 70.0 % 60.0 % → 40.0 %" in said and "unchanged: 90.0 % → 89.0 %" in said
    assert "by −20.0 points before and by −34.0 points now" in said


@pytest.mark.parametrize("chance", [0.04, 0.06])
def test_the_mark_of_a_change_and_its_sentence_follow_the_same_test(chance: float, tmp_path: Path) -> None:
    made = report_samples.changed()
    made["changes"] |= {"chance": chance, "change": {"value": -0.02, "low": -0.04, "high": 0.0001}}
    from penjing.report._changes import is_chance

    assert is_chance(made) == (chance > 0.05)
    said = page(made, tmp_path).said("changes")
    assert ("That is more than chance." in said) == (not is_chance(made))
