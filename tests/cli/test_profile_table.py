"""Which columns of a profile a screen shows, and which models it refuses."""

import io
from dataclasses import replace

import pytest

from penjing.cli.profiling import DROPPED, _cells, _doubt, _fitting, profile_command
from penjing.cli.screen import Screen
from penjing.errors import PenjingError
from penjing.targets import RooflineRow

CONV = RooflineRow(
    "conv2d", ("FusedConv",), (1, 16, 32, 32), 2320, 2_359_296, True, False, 140_352, 0.044, 0.041, "compute"
)
FUSED = RooflineRow("linear", (), (1, 10), 650, 640, True, False, 2896, None, 0.001, "memory")
UNKNOWN = RooflineRow("fft", ("fft",), (1, 8), 0, 0, False, False, 64, 0.5, 0.001, "memory")
ROWS = {"layer1.0.conv1": CONV, "linear": FUSED, "fft": UNKNOWN}
MAIN = ["layer", "ms", "share", "bound", "reached"]


def drawn(width):
    screen = Screen(file=io.StringIO(), width=width)
    table = _fitting(screen, [_cells(name, row, 0.088) for name, row in ROWS.items()])
    screen.print(table)
    return [column.header for column in table.columns], screen.file.getvalue()


def test_a_wide_screen_shows_all_columns():
    titles, text = drawn(160)
    assert {*DROPPED, *MAIN} == set(titles)
    assert all(one in text for one in ("FusedConv", "140,352", "16.8", "93%", "50.0%", "compute"))


@pytest.mark.parametrize("width", [150, 120, 100, 80, 60])
def test_no_cell_is_cut_off_where_the_main_columns_fit(width):
    titles, text = drawn(width)
    assert [title for title in titles if title in MAIN] == MAIN
    assert "…" not in text and "layer1.0.conv1" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_a_narrower_screen_shows_fewer_columns():
    shown = [len(drawn(width)[0]) for width in (160, 120, 80, 60)]
    assert shown == sorted(shown, reverse=True) and shown[0] > shown[-1] >= len(MAIN)


def test_a_layer_without_a_kernel_is_fused_and_has_no_share():
    cells = _cells("linear", FUSED, 0.088)
    assert (cells["ms"], cells["share"], cells["reached"]) == ("fused", "", "")


def test_a_layer_of_unknown_macs_says_so():
    cells = _cells("fft", UNKNOWN, 0.5)
    assert (cells["MACs"], cells["bound"], cells["reached"]) == ("?", "", "")


def test_a_network_without_layers_has_an_empty_table():
    screen = Screen(file=io.StringIO(), width=80)
    assert _fitting(screen, []).row_count == 0


def test_a_layer_that_multiplies_faster_than_the_peak_casts_doubt_on_the_peak(monkeypatch, tmp_path):
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    assert _doubt(ROWS) == "" and _doubt({"a": replace(CONV, latency_ms=0.5 * CONV.limit_ms, bound="memory")}) == ""
    said = _doubt({"a": replace(CONV, latency_ms=0.5 * CONV.limit_ms)})
    assert "a multiplies 2.0× as fast as the peak" in said and str(tmp_path / "peaks.json") in said


def test_a_python_file_without_a_function_is_told_what_it_lacks(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("")
    with pytest.raises(PenjingError, match=r"net\.py' names no function: write .*file\.py:factory"):
        profile_command(str(file))
