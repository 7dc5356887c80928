"""The name of the processor, which results and tables of latencies are filed under."""

from pathlib import Path

import pytest

from penjing.targets import _processor as module
from penjing.targets import processor

INFO = "processor\t: 0\nvendor_id\t: X\nmodel name\t: Fast: 3000 \nmodel name\t: Other\n"


def test_the_processor_has_the_name_that_the_system_gives_it(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(INFO)
    monkeypatch.setattr(module, "Path", lambda name: info if name == "/proc/cpuinfo" else Path(name))
    assert processor() == "Fast: 3000"


@pytest.mark.parametrize(("named", "kind", "told"), [("arm", "aarch64", "arm"), ("", "aarch64", "aarch64")])
@pytest.mark.parametrize("content", [None, "Hardware\t: board\n"])
def test_where_the_system_lists_no_name_its_kind_stands_for_it(monkeypatch, tmp_path, content, named, kind, told):
    info = tmp_path / "cpuinfo"
    if content is not None:
        info.write_text(content)
    monkeypatch.setattr(module, "Path", lambda name: info)
    monkeypatch.setattr("platform.processor", lambda: named)
    monkeypatch.setattr("platform.machine", lambda: kind)
    assert processor() == told
