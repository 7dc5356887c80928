"""The table of latencies: what is measured once, kept in a file, found again, and told between what was measured."""

import sqlite3
import time
from contextlib import closing

import pytest

from penjing import PenjingError
from penjing.planning import Deployment
from penjing.planning.latency import FLOAT32, INT8, Kernel, LatencyTable

BASE = Kernel("conv2d", ((1, 16, 8, 8),), (1, 16, 8, 8), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1)
SUM = Kernel("add", ((1, 16, 8, 8),) * 2, (1, 16, 8, 8), overload="Tensor", arguments='[{"input": 0}, {"input": 1}, 1]')


class Measurer:
    """Takes a fixed time per multiply-accumulate, and remembers what it was asked."""

    def __init__(self, fails_after=None):
        self.batches, self._fails_after = [], fails_after

    def __call__(self, kernels, deployment):
        if self._fails_after is not None and len(self.batches) == self._fails_after:
            raise KeyboardInterrupt
        self.batches.append(list(kernels))
        return {kernel: cost(kernel) for kernel in kernels}


def cost(kernel):
    """A made-up cost, bilinear in the channels, and different for the kinds of numbers."""
    each = 1.0 if kernel.numbers == FLOAT32 else 0.25
    return 2.0 + each * (kernel.ins * kernel.outs / 64 + kernel.outs / 8)


def table(path, measurer=None, said=None, **more):
    more = {"device": "a device", **more}
    return LatencyTable(
        path, Deployment(), measurer=measurer or Measurer(), say=print if said is None else said.append, **more
    )


def grid(*counts):
    return [BASE.resized(ins, outs) for ins in counts for outs in counts]


