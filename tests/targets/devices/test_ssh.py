"""Devices behind ssh, whose place this machine takes, behind a real server on loopback."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sshd import WITHOUT
from torch import nn

from penjing.errors import PenjingError
from penjing.files import cache_folder
from penjing.graph import capture
from penjing.planning.latency import LatencyTable
from penjing.planning.problem import Deployment
from penjing.targets import (
    FreshProcess,
    ThisProcess,
    device_facts,
    find_target,
    lower,
    machine_of,
    measure,
    measure_together,
    profile,
    session,
)
from penjing.targets._verbs import named_inputs, random_inputs
from penjing.targets.bench import Job
from penjing.targets.bench._measuring import _packed as packed
from penjing.targets.devices import _bench
from penjing.targets.devices._bench import alike
from penjing.targets.devices._connection import Unreachable
from penjing.targets.devices._leftovers import folder_on
from penjing.targets.devices._ssh import Ssh

pytestmark = WITHOUT


def graph():
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten()), torch.randn(2, 3, 8, 8))


def left_on_device():
    return list(Path(Ssh.folder).iterdir())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_models_are_measured_and_profiled_there_and_nothing_stays(reached, runtime, tmp_path):
    pytest.importorskip(runtime)
    address = reached(runtime)
    target = find_target(address)
    assert target.machine == machine_of(runtime) and target.runtime == find_target(runtime).runtime
    file = lower(graph(), address, tmp_path / f"model{target.suffix}")
    assert file.target == address
    found = measure_together({"one": file, "other": file}, runs=30, seconds=1)
    assert found["one"].latency_ms.median > 0 and found["one"].model_memory_bytes is not None
    assert found["one"].runtime == target.runtime
    here = lower(graph(), runtime, tmp_path / f"here{target.suffix}")
    # Reorders are the runtime's own, and another process may need others.
    products = [[(node.module, node.macs) for node in profile(one) if node.macs] for one in (file, here)]
    assert products[0] == products[1] and products[0]
    assert left_on_device() == [] and not [one for one in cache_folder().rglob("*") if one.is_file()]


def test_the_latency_table_knows_the_device(reached, tmp_path):
    table = LatencyTable(tmp_path / "table.sqlite", Deployment(reached("onnxruntime")))
    assert table.device == machine_of("onnxruntime").processor and table.runtime == find_target("onnxruntime").runtime


def test_facts_are_those_of_the_device(reached):
    assert device_facts(reached("onnxruntime"), peaks=False) == device_facts("onnxruntime", peaks=False)


def test_models_of_two_places_do_not_take_turns(reached, tmp_path):
    there = lower(graph(), reached("onnxruntime"), tmp_path / "there.onnx")
    here = lower(graph(), "onnxruntime", tmp_path / "here.onnx")
    with pytest.raises(PenjingError, match="can't be measured in turns, since they don't run in one place"):
        measure_together({"there": there, "here": here})


@pytest.mark.parametrize("bench", [ThisProcess(), FreshProcess()])
def test_a_bench_of_this_machine_is_refused(reached, bench, tmp_path):
    there = lower(graph(), reached("onnxruntime"), tmp_path / "there.onnx")
    with pytest.raises(PenjingError, match=r"are timed by a bench of their own: leave bench= out"):
        measure(there, bench=bench)


def test_outputs_that_differ_there_are_told(reached, tmp_path, monkeypatch):
    file = lower(graph(), reached("onnxruntime"), tmp_path / "model.onnx")
    local = find_target("onnxruntime")
    bench = find_target(reached("onnxruntime")).bench

    class Other:
        def __init__(self, artifact, threads):
            self._session = local.session(artifact, threads)

        def run(self, inputs):
            return [-value for value in self._session.run(inputs)]

    monkeypatch.setattr(bench, "_local", replace(local, session=Other))
    with pytest.raises(PenjingError, match="is another than here, beyond what roundings explain"):
        measure(file, runs=10, seconds=1)


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        ([1.0, -2.0], [1.01, -1.99], True),
        ([1.0, -2.0], [np.nan, np.nan], False),
        ([1.0, -np.inf], [1.0, -np.inf], True),
        ([1.0, -2.0], [[1.0], [-2.0]], False),
        ([1.0, -2.0], [-1.0, 2.0], False),
        ([1, 2], [2, 1], True),
        ([1, 2], [1.0, 2.0], False),
    ],
)
def test_outputs_are_alike_where_roundings_explain_the_difference(here, there, same):
    assert alike(np.array(here), np.array(there)) is same


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer["times"].clear(), "sent no times of model"),
        (lambda answer: answer["times"].update(model=[]), "sent no times of model"),
        (lambda answer: answer["times"].update(model=[0.0]), "times that aren't positive"),
        (lambda answer: answer["outputs"].clear(), "sent no outputs of model"),
        (lambda answer: answer["outputs"].update(model=packed([])), "gives 0 outputs on ssh://.*, and 1 here"),
    ],
)
def test_a_result_that_lacks_something_is_refused(reached, tmp_path, monkeypatch, change, message):
    file = lower(graph(), reached("onnxruntime"), tmp_path / "model.onnx")
    connection = find_target(file.target).bench._connection
    fetch = connection.fetch

    def changed(path):
        answer = json.loads(fetch(path))
        change(answer)
        return json.dumps(answer).encode()

    monkeypatch.setattr(connection, "fetch", changed)
    with pytest.raises(PenjingError, match=message):
        measure(file, runs=3, seconds=0.1, memory=False)


def test_a_program_that_takes_too_long_ends_itself_and_that_is_told(reached, tmp_path):
    file = lower(graph(), reached("onnxruntime"), tmp_path / "model.onnx")
    bench = find_target(file.target).bench
    job = Job(file, named_inputs(file, random_inputs(file, 1)), 1)
    with pytest.raises(PenjingError, match="ended itself, since it took too long"):
        bench.ask({"model": job}, 1.0, profile_runs=10**9)
    assert left_on_device() == []


class Gone:
    """A device that answers only where a folder is made."""

    folder = "/tmp"

    def __init__(self):
        self.asked = []

    def run(self, command, seconds):
        self.asked.append(command.split()[0])
        if self.asked[-1] == "mkdir":
            return 0, "", ""
        raise Unreachable("the connection was lost")


def test_a_device_that_is_gone_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    with folder_on("ssh://pi/", Gone()):
        pass
    gone = Gone()
    with pytest.raises(Unreachable), folder_on("ssh://pi/", gone):
        pass
    assert gone.asked == ["rm"]


def test_a_host_that_refuses_is_told(server, reached):
    with pytest.raises(
        PenjingError, match=r"ssh://nobody@127.0.0.1:\d+ can't be reached by ssh: .*must work without a password"
    ):
        find_target(f"ssh://nobody@127.0.0.1:{server.port}/onnxruntime")


def test_a_host_without_the_runtime_is_told(server, reached, tmp_path):
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(PenjingError, match="Its Python lacks a package: install the runtime and NumPy there"):
        find_target(f"{server.address}/onnxruntime?python={bare}")
    assert left_on_device() == []


def test_a_program_that_fails_there_says_why(reached, tmp_path):
    file = lower(graph(), reached("onnxruntime"), tmp_path / "model.onnx")
    file.path.write_bytes(b"damaged")
    with pytest.raises(PenjingError, match=r"Measuring on ssh://.* failed\. .*(InvalidProtobuf|INVALID_PROTOBUF|Fail)"):
        profile(file)
    assert left_on_device() == []


class Lost:
    """A connection that is lost as soon as the program runs."""

    def __init__(self, connection):
        self._connection, self.folder, self.gone = connection, connection.folder, False
        self.send, self.fetch = connection.send, connection.fetch

    def run(self, command, seconds):
        self.gone = self.gone or _bench.PROGRAM in command
        if self.gone:
            raise Unreachable("the connection was lost")
        return self._connection.run(command, seconds)


def test_what_a_lost_connection_leaves_is_removed_at_the_next_contact(reached, tmp_path, monkeypatch):
    address = reached("onnxruntime")
    file = lower(graph(), address, tmp_path / "model.onnx")
    bench = find_target(address).bench
    good = bench._connection
    monkeypatch.setattr(bench, "_connection", Lost(good))
    with pytest.raises(PenjingError, match="the connection was lost"):
        profile(file)
    assert len(left_on_device()) == 1
    monkeypatch.setattr(bench, "_connection", good)
    profile(file)
    assert left_on_device() == [] and not [one for one in cache_folder().rglob("*") if one.is_file()]


def test_what_a_killed_process_leaves_is_removed_too(reached, tmp_path):
    address = reached("onnxruntime")
    bench = find_target(address).bench
    child = os.fork()
    if child == 0:
        with folder_on(bench._address.device, bench._connection):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert len(left_on_device()) == 1
    with folder_on(bench._address.device, bench._connection):
        assert len(left_on_device()) == 1, "only the new one"
    assert left_on_device() == []


def test_a_note_names_no_other_folder_than_ours(reached, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    bench = find_target(reached("onnxruntime")).bench
    with folder_on(bench._address.device, bench._connection):
        pass
    (notes,) = (cache_folder() / "devices").iterdir()
    (notes / f"penjing-{'0' * 32}").write_text(str(precious))
    with folder_on(bench._address.device, bench._connection):
        pass
    assert precious.is_dir() and list(notes.iterdir()) == []


def test_a_result_of_another_kind_is_refused(reached, tmp_path, monkeypatch):
    address = reached("onnxruntime")
    file = lower(graph(), address, tmp_path / "model.onnx")
    bench = find_target(address).bench
    monkeypatch.setattr(bench._connection, "fetch", lambda path: json.dumps({"runtime": 3}).encode())
    with pytest.raises(PenjingError, match="isn't the result of a measurement"):
        profile(file)


def test_the_session_runs_here(reached, tmp_path):
    file = lower(graph(), reached("onnxruntime"), tmp_path / "model.onnx")
    assert session(file)(torch.zeros(3, 3, 8, 8)).shape == (3, 288)
