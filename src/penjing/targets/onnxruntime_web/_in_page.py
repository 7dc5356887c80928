"""A page in a browser as the place where models run: it takes its requests from a server on this machine's loopback."""

import queue
import secrets
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import PenjingError
from penjing.targets.bench import MEMORY_CALLS
from penjing.targets.onnxruntime_web._chromium import Browser, chromium, chromium_version
from penjing.targets.onnxruntime_web._engine import Ended, Engine, Place, described, packed
from penjing.targets.onnxruntime_web._package import PACKAGE, folder, installed

HERE = Path(__file__).parent
WAIT_SECONDS = 10.0  # for which a page waits for a request before it asks again
START_SECONDS = 60.0  # in which a page must ask for its first request
_SIZE = struct.Struct("<I")  # of a message's header
_TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm"}
# A page with these is isolated, so that its clock has steps of 5 microseconds and not of 100.
_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class InPage(Engine):
    """A page in a browser of its own, and the server of that page.

    The server answers nobody but whoever knows a random word in the page's address.
    """

    def __init__(self, provider: str, *, compiled: bool) -> None:
        """Starts the browser.

        Args:
            provider: "wasm" or "webgpu".
            compiled: whether V8 optimises each function of the runtime before it runs it first.
        """
        super().__init__()
        self._requests: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._asked, self._gone = threading.Event(), threading.Event()
        self._word = secrets.token_urlsafe(16)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_port}/{self._word}/runs.html?provider={provider}"
        self.browser = Browser(str(chromium()), address, compiled=compiled, gpu=provider == "webgpu")

    @property
    def alive(self) -> bool:
        """Whether the browser runs, and its page hasn't crashed."""
        return self.browser.alive and not self._gone.is_set()

    def exchange(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Sends a request; returns the answer; see `Engine`."""
        self._requests.put(_SIZE.pack(len(header)) + header + body)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                answer = self._answers.get(timeout=0.5)
                break
            except queue.Empty:
                if not self.browser.alive:
                    raise Ended("The browser was closed.") from None
                if self._gone.is_set():
                    raise Ended(
                        "Its page in the browser crashed or was closed: perhaps the machine ran out of memory."
                    ) from None
                if not self._asked.is_set() and time.monotonic() > end:
                    raise Ended(f"The browser didn't open its page within {START_SECONDS:.0f} seconds.") from None
        (size,) = _SIZE.unpack_from(answer)
        return answer[_SIZE.size : _SIZE.size + size], answer[_SIZE.size + size :]

    def close(self) -> None:
        """Ends the browser and the server."""
        self.browser.close()
        self._server.shutdown()
        self._server.server_close()

    def path(self, address: str) -> Path | None:
        """Returns the file of an address; None for what the page doesn't need."""
        word, _, name = address.lstrip("/").partition("?")[0].partition("/")
        if not secrets.compare_digest(word.encode(), self._word.encode()):
            return None
        if name in ("runs.html", "models.mjs"):
            return HERE / name
        file = folder() / "node_modules" / PACKAGE / "dist" / name.removeprefix("dist/")
        return file if name == f"dist/{file.name}" and file.is_file() else None

    def knows(self, address: str) -> bool:
        """Tells whether an address holds the page's secret word and one of its verbs."""
        return self._verb(address) in ("alive", "next", "answer")

    def gone(self, address: str) -> None:
        """Takes note that the page was closed or crashed."""
        if self._verb(address) == "alive":
            self._gone.set()

    def next(self, address: str) -> bytes | None:
        """Returns the next request, where there is one in time."""
        if self._verb(address) != "next":
            return None
        self._asked.set()
        try:
            return self._requests.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            return None

    def answered(self, address: str, message: bytes) -> None:
        """Takes an answer."""
        if self._verb(address) == "answer":
            self._answers.put(message)

    def _verb(self, address: str) -> str:
        word, _, verb = address.lstrip("/").partition("/")
        return verb if secrets.compare_digest(word.encode(), self._word.encode()) else ""


class _Handler(BaseHTTPRequestHandler):
    """Serves the page, its modules, its requests, and takes its answers."""

    def __init__(self, page: InPage, *arguments: Any) -> None:
        self._page = page
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Serves a file."""
        file = self._page.path(self.path)
        if file is None:
            self._reply(404)
        else:
            self._reply(200, file.read_bytes(), _TYPES[file.suffix])

    def do_POST(self) -> None:
        """Gives a request out, or takes an answer."""
        if not self._page.knows(self.path):  # before anything is read: any process of this machine may ask
            self._reply(404)
            return
        if self.path.endswith("/alive"):
            self._watch()
            return
        message = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/answer"):
            self._page.answered(self.path, message)
            self._reply(204)
        else:
            request = self._page.next(self.path)
            self._reply(204 if request is None else 200, request or b"", "application/octet-stream")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _watch(self) -> None:
        """Begins a reply that never ends: the browser closes its connection once the page is no more."""
        self.send_response(200)
        self.end_headers()
        with suppress(ConnectionError):
            self.connection.recv(1)
        self._page.gone(self.path)

    def _reply(self, code: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(code)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the browser was closed meanwhile
            self.wfile.write(body)


@cache
def _version() -> str:
    return f"{installed()} in {chromium_version()}"


def _memory(provider: str, tiny: bytes, file: bytes, inputs: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns the peak of all processes of a fresh browser, and the part that came after a tiny model ran."""
    if sys.platform != "linux":
        return None
    page = InPage(provider, compiled=False)
    try:
        page.ask({"do": "open", "id": 0}, [tiny])
        before = page.browser.resident("VmRSS:")
        page.ask({"do": "open", "id": 1}, [file])
        for _ in range(MEMORY_CALLS):
            page.ask({"do": "run", "id": 1, "inputs": described(inputs)}, [packed(inputs)])
        peak = page.browser.resident("VmHWM:")
    finally:
        page.close()
    return peak, max(0, peak - before)


def _place(target: str, provider: str, *, layers: bool) -> Place:
    start = partial(InPage, provider, compiled=True)
    return Place(target, _version, start=start, memory=partial(_memory, provider), layers=layers)


CHROMIUM = _place("onnxruntime-web:chromium", "wasm", layers=True)
WEBGPU = _place("onnxruntime-web:webgpu", "webgpu", layers=False)


@cache
def lacks_adapter() -> str:
    """Returns why pages of the browser can't use a GPU; "" where they can."""
    engine = WEBGPU.engine()
    try:
        engine.ask({"do": "ready"})
    except PenjingError as error:
        engine.close()
        return f"{chromium_version()}: {error}."
    return ""