def test_a_measured_kernel_has_its_latency_in_milliseconds(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure([BASE, BASE.in_numbers(INT8)])
    assert made.ms(BASE) == cost(BASE) / 1e3 and made.ms(BASE.in_numbers(INT8)) == cost(BASE.in_numbers(INT8)) / 1e3


def test_what_the_file_holds_is_not_measured_again(tmp_path):
    kernels = grid(16, 32, 48)
    table(tmp_path / "t.sqlite").measure(kernels)
    measurer = Measurer()
    again = table(tmp_path / "t.sqlite", measurer)
    assert again.measure(kernels) == () and measurer.batches == [] and len(again) == 9
    assert [again.ms(kernel) for kernel in kernels] == [cost(kernel) / 1e3 for kernel in kernels]


def test_measuring_that_was_interrupted_goes_on_behind_the_last_finished_batch(tmp_path):
    kernels = [BASE.resized(16, outs) for outs in range(1, 161)]
    broken = Measurer(fails_after=2)
    with pytest.raises(KeyboardInterrupt):
        table(tmp_path / "t.sqlite", broken).measure(kernels)
    going_on = Measurer()
    table(tmp_path / "t.sqlite", going_on).measure(kernels)
    done = dict.fromkeys(kernel for batch in broken.batches for kernel in batch)
    measured = dict.fromkeys(kernel for batch in going_on.batches for kernel in batch)  # references come again
    assert done and [kernel for kernel in measured if kernel not in done] == [
        kernel for kernel in kernels if kernel not in done
    ]


@pytest.mark.parametrize("other", [{"device": "another"}, {"threads": 2}, {"runtime": "another 2.0"}])
def test_another_device_runtime_or_number_of_threads_is_measured_by_itself(tmp_path, other):
    path = tmp_path / "t.sqlite"
    table(path).measure([BASE])

    class Other:
        def runtime(self, target):
            return other.get("runtime", target)

        times = memory = None

    here = LatencyTable(path, Deployment(), device="a device", bench=Other(), measurer=Measurer())
    here.measure([BASE])
    there = LatencyTable(
        path, Deployment(threads=other.get("threads", 1)), device=other.get("device", "a device"),
        bench=Other() if "runtime" in other else None, measurer=Measurer(),
    )  # fmt: skip
    assert (BASE in there) == ("runtime" in other)


def test_behind_the_deadline_no_batch_begins_and_what_is_missing_is_told(tmp_path):
    said: list[str] = []
    made = table(tmp_path / "t.sqlite", said=said)
    assert made.measure([BASE], deadline=time.monotonic() - 1) == (BASE,)
    assert "1 of 1 kernels weren't measured" in said[-1]


def test_kernels_of_different_batches_are_measured_apart(tmp_path):
    measurer = Measurer()
    large = Kernel("linear", ((32, 64),), (32, 10), (10, 64))
    table(tmp_path / "t.sqlite", measurer).measure([BASE, large, SUM])
    assert sorted(map(len, measurer.batches)) == [1, 2]


def test_what_the_target_refuses_is_told_and_has_no_latency(tmp_path):
    made = LatencyTable(tmp_path / "t.sqlite", Deployment(), device="d", measurer=lambda kernels, deployment: {})
    assert made.measure([SUM]) == (SUM,) and not made.knows(SUM)
    with pytest.raises(PenjingError, match=r"No kernel like this one was measured on d.*add"):
        made.ms(SUM)


def test_latencies_of_a_slow_phase_are_told_as_in_the_phase_of_the_first_batch(tmp_path):
    slow = {FLOAT32: 1.0, INT8: 1.0}

    def measurer(kernels, deployment):
        return {kernel: slow[kernel.numbers] * cost(kernel) for kernel in kernels}

    made = table(tmp_path / "t.sqlite", measurer)
    made.measure([kernel.in_numbers(numbers) for kernel in grid(16, 32) for numbers in (FLOAT32, INT8)])
    slow.update({FLOAT32: 1.5, INT8: 3.0})
    later = [BASE.resized(48, 48).in_numbers(numbers) for numbers in (FLOAT32, INT8)]
    made.measure(later)
    assert [made.ms(kernel) for kernel in later] == pytest.approx([cost(kernel) / 1e3 for kernel in later])


# Between what was measured


def test_a_count_between_two_multiples_costs_what_the_next_multiple_costs(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure(grid(32, 48))
    assert made.ms(BASE.resized(48, 41)) == made.ms(BASE.resized(48, 48)) > made.ms(BASE.resized(48, 32))
    assert made.ms(BASE.resized(33, 48)) == made.ms(BASE.resized(48, 48))


def test_a_finer_step_that_was_measured_is_kept(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure(grid(32, 40, 48))
    assert made.ms(BASE.resized(48, 33)) == made.ms(BASE.resized(48, 40)) < made.ms(BASE.resized(48, 48))


def test_between_measured_multiples_costs_are_bilinear_and_still_step(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure(grid(16, 64, 128))
    assert made.ms(BASE.resized(32, 96)) == pytest.approx(cost(BASE.resized(32, 96)) / 1e3)
    assert made.ms(BASE.resized(32, 81)) == made.ms(BASE.resized(32, 96)) > made.ms(BASE.resized(32, 80))


def test_where_neighbours_are_missing_a_fit_of_the_family_stands_in(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure([BASE.resized(16, 16), BASE.resized(128, 64), BASE.resized(64, 128), BASE.resized(16, 128)])
    for ins, outs in [(64, 64), (256, 256), (32, 112)]:
        assert made.ms(BASE.resized(ins, outs)) == pytest.approx(cost(BASE.resized(ins, outs)) / 1e3, rel=0.01)


def test_one_kernel_of_a_family_says_what_others_cost_by_their_multiply_accumulates(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure([BASE])
    assert made.ms(BASE.resized(32, 16)) == pytest.approx(2 * made.ms(BASE))


def test_kinds_of_numbers_and_depthwise_kernels_are_families_of_their_own(tmp_path):
    made = table(tmp_path / "t.sqlite")
    made.measure([BASE])
    depthwise = Kernel("conv2d", ((1, 16, 8, 8),), (1, 16, 8, 8), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 16)
    assert made.knows(BASE.resized(8, 8)) and not made.knows(BASE.in_numbers(INT8)) and not made.knows(depthwise)
    made.measure([depthwise])
    assert made.knows(depthwise.resized(32))


# Damage


def damaged(path, statement, values=()):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


DAMAGES = {
    "another file": lambda path: path.write_bytes(b"no database at all " * 50),
    "the end is missing": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "noise within": lambda path: path.write_bytes(
        path.read_bytes()[:4096] + bytes(range(256)) * 16 + path.read_bytes()[8192:]
    ),
    "a text as latency": lambda path: damaged(path, "UPDATE latencies SET microseconds = 'fast'"),
    "an infinite latency": lambda path: damaged(path, "UPDATE latencies SET microseconds = 9e999"),
    "a negative latency": lambda path: damaged(path, "UPDATE latencies SET microseconds = -1.0"),
    "a key that is no kernel": lambda path: damaged(path, "UPDATE latencies SET kernel = kernel || '}'"),
    "a key of another kind": lambda path: damaged(
        path,
        'UPDATE latencies SET kernel = \'{"op": "__import__"}\' WHERE kernel = (SELECT min(kernel) FROM latencies)',
    ),
    "a trigger": lambda path: damaged(
        path, "CREATE TRIGGER t AFTER INSERT ON latencies BEGIN DELETE FROM latencies; END"
    ),
    "a view in the table's place": lambda path: (
        damaged(path, "ALTER TABLE latencies RENAME TO other"),
        damaged(path, "CREATE VIEW latencies AS SELECT * FROM other"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_set_aside_told_and_measured_again(tmp_path, damage):
    path, said = tmp_path / "t.sqlite", []
    kernels = grid(*range(8, 88, 8))
    table(path).measure(kernels)
    DAMAGES[damage](path)
    made = table(path, said=said)
    assert len(said) == 1 and "is damaged" in said[0] and "measured again" in said[0] and len(made) == 0
    assert path.with_name("t.sqlite.damaged").exists()
    assert made.measure(kernels) == () and len(table(path)) == len(kernels)


def test_a_folder_in_the_files_place_is_an_error_that_names_it(tmp_path):
    with pytest.raises(PenjingError, match="Can't open the latency table"):
        table(tmp_path)
