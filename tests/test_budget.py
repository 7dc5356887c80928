import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.budget import BYTES, MILLISECONDS, Budget, Limit, parse_limit
from penjing.errors import PenjingError
from penjing.targets import DeviceFacts


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("5ms", 5), ("0.5 s", 500), ("200us", 0.2), ("200 µs", 0.2), ("1e1ms", 10), (" 3MS ", 3)],
)  # fmt: skip
def test_absolute_latencies_are_read_in_milliseconds(text, milliseconds):
    limit = Budget(latency=text).latency_limit()
    assert limit is not None and not limit.relative and math.isclose(limit.amount, milliseconds)


@pytest.mark.parametrize(
    ("text", "size"), [("1MB", 10**6), ("300kB", 300_000), ("1 MiB", 2**20), ("2KiB", 2048), ("5b", 5)]
)
def test_absolute_sizes_are_read_in_bytes(text, size):
    assert Budget(size=text).size_limit() == Limit(size, False)


@pytest.mark.parametrize(
    ("given", "amount"),
    [
        ({"macs": "20M"}, 20e6),
        ({"macs": "1.5 g"}, 1.5e9),
        ({"macs": 1000}, 1000),
        ({"peak_memory": "64KB"}, 64_000),
        ({"peak_memory": "64KiB"}, 65_536),
        ({"largest_tensor": "1MB"}, 10**6),
        ({"layers": "20"}, 20),
        ({"layers": 20}, 20),
        ({"energy": "2.5mJ"}, 2.5),
        ({"energy": "300 µJ"}, 0.3),
        ({"energy": "1nJ"}, 1e-6),
        ({"energy": "1J"}, 1000),
    ],
)
def test_what_is_counted_is_read_in_its_own_units(given, amount):
    (name,) = given
    assert Budget(**given).limits() == {name: Limit(amount, False)}


@pytest.mark.parametrize(
    ("given", "example"),
    [
        ({"macs": "5MB"}, "macs='5MB' is no budget; write it as '20M' or '0.5x'"),
        ({"macs": 0.5}, "macs=0.5 is no budget"),
        ({"macs": True}, "macs=True is no budget"),
        ({"macs": -1}, "macs=-1 is no budget"),
        (
            {"peak_memory": "64"},
            "peak_memory='64' is no budget; write it as '64KB' or '0.5x', or as a share of a memory",
        ),
        ({"largest_tensor": 1000}, "largest_tensor=1000 is no budget; write it as '64KB' or '0.5x'"),
        ({"energy": "2"}, "energy='2' is no budget; write it as '2mJ' or '0.5x'"),
        ({"energy": 2}, "energy=2 is no budget"),
        ({"layers": "0"}, "layers='0' is no budget; write it as '20' or '0.5x'"),
    ],
)
def test_what_is_no_limit_on_a_count_is_refused_with_an_example(given, example):
    with pytest.raises(PenjingError, match=re.escape(example)):
        Budget(**given)


def test_of_each_limit_it_is_told_which_share_is_used():
    budget = Budget(latency="0.5x", size="100B", drop=0.1, macs="0.25x", layers=10)
    used = budget.used({"latency": 8.0, "macs": 100}, {"latency": 5.0, "size": 50, "macs": 25, "layers": None})
    assert used == {"latency": 1.25, "size": 0.5, "macs": 1.0, "layers": math.inf}
    assert Budget(drop=0.1).used({}, {}) == {}


def test_a_reported_budget_is_read_back():
    budget = Budget("5ms", "0.5x", "60%", "20M", "64KB", "0.5x", 20, "2mJ")
    assert Budget.reported({**vars(budget), "beauty": 3}) == budget
    limits = "latency 5ms, size 0.5x, drop 60%, macs 20M, peak memory 64KB, largest tensor 0.5x, layers 20, energy 2mJ"
    assert str(budget) == limits


BOARD = DeviceFacts("a board", "aarch64", "Linux", 4, None, 2**30, {"L1": 32_768, "L2": 2**20})


@pytest.mark.parametrize(
    ("text", "size"),
    [("L2", 2**20), ("0.5x L2", 2**19), ("0.25×l1", 8192), ("0.1xmemory", 2**30 // 10), ("64KB", 64_000)],
)
def test_memory_is_limited_by_a_memory_of_the_device(text, size):
    budget = Budget(peak_memory=text, largest_tensor=text).on(BOARD)
    assert budget.limit("peak_memory") == budget.limit("largest_tensor") == Limit(size, False)
    assert Budget.reported(vars(budget)) == budget


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"peak_memory": "2x L2"}, "write a share of a memory as '0.5x L2'"),
        ({"peak_memory": "halfx L2"}, "write a share of a memory as '0.5x L2'"),
        ({"peak_memory": "L9"}, "peak_memory='L9' is no budget"),
        ({"peak_memory": "an L2"}, "peak_memory='an L2' is no budget"),
        ({"size": "L2"}, "size='L2' is no budget"),
    ],
)
def test_what_is_no_share_of_a_memory_is_refused(given, says):
    with pytest.raises(PenjingError, match=re.escape(says)):
        Budget(**given)


