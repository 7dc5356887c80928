"""Writing, checking and rebuilding the two files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_samples

from penjing import report
from penjing.errors import PenjingError

SAMPLES = [
    report_samples.report,
    report_samples.large,
    report_samples.sparse,
    report_samples.unlabelled,
    report_samples.bare,
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_written_json_is_the_report_and_the_page_can_be_rebuilt_to_the_byte(sample: Any, tmp_path: Path) -> None:
    made = sample()
    page = report.write(made, tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    read = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert {key: read[key] for key in made} == made
    assert read["headline"] == report.headline(made)
    first = page.read_bytes()
    page.unlink()
    assert report.build(tmp_path / "out").read_bytes() == first


def test_json_keys_are_sorted_so_that_two_reports_can_be_compared_line_by_line(tmp_path: Path) -> None:
    made = report_samples.report()
    report.write(made, tmp_path / "a")
    report.write(dict(reversed(made.items())), tmp_path / "b")
    assert (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    report.write(report_samples.report(extra={"of": ["mine"]}), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["extra"] == {"of": ["mine"]}


BAD: list[tuple[str, Any]] = [
    ("model", 3),
    ("met", "yes"),
    ("seed", 1.5),
    ("target.name", None),
    ("target.threads", True),
    ("baseline.metric", "0.9"),
    ("baseline.latency_ms", 3.5),
    ("baseline.latency_ms.median", float("nan")),
    ("compressed.size_bytes", False),
    ("compressed.params", np.int64(3)),
    ("compressed.energy_mj.value", [1]),
    ("ratios.latency", float("inf")),
    ("parity", None),
    ("plan", {}),
    ("plan[0].place", 7),
    ("layers[3].op", None),
    ("zeros", [1]),
    ("layers[1].before.macs", "many"),
    ("layers[1].after.integer", 1),
    ("layers[1].after.shape", "16x16"),
    ("notes[0]", 5),
    ("seconds.capture", "long"),
    ("provenance.machine.cpu", object()),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=[path for path, _ in BAD])
def test_a_bad_value_is_named_and_nothing_is_written(path: str, value: Any, tmp_path: Path) -> None:
    made = report_samples.report(notes=["fine"])
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    holder: Any = made
    for part in parents:
        holder = holder[int(part) if part.isdigit() else part]
    holder[int(last) if last.isdigit() else last] = value
    with pytest.raises(PenjingError) as caught:
        report.write(made, tmp_path / "out")
    assert f"'{path}'" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", sorted(report_samples.bare()))
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    made = report_samples.bare()
    del made[key]
    with pytest.raises(PenjingError, match=f"'{key}'"):
        report.write(made, tmp_path)


def test_building_without_a_report_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(PenjingError, match=r"no report\.json"):
        report.build(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"schema": NaN}', b"[" * 100_000])
def test_a_corrupt_report_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(PenjingError, match=r"report\.json"):
        report.build(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_another_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report_samples.report(schema=2)))
    with pytest.raises(PenjingError, match=r"schema 2.*reads schema 1"):
        report.build(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(PenjingError, match="Can't write"):
        report.write(report_samples.report(), tmp_path / "out")


def test_names_that_are_not_utf8_survive_the_round_trip(tmp_path: Path) -> None:
    name = b"caf\xe9.safetensors".decode("utf-8", "surrogateescape")
    report.write(report_samples.report(model=name), tmp_path)
    assert json.loads((tmp_path / "report.json").read_bytes())["model"] == name
    report.build(tmp_path)


BEYOND = (10**400, -(10**400), 10**100, 1e308)


@pytest.mark.parametrize(
    "path",
    [
        ("seconds", "capture"),
        ("baseline", "metric"),
        ("baseline", "size_bytes"),
        ("compressed", "latency_ms", "median"),
        ("ratios", "latency"),
        ("parity", "top1_agreement"),
        ("provenance", "machine", "memory_bytes"),
    ],
)
def test_a_number_that_nothing_measures_is_refused_by_its_key(path: tuple[str, ...], tmp_path: Path) -> None:
    for number in BEYOND:
        made = inner = report_samples.report()
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = number
        (tmp_path / "report.json").write_text(json.dumps(made))
        with pytest.raises(
            PenjingError, match=rf"'{re.escape('.'.join(path))}' is a number of more than a hundred digits"
        ):
            report.build(tmp_path)


@pytest.mark.parametrize("median", [-1, 0, None, 10**99, 5e-324])
def test_an_odd_latency_is_drawn_or_left_out(median: float | None, tmp_path: Path) -> None:
    made = report_samples.report()
    made["baseline"]["latency_ms"]["median"] = median
    assert report.write(made, tmp_path).exists()
