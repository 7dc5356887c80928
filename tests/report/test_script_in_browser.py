"""The report's script in a browser without a window: layers are sorted, long lists unfold, and nothing asks any network."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import report_samples

from penjing import report
from penjing.targets.onnxruntime_web._chromium import Browser, chromium

CHECK = """<script>
const order = () => [...document.getElementById("layer-list").children].map((row) => row.dataset.order);
const costs = (name) => [...document.getElementById("layer-list").children].map((row) => Number(row.dataset["c" + name]));
const found = { before: order(), keys: [], sorted: true };
for (const button of document.querySelectorAll(".sort [data-sort]")) {
  button.click();
  const key = button.dataset.sort;
  found.keys.push(key);
  if (key === "order") found.restored = order();
  else found.sorted &&= costs(key).every((cost, at, all) => at === 0 || all[at - 1] >= cost);
  found.sorted &&= button.getAttribute("aria-pressed") === "true";
}
document.querySelector("[data-sort=order]").click();
found.restored = order();
found.hidden = [...document.querySelectorAll("[data-unfold], .sort")].filter((one) => one.hidden).length;
for (const button of document.querySelectorAll("[data-unfold]")) button.click();
found.folded = document.querySelectorAll(".folded").length;
const dots = [...document.querySelectorAll("figure svg circle")];
found.told = dots.length > 0 && dots.every((dot) => dot.closest("g").querySelector("title") !== null);
found.asked = performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => !name.startsWith("data:"));
fetch(TELL, { method: "POST", mode: "no-cors", body: JSON.stringify(found) });
</script></body>"""


def test_layers_are_sorted_lists_unfold_and_nothing_is_fetched(tmp_path):
    program = chromium()
    if program is None:
        pytest.skip("there is no Chromium on the PATH, and PENJING_CHROMIUM names none")
    report.write(report_samples.changed(), tmp_path)
    asked, arrived = [], threading.Event()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = (tmp_path / "report.html").read_text()
    # Without its policy the page could fetch whatever it asks for, and what it asks for would be seen.
    page, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    check = CHECK.replace("TELL", f"'http://127.0.0.1:{server.server_port}/'")
    (tmp_path / "checked.html").write_text(page.replace("</body>", check))
    browser = Browser(program, (tmp_path / "checked.html").as_uri())
    try:
        assert arrived.wait(120), "the page gave no answer within two minutes"
    finally:
        browser.close()
        server.shutdown()
    found = json.loads(asked[0])
    assert policies == 1
    assert found["sorted"] and len(found["keys"]) > 1
    assert found["restored"] == found["before"] and len(found["before"]) > 1
    assert found["hidden"] == 0 and found["folded"] == 0
    assert found["told"], "a dot says what it is where the mouse rests on it"
    assert found["asked"] == []