def test_a_memory_that_the_device_does_not_tell_is_refused():
    with pytest.raises(PenjingError, match=r"a board doesn't tell the size of that memory \(known: l1, l2, memory\)"):
        Budget(peak_memory="L3").on(BOARD)
    (line,) = Budget(peak_memory="0.5x L2").told_on(BOARD)
    assert line == "Memory of activations: 0.5x L2 is 524288 B on a board." and not Budget(size="1MB").told_on(BOARD)
    with pytest.raises(PenjingError, match="known on a device only"):
        Budget(peak_memory="L2").limit("peak_memory")


@pytest.mark.parametrize("text", ["0.5x", "0.5 ×", ".5X"])
def test_an_x_is_a_share_of_the_original(text):
    limit = Budget(latency=text).latency_limit()
    assert limit == Limit(0.5, True)
    assert limit.of(8.0) == 4.0 and Limit(3.0, False).of(8.0) == 3.0


@given(st.floats(1e-3, 1e6), st.sampled_from(sorted(BYTES)))
def test_every_number_with_every_unit_is_read(number, unit):
    limit = parse_limit(f"{number!r}{unit}", BYTES)
    assert limit is not None and math.isclose(limit.amount, number * BYTES[unit])


@given(st.text(max_size=12))
def test_no_text_makes_reading_fail_otherwise_than_by_none(text):
    limit = parse_limit(text, MILLISECONDS)
    assert limit is None or limit.amount >= 0


NO_LATENCY = [
    "fast",
    "",
    "x",
    "-1ms",
    "-3",
    "7",  # of what?
    0.5,
    "0",
    "0x",
    "5 parsecs",
    "5MB",
    "1..2ms",
    "nan",
    "inf",
    "1e999",
    True,
    math.nan,
]


@pytest.mark.parametrize("value", NO_LATENCY)
def test_what_is_no_latency_is_refused_with_an_example(value):
    with pytest.raises(PenjingError, match=r"latency=.* is no budget; write it as '5ms' or '0\.5x'"):
        Budget(latency=value)


@pytest.mark.parametrize("value", ["small", "5ms", "-1MB", "0", 0, 1000])
def test_what_is_no_size_is_refused_with_an_example(value):
    with pytest.raises(PenjingError, match=r"size=.* is no budget; write it as '1MB' or '0\.25x'"):
        Budget(size=value)


@pytest.mark.parametrize("value", [-0.1, "-0.1", math.nan, "nan", math.inf, "much", "1 pound", "1..0", True, (0.1,)])
def test_a_drop_is_a_number_that_is_not_negative(value):
    with pytest.raises(PenjingError, match=r"drop=.* is no budget; give the largest allowed fall, such as 0\.01"):
        Budget(drop=value)


@pytest.mark.parametrize("drop", [0.015, "0.015", "1.5 points", " 1.5 POINTS ", "0.015 units"])
def test_a_drop_is_the_same_however_it_is_written(drop):
    assert Budget(drop=drop) == Budget(drop=0.015) and Budget(drop=drop).drop_limit() == 0.015


@pytest.mark.parametrize("drop", [0.5, 1, "1", 1.0, 2])
def test_a_drop_that_may_be_meant_as_points_is_refused_with_both_readings(drop):
    number = float(drop)
    points = rf"fall by {100 * number:g} points.*'{number:g} points'.*'{number:g}%'.*'{number:g} units'"
    with pytest.raises(PenjingError, match=points):
        Budget(drop=drop)


@pytest.mark.parametrize(("drop", "limit"), [("60 points", 0.6), ("1.5 units", 1.5), ("2 UNITS", 2.0)])
def test_a_large_drop_with_its_unit_is_meant_and_stays_so(drop, limit):
    budget = Budget(drop=drop)
    assert budget.drop_limit() == pytest.approx(limit)
    assert Budget(drop=budget.drop) == budget == Budget.reported(vars(budget))


@pytest.mark.parametrize(("metric", "limit"), [(0.85, 0.017), (-4.0, 0.08), (None, 0.02), (0.0, 0.0)])
def test_a_drop_in_percent_is_relative_to_the_metric_of_the_original(metric, limit):
    for drop in ("2%", " 2 % ", "2.0%"):
        budget = Budget(drop=drop)
        assert budget.drop == "2%" and str(budget) == "drop 2%"
        assert budget.drop_limit(metric) == pytest.approx(limit)
        assert Budget(drop=budget.drop) == budget == Budget.reported(vars(budget))
    assert Budget(drop="2%").drop_words(0.85) == ", of which 2% is 0.0170" and Budget(drop=0.02).drop_words(0.85) == ""


def test_no_metric_loses_more_than_all_of_itself():
    assert Budget(drop="100%").drop_limit(0.85) == 0.85
    with pytest.raises(PenjingError, match=r"150% is no budget: .* more than 100%.*'1\.5 units'"):
        Budget(drop="150%")


def test_the_budget_of_an_old_report_is_read_as_it_was():
    assert Budget.reported({"size": "1MB", "drop": 0.5}).drop_limit() == 0.5
    assert Budget.reported({"drop": "150%"}).drop_limit() == 1.5  # which was taken once


def test_a_budget_says_what_it_limits():
    assert str(Budget(latency="5ms", drop=0.01)) == "latency 5ms, drop 0.01"
    assert str(Budget()) == "no limits"
    assert Budget(drop=0).drop == 0
