"""Energy from the processor's counters: made-up files of counters, and functions that spend made-up energy in made-up time."""

from types import SimpleNamespace

import pytest

from penjing.targets.bench import ThisProcess, _energy
from penjing.targets.bench._energy import Zone, energies, zones

PACKAGE_MOST, MEMORY_MOST = 262_143_328_850, 65_532_610_987


@pytest.fixture
def counters(monkeypatch, tmp_path):
    """Writes the counters of a made-up machine, by the names of their folders."""
    monkeypatch.setattr(_energy, "_ZONES", tmp_path)

    def write(**zones):
        for folder, (name, energy, most) in zones.items():
            where = tmp_path / folder.replace("_", ":").replace("rapl:", "intel-rapl:", 1)
            where.mkdir()
            for file, content in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", most)):
                (where / file).write_text(f"{content}\n")
        return tmp_path

    return write


def test_packages_and_the_memory_beside_them_count_once(counters):
    counters(
        rapl_0=("package-0", 5, PACKAGE_MOST), rapl_0_0=("core", 4, PACKAGE_MOST), rapl_0_1=("dram", 7, MEMORY_MOST),
        rapl_1=("package-1", 6, PACKAGE_MOST), rapl_2=("psys", 20, PACKAGE_MOST),
    )  # fmt: skip
    found = zones()
    assert [zone.read() for zone in found] == [5, 7, 6]
    assert [zone.most for zone in found] == [PACKAGE_MOST, MEMORY_MOST, PACKAGE_MOST]


def test_without_counters_there_are_none(counters):
    counters()
    assert zones() == []
    assert ThisProcess().energies({}) is None


@pytest.mark.parametrize("content", [None, "", "secret"])
def test_where_a_counter_cannot_be_read_there_are_none(counters, content):
    folder = counters(rapl_0=("package-0", 5, PACKAGE_MOST), rapl_1=("package-1", 6, PACKAGE_MOST))
    file = folder / "intel-rapl:1" / "energy_uj"
    file.unlink() if content is None else file.write_text(content)
    assert zones() == []


@pytest.mark.parametrize(("before", "after", "spent"), [(100, 250, 150), (900, 40, 140), (7, 7, 0), (999, 0, 1)])
def test_a_counter_that_started_again_at_0_counts_on(tmp_path, before, after, spent):
    assert Zone(tmp_path, 1000).between(before, after) == spent


class Machine:
    """A machine with a clock and one counter, that takes 10 W at rest and starts again at 0 after 3 J."""

    most = 3_000_000
    rest = 10.0

    def __init__(self):
        self.now, self.spent = 0.0, 0.0

    def passes(self, seconds, watts=0.0):
        self.now += seconds
        self.spent += seconds * (self.rest + watts)

    def read(self):
        return int(self.spent * 1e6) % self.most

    def between(self, before, after):
        return Zone(None, self.most).between(before, after)


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    clock = SimpleNamespace(perf_counter=lambda: made.now, sleep=made.passes)
    monkeypatch.setattr(_energy, "time", clock)
    return made


def test_the_energy_of_a_call_is_what_it_adds_to_rest(machine):
    calls = {"small": lambda: machine.passes(0.001, 20.0), "large": lambda: machine.passes(0.004, 30.0)}
    found = energies(calls, [machine], rounds=4, seconds=0.05)
    assert found == pytest.approx({"small": 20.0, "large": 120.0}, rel=1e-3)  # millijoules
    assert machine.spent > 1.5 * machine.most / 1e6, "the counter started again in between"


def test_the_energies_of_several_counters_add_up(machine):
    found = energies({"one": lambda: machine.passes(0.002, 5.0)}, [machine, machine], rounds=2, seconds=0.05)
    assert found["one"] == pytest.approx(2 * 10.0, rel=1e-3)


def test_a_call_that_takes_longer_than_a_turn_is_made_once_a_turn(machine):
    made = []
    energies({"long": lambda: (made.append(1), machine.passes(0.1))}, [machine], rounds=3, seconds=0.05)
    assert len(made) == 3


def test_functions_take_turns_in_alternating_order(machine):
    order = []
    calls = {name: lambda name=name: (order.append(name), machine.passes(1.0)) for name in "ab"}
    energies(calls, [machine], rounds=3, seconds=0.5)
    assert "".join(order) == "abbaab"
