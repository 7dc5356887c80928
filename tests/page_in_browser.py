"""A page that is opened in a browser without a window and tells what it found."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penjing.targets.onnxruntime_web._chromium import Browser, chromium


def told_by_page(write: Callable[[str], Path]) -> Any:
    """Opens a page in Chromium and returns what it tells; skips where there is no Chromium.

    Args:
        write: writes the page and returns its path, given the JavaScript that tells the value of its variable `found`.
    """
    program = chromium()
    if program is None:
        pytest.skip("there is no Chromium on the PATH, and PENJING_CHROMIUM names none")
    asked, arrived = list[str](), threading.Event()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}/"
    page = write(f"fetch('{where}', {{ method: 'POST', mode: 'no-cors', body: JSON.stringify(found) }})")
    browser = Browser(program, page.as_uri())
    try:
        assert arrived.wait(120), "the page gave no answer within two minutes"
    finally:
        browser.close()
        server.shutdown()
    return json.loads(asked[0])
