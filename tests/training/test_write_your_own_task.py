"""Does what docs/howto/write-your-own-task.md says, with the code that stands there."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import penjing as pj
from penjing.distillation import signals
from penjing.penalties import penalties
from penjing.tasks import Task

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "write-your-own-task.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
CODE = [code for language, code in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def after() -> Iterator[tuple[dict[str, Any], str]]:
    """What the page's names mean after its code has run, and what it printed; its signal is taken off the table again."""
    before, names = set(signals), dict[str, Any]()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for code in CODE:
            exec(code, names)
    yield names, printed.getvalue()
    for name in set(signals) - before:
        del signals._entries[name]


def test_the_page_prints_what_it_says(after: tuple[dict[str, Any], str]) -> None:
    assert after[1] == "".join(code for language, code in BLOCKS if not language)


def test_the_pages_task_is_one_and_its_metric_starts_afresh(after: tuple[dict[str, Any], str]) -> None:
    task = after[0]["DigitAndPlace"]()
    assert isinstance(task, Task)
    outputs = {"digit": torch.eye(10)[[3, 5, 7]], "place": torch.tensor([[0.0, 1.0], [2.0, 2.0], [0.0, 0.0]])}
    targets = torch.tensor([[3.0, 0.0, 1.5], [5.0, 2.0, 3.5], [6.0, 0.0, 0.0]])  # close, too far, another digit
    metric = task.metric()
    metric.update(outputs, targets)
    assert float(metric.compute()) == pytest.approx(1 / 3)
    assert task.metric().seen == 0


def test_the_command_line_finds_the_pages_data(
    after: tuple[dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_task.py").write_text("".join(code for code in CODE if code.startswith("# my_task.py")))
    monkeypatch.chdir(tmp_path)
    assert "--data my_task.py:data" in PAGE
    found = pj.data.load("my_task.py:data")
    assert (
        found.task.metric_name == after[0]["given"].task.metric_name
        and found.identity() == after[0]["given"].identity()
    )


def test_the_page_names_every_penalty() -> None:
    assert all(f"`{name}`" in PAGE for name in penalties)
