"""What is special about onnxruntime-web: a process of Node that outlives calls, times taken there, what runs in integers."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.targets import (
    available,
    find_target,
    integer_macs,
    lower,
    measure,
    measure_together,
    profile,
    run,
    session,
)
from penjing.targets.onnxruntime_web import _chromium, _package
from penjing.targets.onnxruntime_web._package import VARIABLE

NAME = "onnxruntime-web"
(ROW,) = [row for row in available() if row.name == NAME]
here = pytest.mark.skipif(not ROW.usable, reason=ROW.note)


@pytest.fixture
def residual(tmp_path):
    torch.manual_seed(0)
    return capture(zoo.build("resnet20").eval(), torch.randn(2, 3, 32, 32))


def test_what_is_missing_is_told_with_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(_package, "node", lambda: "node")
    install = rf"npm install --prefix {tmp_path} onnxruntime-web"
    with pytest.raises(PenjingError, match=f"'{NAME}' can't be used here. {install}"):
        find_target(NAME)
    monkeypatch.setattr(_package, "node", lambda: None)
    (row,) = [row for row in available() if row.name == NAME]
    assert not row.usable and row.version is None and row.note.startswith("Install Node") and install in row.note


def test_without_a_browser_the_targets_in_browsers_say_what_to_install(monkeypatch):
    monkeypatch.setenv(_chromium.VARIABLE, "/nowhere/chromium")
    for name in ("onnxruntime-web:chromium", "onnxruntime-web:webgpu"):
        with pytest.raises(
            PenjingError, match=f"'{name}' can't be used here. .*Install Chromium or Chrome.*PENJING_CHROMIUM"
        ):
            find_target(name)
        (row,) = [row for row in available() if row.name == name]
        assert not row.usable and "Install Chromium" in row.note


def test_a_file_that_is_no_program_counts_as_no_chromium(monkeypatch, tmp_path):
    file = tmp_path / "chromium"
    file.write_text("")
    monkeypatch.setenv(_chromium.VARIABLE, str(file))
    assert _chromium.chromium() is None
    file.chmod(0o755)
    assert _chromium.chromium() == str(file)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_package_counts_as_none(monkeypatch, tmp_path, content):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    place = tmp_path / "node_modules" / NAME
    place.mkdir(parents=True)
    (place / "package.json").write_bytes(content)
    assert _package.installed() is None


@here
def test_products_of_a_quantised_network_run_in_integers_and_none_of_a_float_one_does(residual, tmp_path):
    small = quantize(residual, [torch.randn(8, 3, 32, 32)], corrections=(), target=NAME)
    plain, rounded = lower(residual, NAME, tmp_path / "a.onnx"), lower(small, NAME, tmp_path / "b.onnx")
    assert sum(row.macs for row in profile(plain)) == sum(row.macs for row in profile(rounded)) == residual.cost().macs
    assert integer_macs(plain, residual.cost()) == 0
    assert integer_macs(rounded, small.cost()) == pytest.approx(1)
    assert {row.module for row in profile(rounded) if row.macs} == {row.module for row in profile(plain) if row.macs}


def picks():
    """Returns a model that fails on tokens beyond its table."""

    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, tokens):
            return self.table(tokens)

    return capture(Picks(), torch.zeros(2, 4, dtype=torch.int64))


@here
def test_times_are_taken_in_turns_in_one_process(plain, tmp_path):
    files = {name: lower(plain, NAME, tmp_path / f"{name}.onnx") for name in ("a", "b", "c")}
    found = measure_together(files, runs=5, seconds=0.2, memory=False)
    assert all(one.latency_ms.runs >= 5 and one.latency_ms.p10 > 0 for one in found.values())
    assert found["a"].runtime == f"{NAME} {ROW.version} in Node {_package.node_version()}"


@here
def test_names_that_are_numbers_get_their_own_inputs(plain, tmp_path):
    files = {"b": lower(plain, NAME, tmp_path / "b.onnx"), "1": lower(picks(), NAME, tmp_path / "1.onnx")}
    inputs = {"b": torch.full((1, 3, 12, 12), 7.0), "1": torch.ones(2, 4, dtype=torch.int64)}  # 7.0 is no token
    found = measure_together(files, inputs=inputs, runs=3, seconds=0.1, memory=False)
    assert (found["b"].batch, found["1"].batch) == (1, 2)


@here
def test_it_takes_no_turns_with_a_runtime_of_this_process(plain, tmp_path):
    web = lower(plain, NAME, tmp_path / "model.onnx")
    with pytest.raises(PenjingError, match=r"onnxruntime.* can't be measured in turns"):
        measure_together({"web": web, "native": replace(web, target="onnxruntime")}, runs=3, seconds=0.1)


@here
def test_more_threads_than_one_are_refused(plain, tmp_path):
    artifact = lower(plain, NAME, tmp_path / "model.onnx")
    for act in (lambda: session(artifact, 2), lambda: profile(artifact, 2), lambda: measure(artifact, threads=2)):
        with pytest.raises(PenjingError, match="measured with one thread, not 2"):
            act()


@here
def test_a_process_that_ends_is_told_and_the_next_call_starts_another(plain, tmp_path):
    from penjing.targets.onnxruntime_web._node import NODE

    loaded = session(lower(plain, NAME, tmp_path / "model.onnx"))
    x = torch.randn(2, 3, 12, 12)
    before = loaded(x)["logits"]
    ended = NODE.engine()
    ended.close()
    with pytest.raises(PenjingError, match="process that runs onnxruntime-web ended"):
        ended.ask({"do": "run"})
    torch.testing.assert_close(loaded(x)["logits"], before, rtol=0, atol=0)


@here
def test_a_call_that_fails_names_the_module(tmp_path):
    artifact = lower(picks(), NAME, tmp_path / "model.onnx")
    with pytest.raises(PenjingError, match=r"fails in 'table' on inputs of the shapes tokens \(2, 4\)"):
        run(artifact, torch.full((2, 4), 9))
    assert run(artifact, torch.zeros(2, 4, dtype=torch.int64)).shape == (2, 4, 3)


@here
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.uint8])
def test_values_of_each_dtype_go_there_and_back(dtype, tmp_path):
    class Turns(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2)

    x = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    artifact = lower(capture(Turns(), x), NAME, tmp_path / "model.onnx")
    found = run(artifact, x)
    assert found.dtype == dtype and torch.equal(found, x.transpose(1, 2))


@here
def test_what_nobody_holds_is_let_go(plain, tmp_path):
    from penjing.targets.onnxruntime_web._node import NODE
    from penjing.targets.onnxruntime_web._session import WebSession

    artifact = lower(plain, NAME, tmp_path / "model.onnx")
    one = WebSession(artifact, 1, NODE)
    number = one.number
    del one
    inputs = {artifact.inputs[0].name: np.zeros((1, 3, 12, 12), np.float32)}
    other = WebSession(artifact, 1, NODE)
    other.run(inputs)
    other.number = number
    with pytest.raises(PenjingError, match="fails"):
        other.run(inputs)
    assert NODE.engine().alive


posix = pytest.mark.skipif(os.name != "posix", reason="there is no POSIX shell")
in_chromium = pytest.mark.skipif(
    not ROW.usable or _chromium.chromium() is None,
    reason=f"{ROW.note} {_chromium.lacks_chromium()}".strip(),
)


@in_chromium
def test_the_server_of_the_page_gives_its_files_alone_and_to_nobody_else():
    from penjing.targets.onnxruntime_web._in_page import CHROMIUM

    page = CHROMIUM.engine()
    word = page._word
    assert page.path(f"/{word}/runs.html?provider=wasm") and page.path(f"/{word}/dist/ort.wasm.bundle.min.mjs")
    for address in ("/", "/runs.html", "/other/runs.html", f"/{word}/", f"/{word}/dist/../package.json",
                    f"/{word}/dist//etc/passwd", f"/{word}/../runs.html", f"/{word}/_engine.py", f"/{word}/dist/"):  # fmt: skip
        assert page.path(address) is None, address
    assert page.knows(f"/{word}/next") and not page.knows("/other/next") and not page.knows(f"/{word}/runs.html")
    page.answered("/other/answer", b"nothing")
    assert page._answers.empty()


@in_chromium
def test_a_browser_gives_what_node_gives_and_a_closed_one_is_opened_again(quantised, tmp_path):
    from penjing.targets.onnxruntime_web._in_page import CHROMIUM

    artifact = lower(quantised, "onnxruntime-web:chromium", tmp_path / "model.onnx")
    x = torch.randn(3, 3, 32, 32)
    there = run(artifact, x)
    torch.testing.assert_close(there, run(replace(artifact, target=NAME), x), rtol=0, atol=0)
    CHROMIUM.engine().close()
    torch.testing.assert_close(run(artifact, x), there, rtol=0, atol=0)


CRASHES = """#!{python}
import http.client, os, sys
from urllib.parse import urlsplit

