"""Does what docs/howto/prune-gradually.md says, with the code that stands there."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

from penjing.pruning import schedules
from penjing.tasks import evaluate

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "prune-gradually.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def after():
    """What the page's names mean after its code has run, and what it printed."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for language, code in BLOCKS:
            if language == "python":
                exec(code, names)
    return names, printed.getvalue()


def test_the_page_prints_what_it_says(after):
    assert after[1] == "".join(code for language, code in BLOCKS if not language)


def test_the_pages_networks_still_read_digits(after):
    names, _ = after
    data = names["data"]
    before = evaluate(names["graph"], data.validation, data.task)
    for name in ("sparse", "small", "spliced"):
        assert evaluate(names[name], data.validation, data.task) > before - 0.05


def test_what_a_loop_of_ones_own_must_do_is_as_the_page_says(after):
    names, _ = after
    pruning = names["Gradual"](names["graph"], 0.9, granularity="element", schedule="growing_reg")
    pruning.begin()
    step = torch.optim.SGD(pruning.graph.parameters(), lr=0.01)
    for number, (inputs, targets) in enumerate(names["data"].train, 1):
        share = (number - 1) / len(names["data"].train)
        loss = torch.nn.functional.cross_entropy(pruning.graph.train()(inputs), targets)
        more = pruning.penalty(pruning.graph, share)
        (loss if more is None else loss + more).backward()
        step.step()
        step.zero_grad()
        pruning(pruning.graph, number / len(names["data"].train))
        pruning.graph.apply_masks()
    for name, mask in pruning.finish().masks.items():
        assert float(mask.float().mean()) == pytest.approx(0.1, abs=0.001)
        assert bool((pruning.graph.tensor(name)[~mask] == 0).all())


def test_the_page_tells_of_every_schedule():
    table = PAGE.partition("## Which schedule")[2].partition("\n\nA number")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) != [] and set(
        re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    ) - {"schedule"} == set(schedules)
