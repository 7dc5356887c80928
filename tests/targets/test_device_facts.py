"""What the machine is, by its system, and how fast runtimes are on it."""

import json

import pytest

from penjing.errors import PenjingError
from penjing.targets import Peaks, _device, _peaks, device_facts, machine_facts, processor

INFO = (
    "processor\t: 0\nvendor_id\t: X\nmodel name\t: Fast: 3000 \ncpu MHz\t\t: 2100.500\n"
    "flags\t\t: fpu avx2 vme avx_vnni\nmodel name\t: Other\n"
)


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A made-up system: returns a function that writes its files, by the names of the module's constants."""
    places = {"_CPUS": "cpuinfo", "_CLOCK": "clock", "_CACHES": "cache"}
    for name, file in places.items():
        monkeypatch.setattr(_device, name, tmp_path / file)
    monkeypatch.setattr(_device, "_CONTAINER_MEMORY", (tmp_path / "memory",))

    def write(**contents):
        for name, content in contents.items():
            file = tmp_path / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(content)

    return write


def test_the_processor_has_the_name_that_the_system_gives_it(system):
    system(cpuinfo=INFO)
    assert processor() == "Fast: 3000"


@pytest.mark.parametrize(("named", "kind", "told"), [("arm", "aarch64", "arm"), ("", "aarch64", "aarch64")])
@pytest.mark.parametrize("content", [None, "Hardware\t: board\n"])
def test_where_the_system_lists_no_name_its_kind_stands_for_it(system, monkeypatch, content, named, kind, told):
    if content is not None:
        system(cpuinfo=content)
    monkeypatch.setattr("platform.processor", lambda: named)
    monkeypatch.setattr("platform.machine", lambda: kind)
    assert processor() == told


def test_facts_are_what_the_system_reports(system):
    system(cpuinfo=INFO, memory="1048576\n", clock="3500000\n")
    for index, (level, kind, size) in enumerate([(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2M")]):
        system(
            **{
                f"cache__index{index}__{name}": f"{value}\n"
                for name, value in (("level", level), ("type", kind), ("size", size))
            }
        )
    found = machine_facts()
    assert found.cache_bytes == {"L1": 48 * 2**10, "L2": 2 * 2**20}
    assert found.instructions == ("avx2", "avx_vnni") and found.memory_bytes == 2**20
    assert found.clock_hz == 3.5e9 and found.cores >= 1 and found.peaks is None
    json.dumps(found.to_dict())


def test_what_the_system_does_not_tell_is_none(system):
    system(memory="max\n")
    found = machine_facts()
    assert found.clock_hz is None and found.cache_bytes == {} and found.instructions == ()
    assert found.memory_bytes > 2**20, "no limit of a container leaves the machine's"
    system(cpuinfo=INFO)
    assert machine_facts().clock_hz == 2.1005e9


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "peaks.json"


@pytest.fixture
def measured(monkeypatch):
    asked = []

    def fake(target, threads, runtime):
        asked.append((target, threads))
        return Peaks(runtime, threads, 1e9, None, 2e9)

    monkeypatch.setattr(_peaks, "_measured", fake)
    return asked


def test_peaks_are_measured_once_for_each_runtime_and_number_of_threads(cache, measured):
    for _ in range(2):
        for target, threads in (("torch", 1), ("onnxruntime", 1), ("torch", 2)):
            assert device_facts(target, threads).peaks.threads == threads
    assert measured == [("torch", 1), ("onnxruntime", 1), ("torch", 2)]
    assert device_facts("torch", peaks=False).peaks is None


@pytest.mark.parametrize("content", ["{", "[3]", '[{"processor": "x", "peaks": {"runtime": 3}}]', "[" * 10_000])
def test_a_damaged_file_of_peaks_is_measured_again(cache, measured, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert device_facts("torch").peaks.float_macs == 1e9
    assert len(measured) == 1 and len(json.loads(cache.read_text())) == 1


def test_peaks_that_cannot_be_kept_are_returned_all_the_same(monkeypatch, tmp_path, measured):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "file" / "cache"))
    assert device_facts("torch").peaks.float_macs == 1e9


def test_an_unknown_target_is_refused(cache):
    with pytest.raises(PenjingError, match="Unknown target"):
        device_facts("tensorrt")


def test_peaks_are_those_of_a_large_convolution_and_a_large_linear(cache, monkeypatch):
    monkeypatch.setattr(_peaks, "SECONDS", 0.05)
    monkeypatch.setattr(_peaks, "CHANNELS", 32)
    monkeypatch.setattr(_peaks, "FEATURES", 256)
    found = device_facts("onnxruntime").peaks
    assert found.runtime.startswith("onnxruntime ") and found.integer_macs is not None
    assert 1e8 < found.float_macs < 1e14 and 1e8 < found.bytes < 1e13
    assert device_facts("torch").peaks.integer_macs is None