if "--version" in sys.argv:
    print("Crashing 1.0")
    sys.exit()
address = urlsplit(sys.argv[-1])
folder = address.path.rpartition("/")[0]
page = http.client.HTTPConnection(address.netloc)
page.request("POST", folder + "/alive", headers={{"Content-Length": "0"}})
asks = http.client.HTTPConnection(address.netloc)
asks.request("POST", folder + "/next", headers={{"Content-Length": "0"}})
asks.getresponse().read()
page.sock.close()
os.read(3, 1)
"""


@posix
def test_a_page_that_crashes_while_its_browser_lives_is_told_and_nothing_of_it_stays(monkeypatch, tmp_path):
    from penjing.targets.onnxruntime_web._in_page import InPage

    program = tmp_path / "chromium"
    program.write_text(CRASHES.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv(_chromium.VARIABLE, str(program))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page = InPage("wasm", compiled=False)
    with pytest.raises(
        PenjingError, match=r"process that runs onnxruntime-web ended\. Its page in the browser crashed"
    ):
        page.ask({"do": "run"})
    assert not page.alive and not page.browser.alive
    assert list(tmp_path.iterdir()) == [program]


@in_chromium
def test_after_a_page_that_was_closed_the_next_call_opens_another(plain, tmp_path):
    from penjing.targets.onnxruntime_web._in_page import CHROMIUM

    loaded = session(lower(plain, "onnxruntime-web:chromium", tmp_path / "model.onnx"))
    x = torch.randn(2, 3, 12, 12)
    before = loaded(x)["logits"]
    page = CHROMIUM.engine()
    page.gone("/other/alive")
    assert page.alive and page.knows(f"/{page._word}/alive")
    page.gone(f"/{page._word}/alive")
    torch.testing.assert_close(loaded(x)["logits"], before, rtol=0, atol=0)
    assert CHROMIUM.engine() is not page and not page.browser.alive


@in_chromium
@posix
def test_a_browser_ends_with_a_process_that_is_killed_and_the_next_one_removes_its_folder(monkeypatch, tmp_path):
    opens = (
        "import os, sys\n"
        "from penjing.targets.onnxruntime_web._chromium import Browser, chromium\n"
        "browser = Browser(chromium(), 'about:blank')\n"
        "print(browser._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", opens]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    browser = int(process.stdout.readline())
    assert _runs(browser)
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while _runs(browser) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _runs(browser)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    _chromium.Browser(_chromium.chromium(), "about:blank").close()
    assert list(tmp_path.iterdir()) == []


def _runs(process: int) -> bool:
    """Tells whether a process runs; one that nobody has waited for yet doesn't."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")
