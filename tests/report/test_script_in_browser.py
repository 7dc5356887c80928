"""The report's script in a browser without a window: layers are sorted, long lists unfold, and nothing asks any network."""

import re

import report_samples

from page_in_browser import told_by_page
from penjing import report

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
TELL;
</script></body>"""


def test_layers_are_sorted_lists_unfold_and_nothing_is_fetched(tmp_path):
    report.write(report_samples.changed(), tmp_path)
    # Without its policy the page could fetch whatever it asks for, and what it asks for would be seen.
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    page, policies = re.subn(policy, "", (tmp_path / "report.html").read_text())

    def write(tell):
        (tmp_path / "checked.html").write_text(page.replace("</body>", CHECK.replace("TELL", tell)))
        return tmp_path / "checked.html"

    found = told_by_page(write)
    assert policies == 1
    assert found["sorted"] and len(found["keys"]) > 1
    assert found["restored"] == found["before"] and len(found["before"]) > 1
    assert found["hidden"] == 0 and found["folded"] == 0
    assert found["told"], "a dot says what it is where the mouse rests on it"
    assert found["asked"] == []
