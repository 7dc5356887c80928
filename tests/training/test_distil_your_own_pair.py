"""Does what docs/howto/distil-your-own-pair.md says, with the code that stands there."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import penjing as pj
from penjing.distillation import balances, distillation_schedules, signals
from penjing.tasks import evaluate
from penjing.training import teachers

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "distil-your-own-pair.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def after() -> tuple[dict[str, Any], str]:
    """What the page's names mean after its code has run, and what it printed."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for language, code in BLOCKS:
            if language == "python":
                exec(code, names)
    return names, printed.getvalue()


def test_the_page_prints_what_it_says(after: tuple[dict[str, Any], str]) -> None:
    assert after[1] == "".join(code for language, code in BLOCKS if not language)


def test_the_student_learned_from_the_teacher_what_labels_alone_did_not_tell(
    after: tuple[dict[str, Any], str],
) -> None:
    names, _ = after
    data = names["data"]
    accuracy = {name: evaluate(names[name], data.validation, data.task) for name in ("teacher", "alone", "taught")}
    assert accuracy["teacher"] > accuracy["taught"] > accuracy["alone"]
    assert names["taught"].cost().params == names["alone"].cost().params < names["teacher"].cost().params / 20
    assert isinstance(names["taught"], pj.Graph)


def test_the_page_names_every_choice() -> None:
    for family in (signals, balances, distillation_schedules, teachers):
        assert all(f"`{name}`" in PAGE or f'"{name}"' in PAGE for name in family)
