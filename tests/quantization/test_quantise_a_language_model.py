"""Does what docs/howto/quantise-a-language-model.md says, with the code that stands there."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "quantise-a-language-model.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """What the page's names mean after its code has run in an empty folder, and what it printed."""
    names = {}
    with contextlib.chdir(tmp_path_factory.mktemp("page")):  # the page's paths are relative
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for language, code in BLOCKS:
                if language == "python":
                    exec(code, names)
        yield names, printed.getvalue()


def test_the_page_prints_what_it_says(after):
    _, printed = after
    (said,) = [code for language, code in BLOCKS if language == "text"]
    assert printed == said


def test_the_decoder_has_learned_what_comes_next(after):
    names, _ = after
    assert float((names["wanted"][:, :-1] == names["text"][:, 1:]).float().mean()) > 0.95


def test_four_bits_are_smaller_than_eight(after):
    files = after[0]["files"]
    assert files["both"].size_bytes < files["dynamic"].size_bytes
